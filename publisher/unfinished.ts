/**
 * What a release being added has made so far, so that a run that was interrupted is not begun anew. Blobs that will be files of their
 * own go to their place at once, where nothing refers to them yet; small ones are gathered in one file until they are packed. A journal
 * says what came of which content. It is a help and not a promise: what does not read back as it should is made again.
 */
import { createHash } from "node:crypto";
import { open, rm, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import * as s from "valibot";
import type { Encoding } from "#core/release.ts";
import { diskError, makeFolder, place, readIfExists } from "./files.ts";
import { blobFile } from "./repository.ts";
import type { Repository } from "./repository.ts";

/** In the repository, beside what is served; names that begin with a dot are never published. */
export const UNFINISHED_NAME = ".unfinished";

/** Where the bytes of a blob are: a file of their own, or a part of another. */
export interface Location {
  readonly file: string;
  readonly offset: number;
  readonly size: number;
}

const line = s.object({
  /** What it was made from: digest and level of a full blob, digest and base and codec of a delta. */
  key: s.string(),
  /** Null when there is no delta for this pair. */
  sha256: s.nullable(s.pipe(s.string(), s.regex(/^[0-9a-f]{64}$/))),
  size: s.pipe(s.number(), s.safeInteger(), s.minValue(0)),
  encoding: s.optional(s.picklist(["identity", "zstd"])),
  /** In the file of small blobs; absent for one at its place in the repository. */
  offset: s.optional(s.pipe(s.number(), s.safeInteger(), s.minValue(0))),
});
type Line = s.InferOutput<typeof line>;

export interface Made {
  readonly sha256: string;
  readonly size: number;
  readonly encoding: Encoding;
  readonly location: Location;
}

export interface Unfinished extends AsyncDisposable {
  /** What an interrupted run has made of the same; null for what it found not to be possible. */
  find(key: string): Made | null | undefined;
  /** Keeps a small blob. */
  keep(key: string, bytes: Uint8Array, sha256: string, encoding: Encoding): Promise<Made>;
  /** Keeps a blob that is a file, and gives it its place in the repository. */
  keepFile(
    key: string,
    file: { readonly path: string; readonly size: number; readonly sha256: string },
    encoding: Encoding,
  ): Promise<Made>;
  /** Remembers that there is nothing. */
  keepNothing(key: string): Promise<void>;
  /** Everything has been published. */
  remove(): Promise<void>;
}

export async function openUnfinished(repository: Repository): Promise<Unfinished> {
  const folder = join(repository.path, UNFINISHED_NAME);
  const journalPath = join(folder, "journal");
  const smallPath = join(folder, "small");
  await makeFolder(folder);
  const found = await readJournal(journalPath, smallPath, repository);
  await using cleanup = new AsyncDisposableStack();
  const journal = cleanup.use(await open(journalPath, "a", 0o600));
  const small = cleanup.use(await open(smallPath, "a", 0o600));
  const owned = cleanup.move();
  let { size: end } = await small.stat();
  let turn: Promise<unknown> = Promise.resolve();

  /** One write after the other. */
  async function write(file: FileHandle, bytes: Uint8Array | string): Promise<void> {
    const mine = turn.then(() => file.appendFile(bytes));
    turn = mine.catch(() => undefined);
    try {
      await mine;
    } catch (error) {
      throw diskError(error, folder);
    }
  }

  const note = (entry: Line): Promise<void> => write(journal, `${JSON.stringify(entry)}\n`);

  return {
    find: (key) => found.get(key),
    async keep(key, bytes, sha256, encoding) {
      const { length: size } = bytes;
      const offset = end;
      end += size;
      await write(small, bytes);
      await note({ key, sha256, size, encoding, offset });
      return { sha256, size, encoding, location: { file: smallPath, offset, size } };
    },
    async keepFile(key, { path, size, sha256 }, encoding) {
      const file = blobFile(repository, sha256);
      await place(path, file);
      await note({ key, sha256, size, encoding });
      return { sha256, size, encoding, location: { file, offset: 0, size } };
    },
    keepNothing: (key) => note({ key, sha256: null, size: 0 }),
    async remove() {
      await owned.disposeAsync();
      await rm(folder, { recursive: true, force: true });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Takes away what is left of a run that was killed after it had published. */
export async function removeUnfinished({ path }: Pick<Repository, "path">): Promise<void> {
  await rm(join(path, UNFINISHED_NAME), { recursive: true, force: true });
}

/** What the journal says, as far as it is true. */
async function readJournal(
  journalPath: string,
  smallPath: string,
  repository: Repository,
): Promise<Map<string, Made | null>> {
  const found = new Map<string, Made | null>();
  const text = (await readIfExists(journalPath))?.toString() ?? "";
  const lines = text.split("\n").flatMap((item) => {
    const parsed = s.safeParse(line, parseJson(item));
    return parsed.success ? [parsed.output] : [];
  });
  if (lines.length === 0) return found;
  await using small = await open(smallPath, "a+");
  for (const { key, sha256, size, encoding = "identity", offset } of lines) {
    if (sha256 === null) {
      found.set(key, null);
      continue;
    }
    const file = offset === undefined ? blobFile(repository, sha256) : smallPath;
    const location = { file, offset: offset ?? 0, size };
    const there =
      offset === undefined
        ? await stat(file).then(
            (stats) => stats.size === size,
            () => false,
          )
        : await holds(small, location, sha256);
    if (there) found.set(key, { sha256, size, encoding, location });
  }
  return found;
}

/** A last line may be half written. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function holds(
  file: FileHandle,
  { offset, size }: Location,
  sha256: string,
): Promise<boolean> {
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await file.read(bytes, 0, size, offset);
  return bytesRead === size && createHash("sha256").update(bytes).digest("hex") === sha256;
}
