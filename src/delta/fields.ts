/**
 * Fields that hold an address in one way or another. Those who look for them (x86.ts, aarch64.ts, tables.ts, records.ts) tell a sink of
 * each: which bytes it has, and the old address that it means. The decoder's sink writes the address that it has moved to; the
 * publisher's compares with the new file.
 *
 * `at` is an index into the bytes that are looked at, `address` the field's own address.
 */
export interface FieldSink {
  /** 32 bits: target - address - bias. */
  relative(at: number, address: number, target: number, bias: number): void;
  /** 32 bits: address - target. */
  backward(at: number, address: number, target: number): void;
  /** 32 bits: (target - base) / scale, the base being the new one. */
  offset(at: number, target: number, base: number, scale: number): void;
  /** 32 or 64 bits: the address itself. */
  absolute(at: number, target: number, wide: boolean): void;
  /** AArch64: bits `shift` to `shift + bits` of an instruction are (target - address) / 4. */
  branch(at: number, address: number, target: number, shift: number, bits: number): void;
  /** AArch64: ADRP with the page of the target, and a second instruction with the rest, in units of 2^scale. */
  page(at: number, second: number, address: number, target: number, scale: number): void;
}

/** Where fields may be: some of the file. One for each scanner, set anew for each block. */
export interface Stretch {
  bytes: Buffer;
  /** Fields that begin from here on, as an index into `bytes`, */
  from: number;
  /** and before here are looked for; */
  to: number;
  /** none of them, nor what is read with it, goes beyond this. */
  limit: number;
  /** Index of the region's first byte; may be before the bytes. */
  origin: number;
  /** Of `bytes[0]`. */
  address: number;
}

/**
 * A copy of old bytes `from` to `to` to `into[at]`; `bytes` is the old file from `position` on, which may be before its beginning, as far
 * as it is needed; and the first byte of the copy will stand at `goal` in the new file.
 */
export type Copied = [
  bytes: Buffer,
  position: number,
  from: number,
  to: number,
  into: Uint8Array,
  at: number,
  goal: number,
];
