/**
 * Chains: sites that are further behind than the deltas of a release reach come by the deltas that earlier releases had already. Nothing is
 * made for them; a manifest carries over the deltas that are of use, as steps.
 */
import type { Content, DeltaBlob, Release, Step } from "#core/release.ts";
import type { Source } from "#core/route.ts";
import type { BlobMaker } from "./blobs.ts";
import { sitesSources } from "./site-plan.ts";

/**
 * Deltas that one manifest carries over at most: about 5 MB of its text, and a tenth of what its compact form may take. Those that save
 * most come first.
 */
export const MAX_CARRIED = 20_000;

/** A chain is listed only when it takes less than this part of the full blob, and saves more than its listing takes. */
const WORTH = 0.9;
/** Bytes in a compressed manifest of one delta that is carried over: its digest, and that of what it makes or starts from. */
const LISTING_BYTES = 80;

type Chain = Extract<Source, { how: "chain" }>;

/**
 * The steps by which sites with one of the `further` releases come to the contents.
 *
 * @param bases the releases that the contents have deltas from; their manifests are where the deltas come from
 * @param most deltas in all
 */
export async function carryOver(
  contents: readonly Content[],
  bases: readonly Release[],
  further: readonly Release[],
  blobs: Pick<BlobMaker, "reuse">,
  most: number = MAX_CARRIED,
): Promise<readonly Step[]> {
  if (further.length === 0) return [];
  const known = await earlierDeltas(contents, bases, blobs);
  const draft = { contents, steps: [...known.values()] };
  const chains = further.flatMap((release) =>
    [...sitesSources(release, draft)].filter((source) => isWorthIt(source)),
  );
  return stepsOf(
    chains.toSorted((a, b) => savedBy(b) - savedBy(a)),
    most,
  );
}

function isWorthIt(source: Source): source is Chain {
  if (source.how !== "chain") return false;
  const listed = (source.links.length - 1) * LISTING_BYTES;
  const { size } = source.content.full;
  return size - savedBy(source) < size * WORTH && savedBy(source) > listed;
}

function savedBy({ content, links }: Chain): number {
  return links.reduce((saved, { delta }) => saved - delta.size, content.full.size);
}

/** All that the manifests of earlier releases know about how to come to a base of the contents, and to the bases of that. */
async function earlierDeltas(
  contents: readonly Content[],
  bases: readonly Release[],
  blobs: Pick<BlobMaker, "reuse">,
): Promise<ReadonlyMap<string, Step>> {
  const steps = new Map<string, Step>();
  const wanted = new Set(contents.flatMap(({ deltas }) => deltas.map(({ base }) => base)));
  // The set grows while it is gone through, by the bases of what is found.
  for (const sha256 of wanted) {
    const deltas = new Map<string, DeltaBlob>();
    let size = 0;
    for (const release of bases)
      for (const known of knownIn(release, sha256)) {
        ({ size } = known);
        for (const delta of known.deltas) {
          if (delta.size >= (deltas.get(delta.base)?.size ?? Number.POSITIVE_INFINITY)) continue;
          if (await blobs.reuse(delta, release)) deltas.set(delta.base, { ...delta, places: [] });
        }
      }
    if (deltas.size === 0) continue;
    steps.set(sha256, { sha256, size, deltas: [...deltas.values()] });
    for (const base of deltas.keys()) wanted.add(base);
  }
  return steps;
}

function knownIn(
  release: Release,
  sha256: string,
): readonly { readonly size: number; readonly deltas: readonly DeltaBlob[] }[] {
  const content = release.find(sha256);
  const step = release.findStep(sha256);
  return [
    ...(content === undefined ? [] : [release.contents.at(content)]),
    ...(step === undefined ? [] : [release.steps.at(step)]),
  ];
}

/** Of the chains, in this order, as many as there may be deltas. */
function stepsOf(chains: readonly Chain[], most: number): readonly Step[] {
  const carried = new Map<string, { readonly size: number; readonly deltas: Set<DeltaBlob> }>();
  let count = 0;
  for (const { links } of chains) {
    const missing = links
      .slice(0, -1)
      .filter(({ delta, sha256 }) => carried.get(sha256)?.deltas.has(delta) !== true);
    if (count + missing.length > most) continue;
    count += missing.length;
    for (const { delta, sha256, size } of missing) {
      const step = carried.get(sha256);
      if (step === undefined) carried.set(sha256, { size, deltas: new Set([delta]) });
      else step.deltas.add(delta);
    }
  }
  return Array.from(carried, ([sha256, { size, deltas }]) => ({
    sha256,
    size,
    // In an order that does not depend on which chain came first.
    deltas: [...deltas].toSorted((a, b) => (a.base < b.base ? -1 : 1)),
  }));
}
