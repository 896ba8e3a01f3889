/**
 * A release: the whole tree, and how to get each of its files. It is read from a manifest (manifest.ts), to which the signed document
 * of the release leads (release-document.ts). There may be a quarter of a million entries, so a release is kept in a compact form
 * (release-table.ts) and its parts are made when they are asked for.
 */
import { createHash } from "node:crypto";

/** A content-addressed file of the repository, or a part of a pack. */
export interface Blob {
  readonly sha256: string;
  /** Bytes on the wire. */
  readonly size: number;
}

/** Where a blob lies inside a pack. */
export interface Place {
  /** Number of the pack in {@link Release.packs}. */
  readonly pack: number;
  /** Bytes from the start of the pack. */
  readonly offset: number;
}

/** A blob of a content; without places it is a file of its own. */
export interface PlacedBlob extends Blob {
  readonly places: readonly Place[];
}

export type Encoding = "identity" | "zstd";

export interface FullBlob extends PlacedBlob {
  /** Of the two, `identity` means that the blob is the file itself. */
  readonly encoding: Encoding;
}

export interface DeltaBlob extends PlacedBlob {
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

/**
 * A content of an earlier release that is made only on the way to another: from a base that a site has to one that a delta of this
 * release starts from. It has no full blob; where one would be needed, the file itself is fetched whole.
 */
export interface Step {
  readonly sha256: string;
  readonly size: number;
  readonly deltas: readonly DeltaBlob[];
}

export type Entry =
  | { readonly type: "directory"; readonly path: string; readonly mode: number }
  | { readonly type: "file"; readonly path: string; readonly mode: number; readonly sha256: string }
  | { readonly type: "symlink"; readonly path: string; readonly target: string };

/** Small blobs in one file: a slow link then pays for one round trip. */
export interface Pack extends Blob {
  /**
   * The version that a site comes from when this pack holds what it needs; null for whole files, which later releases go on using as
   * long as most of them are needed.
   */
  readonly from: string | null;
}

/** What is looked at one by one; nothing of it is kept in memory for long. */
export interface List<T> extends Iterable<T> {
  readonly length: number;
  /** @throws RangeError */
  at(index: number): T;
}

export interface ReleaseName {
  readonly app: string;
  readonly version: string;
  /** `<os>-<architecture>` as Node names them, such as `linux-arm64`. */
  readonly platform: string;
}

export interface Release extends ReleaseName {
  /** {@link treeDigest} of the entries. */
  readonly tree: string;
  readonly packs: readonly Pack[];
  /** Sorted by path; every parent directory is an entry of its own, before its children. */
  readonly entries: List<Entry>;
  /** In the order of the first entry that has the content. */
  readonly contents: List<Content>;
  /** By which a site that is further behind comes to a base; see {@link Step}. */
  readonly steps: List<Step>;
  /** Number of an entry's content; undefined for what is no file. */
  contentOf(entry: number): number | undefined;
  /** Number of the first entry that has a content. */
  firstEntryOf(content: number): number;
  /** Number of the content with a digest. */
  find(sha256: string): number | undefined;
  /** Number of the step with a digest. */
  findStep(sha256: string): number | undefined;
}

/** A release as its publisher has it at hand, before it is written down. */
export interface ReleaseParts extends ReleaseName {
  readonly packs: readonly Pack[];
  /** Sorted by path. */
  readonly entries: Iterable<Entry>;
  /** Those of all files, in any order. */
  readonly contents: Iterable<Content>;
  /** In any order; those that no content needs are left out. */
  readonly steps: Iterable<Step>;
}

/** Of the document of a release, which is a target. */
export function manifestPath(app: string, version: string, platform: string): string {
  return `releases/${app}/${version}/${platform}.json`;
}

/** Where a blob or pack lies in a repository, relative to its root. */
export function blobPath(sha256: string): string {
  return `blobs/sha256/${sha256}`;
}

/**
 * The files below `blobs/` that a release needs, beside its manifest: packs, and the blobs that are in none. A file can be named more
 * than once, for contents of which one is the compressed form of another.
 */
export function* filesOf(release: Pick<Release, "packs" | "contents" | "steps">): Generator<Blob> {
  for (const { sha256, size } of release.packs) yield { sha256, size };
  for (const { full, deltas } of release.contents) yield* alone([full, ...deltas]);
  for (const { deltas } of release.steps) yield* alone(deltas);
}

function* alone(blobs: readonly PlacedBlob[]): Generator<Blob> {
  for (const { sha256, size, places } of blobs) if (places.length === 0) yield { sha256, size };
}

/**
 * The identity of a tree: SHA-256 over one line for each entry, in path order. File modes count as executable or not, because
 * volumes rewrite the other bits.
 */
export function treeDigest(parts: Pick<ReleaseParts, "entries" | "contents">): string {
  const sizes = new Map<string, number>();
  for (const { sha256, size } of parts.contents) sizes.set(sha256, size);
  const digest = openTreeDigest();
  for (const entry of parts.entries)
    digest.add(entry, entry.type === "file" ? (sizes.get(entry.sha256) ?? -1) : 0);
  return digest.done();
}

/** The same, entry by entry. */
export function openTreeDigest(): {
  /** @param size of the content, for a file */
  add(entry: Entry, size: number): void;
  done(): string;
} {
  const hash = createHash("sha256");
  return {
    add(entry, size) {
      if (entry.type === "directory") hash.update(`d ${entry.path}\n`);
      else if (entry.type === "symlink") hash.update(`l ${entry.path}\0${entry.target}\n`);
      else {
        const kind = (entry.mode & 0o111) === 0 ? "f" : "x";
        hash.update(`${kind} ${entry.sha256} ${size} ${entry.path}\n`);
      }
    },
    done: () => hash.digest("hex"),
  };
}
