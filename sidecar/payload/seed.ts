/**
 * A seed: files on a volume of the pod, such as an image's, that may be contents of a release or bases of its deltas. They are found by their
 * digest, whatever they are called, and hashed again when they are used, so that nothing of the volume has to be trusted.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { codeOf } from "#core/errors.ts";
import {
  openBytes,
  openColumn,
  searchDigest,
  short,
  sortDigests,
  whole,
} from "#core/release-columns.ts";
import type { Log } from "#core/telemetry.ts";
import { hashStretch } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

/** Looked at; with more of them it is not a seed but a disk. */
const MAX_FILES = 100_000;
const MAX_DEPTH = 32;

/** By digest, the absolute path of a file. */
export type SeedFiles = Pick<ReadonlyMap<string, string>, "get">;

export interface Seed {
  /** All files by their digests: each is read once for that, and then known until it is forgotten. */
  files(signal: AbortSignal): Promise<SeedFiles>;
  /** When a release is installed: a table of thousands of files is not worth its memory until the next one. */
  forget(): void;
}

/** @param folder on a volume that is mounted read-only */
export function openSeed(
  folder: string,
  { disk, log }: { readonly disk: Disk; readonly log: Log },
): Seed {
  let known: SeedFiles | undefined;
  return {
    async files(signal) {
      known ??= await index(folder, disk, log, signal);
      return known;
    },
    forget() {
      known = undefined;
    },
  };
}

/** In columns: a map of as many objects would take several times the memory. */
async function index(root: string, disk: Disk, log: Log, signal: AbortSignal): Promise<SeedFiles> {
  const digests = openBytes();
  const names = openBytes();
  const start = openColumn(whole);
  const length = openColumn(short);
  try {
    for await (const path of filesBelow(root, "", disk, MAX_DEPTH)) {
      signal.throwIfAborted();
      if (start.length() === MAX_FILES) {
        log.warn({ detail: `more than ${MAX_FILES} files` }, "seed is not read to its end");
        break;
      }
      const sha256 = await digestOf(disk, join(root, path), signal);
      if (sha256 === undefined) continue;
      digests.push(sha256, "hex");
      start.push(names.length());
      length.push(names.push(path, "utf8"));
    }
  } catch (error) {
    signal.throwIfAborted();
    // A volume that cannot be read must not keep the site from its network.
    log.warn({ err: error, code: codeOf(error) }, "seed cannot be read");
  }
  const all = digests.done();
  const { order } = sortDigests(all);
  const text = names.done();
  const starts = start.done();
  const lengths = length.done();
  return {
    get(sha256) {
      const found = searchDigest(all, order, Buffer.from(sha256, "hex"));
      if (found === undefined) return undefined;
      const from = starts[found] ?? 0;
      return join(root, text.toString("utf8", from, from + (lengths[found] ?? 0)));
    },
  };
}

/** Paths below a folder, but for bundles, which are read as parts of a repository. */
async function* filesBelow(
  root: string,
  folder: string,
  disk: Disk,
  depth: number,
): AsyncGenerator<string, void, void> {
  const here = join(root, folder);
  if ((await disk.stat(join(here, "metadata", "timestamp.json")))?.kind === "file") return;
  const items = (await disk.list(here)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, kind } of items) {
    const path = join(folder, name);
    // How the kubelet writes a ConfigMap or Secret: ..data is a link to a folder, and the keys are links into it.
    if (name.startsWith("..") || name.endsWith(".tar")) continue;
    if (kind === "directory" && depth > 0) yield* filesBelow(root, path, disk, depth - 1);
    else if (kind === "file") yield path;
    else if (kind === "symlink") {
      const target = await disk.readLink(join(here, name));
      const [first, ...rest] = target?.split("/") ?? [];
      if (first === "..data" && rest.length > 0 && !rest.includes("..")) yield path;
    }
  }
}

/** Undefined for what cannot be read, and for what is empty. */
async function digestOf(
  disk: Disk,
  path: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const hash = createHash("sha256");
  try {
    await using file = await disk.openRead(path);
    if (file === undefined || file.size === 0) return undefined;
    await hashStretch(file, file.size, hash, signal);
  } catch (error) {
    if (codeOf(error) === "DISK_FAILED") return undefined;
    throw error;
  }
  return hash.digest("hex");
}
