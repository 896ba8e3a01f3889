/**
 * The release manifest: the whole tree, and how to get each of its files. It is a TUF target, so by the time it is parsed here its bytes
 * are authentic; it is checked all the same, because a publisher can be wrong. Limits are on what a site will accept.
 */
import { createHash } from "node:crypto";
import * as s from "valibot";
import { name, parseDocument, platform, version } from "./document.ts";
import { EdgeSyncError } from "./errors.ts";

/**
 * Bytes; about 8,000 files with a delta each. A sidecar holds the manifests of the old and of the new release at once, and with ones
 * of this size it stays within the memory limit that the webhook gives it.
 */
export const MANIFEST_LIMIT = 6 * 1024 * 1024;

/** A content-addressed file of the repository, or a part of a pack. */
export interface Blob {
  readonly sha256: string;
  /** Bytes on the wire. */
  readonly size: number;
}

export interface FullBlob extends Blob {
  readonly encoding: "identity" | "zstd";
}

export interface DeltaBlob extends Blob {
  /** Digest of the file that the delta starts from. */
  readonly base: string;
  /** Name of a codec in `delta/codec.ts`; a sidecar that does not know it ignores the delta. */
  readonly codec: string;
}

/** The bytes of one or more files of the tree: equal files are one content. */
export interface Content {
  readonly sha256: string;
  readonly size: number;
  readonly full: FullBlob;
  readonly deltas: readonly DeltaBlob[];
}

export type Entry =
  | { readonly type: "directory"; readonly path: string; readonly mode: number }
  | { readonly type: "file"; readonly path: string; readonly mode: number; readonly sha256: string }
  | { readonly type: "symlink"; readonly path: string; readonly target: string };

/** Small blobs that are needed together, in one file: a slow link then pays for one round trip. */
export interface Pack extends Blob {
  /** The version that a site comes from when this pack holds what it needs; null for a first installation. */
  readonly from: string | null;
  readonly parts: readonly { readonly sha256: string; readonly offset: number }[];
}

export interface Release {
  readonly schema: 1;
  readonly app: string;
  readonly version: string;
  /** `<os>-<architecture>` as Node names them, such as `linux-arm64`. */
  readonly platform: string;
  /** {@link treeDigest} of the entries. */
  readonly tree: string;
  /** Sorted by path; every parent directory is an entry of its own, before its children. */
  readonly entries: readonly Entry[];
  readonly contents: readonly Content[];
  readonly packs: readonly Pack[];
}

export function manifestPath(app: string, version: string, platform: string): string {
  return `releases/${app}/${version}/${platform}.json`;
}

/** Where a blob or pack lies in a repository, relative to its root. */
export function blobPath(sha256: string): string {
  return `blobs/sha256/${sha256}`;
}

const sha256 = s.pipe(s.string(), s.regex(/^[0-9a-f]{64}$/, "a sha256 in lower-case hex"));
const size = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
const mode = s.pipe(s.number(), s.safeInteger(), s.minValue(0), s.maxValue(0o777));
const path = s.pipe(s.string(), s.check(isTreePath, "a relative path inside the tree"));
const blob = { sha256, size };

const release = s.object({
  schema: s.literal(1),
  app: name,
  version,
  platform,
  tree: sha256,
  entries: s.pipe(
    s.array(
      s.variant("type", [
        s.object({ type: s.literal("directory"), path, mode }),
        s.object({ type: s.literal("file"), path, mode, sha256 }),
        s.object({
          type: s.literal("symlink"),
          path,
          target: s.pipe(s.string(), s.minLength(1), s.maxLength(4096)),
        }),
      ]),
    ),
    s.maxLength(250_000),
  ),
  contents: s.array(
    s.object({
      ...blob,
      full: s.object({ ...blob, encoding: s.picklist(["identity", "zstd"]) }),
      deltas: s.array(
        s.object({
          ...blob,
          base: sha256,
          codec: s.pipe(s.string(), s.regex(/^[a-z0-9-]{1,32}$/)),
        }),
      ),
    }),
  ),
  packs: s.array(
    s.object({
      ...blob,
      from: s.nullable(version),
      parts: s.array(s.object({ sha256, offset: size })),
    }),
  ),
});

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseRelease(bytes: Uint8Array): Release {
  const manifest: Release = parseDocument(release, bytes, MANIFEST_LIMIT, "release manifest");
  const problem = findProblem(manifest);
  if (problem !== undefined)
    throw new EdgeSyncError("RELEASE_INVALID", `release manifest: ${problem}`);
  return manifest;
}

