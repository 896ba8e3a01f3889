/**
 * How a release is had with the fewest bytes: for each content the cheapest of what the site has already (keep), a delta from
 * what it has, and the full blob; and then which requests bring the blobs, where small ones travel together in packs.
 */
import { EdgeSyncError } from "./errors.ts";
import type { Blob, Content, DeltaBlob, Pack, Release } from "./release.ts";
import { formatBytes } from "./values.ts";
import type { FullFallback } from "./values.ts";

export interface Situation {
  readonly release: Release;
  /** The version that the current bank holds, if any. */
  readonly installed: string | null;
  /** Digests of the contents that the current bank holds undamaged. */
  readonly available: ReadonlySet<string>;
  /** Names of the delta codecs that this sidecar can decode. */
  readonly codecs: ReadonlySet<string>;
  /** Digests of deltas that turned out not to work. */
  readonly rejected: ReadonlySet<string>;
  readonly fallback: FullFallback;
  /** A first installation may always fetch whole files. */
  readonly first: boolean;
}

export type Source =
  | { readonly how: "keep"; readonly content: Content }
  | { readonly how: "delta"; readonly content: Content; readonly delta: DeltaBlob }
  | { readonly how: "full"; readonly content: Content };

/** Whether bytes travel because there was a delta or in spite of there being none. */
export type BlobKind = "delta" | "full";

/** A blob inside a pack. */
export interface Part extends Blob {
  /** From the start of the pack. */
  readonly offset: number;
  readonly kind: BlobKind;
}

/** One request, more or less. */
export type Fetch =
  | { readonly fetch: "blob"; readonly blob: Blob; readonly kind: BlobKind }
  /** The whole pack, because most of it is needed. */
  | { readonly fetch: "pack"; readonly pack: Blob; readonly parts: readonly Part[] }
  /** Neighbouring parts of a pack, by Range; small gaps between them come along. */
  | { readonly fetch: "range"; readonly pack: Blob; readonly parts: readonly Part[] };

export interface Plan {
  /** By digest of the content. */
  readonly sources: ReadonlyMap<string, Source>;
  readonly fetches: readonly Fetch[];
  /** Bytes on the wire, gaps in packs included. */
  readonly downloadBytes: number;
  /** Bytes that a site with nothing would fetch: every content's full blob. */
  readonly fullBytes: number;
  /** Bytes to be written anew into the bank. */
  readonly writtenBytes: number;
  /** Bytes shared with the current bank, which take room only where hard links do not work. */
  readonly keptBytes: number;
  readonly counts: Readonly<Record<Source["how"], number>>;
}

/** A gap of this many bytes between two parts costs less than a request of its own on a slow link. */
const GAP_BYTES = 8 * 1024;
/** The share of a pack from which on it is fetched whole: one digest, one request, one file to resume. */
const WHOLE_PACK = 0.75;

/** @throws EdgeSyncError FALLBACK_REFUSED */
export function makePlan(situation: Situation): Plan {
  const sources = new Map<string, Source>();
  const contents = new Map(situation.release.contents.map((item) => [item.sha256, item]));
  const variants = new Set<string>();
  let fullBytes = 0;
  let writtenBytes = 0;
  let keptBytes = 0;
  for (const entry of situation.release.entries) {
    if (entry.type !== "file") continue;
    const content = contents.get(entry.sha256);
    if (content === undefined) continue; // A parsed release has every content; see findProblem.
    const source = sources.get(content.sha256) ?? cheapest(content, situation);
    if (!sources.has(content.sha256)) fullBytes += content.full.size;
    sources.set(content.sha256, source);
    // Equal files of one bank are links to each other, unless only one of them is executable.
    const variant = `${(entry.mode & 0o111) === 0 ? "f" : "x"}${content.sha256}`;
    if (variants.has(variant)) continue;
    variants.add(variant);
    if (source.how === "keep") keptBytes += content.size;
    else writtenBytes += content.size;
  }
  refuseFallback(sources, situation);
  const fetches = fetchesOf(sources, situation);
  const counts = { keep: 0, delta: 0, full: 0 };
  for (const source of sources.values()) counts[source.how] += 1;
  const downloadBytes = fetches.reduce((sum, fetch) => sum + sizeOf(fetch), 0);
  return { sources, fetches, downloadBytes, fullBytes, writtenBytes, keptBytes, counts };
}

/** Bytes on the wire of one fetch. */
export function sizeOf(fetch: Fetch): number {
  if (fetch.fetch === "blob") return fetch.blob.size;
  if (fetch.fetch === "pack") return fetch.pack.size;
  const { offset, end } = spanOf(fetch.parts);
  return end - offset;
}

