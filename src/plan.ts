/**
 * How a release is had with the fewest bytes: for each content the cheapest way (route.ts), what that comes to in bytes, room and whole
 * files, and then which requests bring the blobs, where small ones travel together in packs.
 */
import { EdgeSyncError } from "./errors.ts";
import { WHOLE_REASONS } from "./reasons.ts";
import type { WholeReason } from "./reasons.ts";
import type { Blob, Pack, PlacedBlob, Release } from "./release.ts";
import { blobsOf, openRoutes, roomOf } from "./route.ts";
import type { How, Means, Source } from "./route.ts";
import { formatBytes } from "./values.ts";
import type { FullFallback } from "./values.ts";

export interface Situation extends Means {
  readonly release: Release;
  /** The version that the current bank holds, if any. */
  readonly installed: string | null;
  /** Of what is available, the digests of what lies on another volume and can only be copied. */
  readonly foreign: Pick<ReadonlySet<string>, "has">;
  readonly fallback: FullFallback;
  /** A first installation may always fetch whole files. */
  readonly first: boolean;
}

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

/** A part of a release. */
export interface Share {
  readonly contents: number;
  /** On the wire. */
  readonly bytes: number;
}

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
  /** Bytes beside the bank that chains take while they are gone through, one after the other. */
  readonly chainBytes: number;
  readonly ways: Readonly<Record<How, Share>>;
  /** Of those that come whole, why they do. */
  readonly whole: Readonly<Record<WholeReason, Share>>;
}

/** A gap of this many bytes between two parts costs less than a request of its own on a slow link. */
const GAP_BYTES = 8 * 1024;
/** Requests for parts of one pack; when there would be more, wider gaps come along. */
const MAX_RANGES = 16;
/** The share of a pack from which on it is fetched whole: one digest, one request, one file to resume. */
export const WHOLE_PACK = 0.75;

/** @throws EdgeSyncError FALLBACK_REFUSED */
export function makePlan(situation: Situation): Plan {
  const { release } = situation;
  const routes = openRoutes(release, situation);
  const choices = new Int16Array(release.contents.length);
  const ways = { keep: none(), delta: none(), chain: none(), full: none() };
  const reasons = Object.keys(WHOLE_REASONS) as WholeReason[];
  const whole = Object.fromEntries(reasons.map((reason) => [reason, none()])) as Tally<WholeReason>;
  const variants = variantsOf(release);
  const unprepared = none();
  const fetches = openFetches(situation);
  let fullBytes = 0;
  let writtenBytes = 0;
  let keptBytes = 0;
  let chainBytes = 0;
  for (let number = 0; number < choices.length; number++) {
    const content = release.contents.at(number);
    const choice = routes.choose(content);
    choices[number] = choice;
    const source = routes.source(content, choice);
    fullBytes += content.full.size;
    // Equal files of one bank are links to each other, unless only one of them is executable.
    const room = content.size * (variants[number] === BOTH ? 2 : 1);
    if (source.how === "keep" && !situation.foreign.has(content.sha256)) keptBytes += room;
    else writtenBytes += room;
    chainBytes = Math.max(chainBytes, roomOf(source));
    const blobs = blobsOf(source);
    const kind = source.how === "full" ? "full" : "delta";
    let bytes = 0;
    for (const blob of blobs) if (fetches.add(blob, kind)) bytes += blob.size;
    count(ways[source.how], bytes);
    const [blob] = blobs;
    if (source.how !== "full" || blob === undefined) continue;
    count(whole[routes.reason(content)], bytes);
    if (!isPrepared(blob, situation)) count(unprepared, blob.size);
  }
  refuseFallback(unprepared, situation);
  const list = fetches.done();
  return {
    source: (number) => routes.source(release.contents.at(number), choices[number] ?? 0),
    fetches: list,
    downloadBytes: list.reduce((sum, fetch) => sum + sizeOf(fetch), 0),
    fullBytes,
    writtenBytes,
    keptBytes,
    chainBytes,
    ways,
    whole,
  };
}

type Tally<K extends string> = Record<K, { contents: number; bytes: number }>;

function none(): { contents: number; bytes: number } {
  return { contents: 0, bytes: 0 };
}

function count(share: { contents: number; bytes: number }, bytes: number): void {
  share.contents += 1;
  share.bytes += bytes;
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
  { bytes, contents }: Share,
  { fallback, first, installed, release }: Situation,
): void {
  if (first || fallback.kind === "always") return;
  const limit = fallback.kind === "never" ? 0 : fallback.bytes;
  if (bytes <= limit) return;
  const allowed = fallback.kind === "never" ? "none" : `at most ${formatBytes(limit)} bytes`;
  throw new EdgeSyncError(
    "FALLBACK_REFUSED",
    `${contents} files of ${release.version} have no usable delta from ${installed ?? "what is here"} and take ${bytes} bytes whole; full-fallback allows ${allowed}`,
  );
}

/** Gathers what is fetched: blobs by themselves, and parts by their pack. */
function openFetches({ release, installed }: Situation): {
  /** False when it is there already: two contents may come from one blob. */
  add(blob: PlacedBlob, kind: BlobKind): boolean;
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
      if (seen.has(sha256)) return false;
      seen.add(sha256);
      const place = places.toSorted((a, b) => rank(a.pack) - rank(b.pack))[0];
      if (place === undefined) {
        alone.push({ fetch: "blob", blob: { sha256, size }, kind });
        return true;
      }
      const part = { sha256, size, offset: place.offset, kind };
      const known = parts.get(place.pack);
      if (known === undefined) parts.set(place.pack, [part]);
      else known.push(part);
      return true;
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
