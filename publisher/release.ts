/** Adds a release: a folder becomes a manifest, blobs, deltas and packs, signed by the role of its app. */
import { isDeepStrictEqual } from "node:util";
import { EdgeSyncError } from "#core/errors.ts";
import { serialize } from "#core/document.ts";
import { parseReleaseDocument } from "#core/release-document.ts";
import type { ReleaseDocument } from "#core/release-document.ts";
import { manifestPath, treeDigest } from "#core/release.ts";
import type { Release } from "#core/release.ts";
import { openBlobMaker } from "./blobs.ts";
import { appRole, listReleases } from "./catalog.ts";
import { carryOver } from "./chains.ts";
import { levelFor } from "./compress.ts";
import type { Keyring } from "./keys.ts";
import { refuseFull } from "./limits.ts";
import { openDeltas } from "./deltas.ts";
import { readPublished, writeManifest } from "./manifests.ts";
import type { PublishedRelease } from "./manifests.ts";
import { isFile, packContents } from "./packs.ts";
import { refuseKeysInTree } from "./private-keys.ts";
import { findSigners, publish } from "./publish.ts";
import type { Repository } from "./repository.ts";
import { neededFrom } from "./site-plan.ts";
import type { Draft } from "./site-plan.ts";
import { scanTree } from "./tree.ts";
import type { NamedTree, Source, Tree } from "./tree.ts";
import { openUnfinished, removeUnfinished } from "./unfinished.ts";
import { mapWide, openSlots, slots } from "./work.ts";
import type { Progress } from "./work.ts";

/** Releases further back than those with deltas, from which sites come by chains of deltas that are there already. */
export const CHAIN = 3;

export interface NewRelease {
  /** A folder for the whole tree, or several trees, each with the name of its directory in the release. */
  readonly folder: string | readonly NamedTree[];
  readonly app: string;
  readonly version: string;
  readonly platform: string;
  /** From how many of the previous releases there are deltas. */
  readonly deltas: number;
  /** For how many releases before those there are chains; {@link CHAIN} when not given. */
  readonly chain?: number | undefined;
  /** Of zstd, from 1 to 19, for whole files; chosen by the size of the tree when not given. */
  readonly level?: number | undefined;
}

export interface Added {
  readonly document: ReleaseDocument;
  readonly release: Release;
  /** False when the repository had it already. */
  readonly isNew: boolean;
  /** Bytes of a first installation. */
  readonly fullBytes: number;
  /** Bytes of an update from each of the previous releases. */
  readonly updates: readonly { readonly from: string; readonly bytes: number }[];
}

/**
 * @throws EdgeSyncError TREE_INVALID, RELEASE_INVALID when the version exists with another content, KEY_INVALID, and as the disk
 */
