/** From a version that a channel names to a complete, verified bank on the payload volume. */
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { knownCodecs } from "#core/delta/codec-names.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { makePlan } from "#core/plan.ts";
import type { Fetch, Plan } from "#core/plan.ts";
import { RELEASE_DOCUMENT_LIMIT, parseReleaseDocument } from "#core/release-document.ts";
import type { ReleaseDocument } from "#core/release-document.ts";
import { manifestPath } from "#core/release.ts";
import type { Release } from "#core/release.ts";
import type { TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import type { Bank, Target } from "#core/update-state.ts";
import type { FullFallback } from "#core/values.ts";
import { beginBank, verifyBank } from "./bank.ts";
import type { Downloads } from "../repository/download.ts";
import { openHere } from "./here.ts";
import type { Here } from "./here.ts";
import { bringManifest } from "./manifest.ts";
import type { BroughtManifest } from "./manifest.ts";
import type { Seed, SeedFiles } from "./seed.ts";
import { bytesNeeded, requireRoom } from "./space.ts";
import type { Limits } from "./space.ts";
import type { Store } from "./store.ts";

export interface BuildDeps {
  readonly store: Store;
  readonly downloads: Downloads;
  readonly fallback: FullFallback;
  readonly limits: Limits;
  /** Told of the plan, and of each that takes its place, before anything is done; what it throws ends the build. */
  readonly planned: (plan: Plan, from: string | null) => void;
}

export interface InstallDeps extends BuildDeps {
  readonly trusted: TrustedSet;
  readonly trust: TrustDeps;
  readonly app: string;
  readonly platform: string;
  /** Files of another volume that may help. */
  readonly seed: Seed | undefined;
}

/**
 * @param from the bank that is committed; null for a first installation
 * @throws EdgeSyncError with what stands in the way; downloads are kept, so that the next attempt goes on from there
 */
export async function install(
  target: Target,
  from: Bank | null,
  deps: InstallDeps,
  signal: AbortSignal,
): Promise<Bank> {
  try {
    return await installOnce(target, from, deps, signal);
  } catch (error) {
    if (DOUBTFUL.has(codeOf(error))) deps.downloads.doubt();
    throw error;
  }
}

/** What a download can be the cause of that has been damaged on the disk after it was verified. */
export const DOUBTFUL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "DELTA_INVALID",
  "DIGEST_MISMATCH",
  "DISK_FAILED",
  "FALLBACK_REFUSED",
  "RELEASE_INVALID",
]);

async function installOnce(
  target: Target,
  from: Bank | null,
  deps: InstallDeps,
  signal: AbortSignal,
): Promise<Bank> {
  const { document, digest } = await fetchDocument(target, deps, signal);
  const { store } = deps;
  const { tree } = document;
  if (from?.tree === tree) return { ...target, tree, id: from.id };
  const base = from?.id ?? (await store.current());
  const { sha256, size, full } = document.manifest;
  if ((await store.disk.stat(join(store.partial, sha256)))?.size !== size)
    await requireRoom(document.version, size + full.size, store, deps.limits);
  const basePath = base === undefined ? undefined : store.manifestPath(base);
  const { partial } = store;
  const manifest = await bringManifest(
    document,
    basePath,
    { ...deps, disk: store.disk, partial },
    signal,
  );
  const { release } = manifest;
  const name = `${release.version}-${tree.slice(0, 12)}`;
  const taken = new Set(await store.banks());
  if (taken.has(name) && (await verifyBank(store.disk, store.bankPath(name), release, signal)))
    return { ...target, tree, id: name };
  // A bank of this name that is not what it says may still be in use: it is left to the sweep.
  const id = freeName(name, taken);
  const hasBase = base !== undefined && taken.has(base);
  const installed = hasBase ? await store.manifest(base, signal) : undefined;
  // Also of a bank that nobody vouches for any more: each file is hashed before it is used.
  const usable = from === null || installed?.tree === from.tree ? installed : undefined;
  const files = await seedFor(release, usable, deps, signal);
  const here = openHere(usable, store.bankPath(base ?? ""), files);
  const start = { first: from === null, installed: usable?.version ?? null, here, digest };
  await build(id, manifest, start, deps, signal);
  deps.seed?.forget();
  return { ...target, tree, id };
}

export async function fetchDocument(
  { version }: Pick<Target, "version">,
  { app, platform, trusted, trust }: Pick<InstallDeps, "app" | "platform" | "trusted" | "trust">,
  signal: AbortSignal,
): Promise<{ readonly document: ReleaseDocument; readonly digest: string }> {
  const path = manifestPath(app, version, platform);
  const bytes = await fetchTarget(trusted, path, RELEASE_DOCUMENT_LIMIT, trust, signal);
  const document = parseReleaseDocument(bytes);
  if (document.app !== app || document.version !== version || document.platform !== platform)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `${path} is the document of ${manifestPath(document.app, document.version, document.platform)}`,
    );
  return { document, digest: createHash("sha256").update(bytes).digest("hex") };
}

function freeName(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  let number = 2;
  while (taken.has(`${name}.${number}`)) number += 1;
  return `${name}.${number}`;
}

/** The seed is read only when something is missing: that may be every byte of an image. */
async function seedFor(
  release: Release,
  installed: Release | undefined,
  { seed }: InstallDeps,
  signal: AbortSignal,
): Promise<SeedFiles | undefined> {
  if (seed === undefined) return undefined;
  for (const { sha256 } of release.contents)
    if (installed?.find(sha256) === undefined) return await seed.files(signal);
  return undefined;
}

interface Start {
  readonly first: boolean;
  readonly installed: string | null;
  readonly here: Here;
  /** Of the document, which is a download too. */
  readonly digest: string;
}

/** @throws EdgeSyncError as `install` */
export async function build(
  id: string,
  { release, path }: BroughtManifest,
  { first, installed, here, digest }: Start,
  deps: BuildDeps,
  signal: AbortSignal,
): Promise<void> {
  const { store, downloads } = deps;
  const codecs = new Set(knownCodecs);
  const rejected = new Set<string>();
  await using building = await beginBank(store, id, release, signal);
  // Each round without success takes something out that it could rely on before, so there is an end.
  for (;;) {
    const plan = makePlan({
      release,
      installed,
      available: here,
      foreign: here.foreign,
      damaged: here.damaged,
      codecs,
      rejected,
      fallback: deps.fallback,
      first,
    });
    deps.planned(plan, installed);
    const names = plan.fetches.flatMap(namesOf);
    await downloads.keepOnly(new Set([digest, basename(path), ...names]));
    const needed = await bytesNeeded(plan, release, here, building.written(), deps, signal);
    await requireRoom(release.version, needed, store, deps.limits);
    for (const fetch of plan.fetches) await downloads.fetch(fetch, signal);
    const setback = await building.add(plan, here, downloads.read, signal);
    if (setback.damaged.length === 0 && setback.rejected.length === 0) break;
    for (const sha256 of setback.damaged) here.remove(sha256);
    for (const sha256 of setback.rejected) rejected.add(sha256);
  }
  await building.complete(path);
}

/** Names in `partial/` that a fetch uses. */
export function namesOf(fetch: Fetch): readonly string[] {
  if (fetch.fetch === "blob") return [fetch.blob.sha256];
  if (fetch.fetch === "pack") return [fetch.pack.sha256];
  return fetch.parts.map((part) => part.sha256);
}
