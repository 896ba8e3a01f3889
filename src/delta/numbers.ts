/** Numbers in streams: unsigned LEB128, and zigzag for those with a sign. */
import { invalid } from "./invalid.ts";
import type { ByteSource } from "./source.ts";

/** The longest number: 7 bytes hold 49 bits. */
export const NUMBER_BYTES = 7;

/**
 * The next number of a source, of whose bytes {@link NUMBER_BYTES} are ready, or the rest of the stream.
 *
 * @throws EdgeSyncError DELTA_INVALID
 */
export function readNumber(source: ByteSource): number {
  const { buffer, end } = source;
  let { at } = source;
  let value = buffer[at] ?? 128;
  if (value < 128 && at < end) {
    source.at = at + 1;
    return value;
  }
  value = 0;
  for (let scale = 1; scale <= 2 ** 42; scale *= 128) {
    if (at === end) throw invalid("a stream ends too early");
    const part = buffer[at++] ?? 0;
    value += (part & 127) * scale;
    if (part < 128) {
      source.at = at;
      return value;
    }
  }
  throw invalid("a number does not end");
}

/** Whether a number may go on behind what is ready. */
export function isShort(source: ByteSource): boolean {
  return source.end - source.at < NUMBER_BYTES && !source.ended;
}

export function signed(zigzag: number): number {
  return zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
}

export function zigzag(value: number): number {
  return value < 0 ? -2 * value - 1 : 2 * value;
}

/** Room for numbers up to `most`, as integers of 32 bits when they can be: what stands in a Float64Array is allocated when it is read. */
export function roomForNumbers(most: number, count: number): Int32Array | Float64Array {
  return most < 2 ** 31 ? new Int32Array(count) : new Float64Array(count);
}

/** Bytes that grow. */
export interface Writer {
  byte(value: number): void;
  number(value: number): void;
  bytes(values: Uint8Array): void;
  /** What was written so far; valid until more is written. */
  done(): Buffer;
}

/** @param room bytes that it holds before it grows */
export function openWriter(room: number = 256): Writer {
  let buffer = Buffer.allocUnsafeSlow(Math.max(room, NUMBER_BYTES));
  let end = 0;
  function reserve(count: number): void {
    if (end + count <= buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.length, end + count));
    larger.set(buffer.subarray(0, end));
    buffer = larger;
  }
  return {
    byte(value) {
      reserve(1);
      buffer[end++] = value;
    },
    number(value) {
      reserve(NUMBER_BYTES);
      let rest = value;
      while (rest > 127) {
        buffer[end++] = (rest % 128) | 128;
        rest = Math.floor(rest / 128);
      }
      buffer[end++] = rest;
    },
    bytes(values) {
      reserve(values.length);
      buffer.set(values, end);
      end += values.length;
    },
    done: () => buffer.subarray(0, end),
  };
}
