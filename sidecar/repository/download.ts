/**
 * Brings blobs into `partial/`, named by their digest, so that an interrupted download goes on where it ended: after a broken
 * connection, a restart of the sidecar or a power cut, and loses at most 64 KiB. Never more bytes are taken than are signed; nothing is
 * used before its digest has been checked.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { join } from "node:path";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { sizeOf, spanOf } from "#core/plan.ts";
import type { BlobKind, Fetch, Part } from "#core/plan.ts";
import { blobPath } from "#core/release.ts";
import type { Blob } from "#core/release.ts";
import type { SidecarMetrics } from "#core/telemetry.ts";
import { chunksOf, hashStretch, readSmallFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { LIES, anywhere } from "./mirrors.ts";
import { UNSYNCED_BYTES, openPartials } from "./partial.ts";
import type { Partial } from "./partial.ts";
import type { Repository } from "./repository.ts";
import { openUnsynced } from "../disk/unsynced.ts";
import type { Unsynced } from "../disk/unsynced.ts";

export interface Downloads {
  /**
   * Brings what one fetch of a plan asks for.
   *
   * @throws EdgeSyncError DIGEST_MISMATCH, RESPONSE_TOO_LARGE, ORIGIN_UNAVAILABLE, ORIGIN_REFUSED, DISK_FULL, DISK_FAILED
   */
  fetch(fetch: Fetch, signal: AbortSignal): Promise<void>;
  /** Brings a blob that belongs to no plan. Throws as `fetch`. */
  bring(blob: Blob, signal: AbortSignal): Promise<void>;
  /** A file of the repository by its digest: for targets, whose names hold it. */
  file(path: string, blob: Blob, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** The bytes of a blob that was fetched; `room` as in chunksOf. */
  readonly read: (blob: Blob, room?: Buffer) => AsyncIterable<Uint8Array>;
  /** Bytes of a fetch that are here already. */
  present(fetch: Fetch, signal: AbortSignal): Promise<number>;
  /** Removes everything but what has one of these digests. */
  keepOnly(digests: ReadonlySet<string>): Promise<void>;
  /** Removes what has one of these digests. */
  discard(digests: readonly string[]): Promise<void>;
  /** What was fetched did not do: the next fetch looks at every byte on disk again, which heals what has been damaged there since. */
  doubt(): void;
}

interface DownloadDeps {
  readonly disk: Disk;
  /** Absolute path of `partial/`. */
  readonly folder: string;
  readonly repository: Repository;
  readonly metrics: SidecarMetrics;
  /** Told of every byte of a blob that arrives. */
  readonly arrived: (bytes: number) => void;
  /** Returns when more may come after these. */
  readonly pass?: (kind: Kind, bytes: number, signal: AbortSignal) => Promise<void>;
}

type Kind = BlobKind | "metadata";

/** A power cut costs at most so many bytes of parts, with the one that is just arriving. */
const PARTS_IN_THE_AIR = 2 * UNSYNCED_BYTES;

