/**
 * Takes a bundle into a folder that is then a part of its repository: for a web server at a site, or for a volume from which sidecars read.
 * Metadata are verified as a client would before anything is put in its place, and each file by the digest in its name; the timestamp
 * comes last, and never goes back.
 */
import { join } from "node:path";
import { bundleFile, readBundle } from "#core/bundle.ts";
import { CHANNEL_DOCUMENT_LIMIT, parseChannelDocument } from "#core/channel-document.ts";
import { readBytes } from "#core/delta/decoder.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { RELEASE_DOCUMENT_LIMIT, parseReleaseDocument } from "#core/release-document.ts";
import type { ReleaseName } from "#core/release.ts";
import { parseRoot, parseTimestamp } from "#core/trust/metadata.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource, TrustDeps } from "#core/trust/refresh.ts";
import { fetchTarget, loadRole } from "#core/trust/target.ts";
import { channelRef } from "#core/values.ts";
import {
  digestOf,
  makeFolder,
  openRandom,
  place,
  readIfExists,
  readRange,
  sizeIfExists,
  spool,
} from "./files.ts";
import { lockRepository } from "./lock.ts";
import { closeWork, openWork, targetLocation } from "./repository.ts";
import { memoryStore } from "./verify.ts";
import type { Progress } from "./work.ts";

/** Bytes of a channel or release document. */
const DOCUMENT_LIMIT = Math.max(CHANNEL_DOCUMENT_LIMIT, RELEASE_DOCUMENT_LIMIT);

type Places = Awaited<ReturnType<typeof readBundle>>;

export interface Imported {
  /** `<app>/<channel>` of each channel in the bundle. */
  readonly channels: readonly string[];
  readonly releases: readonly string[];
  /** Of files that were not there yet. */
  readonly bytes: number;
  /** False when the folder has newer metadata already, which are kept. */
  readonly taken: boolean;
  /** When the first of the signatures in it expires, in milliseconds since the epoch. */
  readonly expires: number;
}

export interface ImportOptions {
  /** The trust root that sites have; the folder's own first one when not given. */
  readonly root: Uint8Array | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Only verifies. */
  readonly check: boolean;
}

/**
 * @throws EdgeSyncError BUNDLE_INVALID, METADATA_UNTRUSTED and the other codes of `refresh`, DIGEST_MISMATCH, CONFIG_INVALID when nothing says which root
 * to trust, REPOSITORY_INVALID when the folder is a part of another repository, REPOSITORY_LOCKED, DISK_FULL, DISK_FAILED
 */
export async function importBundle(
  bundle: string,
  folder: string,
  { root, now, check }: ImportOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<Imported> {
  await using cleanup = new AsyncDisposableStack();
  const archive = cleanup.use(await openArchive(bundle));
  const places = await readBundle(archive, signal);
  const initialRoot = root ?? (await readIfExists(join(folder, "metadata", "1.root.json")));
  if (initialRoot === undefined)
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${folder} has no metadata/1.root.json yet; expected --root with the trust root of the repository`,
    );
  /** Metadata that verification has read. */
  const used = new Set<string>();
  const source = sourceOf(archive, places, used);
  const first = `metadata/${parseRoot(initialRoot).signed.version}.root.json`;
  const own = await readIfExists(join(folder, first));
  // Its files would take the place of those of the same names.
  if (own !== undefined && !own.equals(initialRoot))
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${folder} is a part of another repository: its ${first} is not the trust root given by --root`,
    );
  const trust = { source, store: memoryStore(), initialRoot, now };
  const verified = await verifyBundle(places, trust, signal);
  async function* read(name: string): AsyncIterable<Uint8Array> {
    const { offset, size } = placeOf(places, name);
    for await (const chunk of readRange(bundle, offset, size)) {
      signal.throwIfAborted();
      progress.advance(chunk.length, name);
      yield chunk;
    }
  }
  const refuseOther = (name: string, { sha256 }: { readonly sha256: string }): void => {
    const wanted = bundleFile(name)?.sha256;
    if (wanted !== undefined && wanted !== sha256)
      throw new EdgeSyncError("DIGEST_MISMATCH", `${name} in ${bundle} does not have its digest`);
  };
  const content = [...places.keys()].filter((name) => !name.startsWith("metadata/"));
  progress.expect(content.reduce((sum, name) => sum + placeOf(places, name).size, 0));
  if (check) {
    for (const name of content) refuseOther(name, await digestOf(read(name)));
    progress.end();
    return { ...verified, bytes: 0, taken: false };
  }
  await makeFolder(folder);
  cleanup.use(await lockRepository(folder, now));
  const temporary = await openWork(folder);
  cleanup.defer(() => closeWork(folder));
  let bytes = 0;
  const copy = async (name: string): Promise<void> => {
    if ((await sizeIfExists(join(folder, name))) === placeOf(places, name).size) return;
    const file = await spool(temporary(), read(name));
    refuseOther(name, file);
    await place(file.path, join(folder, name));
    bytes += file.size;
  };
  // Files that nothing refers to yet come first, as with every publication.
  for (const name of content) await copy(name);
  progress.end();
  const before = await readIfExists(join(folder, TIMESTAMP));
  const known = before === undefined ? 0 : parseTimestamp(before).signed.version;
  if (verified.version <= known) return { ...verified, bytes, taken: false };
  if (own === undefined)
    await place((await spool(temporary(), [initialRoot])).path, join(folder, first));
  // Nothing that nobody has vouched for: a root of a later number would lock out every client some day.
  used.delete(TIMESTAMP);
  for (const name of used) await copy(name);
  const timestamp = await spool(temporary(), read(TIMESTAMP));
  await place(timestamp.path, join(folder, TIMESTAMP));
  return { ...verified, bytes, taken: true };
}

