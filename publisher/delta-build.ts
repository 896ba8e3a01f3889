/**
 * Deltas made afterwards: from releases that were not among the last ones when a release was added. The tree, the full blobs and the
 * deltas that are there stay as they are; the release gets another manifest with more deltas, and a pack for each new step.
 */
import { stat } from "node:fs/promises";
import { serialize } from "#core/document.ts";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { parseReleaseDocument } from "#core/release-document.ts";
import type { Content, DeltaBlob, Pack, PlacedBlob, Release } from "#core/release.ts";
import { appRole, listReleases } from "./catalog.ts";
import type { Listed } from "./catalog.ts";
import { openDeltas } from "./deltas.ts";
import type { Deltas } from "./deltas.ts";
import { place, readRange, spool } from "./files.ts";
import type { Keyring } from "./keys.ts";
import { readPublished, writeManifest } from "./manifests.ts";
import type { PublishedRelease } from "./manifests.ts";
import { PACKED_BELOW } from "./packs.ts";
import { findSigners, publish } from "./publish.ts";
import { transferOf } from "./release-diff.ts";
import { blobFile } from "./repository.ts";
import type { Repository } from "./repository.ts";
import { openSlots } from "./work.ts";
import type { Progress } from "./work.ts";

/** A delta is kept only when it is smaller than this part of the compressed full blob. */
const WORTH = 0.9;

export interface BuiltStep {
  readonly from: string;
  /** Deltas that there were not before. */
  readonly made: number;
  /** Bytes that an update transfers, before and now. */
  readonly before: number;
  readonly after: number;
}

/**
 * @param to the release that gets the deltas
 * @param from earlier or later ones, of the same app and platform
 * @throws EdgeSyncError KEY_INVALID, RELEASE_INVALID, DIGEST_MISMATCH, REPOSITORY_INVALID, and as the disk
 */
export async function buildDeltas(
  repository: Repository,
  keyring: Keyring,
  to: Listed,
  from: readonly Listed[],
  { now, progress }: { readonly now: number; readonly progress: Progress },
  signal: AbortSignal,
): Promise<readonly BuiltStep[]> {
  const role = appRole(to.app);
  const signers = await findSigners(repository, keyring, role);
  const read = (listed: Listed): Promise<PublishedRelease> =>
    readPublished(repository, role, listed.path, signal);
  const { release: old, document } = await read(to);
  const bases: PublishedRelease[] = [];
  for (const listed of from) bases.push(await read(listed));
  const run = openSlots();
  await using deltas = openDeltas(run);
  const build = openBuild(repository, old, deltas, progress, signal);
  const steps: { base: Release; made: number }[] = [];
  for (const { release } of bases) steps.push({ base: release, made: await build.from(release) });
  const before = bases.map(({ release }) => transferOf(old, release).bytes);
  let next = old;
  if (steps.some(({ made }) => made > 0)) {
    const known = new Set(document.manifest.deltas.map(({ base }) => base));
    const earlier = new Map(bases.map((base) => [base.document.manifest.sha256, base]));
    for (const listed of listReleases(repository, to)) {
      const other = listed.path === to.path ? undefined : await read(listed);
      if (other !== undefined && known.has(other.document.manifest.sha256))
        earlier.set(other.document.manifest.sha256, other);
    }
    const { app, version, platform, tree } = old;
    const written = await writeManifest(
      repository,
      { app, version, platform, tree, entries: old.entries, steps: old.steps, ...build.parts() },
      [...earlier.values()].map((item) => item.document.manifest),
      { run, deltas },
      signal,
    );
    next = written.release;
    const bytes = serialize({ ...document, manifest: written.manifest });
    parseReleaseDocument(bytes);
    progress.end();
    signal.throwIfAborted();
    const target = { path: to.path, bytes, custom: { order: to.order } };
    await publish(repository, keyring, signers, { role, paths: [], targets: [target] }, now);
  }
  return steps.map(({ base, made }, at) => ({
    from: base.version,
    made,
    before: before[at] ?? 0,
    after: transferOf(next, base).bytes,
  }));
}

interface Build {
  /** Makes what is missing for one step. @returns how many deltas */
  from(base: Release): Promise<number>;
  /** What the manifest lists then. */
  parts(): { readonly contents: readonly Content[]; readonly packs: readonly Pack[] };
}

