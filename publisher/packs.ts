/** Small blobs that are needed together, in one file. */
import type { Content, Entry, Pack, Place, PlacedBlob, Release } from "#core/release.ts";
import type { BlobMaker } from "./blobs.ts";
import { readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";

/** Blobs of fewer bytes are in packs only: below it a request costs more than the bytes, on a link with a long round trip. */
export const PACKED_BELOW = 64 * 1024;

export interface BuiltPack {
  readonly pack: Pack;
  readonly file: Spooled;
  readonly parts: readonly { readonly sha256: string; readonly offset: number }[];
}

/** The contents, told where in the packs their blobs are. */
export function placeContents(
  contents: readonly Content[],
  packs: readonly BuiltPack[],
): readonly Content[] {
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
  return contents.map((content) => ({
    ...content,
    full: placed(content.full),
    deltas: content.deltas.map(placed),
  }));
}

/**
 * The packs of a release: one for a first installation, and one for each base with what an update from it needs. A pack that would be
 * empty is left out.
 */
export async function buildPacks(
  contents: readonly Content[],
  bases: readonly Release[],
  blobs: BlobMaker,
  temporary: () => string,
): Promise<readonly BuiltPack[]> {
  const packs: (BuiltPack | undefined)[] = [
    await buildPack(
      null,
      contents.map((content) => content.full.sha256),
      blobs,
      temporary,
    ),
  ];
  for (const base of bases) {
    const needed = neededFrom(base, contents).map((blob) => blob.sha256);
    packs.push(await buildPack(base.version, needed, blobs, temporary));
  }
  return packs.filter((pack) => pack !== undefined);
}

/** The blobs that a site at `base` fetches: for each content that it does not have, a delta that it can use, or the full blob. */
export function neededFrom(
  base: Pick<Release, "find">,
  contents: readonly Content[],
): readonly { readonly sha256: string; readonly size: number }[] {
  const has = (sha256: string): boolean => base.find(sha256) !== undefined;
  return contents
    .filter((content) => !has(content.sha256))
    .map((content) => {
      const usable = content.deltas.filter((delta) => has(delta.base));
      return usable.toSorted((a, b) => a.size - b.size)[0] ?? content.full;
    });
}

export function isFile(entry: Entry): entry is Extract<Entry, { type: "file" }> {
  return entry.type === "file";
}

async function buildPack(
  from: string | null,
  wanted: readonly string[],
  blobs: BlobMaker,
  temporary: () => string,
): Promise<BuiltPack | undefined> {
  const parts: { sha256: string; offset: number }[] = [];
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
  const file = await spool(temporary(), content());
  if (parts.length === 0) return undefined;
  return { pack: { from, sha256: file.sha256, size: file.size }, file, parts };
}