export function openDownloads(deps: DownloadDeps): Downloads {
  const { disk, folder, repository, metrics } = deps;
  const partials = openPartials(disk, folder);
  /** Where fetched blobs lie. */
  const places = new Map<string, { readonly path: string; readonly offset: number }>();
  /** Whole files that this process has verified. */
  const verified = new Set<string>();

  const count = (kind: Kind, bytes: number): void => {
    metrics.add("edgesync_sidecar_download_bytes_total", { kind }, bytes);
    if (kind !== "metadata") deps.arrived(bytes);
  };

  /** False when the repository does not have the file. */
  function bring(path: string, blob: Blob, kind: Kind, signal: AbortSignal): Promise<boolean> {
    return anywhere(repository, () => bringOnce(path, blob, kind, signal), path);
  }

  async function bringOnce(
    path: string,
    blob: Blob,
    kind: Kind,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { sha256, size } = blob;
    const before = (await disk.stat(join(folder, sha256)))?.size;
    // Not when it has been moved away since, as manifests are.
    if (verified.has(sha256) && before === size) return true;
    const partial = await partials.open(sha256, size, signal);
    let outcome: "complete" | "absent";
    try {
      try {
        outcome = await receive({ path, blob, kind, partial }, signal);
      } finally {
        await partial.close();
      }
    } catch (error) {
      if (LIES.has(codeOf(error))) await partials.remove(sha256);
      throw error;
    }
    if (outcome === "absent") return false;
    if (partial.digest() !== sha256) {
      await partials.remove(sha256);
      // All of it was here already, damaged meanwhile: no address is to blame.
      if (before === size) return await bringOnce(path, blob, kind, signal);
      throw new EdgeSyncError("DIGEST_MISMATCH", `${path} does not have its signed digest`);
    }
    verified.add(sha256);
    return true;
  }

  interface Transfer {
    readonly path: string;
    readonly blob: Blob;
    readonly kind: Kind;
    readonly partial: Partial;
  }

  /** Appends the rest of a file. What came before an error stays, to be gone on from. */
  async function receive(
    { path, blob: { size }, kind, partial }: Transfer,
    signal: AbortSignal,
  ): Promise<"complete" | "absent"> {
    if (partial.size() === size) return "complete";
    const answer = await repository.open(path, partial.size(), undefined, signal);
    if (answer.answer === "absent") return "absent";
    if (answer.answer === "beyond")
      throw new EdgeSyncError(
        "DIGEST_MISMATCH",
        `${path} is shorter than the ${size} bytes signed`,
      );
    if (answer.replaced === true) await partial.clear();
    // A server without ranges begins anew; what is here already is passed over, so that a second cut does not cost it.
    let skip = partial.size() - answer.offset;
    for await (const received of answer.body) {
      signal.throwIfAborted();
      count(kind, received.byteLength);
      await deps.pass?.(kind, received.byteLength, signal);
      const bytes = received.subarray(Math.min(skip, received.byteLength));
      skip -= received.byteLength - bytes.byteLength;
      if (partial.size() + bytes.byteLength > size)
        throw new EdgeSyncError(
          "RESPONSE_TOO_LARGE",
          `${path} goes on after the ${size} bytes that are signed`,
        );
      await partial.write(bytes);
    }
    const have = partial.size();
    if (have < size)
      throw new EdgeSyncError("ORIGIN_UNAVAILABLE", `${path} ended after ${have} of ${size} bytes`);
    return "complete";
  }

  async function bringBlob(blob: Blob, kind: Kind, signal: AbortSignal): Promise<void> {
    const path = blobPath(blob.sha256);
    if (!(await bring(path, blob, kind, signal)))
      throw new EdgeSyncError("ORIGIN_REFUSED", `the repository does not have ${path}`);
    places.set(blob.sha256, { path: join(folder, blob.sha256), offset: 0 });
  }

  async function bringPack(pack: Blob, parts: readonly Part[], signal: AbortSignal): Promise<void> {
    const kind = parts.some((part) => part.kind === "delta") ? "delta" : "full";
    await bringBlob(pack, kind, signal);
    const path = join(folder, pack.sha256);
    for (const { sha256, offset } of parts) places.set(sha256, { path, offset });
  }

  /** Parts are small: each is a file of its own, whole or not there, and an interruption costs one of them. */
  async function bringRange(
    pack: Blob,
    parts: readonly Part[],
    signal: AbortSignal,
  ): Promise<void> {
    const missing: Part[] = [];
    for (const part of parts) if (!(await hasPart(part, signal))) missing.push(part);
    if (missing.length === 0) return;
    const { offset, end } = spanOf(missing);
    const path = blobPath(pack.sha256);
    const answer = await repository.open(path, offset, end, signal);
    if (answer.answer !== "bytes")
      throw new EdgeSyncError(
        answer.answer === "absent" ? "ORIGIN_REFUSED" : "DIGEST_MISMATCH",
        `the repository does not have bytes ${offset} to ${end} of ${path}`,
      );
    const parcel = partsOf(missing, answer.offset);
    let room = end - answer.offset;
    const kind = missing[0]?.kind ?? "full";
    const kept = openUnsynced();
    let inTheAir = 0;
    const settle = async (): Promise<void> => {
      inTheAir = 0;
      await kept.sync();
      await disk.syncDirectory(folder);
    };
    try {
      for await (const received of answer.body) {
        signal.throwIfAborted();
        count(kind, received.byteLength);
        await deps.pass?.(kind, received.byteLength, signal);
        // A server without ranges sends the rest of the pack too; nobody waits for that.
        const bytes = received.subarray(0, room);
        room -= bytes.byteLength;
        for (const { part, content, next } of parcel.take(bytes)) {
          await keepPart(part, content, kept);
          inTheAir += part.size;
          if (inTheAir + (next?.size ?? 0) > PARTS_IN_THE_AIR) await settle();
        }
        if (room === 0) break;
      }
    } finally {
      await settle();
    }
    if (room > 0)
      throw new EdgeSyncError("ORIGIN_UNAVAILABLE", `${path} ended ${room} bytes before ${end}`);
  }

  async function keepPart(part: Part, content: Uint8Array, kept: Unsynced): Promise<void> {
    if (digestOf(content) !== part.sha256)
      throw new EdgeSyncError("DIGEST_MISMATCH", `part ${part.sha256} does not have its digest`);
    const path = join(folder, part.sha256);
    await disk.remove(path);
    await using cleanup = new AsyncDisposableStack();
    const file = cleanup.use(await disk.create(path, 0o600));
    await file.write(content);
    cleanup.move();
    await kept.take(file, content.byteLength);
    places.set(part.sha256, { path, offset: 0 });
  }

  async function hasPart(part: Part, signal: AbortSignal): Promise<boolean> {
    if (places.has(part.sha256)) return true;
    const path = join(folder, part.sha256);
    if ((await disk.stat(path))?.size !== part.size) return false;
    const hash = createHash("sha256");
    await hashFile(disk, path, part.size, hash, signal);
    if (hash.digest("hex") !== part.sha256) return false;
    places.set(part.sha256, { path, offset: 0 });
    return true;
  }

  async function forget(name: string): Promise<void> {
    await partials.remove(name);
    verified.delete(name);
    // A pack goes with all the parts that lie in it.
    for (const [sha256, { path }] of places) if (path === join(folder, name)) places.delete(sha256);
  }

  return {
    async fetch(fetch, signal) {
      if (fetch.fetch === "blob") await bringBlob(fetch.blob, fetch.kind, signal);
      else if (fetch.fetch === "pack") await bringPack(fetch.pack, fetch.parts, signal);
      else {
        const { pack, parts } = fetch;
        const range = (): Promise<void> => bringRange(pack, parts, signal);
        await anywhere(repository, range, blobPath(pack.sha256));
      }
    },
    bring: (blob, signal) => bringBlob(blob, "metadata", signal),
    async file(path, blob, signal) {
      if (!(await bring(path, blob, "metadata", signal))) return undefined;
      const bytes = await readSmallFile(disk, join(folder, blob.sha256), blob.size);
      if (bytes !== undefined && digestOf(bytes) === blob.sha256) return bytes;
      // Damaged since it was verified, which may have been many looks ago.
      verified.delete(blob.sha256);
      if (!(await bring(path, blob, "metadata", signal))) return undefined;
      return await readSmallFile(disk, join(folder, blob.sha256), blob.size);
    },
    async *read({ sha256, size }, room) {
      const place = places.get(sha256);
      await using file = place === undefined ? undefined : await disk.openRead(place.path);
      if (place === undefined || file === undefined)
        throw new EdgeSyncError("INTERNAL", `blob ${sha256} was not fetched`);
      yield* chunksOf(file, place.offset, size, room);
    },
    async present(fetch, signal) {
      const whole = fetch.fetch === "blob" ? fetch.blob : fetch.pack;
      const size = (await disk.stat(join(folder, whole.sha256)))?.size ?? 0;
      if (fetch.fetch !== "range") return Math.min(size, sizeOf(fetch));
      let present = 0;
      for (const part of fetch.parts) if (await hasPart(part, signal)) present += part.size;
      return present;
    },
    doubt() {
      verified.clear();
      partials.doubt();
      places.clear();
    },
    async discard(digests) {
      for (const name of digests) await forget(name);
    },
    async keepOnly(digests) {
      for (const { name } of await disk.list(folder)) if (!digests.has(name)) await forget(name);
    },
  };
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Cuts a stream that begins at `offset` into the parts that lie in it. */
function partsOf(
  parts: readonly Part[],
  offset: number,
): {
  take(bytes: Uint8Array): Generator<{
    readonly part: Part;
    readonly content: Uint8Array;
    /** Comes after it. */
    readonly next: Part | undefined;
  }>;
} {
  let at = offset;
  let next = 0;
  let pending: Uint8Array[] = [];
  return {
    *take(bytes) {
      let rest = bytes;
      for (;;) {
        const part = parts[next];
        if (part === undefined || rest.byteLength === 0) return;
        const gap = Math.min(Math.max(0, part.offset - at), rest.byteLength);
        at += gap;
        rest = rest.subarray(gap);
        const piece = rest.subarray(0, part.offset + part.size - at);
        if (at >= part.offset) {
          pending.push(piece);
          at += piece.byteLength;
          rest = rest.subarray(piece.byteLength);
        }
        if (at < part.offset + part.size) continue;
        next += 1;
        const content = Buffer.concat(pending);
        pending = [];
        yield { part, content, next: parts[next] };
      }
    },
  };
}

async function hashFile(
  disk: Disk,
  path: string,
  size: number,
  hash: Hash,
  signal: AbortSignal,
): Promise<void> {
  if (size === 0) return;
  await using file = await disk.openRead(path);
  if (file !== undefined) await hashStretch(file, size, hash, signal);
}
