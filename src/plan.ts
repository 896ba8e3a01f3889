/**
 * How a release is had with the fewest bytes: for each content the cheapest of what the site has already (keep), a delta from
 * what it has, and the full blob; and then which requests bring the blobs, where small ones travel together in packs.
 */
import { EdgeSyncError } from "./errors.ts";
import type { Blob, Content, DeltaBlob, Pack, PlacedBlob, Release } from "./release.ts";
import { formatBytes } from "./values.ts";
import type { FullFallback } from "./values.ts";

export interface Situation {
  readonly release: Release;
  /** The version that the current bank holds, if any. */
  readonly installed: string | null;
  /** Digests of the contents that the current bank holds undamaged. */
  readonly available: Pick<ReadonlySet<string>, "has">;
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
  /** How the content with this number is had. */
  source(content: number): Source;
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
/** Requests for parts of one pack; when there would be more, wider gaps come along. */
const MAX_RANGES = 16;
/** The share of a pack from which on it is fetched whole: one digest, one request, one file to resume. */
export const WHOLE_PACK = 0.75;

/** In the table of choices; from 0 on it is the number of the delta. */
const KEEP = -1;
const FULL = -2;

/** @throws EdgeSyncError FALLBACK_REFUSED */
export function makePlan(situation: Situation): Plan {
  const { release } = situation;
  const choices = new Int16Array(release.contents.length);
  const counts = { keep: 0, delta: 0, full: 0 };
  const variants = variantsOf(release);
  const whole = { bytes: 0, files: 0 };
  const fetches = openFetches(situation);
  let fullBytes = 0;
  let writtenBytes = 0;
  let keptBytes = 0;
  for (let number = 0; number < choices.length; number++) {
    const content = release.contents.at(number);
    const choice = cheapest(content, situation);
    choices[number] = choice;
    const source = sourceOf(content, choice);
    counts[source.how] += 1;
    fullBytes += content.full.size;
    // Equal files of one bank are links to each other, unless only one of them is executable.
    const bytes = content.size * (variants[number] === BOTH ? 2 : 1);
    if (source.how === "keep") keptBytes += bytes;
    else writtenBytes += bytes;
    const blob = blobOf(source);
    if (blob === undefined) continue;
    fetches.add(blob, source.how === "delta" ? "delta" : "full");
    if (source.how !== "full" || isPrepared(blob, situation)) continue;
    whole.bytes += blob.size;
    whole.files += 1;
  }
  refuseFallback(whole, situation);
  const list = fetches.done();
  return {
    source: (number) => sourceOf(release.contents.at(number), choices[number] ?? FULL),
    fetches: list,
    downloadBytes: list.reduce((sum, fetch) => sum + sizeOf(fetch), 0),
    fullBytes,
    writtenBytes,
    keptBytes,
    counts,
  };
}

const PLAIN = 1;
const EXECUTABLE = 2;
const BOTH = PLAIN | EXECUTABLE;

/** With which modes each content is needed. */
function variantsOf(release: Release): Uint8Array {
  const variants = new Uint8Array(release.contents.length);
  for (let index = 0; index < release.entries.length; index++) {
    const content = release.contentOf(index);
    const entry = release.entries.at(index);
    if (content === undefined || entry.type !== "file") continue;
    const variant = (entry.mode & 0o111) === 0 ? PLAIN : EXECUTABLE;
    variants[content] = (variants[content] ?? 0) | variant;
  }
  return variants;
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
  let offset = Number.POSITIVE_INFINITY;
  let end = 0;
  for (const part of parts) {
    offset = Math.min(offset, part.offset);
    end = Math.max(end, part.offset + part.size);
  }
  return { offset, end };
}

/** The blob that a source needs; none for what is there already, and none for an empty file. */
export function blobOf(source: Source): PlacedBlob | undefined {
  if (source.how === "keep" || source.content.size === 0) return undefined;
  return source.how === "delta" ? source.delta : source.content.full;
}

function sourceOf(content: Content, choice: number): Source {
  if (choice === KEEP) return { how: "keep", content };
  const delta = content.deltas[choice];
  return delta === undefined ? { how: "full", content } : { how: "delta", content, delta };
}

function cheapest(content: Content, situation: Situation): number {
  if (situation.available.has(content.sha256)) return KEEP;
  let choice = FULL;
  let { size } = content.full;
  for (const [number, delta] of content.deltas.entries())
    if (delta.size < size && isUsable(delta, situation)) {
      choice = number;
      ({ size } = delta);
    }
  return choice;
}

function isUsable(delta: DeltaBlob, { codecs, available, rejected }: Situation): boolean {
  return codecs.has(delta.codec) && available.has(delta.base) && !rejected.has(delta.sha256);
}

/**
 * Whether a blob is in the pack that was made for the step from the installed release. Of a whole file this says that the publisher
 * compared it with its delta and found it no larger.
 */
function isPrepared({ places }: PlacedBlob, { installed, release }: Situation): boolean {
  return places.some(({ pack }) => {
    const from = release.packs[pack]?.from ?? null;
    return from !== null && from === installed;
  });
}

/** Holds the policy full-fallback: every whole file counts, with its bytes on the wire, but for those that were prepared. */
function refuseFallback(
  { bytes, files }: { readonly bytes: number; readonly files: number },
  { fallback, first, installed, release }: Situation,
): void {
  if (first || fallback.kind === "always") return;
  const limit = fallback.kind === "never" ? 0 : fallback.bytes;
  if (bytes <= limit) return;
  const allowed = fallback.kind === "never" ? "none" : `at most ${formatBytes(limit)} bytes`;
  throw new EdgeSyncError(
    "FALLBACK_REFUSED",
    `${files} files of ${release.version} have no usable delta from ${installed ?? "what is here"} and take ${bytes} bytes whole; full-fallback allows ${allowed}`,
  );
}

/** Gathers what is fetched: blobs by themselves, and parts by their pack. */
function openFetches({ release, installed }: Situation): {
  add(blob: PlacedBlob, kind: BlobKind): void;
  done(): readonly Fetch[];
} {
  const alone: Fetch[] = [];
  const parts = new Map<number, Part[]>();
  const seen = new Set<string>();
  // The pack made for this very step, then those of whole files.
  const rank = (number: number): number => {
    const from = release.packs[number]?.from ?? null;
    return from === null ? 1 : from === installed ? 0 : 2;
  };
  return {
    add({ sha256, size, places }, kind) {
      // Two contents may come from one blob.
      if (seen.has(sha256)) return;
      seen.add(sha256);
      const place = places.toSorted((a, b) => rank(a.pack) - rank(b.pack))[0];
      if (place === undefined) {
        alone.push({ fetch: "blob", blob: { sha256, size }, kind });
        return;
      }
      const part = { sha256, size, offset: place.offset, kind };
      const known = parts.get(place.pack);
      if (known === undefined) parts.set(place.pack, [part]);
      else known.push(part);
    },
    done() {
      const packed = [...parts].flatMap(([number, wanted]) => {
        const pack = release.packs[number];
        return pack === undefined ? [] : packFetches(pack, wanted);
      });
      return [...packed, ...alone];
    },
  };
}

function packFetches({ sha256, size }: Pack, wanted: readonly Part[]): readonly Fetch[] {
  const pack = { sha256, size };
  const parts = wanted.toSorted((a, b) => a.offset - b.offset || a.size - b.size);
  let gap = GAP_BYTES;
  let runs = runsOf(parts, gap);
  while (runs.length > MAX_RANGES) {
    gap *= 2;
    runs = runsOf(parts, gap);
  }
  const ranges = runs.map((run): Fetch => ({ fetch: "range", pack, parts: run }));
  const bytes = ranges.reduce((sum, range) => sum + sizeOf(range), 0);
  return bytes >= size * WHOLE_PACK ? [{ fetch: "pack", pack, parts }] : ranges;
}

/** Parts that come with one request each, because what is between them is no more than the gap. */
function runsOf(parts: readonly Part[], gap: number): readonly (readonly Part[])[] {
  const runs: Part[][] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const part of parts) {
    const run = runs.at(-1);
    if (run !== undefined && part.offset - end <= gap) run.push(part);
    else runs.push([part]);
    end = Math.max(end, part.offset + part.size);
  }
  return runs;
}
