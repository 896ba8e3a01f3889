/** Searches for copies on all processors: the old bytes and their index are in memory that threads share. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { PART_BYTES, joinCopies, matchHere } from "#core/delta/match.ts";
import type { Search } from "#core/delta/match.ts";
import { indexBytes } from "#core/delta/matcher.ts";
import type { Copies, SeedIndex } from "#core/delta/matcher.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import type { MatchTask } from "./match-worker.ts";

/** Below this, a thread would take longer to start. Bytes of both files. */
const SMALL_BYTES = 1024 * 1024;
const MAX_THREADS = 16;

/** In the bundle the worker is a file beside this one, as it is here. */
const ENTRY = new URL(
  import.meta.url.endsWith(".ts") ? "./match-worker.ts" : "./match-worker.mjs",
  import.meta.url,
);

/** Threads live until it is disposed; one search runs at a time. */
export interface Matching extends AsyncDisposable {
  readonly search: Search;
}

export function openMatching(): Matching {
  const threads: Thread[] = [];
  let turn: Promise<unknown> = Promise.resolve();
  const memory = openSharedMemory();

  function indexFor(old: number): SeedIndex {
    const { heads, links } = indexBytes(old);
    return {
      heads: new Int32Array(memory.take("heads", heads).buffer, 0, heads / 4),
      links: new Int32Array(memory.take("links", links).buffer, 0, links / 4),
    };
  }

  const searchAll: Search = async (old, target, searched, signal) => {
    // No more than there are parts: each thread takes 10 MiB.
    const wanted = Math.ceil(target.length / PART_BYTES);
    const count = Math.max(1, Math.min(wanted, availableParallelism(), MAX_THREADS));
    while (threads.length < count) threads.push(startThread());
    const index = indexFor(old.length);
    await threads[0]?.run({ old, index });
    const parts: Copies[] = [];
    let next = 0;
    await Promise.all(
      threads.map(async (thread) => {
        while (next * PART_BYTES < target.length) {
          signal.throwIfAborted();
          const part = next++;
          const from = part * PART_BYTES;
          const to = Math.min(target.length, from + PART_BYTES);
          parts[part] = await thread.run({ old, index, search: { target, from, to } });
          searched(to - from);
        }
      }),
    );
    return joinCopies(parts);
  };

  return {
    search(old, target, searched, signal) {
      if (old.length + target.length < SMALL_BYTES) return matchHere(old, target, searched, signal);
      const result = turn.then(() => searchAll(shared(old), shared(target), searched, signal));
      turn = result.catch(() => undefined);
      return result;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(threads.map((thread) => thread.stop()));
    },
  };
}

/** Sent to a thread, other memory would be copied for each part. */
function shared(bytes: Uint8Array): Uint8Array {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes;
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

interface Thread {
  run(task: MatchTask): Promise<Copies>;
  stop(): Promise<unknown>;
}

function startThread(): Thread {
  const worker = new Worker(ENTRY);
  // A thread that waits for work must not keep the process.
  worker.unref();
  return {
    async run(task) {
      worker.ref();
      try {
        return await new Promise<Copies>((resolve, reject) => {
          worker.once("error", reject);
          worker.once("message", (copies: Copies) => {
            worker.off("error", reject);
            resolve(copies);
          });
          worker.postMessage(task, []);
        });
      } finally {
        worker.unref();
      }
    },
    stop: () => worker.terminate(),
  };
}
