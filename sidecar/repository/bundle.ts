/**
 * Parts of a repository that came without a network: bundles that `edgesync export` made, as tar files or unpacked, on a volume of the pod.
 * They are one more mirror. Nothing in them is trusted more than what a server says; beyond that, a file whose name is its digest is
 * offered only when it has it, so that a stick that has gone bad costs no site its download over the network.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { bundleFile, readBundle } from "#core/bundle.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { LIMITS, parseTimestamp } from "#core/trust/metadata.ts";
import { chunksOf } from "../disk/durable.ts";
import type { Disk, ReadableFile } from "../disk/durable.ts";
import type { Answer, Repository } from "./repository.ts";

/** Looked into; more on one volume are a mistake. */
const MAX_BUNDLES = 16;

export interface Bundle extends Pick<Repository, "metadata" | "open"> {
  /** Path of the file or folder, for people. */
  readonly name: string;
  /** Version of its timestamp, which nobody has verified. */
  readonly version: number;
}

export interface Bundles {
  /**
   * What is on the volume now, the newest first.
   *
   * @throws EdgeSyncError DISK_FAILED when the volume itself cannot be read
   */
  list(signal: AbortSignal): Promise<readonly Bundle[]>;
}

/** A stretch of a file on the volume. */
interface Place {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

/** Where each file of a bundle is. */
type Index = (name: string) => Promise<Place | undefined>;

interface Known {
  /** What tells that it is still the same file. */
  readonly identity: string;
  readonly bundle: Bundle | undefined;
}

/**
 * @param refused told once of each file that looks like a bundle and is none
 */
export function openBundles(
  disk: Disk,
  folder: string,
  refused: (name: string, error: unknown) => void,
): Bundles {
  let known = new Map<string, Known>();

  async function look(
    path: string,
    index: (signal: AbortSignal) => Promise<Index>,
    signal: AbortSignal,
  ): Promise<Bundle | undefined> {
    try {
      return await openBundle(disk, path, await index(signal), signal);
    } catch (error) {
      signal.throwIfAborted();
      refused(path, error);
      return undefined;
    }
  }

  return {
    async list(signal) {
      const items = await disk.list(folder);
      const bundles: Bundle[] = [];
      const seen = new Map<string, Known>();
      const archives = items
        .filter(({ name, kind }) => kind === "file" && name.endsWith(".tar"))
        .map(({ name }) => join(folder, name));
      for (const path of archives.toSorted().slice(0, MAX_BUNDLES)) {
        const stat = await disk.stat(path);
        if (stat === undefined) continue;
        const identity = `${stat.identity} ${stat.size} ${stat.changed}`;
        const before = known.get(path);
        const bundle =
          before?.identity === identity
            ? before.bundle
            : await look(path, (stop) => indexArchive(disk, path, stop), signal);
        seen.set(path, { identity, bundle });
        if (bundle !== undefined) bundles.push(bundle);
      }
      known = seen;
      const folders = items
        .filter(({ kind }) => kind === "directory")
        .map(({ name }) => join(folder, name));
      for (const path of [folder, ...folders.toSorted().slice(0, MAX_BUNDLES)]) {
        if ((await disk.stat(join(path, "metadata", "timestamp.json")))?.kind !== "file") continue;
        const bundle = await look(path, () => Promise.resolve(indexFolder(disk, path)), signal);
        if (bundle !== undefined) bundles.push(bundle);
      }
      return bundles.toSorted((a, b) => b.version - a.version);
    },
  };
}

function indexFolder(disk: Disk, folder: string): Index {
  return async (name) => {
    const path = join(folder, name);
    const stat = await disk.stat(path);
    return stat?.kind === "file" ? { path, offset: 0, size: stat.size } : undefined;
  };
}

/** @throws EdgeSyncError BUNDLE_INVALID, DISK_FAILED */
async function indexArchive(disk: Disk, path: string, signal: AbortSignal): Promise<Index> {
  await using file = await disk.openRead(path);
  if (file === undefined) throw new EdgeSyncError("BUNDLE_INVALID", `${path} has gone`);
  const places = await readBundle(file, signal);
  return (name) => {
    const place = places.get(name);
    return Promise.resolve(place === undefined ? undefined : { path, ...place });
  };
}

async function openBundle(
  disk: Disk,
  path: string,
  index: Index,
  signal: AbortSignal,
): Promise<Bundle> {
  /** Files that have been found to have their digest, or not to have it. */
  const checked = new Map<string, boolean>();

  const gone = (place: Place): EdgeSyncError =>
    new EdgeSyncError("ORIGIN_UNAVAILABLE", `${place.path} has gone`);
  /** Not to be taken for a failure of the payload volume. */
  const unreadable = (place: Place, cause: unknown): unknown =>
    codeOf(cause) === "DISK_FAILED"
      ? new EdgeSyncError("ORIGIN_UNAVAILABLE", `${place.path} cannot be read`, { cause })
      : cause;

  /** @throws EdgeSyncError ORIGIN_UNAVAILABLE when the volume has gone or cannot be read */
  async function reading<T>(place: Place, read: (file: ReadableFile) => Promise<T>): Promise<T> {
    try {
      await using file = await disk.openRead(place.path);
      if (file === undefined || file.size < place.offset + place.size) throw gone(place);
      return await read(file);
    } catch (error) {
      throw unreadable(place, error);
    }
  }

  async function isIntact(name: string, place: Place, stop: AbortSignal): Promise<boolean> {
    const known = checked.get(name);
    if (known !== undefined) return known;
    const digest = await reading(place, async (file) => {
      const hash = createHash("sha256");
      for await (const chunk of chunksOf(file, place.offset, place.size)) {
        stop.throwIfAborted();
        hash.update(chunk);
      }
      return hash.digest("hex");
    });
    const intact = digest === bundleFile(name)?.sha256;
    checked.set(name, intact);
    return intact;
  }

  async function* bodyOf(place: Place, offset: number, end: number): AsyncIterable<Uint8Array> {
    try {
      await using file = await disk.openRead(place.path);
      if (file === undefined) throw gone(place);
      yield* chunksOf(file, place.offset + offset, end - offset);
    } catch (error) {
      throw unreadable(place, error);
    }
  }

  async function metadata(name: string, limit: number): Promise<Uint8Array | undefined> {
    const place = await index(`metadata/${name}`);
    if (place === undefined) return undefined;
    if (place.size > limit)
      throw new EdgeSyncError(
        "RESPONSE_TOO_LARGE",
        `${name} in ${path} has ${place.size} bytes, allowed are ${limit}`,
      );
    return await reading(place, (file) => file.read(place.offset, place.size));
  }

  const timestamp = await metadata("timestamp.json", LIMITS.timestamp);
  signal.throwIfAborted();
  if (timestamp === undefined)
    throw new EdgeSyncError("BUNDLE_INVALID", `${path} holds no metadata/timestamp.json`);
  return {
    name: path,
    version: parseTimestamp(timestamp).signed.version,
    metadata: (name, limit) => metadata(name, limit),
    async open(name, offset, end, stop): Promise<Answer> {
      const place = await index(name);
      if (place === undefined || !(await isIntact(name, place, stop))) return { answer: "absent" };
      if (offset > place.size) return { answer: "beyond" };
      const until = Math.min(end ?? place.size, place.size);
      return { answer: "bytes", offset, body: bodyOf(place, offset, until) };
    },
  };
}
