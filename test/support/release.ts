import { releaseOf } from "#core/manifest.ts";
import { treeDigest } from "#core/release.ts";
import type {
  Content,
  DeltaBlob,
  Entry,
  FullBlob,
  Pack,
  Place,
  PlacedBlob,
  Release,
  ReleaseParts,
} from "#core/release.ts";

type Unplaced<T extends PlacedBlob> = Omit<T, "places">;

/** A content whose blobs have no places yet. */
export interface HandMadeContent {
  readonly sha256: string;
  readonly size: number;
  readonly full: Unplaced<FullBlob>;
  readonly deltas: readonly Unplaced<DeltaBlob>[];
}

/** A step whose deltas have no places yet. */
export type HandMadeStep = Pick<HandMadeContent, "sha256" | "size" | "deltas">;

/** A pack with what is in it, by digest. */
export interface HandMadePack extends Pack {
  readonly parts: readonly { readonly sha256: string; readonly offset: number }[];
}

/** Parts of a manifest by hand, before anything is checked. */
export function handMadeParts(
  entries: readonly Entry[],
  unplaced: readonly HandMadeContent[],
  packs: readonly HandMadePack[] = [],
  steps: readonly HandMadeStep[] = [],
): ReleaseParts & { readonly tree: string } {
  const placesOf = (sha256: string): readonly Place[] =>
    packs.flatMap(({ parts }, pack) =>
      parts.filter((part) => part.sha256 === sha256).map(({ offset }) => ({ pack, offset })),
    );
  const contents: readonly Content[] = unplaced.map((content) => ({
    ...content,
    full: { ...content.full, places: placesOf(content.full.sha256) },
    deltas: content.deltas.map((delta) => ({ ...delta, places: placesOf(delta.sha256) })),
  }));
  const placedSteps = steps.map((step) => ({
    ...step,
    deltas: step.deltas.map((delta) => ({ ...delta, places: placesOf(delta.sha256) })),
  }));
  const name = { app: "web", version: "2.0.0", platform: "linux-x64" };
  return {
    ...name,
    tree: treeDigest({ entries, contents }),
    entries,
    contents,
    packs,
    steps: placedSteps,
  };
}

/** A release by hand, as a sidecar reads it. */
export function handMadeRelease(...parts: Parameters<typeof handMadeParts>): Release {
  return releaseOf(handMadeParts(...parts));
}
