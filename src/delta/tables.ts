/** Tables whose entries stand at fixed distances: relocations, symbols, pointers, and the index of .eh_frame. */
import type { FieldSink, Stretch } from "./fields.ts";

/** The first multiple of `unit` bytes behind `origin` that is not before `from`. */
function aligned(from: number, origin: number, unit: number): number {
  return origin + Math.ceil((from - origin) / unit) * unit;
}

/** Signed, little-endian. */
export function readWord(bytes: Buffer, at: number): number {
  return (
    (bytes[at] ?? 0) |
    ((bytes[at + 1] ?? 0) << 8) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 24)
  );
}

/** A 64-bit address, counted from the base; -1 when it is none of the image's. */
export function readAddress(bytes: Buffer, at: number, base: number, flags: Uint8Array): number {
  const high = readWord(bytes, at + 4);
  // Nearly all words that are no addresses end here.
  if (high >>> 15 !== 0) return -1;
  const target = (readWord(bytes, at) >>> 0) + high * 2 ** 32 - base;
  if (target < 0 || target >= flags.length * 4096) return -1;
  return (flags[target >>> 12] ?? 0) === 0 ? -1 : target;
}

/** Bytes of an entry of a relocation or symbol table. */
export const ENTRY_BYTES = 24;

/**
 * Elf64_Rela: r_offset, r_info, r_addend.
 *
 * @param type of relocations whose addend is an address
 */
export function scanRelocations(
  { bytes, from, to, limit, origin }: Stretch,
  type: number,
  base: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  const first = Math.max(aligned(from - ENTRY_BYTES + 1, origin, ENTRY_BYTES), origin);
  for (let at = first; at < to && at + ENTRY_BYTES <= limit; at += ENTRY_BYTES) {
    const offset = readAddress(bytes, at, base, flags);
    if (offset >= 0) sink.absolute(at, offset, true);
    if (bytes.readUInt32LE(at + 8) !== type) continue;
    const addend = readAddress(bytes, at + 16, base, flags);
    if (addend >= 0) sink.absolute(at + 16, addend, true);
  }
}

/**
 * Elf64_Sym: st_name at 0, st_value at 8.
 *
 * @param names old and new address of the names
 */
export function scanSymbols(
  { bytes, from, to, limit, origin }: Stretch,
  names: { readonly old: number; readonly new: number },
  base: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  const first = Math.max(aligned(from - ENTRY_BYTES + 1, origin, ENTRY_BYTES), origin);
  for (let at = first; at < to && at + ENTRY_BYTES <= limit; at += ENTRY_BYTES) {
    const name = bytes.readUInt32LE(at);
    if (name !== 0) sink.offset(at, names.old + name, names.new, 1);
    const value = readAddress(bytes, at + 8, base, flags);
    if (value >= 0) sink.absolute(at + 8, value, true);
  }
}

export function scanPointers(
  { bytes, from, to, limit, origin }: Stretch,
  base: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  for (
    let at = Math.max(aligned(from - 7, origin, 8), origin);
    at < to && at + 8 <= limit;
    at += 8
  ) {
    const target = readAddress(bytes, at, base, flags);
    // 0 is no pointer, also where it is an address.
    if (target + base > 0 && target >= 0) sink.absolute(at, target, true);
  }
}

/** Linux Standard Base, 10.6.2: pairs of 32 bits, both counting from the section, after a head of 12 bytes. */
export function scanFrameIndex(
  { bytes, from, to, limit, origin, address }: Stretch,
  newBase: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  for (
    let at = Math.max(aligned(from - 3, origin, 4), origin + 12);
    at < to && at + 4 <= limit;
    at += 4
  ) {
    const target = address + origin + bytes.readInt32LE(at);
    if (target >= 0 && (flags[target >>> 12] ?? 0) !== 0) sink.offset(at, target, newBase, 1);
  }
}