/** What makes a well-formed manifest impossible to install, in words. */
function findProblem(manifest: Release): string | undefined {
  const directories = new Set([""]);
  const contents = new Set(manifest.contents.map((content) => content.sha256));
  if (contents.size !== manifest.contents.length) return "a content is listed twice";
  let previous = "";
  for (const entry of manifest.entries) {
    if (comparePaths(previous, entry.path) >= 0)
      return `${entry.path} is listed twice or out of order`;
    if (!directories.has(parentOf(entry.path))) return `${entry.path} has no parent directory`;
    if (entry.type === "directory") directories.add(entry.path);
    if (entry.type === "file" && !contents.has(entry.sha256)) return `${entry.path} has no content`;
    if (entry.type === "symlink" && !staysInside(entry.path, entry.target))
      return `${entry.path} points outside the tree`;
    previous = entry.path;
  }
  if (treeDigest(manifest) !== manifest.tree) return "tree is not the digest of the entries";
  return findPackProblem(manifest);
}

function findPackProblem(manifest: Release): string | undefined {
  const sizes = new Map<string, number>();
  for (const content of manifest.contents)
    for (const item of [content.full, ...content.deltas]) sizes.set(item.sha256, item.size);
  for (const pack of manifest.packs)
    for (const part of pack.parts) {
      const length = sizes.get(part.sha256);
      if (length === undefined) return "a pack holds a blob that no content needs";
      if (part.offset + length > pack.size) return "a part reaches beyond its pack";
    }
  return undefined;
}

/**
 * Whether a text can be the path of an entry: relative, at most 4,096 bytes, no dot segments. Control characters would make
 * listings and logs lie, and a back-slash is a separator elsewhere.
 */
export function isTreePath(input: string): boolean {
  if (Buffer.byteLength(input) > 4096 || !input.isWellFormed()) return false;
  if (input.split("/").some((part) => part === "" || part === "." || part === "..")) return false;
  for (let index = 0; index < input.length; index++) {
    const unit = input.charCodeAt(index);
    if (unit < 0x20 || unit === 0x7f || unit === 0x5c) return false;
  }
  return true;
}

/** Orders paths by their UTF-8 bytes, with `/` below every other character so that children follow their directory. */
export function comparePaths(a: string, b: string): number {
  return Buffer.compare(sortKey(a), sortKey(b));
}

function sortKey(input: string): Buffer {
  return Buffer.from(input.replaceAll("/", "\0"));
}

function parentOf(input: string): string {
  return input.slice(0, Math.max(0, input.lastIndexOf("/")));
}

/**
 * Whether a link at `path` to `target` ends inside the tree. Its parents are real directories, so climbing at the beginning is counted
 * exactly; after a name it is refused, because that name may be a link to somewhere higher up.
 */
export function staysInside(path: string, target: string): boolean {
  if (target.startsWith("/") || target.includes("\0")) return false;
  const segments = target.split("/").filter((segment) => segment !== "" && segment !== ".");
  const climbs = segments.findIndex((segment) => segment !== "..");
  const up = climbs < 0 ? segments.length : climbs;
  return up < path.split("/").length && !segments.slice(up).includes("..");
}

/**
 * The identity of a tree: SHA-256 over one line for each entry, in path order. File modes count as executable or not, because
 * volumes rewrite the other bits.
 */
export function treeDigest(manifest: Pick<Release, "entries" | "contents">): string {
  const sizes = new Map(manifest.contents.map((content) => [content.sha256, content.size]));
  const hash = createHash("sha256");
  for (const entry of manifest.entries) {
    if (entry.type === "directory") hash.update(`d ${entry.path}\n`);
    else if (entry.type === "symlink") hash.update(`l ${entry.path}\0${entry.target}\n`);
    else {
      const kind = (entry.mode & 0o111) === 0 ? "f" : "x";
      hash.update(`${kind} ${entry.sha256} ${sizes.get(entry.sha256) ?? -1} ${entry.path}\n`);
    }
  }
  return hash.digest("hex");
}