/** Where some parts begin and end in their pack. */
export function spanOf(parts: readonly Part[]): { readonly offset: number; readonly end: number } {
  return {
    offset: Math.min(...parts.map((part) => part.offset)),
    end: Math.max(...parts.map((part) => part.offset + part.size)),
  };
}

/** The blob that a source needs; none for what is there already, and none for an empty file. */
export function blobOf(source: Source): Blob | undefined {
  if (source.how === "keep" || source.content.size === 0) return undefined;
  return source.how === "delta" ? source.delta : source.content.full;
}

function cheapest(content: Content, situation: Situation): Source {
  if (situation.available.has(content.sha256)) return { how: "keep", content };
  const usable = content.deltas.filter(
    (delta) =>
      situation.codecs.has(delta.codec) &&
      situation.available.has(delta.base) &&
      !situation.rejected.has(delta.sha256),
  );
  const delta = usable.toSorted((a, b) => a.size - b.size)[0];
  if (delta === undefined || delta.size >= content.full.size) return { how: "full", content };
  return { how: "delta", content, delta };
}

/**
 * Holds the policy full-fallback. A whole file that is in the pack made for the step from the installed release does not count:
 * the publisher compared it with its delta and found it no larger. Every other whole file counts with its bytes on the wire.
 */
function refuseFallback(sources: ReadonlyMap<string, Source>, situation: Situation): void {
  const { fallback, first, installed, release } = situation;
  if (first || fallback.kind === "always") return;
  const prepared = new Set(
    release.packs
      .filter((pack) => pack.from !== null && pack.from === installed)
      .flatMap((pack) => pack.parts.map((part) => part.sha256)),
  );
  let bytes = 0;
  let files = 0;
  for (const source of sources.values()) {
    const blob = source.how === "full" ? blobOf(source) : undefined;
    if (blob === undefined || prepared.has(blob.sha256)) continue;
    bytes += blob.size;
    files += 1;
  }
  const limit = fallback.kind === "never" ? 0 : fallback.bytes;
  if (bytes <= limit) return;
  const allowed = fallback.kind === "never" ? "none" : `at most ${formatBytes(limit)} bytes`;
  throw new EdgeSyncError(
    "FALLBACK_REFUSED",
    `${files} files of ${release.version} have no usable delta from ${installed ?? "what is here"} and take ${bytes} bytes whole; full-fallback allows ${allowed}`,
  );
}

function fetchesOf(sources: ReadonlyMap<string, Source>, situation: Situation): readonly Fetch[] {
  const places = placesOf(situation);
  const fetches: Fetch[] = [];
  const parts = new Map<Pack, Part[]>();
  const seen = new Set<string>();
  for (const source of sources.values()) {
    const blob = blobOf(source);
    if (blob === undefined || seen.has(blob.sha256)) continue;
    seen.add(blob.sha256);
    const kind = source.how === "delta" ? "delta" : "full";
    const { sha256, size } = blob;
    const place = places.get(sha256);
    if (place === undefined) {
      fetches.push({ fetch: "blob", blob: { sha256, size }, kind });
      continue;
    }
    const part = { sha256, size, offset: place.offset, kind } as const;
    const known = parts.get(place.pack);
    if (known === undefined) parts.set(place.pack, [part]);
    else known.push(part);
  }
  for (const [pack, wanted] of parts) fetches.unshift(...packFetches(pack, wanted));
  return fetches;
}

/** Where each packed blob is best taken from: the pack made for this very step, then the one for first installations. */
function placesOf({
  release,
  installed,
}: Situation): ReadonlyMap<string, { readonly pack: Pack; readonly offset: number }> {
  const rank = (pack: Pack): number =>
    pack.from !== null && pack.from === installed ? 0 : pack.from === null ? 1 : 2;
  const places = new Map<string, { pack: Pack; offset: number }>();
  for (const pack of release.packs.toSorted((a, b) => rank(a) - rank(b)))
    for (const { sha256, offset } of pack.parts)
      if (!places.has(sha256)) places.set(sha256, { pack, offset });
  return places;
}

function packFetches({ sha256, size }: Pack, wanted: readonly Part[]): readonly Fetch[] {
  const pack = { sha256, size };
  const parts = wanted.toSorted((a, b) => a.offset - b.offset);
  const runs: Part[][] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const part of parts) {
    const run = runs.at(-1);
    if (run !== undefined && part.offset - end <= GAP_BYTES) run.push(part);
    else runs.push([part]);
    end = Math.max(end, part.offset + part.size);
  }
  const ranges = runs.map((run): Fetch => ({ fetch: "range", pack, parts: run }));
  const bytes = ranges.reduce((sum, range) => sum + sizeOf(range), 0);
  return bytes >= size * WHOLE_PACK ? [{ fetch: "pack", pack, parts }] : ranges;
}
