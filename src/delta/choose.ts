/**
 * Leaves out copies that cost more than they save. Three numbers for a copy take about four bytes of the delta, a new byte less than
 * half of one, and a byte that must be corrected more than one; and each jump costs the decoder a read.
 */
import type { Copies } from "./matcher.ts";

/** Equal bytes less wrong ones that a copy needs when it jumps, and when it stays near. */
const FAR_GAIN = 22;
const NEAR_GAIN = 11;
/** A jump by less is near: its number is short, and its page is there. Bytes. */
const NEAR_BYTES = 4096;

export function chooseCopies(old: Uint8Array, target: Uint8Array, copies: Copies): Copies {
  const chosen = new Int32Array(copies.length);
  let used = 0;
  let distance = 0;
  for (let index = 0; index < copies.length; index += 3) {
    const at = copies[index] ?? 0;
    const from = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    const jump = Math.abs(from - at - distance);
    const needed = jump > NEAR_BYTES ? FAR_GAIN : NEAR_GAIN;
    if (jump > 0 && length < 8 * needed && gainOf(old, target, at, from, length) < needed) continue;
    distance = from - at;
    chosen[used++] = at;
    chosen[used++] = from;
    chosen[used++] = length;
  }
  return chosen.slice(0, used);
}

function gainOf(
  old: Uint8Array,
  target: Uint8Array,
  at: number,
  from: number,
  length: number,
): number {
  let gain = 0;
  for (let i = 0; i < length; i++) gain += old[from + i] === target[at + i] ? 1 : -1;
  return gain;
}
