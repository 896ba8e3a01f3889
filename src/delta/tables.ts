/** Tables whose entries stand at fixed distances: relocations, symbols, pointers, and the index of .eh_frame. */
import type { FieldSink, Stretch } from "./fields.ts";

/** The first multiple of `unit` bytes behind `origin` that is not before `from`. */
function aligned(from: number, origin: number, unit: number): number {
  return origin + Math.ceil((from - origin) / unit) * unit;
}

/** A 64-bit address, counted from the base; -1 when it is none of the image's. */
function readAddress(bytes: Buffer, at: number, base: number, flags: Uint8Array): number {
  const target = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32 - base;
  return target >= 0 && (flags[Math.floor(target / 4096)] ?? 0) !== 0 ? target : -1;
}

/** Bytes of an entry of a relocation or symbol table. */
export const ENTRY_BYTES = 24;

/**
 * Elf64_Rela: r_offset, r_info, r_addend.
 *
 * @param origin index of the table's first byte, may be before the stretch
 * @param type of relocations whose addend is an address
 */
export function scanRelocations(
  { bytes, from, to, limit }: Stretch,
  origin: number,
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
  { bytes, from, to, limit }: Stretch,
  origin: number,
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
  { bytes, from, to, limit }: Stretch,
  origin: number,
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
  { bytes, from, to, limit, address }: Stretch,
  origin: number,
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
