/** The delta itself, read once from start to end. */
import { invalid } from "./invalid.ts";

export interface Input {
  byte(signal: AbortSignal): Promise<number>;
  /** An unsigned LEB128 number up to `most`. */
  number(most: number, signal: AbortSignal): Promise<number>;
  /** Fills `into`. */
  read(into: Uint8Array, signal: AbortSignal): Promise<void>;
  ended(signal: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}

export function openInput(delta: AsyncIterable<Uint8Array>): Input {
  const iterator = delta[Symbol.asyncIterator]();
  let pending: Uint8Array = Buffer.alloc(0);
  let at = 0;
  let done = false;

  /** False at the end. */
  async function fill(signal: AbortSignal): Promise<boolean> {
    while (at === pending.length && !done) {
      signal.throwIfAborted();
      const next = await iterator.next();
      if (next.done === true) done = true;
      else [pending, at] = [next.value, 0];
    }
    return at < pending.length;
  }

  async function byte(signal: AbortSignal): Promise<number> {
    if (at === pending.length && !(await fill(signal))) throw invalid("it ends too early");
    return pending[at++] ?? 0;
  }

  return {
    byte,
    async number(most, signal) {
      let value = 0;
      for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
        const part = await byte(signal);
        value += (part & 127) * scale;
        if (part < 128) {
          if (value > most) throw invalid(`${value} where at most ${most} is allowed`);
          return value;
        }
      }
      throw invalid("a number does not end");
    },
    async read(into, signal) {
      for (let filled = 0; filled < into.length;) {
        if (!(await fill(signal))) throw invalid("it ends too early");
        const part = pending.subarray(at, at + into.length - filled);
        into.set(part, filled);
        at += part.length;
        filled += part.length;
      }
    },
    async ended(signal) {
      return !(await fill(signal));
    },
    async close() {
      done = true;
      await iterator.return?.();
    },
  };
}