export async function addRelease(
  repository: Repository,
  keyring: Keyring,
  wanted: NewRelease,
  now: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<Added> {
  const { app, version, platform } = wanted;
  const role = appRole(app);
  const path = manifestPath(app, version, platform);
  const run = openSlots();
  const tree = await scanTree(wanted.folder, run, progress, signal);
  await refuseKeysInTree(tree.sources, keyring.folder);
  const published = listReleases(repository, { app, platform });
  if (published.some((item) => item.path === path)) {
    const { release, document } = await readPublished(repository, role, path, signal);
    refuseOther(release, tree, path);
    await removeUnfinished(repository);
    return { document, release, isNew: false, fullBytes: document.fullBytes, updates: [] };
  }
  // Before any work: a missing key is told at once.
  refuseFull(repository, role);
  const signers = await findSigners(repository, keyring, role);
  const earlier: PublishedRelease[] = [];
  // The newest also when there shall be no deltas: its packs are used again.
  for (const item of published.slice(0, Math.max(1, wanted.deltas)))
    earlier.push(await readPublished(repository, role, item.path, signal));
  const releases = earlier.map((item) => item.release);
  const bases = releases.slice(0, wanted.deltas);
  const further: PublishedRelease[] = [];
  const reach = wanted.deltas + (wanted.chain ?? CHAIN);
  for (const item of wanted.deltas === 0 ? [] : published.slice(wanted.deltas, reach))
    further.push(await readPublished(repository, role, item.path, signal));
  await using unfinished = await openUnfinished(repository);
  const treeBytes = tree.sources.reduce((sum, source) => sum + source.size, 0);
  const level = wanted.level ?? levelFor(treeBytes);
  const threads = slots();
  await using deltas = openDeltas(run);
  const blobs = openBlobMaker({
    repository,
    earlier: releases,
    unfinished,
    level,
    threads,
    run,
    deltas,
    progress,
  });
  const basesOf = findBases(tree, bases);
  progress.begin("compressing");
  for (const source of tree.sources) progress.expect(source.size * (1 + basesOf(source).length));
  // More than there are slots: while some are compressed, others are read and written.
  const made = await mapWide(tree.sources, threads * 4, (source) =>
    blobs.make(source, basesOf(source), signal),
  );
  const chained = further.map((item) => item.release);
  const draft = { contents: made, steps: await carryOver(made, bases, chained, blobs) };
  const prepared = { bases, further: chained };
  const packed = await packContents(draft, releases[0], prepared, blobs, repository);
  const { packs, contents, steps } = packed;
  const served = further.filter(({ release }) =>
    packs.some(({ from }) => from === release.version),
  );
  const { entries } = tree;
  const digest = treeDigest({ entries, contents });
  const { release, manifest } = await writeManifest(
    repository,
    {
      app,
      version,
      platform,
      tree: digest,
      entries,
      contents,
      steps,
      packs,
    },
    [...earlier.slice(0, wanted.deltas), ...served].map((item) => item.document.manifest),
    { run, deltas },
    signal,
  );
  const sizes = bytesOf(packed, [...bases, ...served.map((item) => item.release)]);
  const document: ReleaseDocument = {
    schema: 1,
    app,
    version,
    platform,
    tree: digest,
    manifest,
    entries: entries.length,
    bytes: contents.reduce((sum, content) => sum + content.size, 0),
    fullBytes: sizes.fullBytes,
  };
  const bytes = serialize(document);
  // What clients will do with it; a document that they would refuse is not published.
  parseReleaseDocument(bytes);
  progress.end();
  signal.throwIfAborted();
  const order = 1 + Math.max(0, ...published.map((item) => item.order));
  const change = {
    role,
    paths: [`releases/${app}/*/*`],
    targets: [{ path, bytes, custom: { order } }],
  };
  await publish(repository, keyring, signers, change, now);
  await unfinished.remove();
  return { document, release, isNew: true, ...sizes };
}

function refuseOther(published: Release, tree: Tree, path: string): void {
  const { entries } = published;
  const same =
    entries.length === tree.entries.length &&
    tree.entries.every((entry, index) => isDeepStrictEqual(entries.at(index), entry));
  if (!same)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `${path} is published with another content; a version never changes`,
    );
}

/** Contents that stood, in earlier releases, where this one stands now; none from a release that has it anyway. */
function findBases(tree: Tree, bases: readonly Release[]): (source: Source) => readonly string[] {
  const paths = Map.groupBy(tree.entries.filter(isFile), (entry) => entry.sha256);
  const olds = bases.map((release) => ({ release, byPath: changedFiles(tree, release) }));
  return ({ sha256 }) => {
    const found = new Set<string>();
    for (const { release, byPath } of olds) {
      if (release.find(sha256) !== undefined) continue;
      const old = paths.get(sha256)?.map((entry) => byPath.get(entry.path));
      const first = old?.find((item) => item !== undefined);
      if (first !== undefined) found.add(first);
    }
    return [...found];
  };
}

/** The contents of an earlier release at paths where another one stands now. */
function changedFiles(tree: Tree, release: Release): ReadonlyMap<string, string> {
  const present = new Map(tree.entries.filter(isFile).map((entry) => [entry.path, entry.sha256]));
  const changed = new Map<string, string>();
  for (const entry of release.entries) {
    if (entry.type !== "file") continue;
    const now = present.get(entry.path);
    if (now !== undefined && now !== entry.sha256) changed.set(entry.path, entry.sha256);
  }
  return changed;
}

function bytesOf(draft: Draft, bases: readonly Release[]): Pick<Added, "fullBytes" | "updates"> {
  const total = (blobs: Iterable<{ readonly sha256: string; readonly size: number }>): number => {
    const sizes = new Map<string, number>();
    for (const { sha256, size } of blobs) sizes.set(sha256, size);
    return sizes.values().reduce((sum, size) => sum + size, 0);
  };
  return {
    fullBytes: draft.contents.reduce((sum, { full }) => sum + full.size, 0),
    updates: bases.map((base) => ({ from: base.version, bytes: total(neededFrom(base, draft)) })),
  };
}