function openBuild(
  repository: Repository,
  release: Release,
  deltas: Deltas,
  progress: Progress,
  signal: AbortSignal,
): Build {
  const packs: Pack[] = [...release.packs];
  /** New deltas by the digest of their content. */
  const added = new Map<string, DeltaBlob[]>();

  async function from(base: Release): Promise<number> {
    /** Small ones, which travel together. */
    const small: { readonly content: string; readonly delta: DeltaBlob; readonly file: string }[] =
      [];
    let made = 0;
    for (const [content, old] of changedContents(release, base)) {
      signal.throwIfAborted();
      const known = [...content.deltas, ...(added.get(content.sha256) ?? [])];
      if (known.some((delta) => delta.base === old.sha256)) continue;
      progress.expect(content.size);
      const oldFile = await contentFile(repository, base, old, signal);
      const newFile = await contentFile(repository, release, content, signal);
      const target = { path: newFile, sha256: content.sha256, size: content.size };
      const advance = (bytes: number): void => progress.advance(bytes, content.sha256);
      const delta = await deltas.make(oldFile, target, repository.temporary(), advance, signal);
      if (delta === undefined || delta.size >= content.full.size * WORTH) continue;
      const { sha256, size, codec } = delta;
      const blob: DeltaBlob = { sha256, size, places: [], base: old.sha256, codec };
      made++;
      if (size < PACKED_BELOW)
        small.push({ content: content.sha256, delta: blob, file: delta.path });
      else {
        await place(delta.path, blobFile(repository, sha256));
        note(content.sha256, blob);
      }
    }
    await pack(base.version, small);
    return made;
  }

  function note(content: string, delta: DeltaBlob): void {
    const known = added.get(content);
    if (known === undefined) added.set(content, [delta]);
    else known.push(delta);
  }

  async function pack(
    version: string,
    small: readonly {
      readonly content: string;
      readonly delta: DeltaBlob;
      readonly file: string;
    }[],
  ): Promise<void> {
    if (small.length === 0) return;
    const offsets = new Map<string, number>();
    let end = 0;
    async function* bytes(): AsyncIterable<Uint8Array> {
      for (const { delta, file } of small) {
        if (offsets.has(delta.sha256)) continue;
        offsets.set(delta.sha256, end);
        end += delta.size;
        yield* readRange(file, 0, delta.size);
      }
    }
    const file = await spool(repository.temporary(), bytes());
    await place(file.path, blobFile(repository, file.sha256));
    const number = packs.push({ from: version, sha256: file.sha256, size: file.size }) - 1;
    for (const { content, delta } of small)
      note(content, {
        ...delta,
        places: [{ pack: number, offset: offsets.get(delta.sha256) ?? 0 }],
      });
  }

  return {
    from,
    parts: () => ({
      packs,
      contents: Array.from(release.contents, (content) => ({
        ...content,
        deltas: [...content.deltas, ...(added.get(content.sha256) ?? [])],
      })),
    }),
  };
}

/** Contents that the base has not, with what stood in the base where they stand now. */
function changedContents(release: Release, base: Release): ReadonlyMap<Content, Content> {
  const old = new Map<string, string>();
  for (const entry of base.entries) if (entry.type === "file") old.set(entry.path, entry.sha256);
  const found = new Map<number, Content>();
  for (const entry of release.entries) {
    if (entry.type !== "file" || base.find(entry.sha256) !== undefined) continue;
    const number = release.find(entry.sha256);
    const path = old.get(entry.path);
    const before = path === undefined ? undefined : base.find(path);
    if (number === undefined || before === undefined || found.has(number)) continue;
    found.set(number, base.contents.at(before));
  }
  return new Map([...found].map(([number, before]) => [release.contents.at(number), before]));
}

/** A published content as a file. @throws EdgeSyncError DIGEST_MISMATCH, REPOSITORY_INVALID */
async function contentFile(
  repository: Repository,
  release: Release,
  content: Content,
  signal: AbortSignal,
): Promise<string> {
  const { full, sha256, size } = content;
  const { file, offset } = locate(repository, release, full);
  await stat(file).catch((cause: unknown) => {
    throw new EdgeSyncError("REPOSITORY_INVALID", `${file} is missing`, { cause });
  });
  const decoded = decodeFull(full.encoding, readRange(file, offset, full.size), size, signal);
  const out = await spool(repository.temporary(), decoded);
  if (out.sha256 !== sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `blob ${full.sha256} makes another file`);
  return out.path;
}

function locate(
  repository: Repository,
  { packs }: Release,
  { sha256, places }: PlacedBlob,
): { readonly file: string; readonly offset: number } {
  const [first] = places;
  const holder = first === undefined ? sha256 : (packs[first.pack]?.sha256 ?? sha256);
  return { file: blobFile(repository, holder), offset: first?.offset ?? 0 };
}
