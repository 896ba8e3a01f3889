/**
 * The manifest of a release as JSON lines: the head, the packs, and then each entry of the tree in path order. A file that is the
 * first with its content says how to get it. Lines of what did not change are the same from one release to the next, so that a
 * manifest compresses against its predecessor to little more than the change.
 *
 *     {"schema":1,"app":"web","version":"1.4.0","platform":"linux-arm64","tree":"<sha256>"}
 *     {"pack":"<sha256>","size":51234,"from":null}
 *     {"directory":"bin","mode":493}
 *     {"file":"bin/web","mode":493,"sha256":"<sha256>","size":9,"full":{"encoding":"zstd","sha256":"<sha256>","size":8,"in":[[0,123]]}}
 *     {"file":"bin/web2","mode":493,"sha256":"<sha256>"}
 *     {"symlink":"bin/www","target":"web"}
 *
 * A file may carry steps, by which sites that are further behind come to a base of its deltas; each stands with the first file that
 * needs it. Readers that do not know them pass over them:
 *
 *     {"file":…,"deltas":[{"base":"<B>",…}],"steps":[{"sha256":"<B>","size":7,"deltas":[{"base":"<A>",…}]}]}
 *
 * By the time it is read its bytes are authentic; they are checked all the same, because a publisher can be wrong. It is read piece by
 * piece into the compact form, so that memory has a bound that does not depend on what the lines hold.
 */
import * as s from "valibot";
import { name, platform, version } from "./document.ts";
import { openTreeDigest } from "./release.ts";
import type {
  Content,
  DeltaBlob,
  Entry,
  PlacedBlob,
  Release,
  ReleaseName,
  ReleaseParts,
  Step,
} from "./release.ts";
import { invalid } from "./release-columns.ts";
import { openReleaseBuilder } from "./release-table.ts";
import { comparePaths, isTreePath, parentOf, staysInside } from "./tree-path.ts";

/**
 * Bytes. 50,000 files that all have deltas from three releases take 45 MB as text. What this can cost in memory is bounded more
 * tightly, by the compact form's own limit.
 */
export const MANIFEST_LIMIT = 64 * 1024 * 1024;

/** Bytes: a path of 4,096 bytes, and deltas from many releases. */
const LINE_LIMIT = 64 * 1024;

const digest = s.pipe(s.string(), s.regex(/^[0-9a-f]{64}$/, "a sha256 in lower-case hex"));
const size = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
const mode = s.pipe(s.number(), s.safeInteger(), s.minValue(0), s.maxValue(0o777));
const path = s.pipe(s.string(), s.check(isTreePath, "a relative path inside the tree"));
const places = s.optional(s.array(s.tuple([size, size])));

const headLine = s.object({ schema: s.literal(1), app: name, version, platform, tree: digest });
const packLine = s.object({ pack: digest, size, from: s.nullable(version) });
const directoryLine = s.object({ directory: path, mode });
const linkTarget = s.pipe(s.string(), s.minLength(1), s.maxLength(4096));
const symlinkLine = s.object({ symlink: path, target: linkTarget });
const fileLine = s.object({ file: path, mode, sha256: digest });
const deltas = s.array(
  s.object({
    base: digest,
    codec: s.pipe(s.string(), s.regex(/^[a-z0-9-]{1,32}$/)),
    sha256: digest,
    size,
    in: places,
  }),
);
const contentLine = s.object({
  ...fileLine.entries,
  size,
  full: s.variant("encoding", [
    // The blob is the file.
    s.object({ encoding: s.literal("identity"), in: places }),
    s.object({ encoding: s.literal("zstd"), sha256: digest, size, in: places }),
  ]),
  deltas: s.optional(deltas),
  steps: s.optional(s.array(s.object({ sha256: digest, size, deltas }))),
});
type DeltaLine = s.InferOutput<typeof deltas>[number];