const TIMESTAMP = "metadata/timestamp.json";

async function openArchive(path: string): Promise<RandomAccess & AsyncDisposable> {
  try {
    return await openRandom(path);
  } catch (cause) {
    throw new EdgeSyncError("BUNDLE_INVALID", `${path} cannot be read`, { cause });
  }
}

function placeOf(places: Places, name: string): { readonly offset: number; readonly size: number } {
  const found = places.get(name);
  if (found === undefined) throw new EdgeSyncError("BUNDLE_INVALID", `the bundle has no ${name}`);
  return found;
}

function sourceOf(archive: RandomAccess, places: Places, used: Set<string>): MetadataSource {
  const read = async (name: string, limit: number): Promise<Uint8Array | undefined> => {
    const found = places.get(name);
    if (found === undefined) return undefined;
    if (found.size > limit)
      throw new EdgeSyncError(
        "RESPONSE_TOO_LARGE",
        `${name} has ${found.size} bytes, allowed are ${limit}`,
      );
    if (name.startsWith("metadata/")) used.add(name);
    return await readBytes(archive, found.offset, found.size);
  };
  return {
    metadata: (name, limit) => read(`metadata/${name}`, limit),
    target: (name, limit) => read(`targets/${name}`, limit),
  };
}

/** What the roles that came along say, as far as it came along too. */
async function verifyBundle(
  places: Places,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Pick<Imported, "channels" | "releases" | "expires"> & { readonly version: number }> {
  const trusted = await refresh(deps, signal);
  const channels: string[] = [];
  const releases: string[] = [];
  for (const role of trusted.targets.delegations?.roles ?? []) {
    const version = trusted.snapshot.meta.get(`${role.name}.json`)?.version;
    if (!places.has(`metadata/${version}.${encodeURIComponent(role.name)}.json`)) continue;
    const { targets } = await loadRole(trusted, role, deps, signal);
    for (const [path, { hashes }] of targets) {
      if (!places.has(targetLocation(path, hashes["sha256"] ?? ""))) continue;
      const bytes = await fetchTarget(trusted, path, DOCUMENT_LIMIT, deps, signal);
      if (path.startsWith("channels/"))
        channels.push(channelRef.format(parseChannelDocument(bytes)));
      else releases.push(nameOf(parseReleaseDocument(bytes)));
    }
  }
  const timestamp = await deps.store.load("timestamp.json");
  if (timestamp === undefined || channels.length === 0)
    throw new EdgeSyncError("BUNDLE_INVALID", "the bundle holds no channel");
  const { version } = parseTimestamp(timestamp).signed;
  return { channels, releases, version, expires: Math.min(...trusted.expiries().values()) };
}

function nameOf({ app, version, platform }: ReleaseName): string {
  return `${app} ${version} ${platform}`;
}
