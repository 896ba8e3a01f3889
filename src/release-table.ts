/**
 * The compact form of a release: columns of numbers, digests as bytes and paths as UTF-8, all outside of the garbage collector's heap.
 * A file takes about 150 bytes and a delta about 90, a third of what objects take, so that a sidecar can hold the old and the new
 * release of 50,000 files at once.
 */
import { EdgeSyncError } from "./errors.ts";
import type {
  Content,
  DeltaBlob,
  Entry,
  FullBlob,
  List,
  Pack,
  Place,
  PlacedBlob,
  Release,
  ReleaseName,
} from "./release.ts";

/** Entries of one release. */
export const MAX_ENTRIES = 250_000;
/** Packs of one release. */
export const MAX_PACKS = 256;

/** Bytes that the compact form of one release may take: a sidecar holds two of them within the limit that the webhook gives it. */
export const TABLE_LIMIT = 28 * 1024 * 1024;

export function invalid(problem: string): EdgeSyncError {
  return new EdgeSyncError("RELEASE_INVALID", `release manifest: ${problem}`);
}

type Numbers = Uint8Array | Uint16Array | Uint32Array | Float64Array;

interface Column<T extends Numbers> {
  push(value: number): void;
  length(): number;
  bytes(): number;
  /** The values, in as little room as they need. */
  done(): T;
}

function openColumn<T extends Numbers>(make: (length: number) => T): Column<T> {
  let values = make(256);
  let length = 0;
  return {
    push(value) {
      if (length === values.length) {
        const larger = make(length * 2);
        larger.set(values);
        values = larger;
      }
      values[length++] = value;
    },
    length: () => length,
    bytes: () => length * values.BYTES_PER_ELEMENT,
    done() {
      const exact = make(length);
      exact.set(values.subarray(0, length));
      return exact;
    },
  };
}

/** Bytes one after the other. */
function openBytes(): {
  push(text: string, encoding: "utf8" | "hex"): number;
  length(): number;
  done(): Buffer;
} {
  let bytes = Buffer.alloc(4096);
  let length = 0;
  return {
    push(text, encoding) {
      const size = Buffer.byteLength(text, encoding);
      if (length + size > bytes.length) {
        const larger = Buffer.alloc(Math.max(bytes.length * 2, length + size));
        larger.set(bytes);
        bytes = larger;
      }
      length += bytes.write(text, length, encoding);
      return size;
    },
    length: () => length,
    done: () => Buffer.from(Uint8Array.prototype.slice.call(bytes, 0, length).buffer),
  };
}

/** Bytes of a SHA-256. */
const DIGEST = 32;

const DIRECTORY = 0;
const FILE = 1;
const SYMLINK = 2;
const ENCODINGS = ["identity", "zstd"] as const;

export interface ReleaseBuilder {
  readonly packs: readonly Pack[];
  addPack(pack: Pack): void;
  /** The number that the next content will have. */
  contents(): number;
  /** @param content what a file consists of; without it, an earlier one with this digest */
  add(entry: Entry, content: Content | undefined): void;
  /** @throws EdgeSyncError RELEASE_INVALID when a content is missing or there twice */
  done(head: ReleaseName & { readonly tree: string }): Release;
}

export function openReleaseBuilder(): ReleaseBuilder {
  const packs: Pack[] = [];
  const codecs: string[] = [];
  const text = openBytes();
  const digests = {
    content: openBytes(),
    blob: openBytes(),
    base: openBytes(),
    alias: openBytes(),
  };
  const bytes = (length: number): Uint8Array => new Uint8Array(length);
  const short = (length: number): Uint16Array => new Uint16Array(length);
  const whole = (length: number): Uint32Array => new Uint32Array(length);
  const large = (length: number): Float64Array => new Float64Array(length);
  const entry = {
    kind: openColumn(bytes),
    mode: openColumn(short),
    text: openColumn(whole),
    pathLength: openColumn(short),
    /** Of a file the number of its content, of a symlink the length of its target, which stands after its path. */
    more: openColumn(whole),
  };
  const content = {
    size: openColumn(large),
    encoding: openColumn(bytes),
    /** Number of the first of its blobs: the full one, then the deltas. */
    blob: openColumn(whole),
    entry: openColumn(whole),
  };
  const blob = { size: openColumn(large), place: openColumn(whole) };
  const delta = { codec: openColumn(bytes) };
  const place = { pack: openColumn(short), offset: openColumn(large) };
  /** Files whose content stands with an earlier entry, found when all digests are known. */
  const alias = { entry: openColumn(whole) };
  const columns = [entry, content, blob, delta, place, alias].flatMap((table) =>
    Object.values<Column<Numbers>>(table),
  );

  function refuseTooMuch(): void {
    if (entry.kind.length() > MAX_ENTRIES) throw invalid(`more than ${MAX_ENTRIES} entries`);
    let taken = text.length();
    for (const column of columns) taken += column.bytes();
    for (const column of Object.values(digests)) taken += column.length();
    if (taken > TABLE_LIMIT)
      throw invalid(`it takes more than ${TABLE_LIMIT} bytes of memory; make fewer deltas`);
  }

  function addBlob({ sha256, size, places }: PlacedBlob): void {
    digests.blob.push(sha256, "hex");
    blob.size.push(size);
    blob.place.push(place.pack.length());
    for (const { pack, offset } of places) {
      place.pack.push(pack);
      place.offset.push(offset);
    }
  }

  function codecNumber(name: string): number {
    const known = codecs.indexOf(name);
    if (known >= 0) return known;
    if (codecs.length === 256) throw invalid("more than 256 codecs");
    return codecs.push(name) - 1;
  }

  return {
    packs,
    addPack(pack) {
      if (packs.length === MAX_PACKS) throw invalid(`more than ${MAX_PACKS} packs`);
      packs.push(pack);
    },
    contents: () => content.size.length(),
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
        content.blob.push(blob.size.length());
        content.entry.push(number);
        addBlob(itsContent.full);
        for (const itsDelta of itsContent.deltas) {
          digests.base.push(itsDelta.base, "hex");
          delta.codec.push(codecNumber(itsDelta.codec));
          addBlob(itsDelta);
        }
      }
      // Now and then: a manifest cannot grow by much between two of these.
      if (number % 256 === 0) refuseTooMuch();
    },
    done(head) {
      refuseTooMuch();
      const all = {
        text: text.done(),
        kind: entry.kind.done(),
        mode: entry.mode.done(),
        start: entry.text.done(),
        pathLength: entry.pathLength.done(),
        more: entry.more.done(),
        contentDigest: digests.content.done(),
        contentSize: content.size.done(),
        encoding: content.encoding.done(),
        firstBlob: content.blob.done(),
        firstEntry: content.entry.done(),
        blobDigest: digests.blob.done(),
        blobSize: blob.size.done(),
        firstPlace: blob.place.done(),
        baseDigest: digests.base.done(),
        codec: delta.codec.done(),
        placePack: place.pack.done(),
        placeOffset: place.offset.done(),
        codecs,
        packs,
      };
      const order = sortDigests(all.contentDigest);
      const missing = alias.entry.done();
      const wanted = digests.alias.done();
      for (let index = 0; index < missing.length; index++) {
        const number = missing[index] ?? 0;
        const found = search(all.contentDigest, order, wanted.subarray(index * DIGEST));
        if (found === undefined || (all.firstEntry[found] ?? 0) > number)
          throw invalid(`${pathAt(all, number)} has no content`);
        all.more[number] = found;
      }
      return releaseOf(head, all, order);
    },
  };
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
  readonly firstBlob: Uint32Array;
  readonly firstEntry: Uint32Array;
  readonly blobDigest: Buffer;
  readonly blobSize: Float64Array;
  readonly firstPlace: Uint32Array;
  readonly baseDigest: Buffer;
  readonly codec: Uint8Array;
  readonly placePack: Uint16Array;
  readonly placeOffset: Float64Array;
  readonly codecs: readonly string[];
  readonly packs: readonly Pack[];
}