/** The lines of a manifest, each with its end. */
export function* formatManifest(
  parts: ReleaseParts & { readonly tree: string },
): Generator<string> {
  const contents = new Map<string, Content>();
  for (const content of parts.contents) contents.set(content.sha256, content);
  const steps = new Map<string, Step>();
  for (const step of parts.steps) steps.set(step.sha256, step);
  const { app, version, platform, tree } = parts;
  yield line({ schema: 1, app, version, platform, tree });
  for (const { sha256, size, from } of parts.packs) yield line({ pack: sha256, size, from });
  for (const entry of parts.entries) {
    if (entry.type === "directory") yield line({ directory: entry.path, mode: entry.mode });
    else if (entry.type === "symlink") yield line({ symlink: entry.path, target: entry.target });
    else {
      const { path, mode, sha256 } = entry;
      const content = contents.get(sha256);
      contents.delete(sha256);
      yield line({ file: path, mode, sha256, ...(content && contentFields(content, steps)) });
    }
  }
}

/** @param steps that have not been written yet; those that are needed here are taken out */
function contentFields({ size, full, deltas }: Content, steps: Map<string, Step>): object {
  const needed: Step[] = [];
  const bases = deltas.map(({ base }) => base);
  // The list grows while it is gone through, by the bases of the steps themselves.
  for (const base of bases) {
    const step = steps.get(base);
    if (step === undefined) continue;
    steps.delete(base);
    needed.push(step);
    bases.push(...step.deltas.map((delta) => delta.base));
  }
  return {
    size,
    full: {
      encoding: full.encoding,
      ...(full.encoding === "zstd" && { sha256: full.sha256, size: full.size }),
      ...placesField(full),
    },
    ...(deltas.length > 0 && { deltas: deltas.map(deltaFields) }),
    ...(needed.length > 0 && {
      steps: needed.map((step) => ({
        sha256: step.sha256,
        size: step.size,
        deltas: step.deltas.map(deltaFields),
      })),
    }),
  };
}

function deltaFields(delta: DeltaBlob): object {
  const { base, codec, sha256, size } = delta;
  return { base, codec, sha256, size, ...placesField(delta) };
}

function placesField({ places }: PlacedBlob): object {
  return places.length > 0 ? { in: places.map(({ pack, offset }) => [pack, offset]) } : {};
}

