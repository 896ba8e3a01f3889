/** Walks a repository as a client would, and then through every blob. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { CHANNEL_DOCUMENT_LIMIT, parseChannelDocument } from "#core/channel-document.ts";
import { MANIFEST_LIMIT, manifestPath, parseRelease } from "#core/release.ts";
import type { Content, Release } from "#core/release.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource, MetadataStore, TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget, loadRole } from "#core/trust/target.ts";
import { digestOf, readIfExists, readRange } from "./files.ts";
import { findPrivateKeys } from "./private-keys.ts";
import { blobFile } from "./repository.ts";

export interface Problem {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface Verified {
  readonly problems: readonly Problem[];
  readonly channels: number;
  readonly releases: number;
  readonly blobs: number;
  readonly bytes: number;
  /** When the first of the roles expires, in milliseconds since the epoch. */
  readonly expires: number | undefined;
}

/**
 * @param initialRoot that sites are given
 * @param now milliseconds since the epoch
 */
export async function verifyRepository(
  path: string,
  initialRoot: Uint8Array,
  now: number,
  signal: AbortSignal,
): Promise<Verified> {
  const problems: Problem[] = [];
  const counts = { channels: 0, releases: 0, blobs: 0, bytes: 0 };
  let expires: number | undefined;
  /** Notes what goes wrong and goes on, so that one run tells everything. */
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof EdgeSyncError)) throw error;
      problems.push({ code: codeOf(error), message: `${what}: ${error.message}` });
    }
  };

  for (const key of await findPrivateKeys(path, signal))
    problems.push({ code: "REPOSITORY_UNSAFE", message: `${key} holds a private key` });
  const deps: TrustDeps = { source: folderSource(path), store: memoryStore(), initialRoot, now };
  await attempt("metadata", async () => {
    const trusted = await refresh(deps, signal);
    const checked = new Set<string>();
    for (const target of await listTargets(trusted, deps, attempt, signal))
      await attempt(target, async () => {
        if (target.startsWith("channels/")) {
          counts.channels++;
          await verifyChannel(trusted, target, deps, signal);
        } else if (target.startsWith("releases/")) {
          counts.releases++;
          const release = parseRelease(
            await fetchTarget(trusted, target, MANIFEST_LIMIT, deps, signal),
          );
          if (manifestPath(release.app, release.version, release.platform) !== target)
            throw new EdgeSyncError("RELEASE_INVALID", "it describes another release");
          for (const blob of filesOf(release)) {
            if (checked.has(blob.sha256)) continue;
            checked.add(blob.sha256);
            counts.blobs++;
            counts.bytes += blob.size;
            await attempt(target, () => verifyBlob(path, blob));
          }
          const places = placesOf(release);
          for (const content of release.contents)
            await attempt(target, () => verifyContent(path, content, places, checked, signal));
        } else await fetchTarget(trusted, target, MANIFEST_LIMIT, deps, signal);
      });
    expires = Math.min(...trusted.expiries().values());
  });
  return { problems, ...counts, expires };
}

function folderSource(path: string): MetadataSource {
  const read = async (name: string, limit: number): Promise<Uint8Array | undefined> => {
    const bytes = await readIfExists(join(path, name));
    if (bytes !== undefined && bytes.length > limit)
      throw new EdgeSyncError(
        "RESPONSE_TOO_LARGE",
        `${name} has ${bytes.length} bytes, allowed are ${limit}`,
      );
    return bytes;
  };
  return {
    metadata: (name, limit) => read(`metadata/${name}`, limit),
    target: (name, limit) => read(`targets/${name}`, limit),
  };
}

function memoryStore(): MetadataStore {
  const files = new Map<string, Uint8Array>();
  return {
    load: (name) => Promise.resolve(files.get(name)),
    save: (name, bytes) => Promise.resolve(void files.set(name, bytes)),
    remove: (name) => Promise.resolve(void files.delete(name)),
  };
}

type Attempt = (what: string, work: () => Promise<void>) => Promise<void>;

async function listTargets(
  trusted: TrustedSet,
  deps: TrustDeps,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const paths = [...trusted.targets.targets.keys()];
  for (const role of trusted.targets.delegations?.roles ?? [])
    await attempt(`role ${role.name}`, async () => {
      const targets = await loadRole(trusted, role, deps, signal);
      paths.push(...targets.targets.keys());
    });
  return paths.toSorted();
}

async function verifyChannel(
  trusted: TrustedSet,
  path: string,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<void> {
  const document = parseChannelDocument(
    await fetchTarget(trusted, path, CHANNEL_DOCUMENT_LIMIT, deps, signal),
  );
  for (const { platform, version } of document.releases)
    await fetchTarget(
      trusted,
      manifestPath(document.app, version, platform),
      MANIFEST_LIMIT,
      deps,
      signal,
    );
}

interface BlobFile {
  readonly sha256: string;
  readonly size: number;
}

interface Place {
  /** Digest of the pack, or of the blob itself. */
  readonly file: string;
  readonly offset: number;
}

/** Where each blob of a release is said to be. */
function placesOf(release: Release): ReadonlyMap<string, readonly Place[]> {
  const places = new Map<string, Place[]>();
  for (const pack of release.packs)
    for (const { sha256, offset } of pack.parts) {
      const known = places.get(sha256);
      if (known === undefined) places.set(sha256, [{ file: pack.sha256, offset }]);
      else known.push({ file: pack.sha256, offset });
    }
  return places;
}

/** The files below `blobs/` that a release needs. */
function filesOf(release: Release): readonly BlobFile[] {
  const packed = placesOf(release);
  const alone = release.contents
    .flatMap((content) => [content.full, ...content.deltas])
    .filter((blob) => !packed.has(blob.sha256));
  return [...release.packs, ...alone];
}

async function verifyBlob(path: string, { sha256, size }: BlobFile): Promise<void> {
  const file = blobFile({ path }, sha256);
  const found = await digestOf(readRange(file, 0, await sizeOf(file)));
  if (found.sha256 !== sha256 || found.size !== size)
    throw new EdgeSyncError(
      "DIGEST_MISMATCH",
      `blob ${sha256} does not have its signed digest and size`,
    );
}

/** @throws EdgeSyncError DIGEST_MISMATCH when there is no such file */
async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (cause) {
    throw new EdgeSyncError("DIGEST_MISMATCH", `${file} is missing`, { cause });
  }
}

/** Packed blobs are where their packs say, and the full blob makes the content. */
async function verifyContent(
  path: string,
  content: Content,
  places: ReadonlyMap<string, readonly Place[]>,
  checked: Set<string>,
  signal: AbortSignal,
): Promise<void> {
  for (const { sha256, size } of [content.full, ...content.deltas])
    for (const { file, offset } of places.get(sha256) ?? []) {
      await sizeOf(blobFile({ path }, file));
      const found = await digestOf(readRange(blobFile({ path }, file), offset, size));
      if (found.sha256 !== sha256)
        throw new EdgeSyncError(
          "DIGEST_MISMATCH",
          `pack ${file} does not hold ${sha256} where it says`,
        );
    }
  const key = `content ${content.sha256}`;
  if (checked.has(key)) return;
  checked.add(key);
  const { full } = content;
  const { file, offset } = places.get(full.sha256)?.[0] ?? { file: full.sha256, offset: 0 };
  await sizeOf(blobFile({ path }, file));
  const blob = readRange(blobFile({ path }, file), offset, full.size);
  const found = await digestOf(decodeFull(full.encoding, blob, content.size, signal));
  if (found.sha256 !== content.sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `full blob ${full.sha256} makes another file`);
}
