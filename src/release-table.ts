/**
 * The compact form of a release: columns of numbers, digests as bytes and paths as UTF-8, all outside of the garbage collector's heap.
 * A file takes about 150 bytes and a delta about 90, a third of what objects take, so that a sidecar can hold the old and the new
 * release of 50,000 files at once.
 */
import {
  DIGEST,
  bytesOf,
  digestAt,
  invalid,
  large,
  openBlobs,
  openBytes,
  openColumn,
  searchDigest,
  short,
  sortDigests,
  whole,
} from "./release-columns.ts";
import type { Column, Numbers } from "./release-columns.ts";
import type {
  Content,
  DeltaBlob,
  Entry,
  List,
  Pack,
  PlacedBlob,
  Release,
  ReleaseName,
  Step,
} from "./release.ts";

/** Entries of one release. */
export const MAX_ENTRIES = 250_000;
/** Packs of one release. */
export const MAX_PACKS = 256;

/** Bytes that the compact form of one release may take: a sidecar holds two of them within the limit that the webhook gives it. */
export const TABLE_LIMIT = 28 * 1024 * 1024;

const DIRECTORY = 0;
const FILE = 1;
const SYMLINK = 2;
const ENCODINGS = ["identity", "zstd"] as const;

export interface ReleaseBuilder {
  readonly packs: readonly Pack[];
  addPack(pack: Pack): void;
  /** @param content what a file consists of; without it, an earlier one with this digest */
  add(entry: Entry, content: Content | undefined): void;
  addStep(step: Step): void;
  /** @throws EdgeSyncError RELEASE_INVALID when a content is missing, or one or a step is there twice */
  done(head: ReleaseName & { readonly tree: string }): Release;
}

export function openReleaseBuilder(): ReleaseBuilder {
  const packs: Pack[] = [];
  const codecs: string[] = [];
  const text = openBytes();
  const digests = {
    content: openBytes(),
    step: openBytes(),
    base: openBytes(),
    alias: openBytes(),
  };
  const entry = {
    kind: openColumn(bytesOf),
    mode: openColumn(short),
    text: openColumn(whole),
    pathLength: openColumn(short),
    /** Of a file the number of its content; of a symlink the length of its target, which stands behind its path. */
    more: openColumn(whole),
  };
  /** Both have some of the deltas, one behind the other. */
  const content = {
    size: openColumn(large),
    encoding: openColumn(bytesOf),
    /** First entry that has it. */
    entry: openColumn(whole),
    delta: openColumn(whole),
    deltas: openColumn(short),
  };
  const step = { size: openColumn(large), delta: openColumn(whole), deltas: openColumn(short) };
  const codec = openColumn(bytesOf);
  /** Full blobs by the number of their content, and deltas. */
  const blobs = { full: openBlobs(), delta: openBlobs() };
  /** Files whose content stands with an earlier entry, found when all digests are known. */
  const alias = { entry: openColumn(whole) };
  const columns = [
    codec,
    ...[entry, content, step, alias].flatMap((table) => Object.values<Column<Numbers>>(table)),
  ];

  function refuseTooMuch(): void {
    if (entry.kind.length() > MAX_ENTRIES) throw invalid(`more than ${MAX_ENTRIES} entries`);
    let taken = text.length() + blobs.full.bytes() + blobs.delta.bytes();
    for (const column of columns) taken += column.bytes();
    for (const column of Object.values(digests)) taken += column.length();
    if (taken > TABLE_LIMIT)
      throw invalid(`it takes more than ${TABLE_LIMIT} bytes of memory; make fewer deltas`);
  }

  function codecNumber(name: string): number {
    const known = codecs.indexOf(name);
    if (known >= 0) return known;
    if (codecs.length === 256) throw invalid("more than 256 codecs");
    return codecs.push(name) - 1;
  }

  function addDeltas(owner: typeof content | typeof step, deltas: readonly DeltaBlob[]): void {
    owner.delta.push(codec.length());
    owner.deltas.push(deltas.length);
    for (const delta of deltas) {
      digests.base.push(delta.base, "hex");
      codec.push(codecNumber(delta.codec));
      blobs.delta.add(delta);
    }
  }

  return {
    packs,
    addPack(pack) {
      if (packs.length === MAX_PACKS) throw invalid(`more than ${MAX_PACKS} packs`);
      packs.push(pack);
    },
    add(item, itsContent) {
      const number = entry.kind.length();
      entry.kind.push(
        item.type === "directory" ? DIRECTORY : item.type === "file" ? FILE : SYMLINK,
      );
      entry.mode.push(item.type === "symlink" ? 0 : item.mode);
      entry.text.push(text.length());
      entry.pathLength.push(text.push(item.path, "utf8"));
      if (item.type === "directory") entry.more.push(0);
      else if (item.type === "symlink") entry.more.push(text.push(item.target, "utf8"));
      else if (itsContent === undefined) {
        entry.more.push(0);
        alias.entry.push(number);
        digests.alias.push(item.sha256, "hex");
      } else {
        entry.more.push(content.size.length());
        digests.content.push(itsContent.sha256, "hex");
        content.size.push(itsContent.size);
        content.encoding.push(ENCODINGS.indexOf(itsContent.full.encoding));
        content.entry.push(number);
        blobs.full.add(itsContent.full);
        addDeltas(content, itsContent.deltas);
      }
      // Now and then: a manifest cannot grow by much between two of these.
      if (number % 256 === 0) refuseTooMuch();
    },
    addStep({ sha256, size, deltas }) {
      digests.step.push(sha256, "hex");
      step.size.push(size);
      addDeltas(step, deltas);
      if (step.size.length() % 256 === 0) refuseTooMuch();
    },
    done(head) {
      refuseTooMuch();
      const all: Columns = {
        text: text.done(),
        kind: entry.kind.done(),
        mode: entry.mode.done(),
        start: entry.text.done(),
        pathLength: entry.pathLength.done(),
        more: entry.more.done(),
        contentDigest: digests.content.done(),
        contentSize: content.size.done(),
        encoding: content.encoding.done(),
        firstEntry: content.entry.done(),
        contentDeltas: { first: content.delta.done(), count: content.deltas.done() },
        stepDigest: digests.step.done(),
        stepSize: step.size.done(),
        stepDeltas: { first: step.delta.done(), count: step.deltas.done() },
        baseDigest: digests.base.done(),
        codec: codec.done(),
        fullAt: blobs.full.done(),
        deltaAt: blobs.delta.done(),
        codecs,
        packs,
      };
      const { order, twice } = sortDigests(all.contentDigest);
      if (twice !== undefined) throw invalid(`the content ${twice} is listed twice`);
      const steps = sortDigests(all.stepDigest);
      if (steps.twice !== undefined) throw invalid(`the step ${steps.twice} is listed twice`);
      const missing = alias.entry.done();
      const wanted = digests.alias.done();
      for (let index = 0; index < missing.length; index++) {
        const number = missing[index] ?? 0;
        const found = searchDigest(all.contentDigest, order, wanted.subarray(index * DIGEST));
        if (found === undefined || (all.firstEntry[found] ?? 0) > number)
          throw invalid(`${pathAt(all, number)} has no content`);
        all.more[number] = found;
      }
      return releaseOf(head, all, order, steps.order);
    },
  };
}

