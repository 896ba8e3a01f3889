/**
 * x86-64: operands that count from the next instruction, and absolute ones when there are any. Instructions are not decoded. A byte that
 * may be the last of an opcode, before four that would lead into the image, is taken for one; where that is wrong the publisher sees
 * what the decoder makes of it, and corrects it.
 */
import type { FieldSink, Stretch } from "./fields.ts";
import { readWord } from "./tables.ts";

const NONE = 0;
/** E8 CALL, E9 JMP. */
const CALL = 1;
/** A ModRM byte for [RIP + disp32]. */
const RIP_RELATIVE = 2;
/** 0F, before 80 to 8F: Jcc rel32. */
const TWO_BYTES = 3;
/** B8 to BF MOV, 68 PUSH, 3D CMP: with an operand of 32 bits. */
const IMMEDIATE = 4;
/** C7 MOV, 81 CMP and others: a ModRM byte and what belongs to it, then 32 bits. */
const MODRM_IMMEDIATE = 5;
/** A ModRM byte with a SIB byte. */
const SIB = 6;

const RELATIVE_CLASSES = new Uint8Array(256);
const ALL_CLASSES = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) {
  let relative = NONE;
  if ((byte & 0xfe) === 0xe8) relative = CALL;
  else if ((byte & 0xc7) === 0x05) relative = RIP_RELATIVE;
  else if (byte === 0x0f) relative = TWO_BYTES;
  let any = relative;
  if (relative === NONE) {
    if ((byte & 0xf8) === 0xb8 || byte === 0x68 || byte === 0x3d) any = IMMEDIATE;
    else if (byte === 0xc7 || byte === 0x81) any = MODRM_IMMEDIATE;
    else if ((byte & 0xc7) === 0x04) any = SIB;
  }
  RELATIVE_CLASSES[byte] = relative;
  ALL_CLASSES[byte] = any;
}

/** Instructions before a stretch that must be looked at so that one finds the same fields wherever it begins, nearly always. */
export const X86_LEAD = 16;

/**
 * @param flags by page of addresses: 1 something, 2 code
 * @param base of absolute addresses; undefined when operands are never absolute
 */
export function scanX86(
  { bytes, from, to, limit, address }: Stretch,
  flags: Uint8Array,
  base: number | undefined,
  sink: FieldSink,
): void {
  const classes = base === undefined ? RELATIVE_CLASSES : ALL_CLASSES;
  const last = Math.min(to, limit - 5);
  for (let at = from; at < last;) {
    const kind = classes[bytes[at] ?? 0] ?? NONE;
    if (kind === NONE) {
      at++;
      continue;
    }
    let field = at + 1;
    if (kind === TWO_BYTES) {
      if (((bytes[field] ?? 0) & 0xf0) !== 0x80) {
        at++;
        continue;
      }
      field++;
    } else if (kind === SIB) {
      field++;
      // Another base: what follows is no operand, and the SIB byte no ModRM byte.
      if (((bytes[at + 1] ?? 0) & 7) !== 5) {
        at += 2;
        continue;
      }
    } else if (kind === MODRM_IMMEDIATE) {
      field = at + 1 + operandBytes(bytes[at + 1] ?? 0, bytes[at + 2] ?? 0);
      if (field + 4 > limit) {
        at++;
        continue;
      }
      // The operand before it may count from the instruction's end, which is behind both.
      if (((bytes[at + 1] ?? 0) & 0xc7) === 0x05) {
        const place = at + 2;
        const target = (address + place + 8 + readWord(bytes, place)) | 0;
        if ((flags[target >>> 12] ?? 0) !== 0) {
          sink.relative(place, address + place, target, 8);
          const direct = (readWord(bytes, field) >>> 0) - (base ?? 0);
          if (direct >= 0 && (flags[Math.floor(direct / 4096)] ?? 0) !== 0)
            sink.absolute(field, direct, false);
          at = field + 4;
          continue;
        }
      }
    }
    const value = readWord(bytes, field);
    if (kind <= TWO_BYTES) {
      const target = (address + field + 4 + value) | 0;
      const needed = kind === RIP_RELATIVE ? 1 : 2;
      if (((flags[target >>> 12] ?? 0) & needed) !== 0) {
        sink.relative(field, address + field, target, 4);
        at = field + 4;
        continue;
      }
    } else {
      const target = (value >>> 0) - (base ?? 0);
      if (target >= 0 && (flags[Math.floor(target / 4096)] ?? 0) !== 0) {
        sink.absolute(field, target, false);
        at = field + 4;
        continue;
      }
    }
    at++;
  }
}

/** Bytes of a ModRM byte and what belongs to it: SIB byte and displacement. */
function operandBytes(modrm: number, sib: number): number {
  const mode = modrm >> 6;
  const register = modrm & 7;
  if (mode === 3) return 1;
  const withSib = register === 4 ? 2 : 1;
  if (mode === 1) return withSib + 1;
  if (mode === 2 || register === 5 || (register === 4 && (sib & 7) === 5)) return withSib + 4;
  return withSib;
}
