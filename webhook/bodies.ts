/**
 * Reads the bodies of requests within a budget of memory. Small ones, as nearly all pods are, are read at once: there are never more of them than
 * connections. Larger ones take turns, so that what they hold together is bounded, and those that wait are left in the kernel's buffers.
 */
import type { IncomingMessage } from "node:http";
import { isUtf8 } from "node:buffer";
import type { Clock } from "#core/clock.ts";

/** An API object is at most about 1.5 MiB, and a review may hold it twice. */
export const BODY_LIMIT_BYTES = 3 * 2 ** 20;
const SMALL_BYTES = 64 * 1024;

/** Bytes that a body takes of the budget while it is read and parsed: itself, and its text. */
const COST = 2;

export type Problem = "too-large" | "busy" | "incomplete" | "not-utf8";

export type Read =
  { readonly ok: true; readonly text: string } | { readonly ok: false; readonly problem: Problem };

export interface BodiesOptions {
  /** For all large bodies together; at least one of the largest fits in any case. */
  readonly budgetBytes: number;
  /** For which a large body waits for its turn, and then again may take to arrive. */
  readonly patienceMs: number;
  readonly clock: Clock;
  /** Told whenever it changes. */
  readonly held: (bytes: number) => void;
}

export interface Bodies {
  /**
   * Reads a body and hands it to `use`; its memory counts as free when that is done.
   */
  read<T>(request: IncomingMessage, use: (read: Read) => T | Promise<T>): Promise<T>;
}

interface Waiting {
  readonly bytes: number;
  readonly go: () => void;
}

export function openBodies({ budgetBytes, patienceMs, clock, held }: BodiesOptions): Bodies {
  const budget = Math.max(budgetBytes, COST * BODY_LIMIT_BYTES);
  let taken = 0;
  const queue: Waiting[] = [];
  const take = (bytes: number): void => {
    taken += bytes;
    held(taken);
  };
  const next = (): void => {
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      // In the order of their coming, so that a large one is not passed by for ever.
      if (taken + first.bytes > budget) return;
      queue.shift();
      take(first.bytes);
      first.go();
    }
  };
  /** Whether its turn came in time, and while there was somebody to answer; then `bytes` are taken. */
  const turn = async (bytes: number, request: IncomingMessage): Promise<boolean> => {
    const came = Promise.withResolvers<boolean>();
    const over = new AbortController();
    const waiting: Waiting = { bytes, go: () => came.resolve(true) };
    queue.push(waiting);
    next();
    if (!queue.includes(waiting)) return true;
    const late = clock.sleep(patienceMs, over.signal).then(
      () => came.resolve(false),
      () => {},
    );
    request.once("close", () => came.resolve(false));
    const mine = await came.promise;
    over.abort();
    await late;
    const index = queue.indexOf(waiting);
    if (index >= 0) queue.splice(index, 1);
    return mine;
  };

  /** Nobody may keep the others waiting by sending slowly. */
  const inTime = async (request: IncomingMessage, limit: number): Promise<Read> => {
    const over = new AbortController();
    void clock.sleep(patienceMs, over.signal).then(
      () => request.destroy(),
      () => {},
    );
    return await receive(request, limit).finally(() => over.abort());
  };

  return {
    async read(request, use) {
      const declared = Number(request.headers["content-length"] ?? BODY_LIMIT_BYTES);
      if (!(declared <= BODY_LIMIT_BYTES)) return await use({ ok: false, problem: "too-large" });
      const bytes = COST * declared;
      const large = declared > SMALL_BYTES;
      if (large && !(await turn(bytes, request)))
        return await use({ ok: false, problem: request.destroyed ? "incomplete" : "busy" });
      if (!large) take(bytes);
      try {
        const body = large ? await inTime(request, declared) : await receive(request, declared);
        return await use(body);
      } finally {
        take(-bytes);
        next();
      }
    },
  };
}

/** @param limit bytes that it may have, and has where they were declared */
async function receive(request: IncomingMessage, limit: number): Promise<Read> {
  // Gone while it waited for its turn, and it will not say so again.
  if (request.destroyed) return { ok: false, problem: "incomplete" };
  let body: Buffer | undefined;
  let length = 0;
  const { promise, resolve } = Promise.withResolvers<Problem | undefined>();
  request.on("data", (chunk: Buffer) => {
    // What comes after the limit is read and thrown away: to close now would reset the connection, and the answer with it.
    if (length + chunk.length > limit) {
      length = limit + 1;
      resolve("too-large");
      return;
    }
    // Small ones come in one piece, and need no copy.
    if (chunk.length === limit) body = chunk;
    else {
      // Filled as it comes: the system gives memory only for what is written.
      body ??= Buffer.allocUnsafeSlow(limit);
      body.set(chunk, length);
    }
    length += chunk.length;
  });
  request.once("end", () => resolve(undefined));
  // The other side has gone, or was too slow.
  request.once("close", () => resolve("incomplete"));
  request.once("error", () => resolve("incomplete"));
  const problem = await promise;
  if (problem !== undefined) return { ok: false, problem };
  const whole = body?.subarray(0, length) ?? Buffer.alloc(0);
  return isUtf8(whole) ? { ok: true, text: whole.toString() } : { ok: false, problem: "not-utf8" };
}
