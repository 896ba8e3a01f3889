/**
 * The document of a release: the target that the role of its app signs. It is small, and leads to the manifest, which travels like any
 * file of the tree: compressed, or as a delta from the manifest of an earlier release.
 */
import * as s from "valibot";
import { name, parseDocument, platform, version } from "./document.ts";
import type { Blob, Encoding, ReleaseName } from "./release.ts";
import { MANIFEST_LIMIT } from "./manifest.ts";

/** Bytes; deltas from 20 releases take 6 KB. */
export const RELEASE_DOCUMENT_LIMIT = 64 * 1024;

/** A manifest and the blobs that bring it; none of them is in a pack. */
export interface ManifestFile extends Blob {
  readonly full: Blob & { readonly encoding: Encoding };
  readonly deltas: readonly (Blob & { readonly base: string; readonly codec: string })[];
}

export interface ReleaseDocument extends ReleaseName {
  readonly schema: 1;
  /** `treeDigest` of the entries: a site that has this tree needs no manifest. */
  readonly tree: string;
  readonly manifest: ManifestFile;
  /** For people: how many entries there are, the bytes of all contents, and of all full blobs. */
  readonly entries: number;
  readonly bytes: number;
  readonly fullBytes: number;
}

const digest = s.pipe(s.string(), s.regex(/^[0-9a-f]{64}$/, "a sha256 in lower-case hex"));
const size = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
const blob = { sha256: digest, size };

const schema = s.object({
  schema: s.literal(1),
  app: name,
  version,
  platform,
  tree: digest,
  manifest: s.object({
    sha256: digest,
    size: s.pipe(size, s.maxValue(MANIFEST_LIMIT)),
    full: s.object({ ...blob, encoding: s.picklist(["identity", "zstd"]) }),
    deltas: s.array(
      s.object({
        ...blob,
        base: digest,
        codec: s.pipe(s.string(), s.regex(/^[a-z0-9-]{1,32}$/)),
      }),
    ),
  }),
  entries: size,
  bytes: size,
  fullBytes: size,
});

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseReleaseDocument(bytes: Uint8Array): ReleaseDocument {
  return parseDocument(schema, bytes, RELEASE_DOCUMENT_LIMIT, "release document");
}

/** The files below `blobs/` that hold a manifest. */
export function* manifestFilesOf({ manifest }: Pick<ReleaseDocument, "manifest">): Generator<Blob> {
  for (const { sha256, size } of [manifest.full, ...manifest.deltas]) yield { sha256, size };
}
