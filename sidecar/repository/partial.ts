/**
 * The beginning of a blob on the disk, to be gone on with. At most {@link UNSYNCED_BYTES} of it are not durable at any time, so a power cut
 * tears nothing before the last so many bytes. Those are fetched again where this process did not write them itself: a torn tail then
 * costs itself and not the whole file. Together that is 64 KiB for an interruption.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { join } from "node:path";
import { codeOf } from "#core/errors.ts";
import { chunksOf, hashStretch } from "../disk/durable.ts";
import type { Disk, WritableFile } from "../disk/durable.ts";

/** Bytes. Written and not durable; and, because they may be torn, not relied on after a start. */
export const UNSYNCED_BYTES = 32 * 1024;

export interface Partial {
  /** Bytes that are in it. */
  size(): number;
  /** Appends; waits for the disk before more than {@link UNSYNCED_BYTES} would be in the air. */
  write(bytes: Uint8Array): Promise<void>;
  /** Everything is to come anew. */
  clear(): Promise<void>;
  /** SHA-256 of what is in it, in hexadecimal. */
  digest(): string;
  /** Makes the rest durable, also after a broken connection: the next attempt may be days away, and a power cut before it. */
  close(): Promise<void>;
}

export interface Partials {
  /**
   * What is there of a blob, or a new file.
   *
   * @throws EdgeSyncError DISK_FULL, DISK_FAILED; what cannot be read is then gone
   */
  open(sha256: string, size: number, signal: AbortSignal): Promise<Partial>;
  remove(sha256: string): Promise<void>;
  /** Nothing is taken as read any more. */
  doubt(): void;
}

/** As this process has written it. */
interface Written {
  readonly size: number;
  readonly hash: Hash;
}

/** @param folder absolute path of `partial/` */
export function openPartials(disk: Disk, folder: string): Partials {
  const written = new Map<string, Written>();
  /** Those whose names are durable. */
  const named = new Set<string>();

  async function remove(sha256: string): Promise<void> {
    written.delete(sha256);
    named.delete(sha256);
    await disk.remove(join(folder, sha256));
  }

  /** What of a file can be relied on. */
  async function begin(sha256: string, whole: number, signal: AbortSignal): Promise<Written> {
    const path = join(folder, sha256);
    const size = (await disk.stat(path))?.size ?? 0;
    const known = written.get(sha256);
    written.delete(sha256);
    if (known?.size === size) return known;
    if (size === 0) named.delete(sha256);
    if (size > whole) await remove(sha256);
    if (size === 0 || size > whole) return { size: 0, hash: createHash("sha256") };
    const sound = Math.max(0, size - UNSYNCED_BYTES);
    const hash = createHash("sha256");
    await using file = await disk.openRead(path);
    if (file === undefined) return { size: 0, hash };
    await hashStretch(file, sound, hash, signal);
    if (size === whole) {
      const all = hash.copy();
      for await (const chunk of chunksOf(file, sound, size - sound)) all.update(chunk);
      if (all.copy().digest("hex") === sha256) return { size, hash: all };
    }
    await disk.truncate(path, sound);
    return { size: sound, hash };
  }

  return {
    remove,
    async open(sha256, whole, signal) {
      const path = join(folder, sha256);
      let found: Written;
      try {
        found = await begin(sha256, whole, signal);
      } catch (error) {
        // What cannot be read cannot be gone on from: the next attempt begins anew.
        if (codeOf(error) === "DISK_FAILED") await remove(sha256);
        throw error;
      }
      const file = await disk.append(path, 0o600);
      const name = async (): Promise<void> => {
        if (named.has(sha256)) return;
        await disk.syncDirectory(folder);
        named.add(sha256);
      };
      const truncate = (): Promise<void> => disk.truncate(path, 0);
      const done = (all: Written): void => {
        // What is complete is read again when it is asked for again.
        if (all.size < whole) written.set(sha256, all);
      };
      return partial(file, found, { name, truncate, done });
    },
    doubt() {
      written.clear();
      named.clear();
    },
  };
}

interface Place {
  /** Makes the name durable, if it is not. */
  name(): Promise<void>;
  truncate(): Promise<void>;
  /** Told when all of it is durable. */
  done(all: Written): void;
}

function partial(file: WritableFile, found: Written, place: Place): Partial {
  let { size, hash } = found;
  /** Bytes that no sync has begun for. */
  let fresh = 0;
  /** Of everything before those. */
  let underWay: Promise<void> | undefined;

  /** Meanwhile the link goes on filling the buffers of its socket. */
  function begin(): void {
    fresh = 0;
    underWay = file.sync().then(() => place.name());
    // Whoever waits for it is told; until then it is no unhandled rejection.
    underWay.catch(() => undefined);
  }

  async function settle(): Promise<void> {
    await underWay;
    underWay = undefined;
  }

  return {
    size: () => size,
    async write(bytes) {
      for (let at = 0; at < bytes.byteLength;) {
        await settle();
        const piece = bytes.subarray(at, at + UNSYNCED_BYTES - fresh);
        await file.write(piece);
        hash.update(piece);
        at += piece.byteLength;
        size += piece.byteLength;
        fresh += piece.byteLength;
        if (fresh === UNSYNCED_BYTES) begin();
      }
    },
    async clear() {
      await settle();
      await place.truncate();
      size = 0;
      hash = createHash("sha256");
    },
    digest: () => hash.copy().digest("hex"),
    async close() {
      await using owned = file;
      // A sync that failed is not tried again: the kernel reports a lost write only once, and would call the next one good (fsync(2)).
      await settle();
      if (fresh > 0) begin();
      await settle();
      void owned;
      place.done({ size, hash });
    },
  };
}