/** Numbers of contents in the order of their digests. */
function sortDigests(digests: Buffer): Uint32Array {
  const order = Uint32Array.from({ length: digests.length / DIGEST }, (_, index) => index);
  order.sort((a, b) => compare(digests, a, digests, b));
  for (let index = 1; index < order.length; index++)
    if (compare(digests, order[index - 1] ?? 0, digests, order[index] ?? 0) === 0)
      throw invalid(`the content ${digestAt(digests, order[index] ?? 0)} is listed twice`);
  return order;
}

function compare(a: Buffer, first: number, b: Buffer, second: number): number {
  // Nearly always enough, and quicker.
  const difference = a.readUInt32BE(first * DIGEST) - b.readUInt32BE(second * DIGEST);
  if (difference !== 0) return difference;
  return a.compare(b, second * DIGEST, (second + 1) * DIGEST, first * DIGEST, (first + 1) * DIGEST);
}

function search(digests: Buffer, order: Uint32Array, wanted: Buffer): number | undefined {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compare(digests, order[middle] ?? 0, wanted, 0) < 0) low = middle + 1;
    else high = middle;
  }
  const found = order[low];
  return found !== undefined && compare(digests, found, wanted, 0) === 0 ? found : undefined;
}

function digestAt(digests: Buffer, index: number): string {
  return digests.toString("hex", index * DIGEST, (index + 1) * DIGEST);
}

function pathAt({ text, start, pathLength }: Columns, index: number): string {
  const from = start[index] ?? 0;
  return text.toString("utf8", from, from + (pathLength[index] ?? 0));
}

function releaseOf(
  head: ReleaseName & { readonly tree: string },
  all: Columns,
  order: Uint32Array,
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

  function blobAt(index: number): PlacedBlob {
    const places: Place[] = [];
    const end = all.firstPlace[index + 1] ?? all.placePack.length;
    for (let at = all.firstPlace[index] ?? 0; at < end; at++)
      places.push({ pack: all.placePack[at] ?? 0, offset: all.placeOffset[at] ?? 0 });
    return { sha256: digestAt(all.blobDigest, index), size: all.blobSize[index] ?? 0, places };
  }

  function contentAt(index: number): Content {
    const first = all.firstBlob[index] ?? 0;
    const end = all.firstBlob[index + 1] ?? all.blobSize.length;
    const encoding = ENCODINGS[all.encoding[index] ?? 0] ?? "identity";
    const full: FullBlob = { ...blobAt(first), encoding };
    const deltas: DeltaBlob[] = [];
    for (let at = first + 1; at < end; at++) {
      // Each content before this one, and this one, has one blob that is no delta.
      const number = at - index - 1;
      const codec = all.codecs[all.codec[number] ?? 0] ?? "";
      deltas.push({ ...blobAt(at), base: digestAt(all.baseDigest, number), codec });
    }
    const sha256 = digestAt(all.contentDigest, index);
    return { sha256, size: all.contentSize[index] ?? 0, full, deltas };
  }

  return {
    app,
    version,
    platform,
    tree,
    packs: all.packs,
    entries: listOf(all.kind.length, entryAt),
    contents: listOf(all.contentSize.length, contentAt),
    contentOf: (entry) => (all.kind[entry] === FILE ? all.more[entry] : undefined),
    firstEntryOf: (content) => all.firstEntry[content] ?? 0,
    find: (sha256) => search(all.contentDigest, order, Buffer.from(sha256, "hex")),
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
