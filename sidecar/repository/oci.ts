/** The repository in an OCI registry; what lies where, `src/oci.ts` says. Nothing that comes from here is trusted either. */
import type { OciAddress } from "#core/addresses.ts";
import { EdgeSyncError } from "#core/errors.ts";
import {
  MANIFEST_TYPE,
  METADATA_MANIFEST_LIMIT,
  digestIn,
  metadataTag,
  parseMetadataManifest,
} from "#core/oci.ts";
import { createHash } from "node:crypto";
import { readBody } from "../network/http.ts";
import { openLogin } from "./oci-login.ts";
import { discard, openOrigin } from "./origin.ts";
import { answerOf, isPinned, openTags, rangeOf, unexpected } from "./repository.ts";
import type { Repository, RepositoryDeps } from "./repository.ts";

export function openOciRepository(address: OciAddress, deps: RepositoryDeps): Repository {
  const origin = openOrigin(deps, openLogin(address, deps));
  const base = `${address.origin}/v2/${address.name}`;
  const tags = openTags();

  /** A file that is too large for its manifest. */
  async function layer(
    name: string,
    sha256: string,
    limit: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    // Its digest is known, from a manifest that came without a redirect unless it is signed for itself.
    const response = await origin.get({ url: blobUrl(sha256), pinned: true }, signal);
    if (response.status !== 200) throw await unexpected(name, response, signal);
    const bytes = await readBody(response, limit, signal);
    if (createHash("sha256").update(bytes).digest("hex") !== sha256)
      throw new EdgeSyncError(
        "DIGEST_MISMATCH",
        `${name} does not have the digest of its manifest`,
      );
    return bytes;
  }

  const blobUrl = (sha256: string): string => `${base}/blobs/sha256:${sha256}`;

  return {
    async metadata(name, limit, known, signal) {
      const tag = tags.find(name, known);
      const headers = {
        accept: MANIFEST_TYPE,
        ...(tag === undefined ? {} : { "if-none-match": tag }),
      };
      const url = `${base}/manifests/${metadataTag(name)}`;
      const response = await origin.get({ url, headers, pinned: isPinned(name) }, signal);
      if (response.status === 404 || response.status === 410) return undefined;
      if (response.status === 304 && tag !== undefined) {
        await discard(response, signal);
        return known;
      }
      if (response.status !== 200) throw await unexpected(name, response, signal);
      const manifest = await readBody(response, METADATA_MANIFEST_LIMIT, signal);
      const { sha256, size, data } = parseMetadataManifest(name, manifest);
      if (size > limit)
        throw new EdgeSyncError(
          "RESPONSE_TOO_LARGE",
          `${name} has ${size} bytes, allowed are ${limit}`,
        );
      const bytes = data ?? (await layer(name, sha256, size, signal));
      const taken = manifest.byteLength + (data === undefined ? bytes.byteLength : 0);
      deps.metrics.add("edgesync_sidecar_download_bytes_total", { kind: "metadata" }, taken);
      tags.keep(name, response, bytes);
      return bytes;
    },
    async open(path, offset, end, signal) {
      const sha256 = digestIn(path);
      if (sha256 === undefined) return { answer: "absent" };
      const request = { url: blobUrl(sha256), headers: rangeOf(offset, end), pinned: true };
      return await answerOf(path, offset, await origin.get(request, signal), signal);
    },
    holdMs: () => origin.holdMs(),
    begin: () => undefined,
    elsewhere(error) {
      throw error;
    },
  };
}
