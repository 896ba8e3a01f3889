/** AArch64: branches, and pairs of ADRP with the instruction that adds the rest of the address. */
import type { FieldSink, Stretch } from "./fields.ts";

/** How far the second instruction of a pair may be, in bytes. */
export const PAIR_BYTES = 64;

/**
 * @param flags by page of addresses: 1 something, 2 code
 * @param conditional whether branches of short range are looked at too
 */
export function scanAarch64(
  { bytes, from, to, limit, address }: Stretch,
  flags: Uint8Array,
  conditional: boolean,
  sink: FieldSink,
): void {
  const code = (target: number): boolean => ((flags[target >>> 12] ?? 0) & 2) !== 0;
  const first = from + (-(address + from) & 3);
  for (let at = first; at < to && at + 4 <= limit; at += 4) {
    const word = bytes.readInt32LE(at);
    const top = word >>> 24;
    const here = address + at;
    if ((top & 0x7c) === 0x14) {
      // B, BL
      const target = here + ((word << 6) >> 6) * 4;
      if (code(target)) sink.branch(at, here, target, 0, 26);
    } else if ((top & 0x9f) === 0x90) {
      scanPair(bytes, at, Math.min(at + PAIR_BYTES, limit - 4), here, flags, sink);
    } else if (conditional && (top === 0x54 || (top & 0x7e) === 0x34)) {
      // B.cond, CBZ, CBNZ
      const target = here + ((word << 8) >> 13) * 4;
      if (code(target)) sink.branch(at, here, target, 5, 19);
    } else if (conditional && (top & 0x7e) === 0x36) {
      // TBZ, TBNZ
      const target = here + ((word << 13) >> 18) * 4;
      if (code(target)) sink.branch(at, here, target, 5, 14);
    }
  }
}

function scanPair(
  bytes: Buffer,
  at: number,
  last: number,
  here: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  const word = bytes.readInt32LE(at);
  const register = word & 31;
  const pages = (((((word >> 5) & 0x7_ffff) << 2) | ((word >>> 29) & 3)) << 11) >> 11;
  for (let second = at + 4; second <= last; second += 4) {
    const next = bytes.readInt32LE(second);
    if (((next >>> 5) & 31) === register) {
      let scale = -1;
      // ADD (immediate), not shifted
      if (next >>> 22 === 0x244) scale = 0;
      // LDR, STR (unsigned immediate), whose offset counts in units of their size; 16 bytes for the largest vector registers
      else if (((next >>> 24) & 0x3b) === 0x39) {
        const vector16 =
          (next & 0x0400_0000) !== 0 && next >>> 30 === 0 && ((next >>> 23) & 1) === 1;
        scale = vector16 ? 4 : next >>> 30;
      }
      if (scale >= 0) {
        const target = (here & ~4095) + pages * 4096 + (((next >>> 10) & 0xfff) << scale);
        if (target >= 0 && (flags[target >>> 12] ?? 0) !== 0)
          sink.page(at, second, here, target, scale);
        return;
      }
    }
    // Another ADRP for the register: nothing was added to this one.
    if (((next >>> 24) & 0x9f) === 0x90 && (next & 31) === register) return;
  }
}