function line(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

export interface ManifestReader {
  /** @throws EdgeSyncError RELEASE_INVALID as soon as it is known */
  take(bytes: Uint8Array): void;
  /** @throws EdgeSyncError RELEASE_INVALID */
  done(): Release;
}

export function openManifestReader(): ManifestReader {
  const lines = openLineReader();
  let rest: Buffer = Buffer.alloc(0);
  let taken = 0;
  return {
    take(bytes) {
      taken += bytes.length;
      if (taken > MANIFEST_LIMIT) throw invalid(`more than ${MANIFEST_LIMIT} bytes`);
      let start = 0;
      for (;;) {
        const end = bytes.indexOf(0x0a, start);
        if (end < 0) break;
        const piece = bytes.subarray(start, end);
        lines.take(rest.length === 0 ? piece : Buffer.concat([rest, piece]));
        rest = Buffer.alloc(0);
        start = end + 1;
      }
      if (rest.length + bytes.length - start > LINE_LIMIT)
        throw invalid(`a line of more than ${LINE_LIMIT} bytes`);
      rest = Buffer.concat([rest, bytes.subarray(start)]);
    },
    done() {
      if (rest.length > 0) throw invalid("its last line has no end");
      return lines.done();
    },
  };
}

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseManifest(bytes: Uint8Array): Release {
  const reader = openManifestReader();
  reader.take(bytes);
  return reader.done();
}

/** What a reader would make of parts; a test or a publisher has it from here. */
export function releaseOf(parts: ReleaseParts & { readonly tree: string }): Release {
  const reader = openManifestReader();
  for (const text of formatManifest(parts)) reader.take(Buffer.from(text));
  return reader.done();
}

function openLineReader(): ManifestReader {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const builder = openReleaseBuilder();
  const tree = openTreeDigest();
  /** Sizes of contents by number, for files that share one. */
  let head: (ReleaseName & { readonly tree: string }) | undefined;
  /** The directories that contain the previous entry, the innermost last; "" is the tree itself. */
  const open = [""];
  let previous = "";
  let number = 0;
  let entries = 0;

  function add(entry: Entry, content: Content | undefined): void {
    const { path } = entry;
    if (entries > 0 && comparePaths(previous, path) >= 0)
      throw invalid(`${path} is listed twice or out of order`);
    const parent = parentOf(path);
    while (open.length > 1 && open.at(-1) !== parent) open.pop();
    if (open.at(-1) !== parent) throw invalid(`${path} has no parent directory`);
    if (entry.type === "directory") open.push(path);
    if (entry.type === "symlink" && !staysInside(path, entry.target))
      throw invalid(`${path} points outside the tree`);
    builder.add(entry, content);
    previous = path;
    entries += 1;
  }

  function read<T>(schema: s.GenericSchema<unknown, T>, json: unknown): T {
    const result = s.safeParse(schema, json, { abortEarly: true });
    if (result.success) return result.output;
    const issue = result.issues[0];
    const where = s.getDotPath(issue) ?? "all of it";
    throw invalid(`line ${number}: ${where} must be ${issue.message}`);
  }

  function takeFile(json: object): void {
    if (!("full" in json)) {
      const { file: path, mode, sha256 } = read(fileLine, json);
      add({ type: "file", path, mode, sha256 }, undefined);
      return;
    }
    const line = read(contentLine, json);
    const { file: path, mode, sha256, size, full, deltas = [], steps = [] } = line;
    const blob =
      full.encoding === "identity" ? { sha256, size } : { sha256: full.sha256, size: full.size };
    const content: Content = {
      sha256,
      size,
      full: { ...placed(blob, full.in), encoding: full.encoding },
      deltas: deltas.map(deltaOf),
    };
    add({ type: "file", path, mode, sha256 }, content);
    for (const step of steps) builder.addStep({ ...step, deltas: step.deltas.map(deltaOf) });
  }

  function deltaOf({ base, codec, sha256, size, in: found }: DeltaLine): DeltaBlob {
    return { ...placed({ sha256, size }, found), base, codec };
  }

  function placed(
    blob: { readonly sha256: string; readonly size: number },
    found: readonly (readonly [number, number])[] | undefined,
  ): PlacedBlob {
    const places = (found ?? []).map(([number, offset]) => {
      const pack = builder.packs[number];
      if (pack === undefined) throw invalid(`there is no pack ${number}`);
      if (offset + blob.size > pack.size) throw invalid("a part reaches beyond its pack");
      return { pack: number, offset };
    });
    return { ...blob, places };
  }

  return {
    take(bytes) {
      number += 1;
      if (bytes.length > LINE_LIMIT) throw invalid(`a line of more than ${LINE_LIMIT} bytes`);
      let json: unknown;
      try {
        json = JSON.parse(decoder.decode(bytes));
      } catch {
        throw invalid(`line ${number} is not JSON in UTF-8`);
      }
      if (typeof json !== "object" || json === null) throw invalid(`line ${number} is no object`);
      if (head === undefined) head = read(headLine, json);
      else if ("file" in json) takeFile(json);
      else if ("directory" in json) {
        const { directory: path, mode } = read(directoryLine, json);
        add({ type: "directory", path, mode }, undefined);
      } else if ("symlink" in json) {
        const { symlink: path, target } = read(symlinkLine, json);
        add({ type: "symlink", path, target }, undefined);
      } else {
        if (entries > 0) throw invalid(`line ${number} is no entry`);
        const { pack: sha256, size, from } = read(packLine, json);
        builder.addPack({ sha256, size, from });
      }
    },
    done() {
      if (head === undefined) throw invalid("it is empty");
      const release = builder.done(head);
      for (let index = 0; index < release.entries.length; index++) {
        const content = release.contentOf(index);
        tree.add(
          release.entries.at(index),
          content === undefined ? 0 : release.contents.at(content).size,
        );
      }
      if (tree.done() !== release.tree) throw invalid("tree is not the digest of the entries");
      return release;
    },
  };
}
