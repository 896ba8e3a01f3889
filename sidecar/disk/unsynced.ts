/**
 * Files that have been written and are not durable yet. Made durable together they share the journal commits of the file system, which
 * for thousands of small files is several times faster than one by one.
 */
import type { WritableFile } from "./durable.ts";

export interface Unsynced extends AsyncDisposable {
  /** Takes the file over; it is closed when it is durable. */
  take(file: WritableFile, bytes: number): Promise<void>;
  /** Resolves when everything that was taken is durable. */
  sync(): Promise<void>;
}

/** A power cut is no worse for more of them, but each is an open file, and a slow disk should have something to do early. */
const MAX_FILES = 128;
const MAX_BYTES = 16 * 1024 * 1024;

export function openUnsynced(): Unsynced {
  let files: WritableFile[] = [];
  let bytes = 0;

  async function sync(): Promise<void> {
    const batch = files;
    files = [];
    bytes = 0;
    const ended = await Promise.allSettled(
      batch.map(async (item) => {
        await using file = item;
        await file.sync();
      }),
    );
    for (const item of ended) if (item.status === "rejected") throw item.reason;
  }

  return {
    async take(file, size) {
      files.push(file);
      bytes += size;
      if (files.length >= MAX_FILES || bytes >= MAX_BYTES) await sync();
    },
    sync,
    async [Symbol.asyncDispose]() {
      const batch = files;
      files = [];
      await Promise.allSettled(batch.map((file) => file[Symbol.asyncDispose]()));
    },
  };
}

/** For a file by itself. */
export const atOnce: Pick<Unsynced, "take"> = {
  async take(item) {
    await using file = item;
    await file.sync();
  },
};

/** For a file that is read once and removed: it need not outlive a power cut. */
export const notKept: Pick<Unsynced, "take"> = {
  async take(file) {
    await file[Symbol.asyncDispose]();
  },
};
