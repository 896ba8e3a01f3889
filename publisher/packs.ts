/**
 * Small blobs in one file. The whole files of a release lie in packs that later releases go on using: only what is new comes into a
 * new one, and a pack of which too much is no longer needed, or that is small beside the new one, is taken up by it. So there are few,
 * a first installation fetches little in vain, and the manifest's lines of what did not change stay the same. For each base there is
 * a pack of exactly what an update from it needs.
 */
import { WHOLE_PACK } from "#core/plan.ts";
import type { Content, Entry, Pack, Place, PlacedBlob, Release, Step } from "#core/release.ts";
import { blobsOf } from "#core/route.ts";
import type { BlobMaker } from "./blobs.ts";
import { place, readRange, spool } from "./files.ts";
import { blobFile } from "./repository.ts";
import type { Repository } from "./repository.ts";
import { neededFrom, sitesSources } from "./site-plan.ts";
import type { Draft } from "./site-plan.ts";

/** Blobs of fewer bytes are in packs only: below it a request costs more than the bytes, on a link with a long round trip. */
export const PACKED_BELOW = 64 * 1024;

/** A smaller pack is not worth a request of its own. */
const SMALL_PACK = 256 * 1024;

interface Part {
  readonly sha256: string;
  readonly offset: number;
}

interface Filled {
  readonly pack: Pack;
  readonly parts: readonly Part[];
}

export interface Packed {
  readonly packs: readonly Pack[];
  /** The contents and steps, told where in the packs their blobs are. */
  readonly contents: readonly Content[];
  readonly steps: readonly Step[];
}

/**
 * Puts the packs of a release into the repository. One that would be empty is left out.
 *
 * @param newest the release before, whose packs are used again
 * @param bases releases from which an update is prepared
 * @param further those before them, from which sites come by chains
 */
export async function packContents(
  draft: Draft,
  newest: Release | undefined,
  { bases, further }: { readonly bases: readonly Release[]; readonly further: readonly Release[] },
  blobs: Pick<BlobMaker, "locate">,
  repository: Repository,
): Promise<Packed> {
  const { contents } = draft;
  const { kept, rest } = reusedPacks(contents, newest);
  const filled: (Filled | undefined)[] = [...kept];
  filled.push(await fillPack(null, rest, blobs, repository));
  for (const base of bases) {
    const needed = Array.from(neededFrom(base, draft), (blob) => blob.sha256);
    filled.push(await fillPack(base.version, needed, blobs, repository));
  }
  for (const base of further) {
    const needed = chainedFrom(base, draft);
    if (needed.length > 0) filled.push(await fillPack(base.version, needed, blobs, repository));
  }
  const packs = filled.filter((item) => item !== undefined);
  return { packs: packs.map(({ pack }) => pack), ...placeBlobs(draft, packs) };
}

/**
 * The deltas that a site takes that comes by chains; none for one that has none. Whole files stay in their own packs: nobody has compared
 * them with a delta, so that they count for `full-fallback`.
 */
function chainedFrom(base: Release, draft: Draft): readonly string[] {
  const sources = [...sitesSources(base, draft)];
  if (!sources.some(({ how }) => how === "chain")) return [];
  return sources
    .filter(({ how }) => how === "chain" || how === "delta")
    .flatMap((source) => blobsOf(source).map(({ sha256 }) => sha256));
}

interface Candidate {
  readonly pack: Pack;
  readonly parts: Part[];
  /** Bytes of it that this release needs. */
  live: number;
}

/** The packs of the release before that are still good, and the small whole files that none of them holds. */
function reusedPacks(
  contents: readonly Content[],
  newest: Release | undefined,
): { readonly kept: readonly Filled[]; readonly rest: readonly string[] } {
  const small = contents.filter(({ full }) => full.size < PACKED_BELOW);
  const candidates = (newest?.packs ?? []).map((pack): Candidate => ({ pack, parts: [], live: 0 }));
  const fresh: string[] = [];
  let freshBytes = 0;
  for (const { sha256, full } of small) {
    const number = newest?.find(sha256);
    const known = number === undefined ? undefined : newest?.contents.at(number).full;
    const at = known?.places.find(({ pack }) => candidates[pack]?.pack.from === null);
    const candidate = at && candidates[at.pack];
    if (at === undefined || candidate === undefined || known?.sha256 !== full.sha256) {
      fresh.push(full.sha256);
      freshBytes += full.size;
      continue;
    }
    candidate.parts.push({ sha256: full.sha256, offset: at.offset });
    candidate.live += full.size;
  }
  const kept = new Set(candidates.filter(({ parts }) => parts.length > 0));
  for (const candidate of [...kept].toSorted((a, b) => a.pack.size - b.pack.size)) {
    const { pack, live } = candidate;
    const wasteful = live < pack.size * WHOLE_PACK;
    const swallowed = freshBytes > 0 && pack.size < Math.max(SMALL_PACK, 2 * freshBytes);
    if (!wasteful && !swallowed) continue;
    kept.delete(candidate);
    freshBytes += live;
  }
  const held = new Set([...kept].flatMap(({ parts }) => parts.map((part) => part.sha256)));
  const rest = small.map(({ full }) => full.sha256).filter((sha256) => !held.has(sha256));
  return { kept: [...kept], rest };
}

export function isFile(entry: Entry): entry is Extract<Entry, { type: "file" }> {
  return entry.type === "file";
}

async function fillPack(
  from: string | null,
  wanted: readonly string[],
  blobs: Pick<BlobMaker, "locate">,
  repository: Repository,
): Promise<Filled | undefined> {
  const parts: Part[] = [];
  let end = 0;
  async function* content(): AsyncIterable<Uint8Array> {
    for (const sha256 of new Set(wanted)) {
      const { file, offset, size } = await blobs.locate(sha256);
      if (size >= PACKED_BELOW) continue;
      parts.push({ sha256, offset: end });
      end += size;
      yield* readRange(file, offset, size);
    }
  }
  const { path, sha256, size } = await spool(repository.temporary(), content());
  if (parts.length === 0) return undefined;
  await place(path, blobFile(repository, sha256));
  return { pack: { from, sha256, size }, parts };
}

function placeBlobs({ contents, steps }: Draft, packs: readonly Filled[]): Draft {
  const places = new Map<string, Place[]>();
  for (const [pack, { parts }] of packs.entries())
    for (const { sha256, offset } of parts) {
      const known = places.get(sha256);
      if (known === undefined) places.set(sha256, [{ pack, offset }]);
      else known.push({ pack, offset });
    }
  const placed = <T extends PlacedBlob>(blob: T): T => ({
    ...blob,
    places: places.get(blob.sha256) ?? [],
  });
  return {
    contents: contents.map((content) => ({
      ...content,
      full: placed(content.full),
      deltas: content.deltas.map(placed),
    })),
    steps: steps.map((step) => ({ ...step, deltas: step.deltas.map(placed) })),
  };
}
