/** Walks a repository as a client would, and then through every blob. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import {
  CHANNEL_DOCUMENT_LIMIT,
  channelPath,
  parseChannelDocument,
} from "#core/channel-document.ts";
import {
  RELEASE_DOCUMENT_LIMIT,
  manifestFilesOf,
  parseReleaseDocument,
} from "#core/release-document.ts";
import { filesOf, manifestPath } from "#core/release.ts";
import type { Blob, Content, PlacedBlob, Release } from "#core/release.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource, MetadataStore, TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget, loadRole } from "#core/trust/target.ts";
import { diskError, digestOf, readIfExists, readRange } from "./files.ts";
import { readManifest } from "./manifests.ts";
import { findPrivateKeys } from "./private-keys.ts";
import { blobFile } from "./repository.ts";

/** Bytes of a target that is none of ours. */
const TARGET_LIMIT = 64 * 1024 * 1024;

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
      const known = diskError(error, path);
      if (!(known instanceof EdgeSyncError)) throw error;
      problems.push({ code: codeOf(known), message: `${what}: ${known.message}` });
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
          const document = parseReleaseDocument(
            await fetchTarget(trusted, target, RELEASE_DOCUMENT_LIMIT, deps, signal),
          );
          if (manifestPath(document.app, document.version, document.platform) !== target)
            throw new EdgeSyncError("RELEASE_INVALID", "it describes another release");
          const verifyFile = async (blob: Blob): Promise<void> => {
            if (checked.has(blob.sha256)) return;
            checked.add(blob.sha256);
            counts.blobs++;
            counts.bytes += blob.size;
            await attempt(target, () => verifyBlob(path, blob));
          };
          for (const blob of manifestFilesOf(document)) await verifyFile(blob);
          const release = await readManifest({ path }, document, signal);
          for (const blob of filesOf(release)) await verifyFile(blob);
          for (const content of release.contents)
            await attempt(target, () => verifyContent(path, content, release, checked, signal));
          for (const { deltas } of release.steps)
            await attempt(target, () => verifyPlaces(path, deltas, release));
        } else await fetchTarget(trusted, target, TARGET_LIMIT, deps, signal);
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

export function memoryStore(): MetadataStore {
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
  const { app, channel, releases, rollout } = document;
  if (channelPath(app, channel) !== path)
    throw new EdgeSyncError("RELEASE_INVALID", "it describes another channel");
  for (const { platform, version } of [...releases, ...(rollout?.from ?? [])])
    await fetchTarget(
      trusted,
      manifestPath(app, version, platform),
      RELEASE_DOCUMENT_LIMIT,
      deps,
      signal,
    );
}

async function verifyBlob(path: string, { sha256, size }: Blob): Promise<void> {
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

/** Packed blobs are where their packs say. */
async function verifyPlaces(
  path: string,
  blobs: readonly PlacedBlob[],
  { packs }: Release,
): Promise<void> {
  for (const { sha256, size, places } of blobs)
    for (const { pack, offset } of places) {
      const file = packs[pack]?.sha256 ?? "";
      await sizeOf(blobFile({ path }, file));
      const found = await digestOf(readRange(blobFile({ path }, file), offset, size));
      if (found.sha256 !== sha256)
        throw new EdgeSyncError(
          "DIGEST_MISMATCH",
          `pack ${file} does not hold ${sha256} where it says`,
        );
    }
}

/** The same of a content, and its full blob makes it. */
async function verifyContent(
  path: string,
  content: Content,
  release: Release,
  checked: Set<string>,
  signal: AbortSignal,
): Promise<void> {
  const { packs } = release;
  await verifyPlaces(path, [content.full, ...content.deltas], release);
  const key = `content ${content.sha256}`;
  if (checked.has(key)) return;
  checked.add(key);
  const { full } = content;
  const place = full.places[0];
  const file = (place && packs[place.pack]?.sha256) ?? full.sha256;
  const offset = place?.offset ?? 0;
  await sizeOf(blobFile({ path }, file));
  const blob = readRange(blobFile({ path }, file), offset, full.size);
  const found = await digestOf(decodeFull(full.encoding, blob, content.size, signal));
  if (found.sha256 !== content.sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `full blob ${full.sha256} makes another file`);
}