/** Which of the deltas belong to what has this number. */
interface Stretches {
  readonly first: Uint32Array;
  readonly count: Uint16Array;
}

interface Columns {
  readonly text: Buffer;
  readonly kind: Uint8Array;
  readonly mode: Uint16Array;
  readonly start: Uint32Array;
  readonly pathLength: Uint16Array;
  readonly more: Uint32Array;
  readonly contentDigest: Buffer;
  readonly contentSize: Float64Array;
  readonly encoding: Uint8Array;
  readonly firstEntry: Uint32Array;
  readonly contentDeltas: Stretches;
  readonly stepDigest: Buffer;
  readonly stepSize: Float64Array;
  readonly stepDeltas: Stretches;
  readonly baseDigest: Buffer;
  readonly codec: Uint8Array;
  readonly fullAt: (content: number) => PlacedBlob;
  readonly deltaAt: (delta: number) => PlacedBlob;
  readonly codecs: readonly string[];
  readonly packs: readonly Pack[];
}

function pathAt({ text, start, pathLength }: Columns, index: number): string {
  const from = start[index] ?? 0;
  return text.toString("utf8", from, from + (pathLength[index] ?? 0));
}

function releaseOf(
  head: ReleaseName & { readonly tree: string },
  all: Columns,
  order: Uint32Array,
  stepOrder: Uint32Array,
): Release {
  const { app, version, platform, tree } = head;

  function entryAt(index: number): Entry {
    const path = pathAt(all, index);
    const mode = all.mode[index] ?? 0;
    const more = all.more[index] ?? 0;
    if (all.kind[index] === DIRECTORY) return { type: "directory", path, mode };
    if (all.kind[index] === FILE)
      return { type: "file", path, mode, sha256: digestAt(all.contentDigest, more) };
    const end = (all.start[index] ?? 0) + (all.pathLength[index] ?? 0);
    return { type: "symlink", path, target: all.text.toString("utf8", end, end + more) };
  }

  function deltasOf({ first, count }: Stretches, index: number): readonly DeltaBlob[] {
    const deltas: DeltaBlob[] = [];
    const from = first[index] ?? 0;
    for (let at = from; at < from + (count[index] ?? 0); at++) {
      const codec = all.codecs[all.codec[at] ?? 0] ?? "";
      deltas.push({ ...all.deltaAt(at), base: digestAt(all.baseDigest, at), codec });
    }
    return deltas;
  }

  function contentAt(index: number): Content {
    const encoding = ENCODINGS[all.encoding[index] ?? 0] ?? "identity";
    return {
      sha256: digestAt(all.contentDigest, index),
      size: all.contentSize[index] ?? 0,
      full: { ...all.fullAt(index), encoding },
      deltas: deltasOf(all.contentDeltas, index),
    };
  }

  function stepAt(index: number): Step {
    return {
      sha256: digestAt(all.stepDigest, index),
      size: all.stepSize[index] ?? 0,
      deltas: deltasOf(all.stepDeltas, index),
    };
  }

  return {
    app,
    version,
    platform,
    tree,
    packs: all.packs,
    entries: listOf(all.kind.length, entryAt),
    contents: listOf(all.contentSize.length, contentAt),
    steps: listOf(all.stepSize.length, stepAt),
    contentOf: (entry) => (all.kind[entry] === FILE ? all.more[entry] : undefined),
    firstEntryOf: (content) => all.firstEntry[content] ?? 0,
    find: (sha256) => searchDigest(all.contentDigest, order, Buffer.from(sha256, "hex")),
    findStep: (sha256) => searchDigest(all.stepDigest, stepOrder, Buffer.from(sha256, "hex")),
  };
}

function listOf<T>(length: number, at: (index: number) => T): List<T> {
  return {
    length,
    at(index) {
      if (!(index >= 0 && index < length)) throw new RangeError(`${index} is not below ${length}`);
      return at(index);
    },
    *[Symbol.iterator]() {
      for (let index = 0; index < length; index++) yield at(index);
    },
  };
}
