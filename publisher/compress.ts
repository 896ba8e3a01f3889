/**
 * Files to full blobs: zstd frames as `core/delta/full.ts` decodes them, or the file itself where compression gains nothing. What comes
 * out depends on the bytes and the level alone, and not on how many processors there are.
 */
import { createHash, hash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { Readable, pipeline } from "node:stream";
import { promisify } from "node:util";
import { constants, createZstdCompress, zstdCompress } from "node:zlib";
import { FULL_WINDOW_LOG } from "#core/delta/full.ts";
import { readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";

/** What takes longest, and makes the fewest bytes. */
export const HIGHEST_LEVEL = 19;
/** Eight per cent more bytes for a tenth of the time. */
const QUICK_LEVEL = 12;
/** Bytes of a tree from which on the highest level would take more than some minutes on two processors. */
const LARGE_TREE = 1024 ** 3;

/** Bytes of a file that is compressed in one go. */
export const SMALL_FILE = 1024 * 1024;
/** Bytes of a file that is compressed by several threads at once; a frame of theirs is not the same as that of one alone. */
export const LARGE_FILE = 64 * 1024 * 1024;

const compressSmall = promisify(zstdCompress);

/** The level for a tree for which none was chosen: it must not depend on the machine. */
export function levelFor(treeBytes: number): number {
  return treeBytes > LARGE_TREE ? QUICK_LEVEL : HIGHEST_LEVEL;
}

export interface Plain {
  readonly path: string;
  readonly size: number;
}

/** The frame of a file of at most {@link SMALL_FILE} bytes, and the digest of what was read. */
export async function compressInMemory(
  source: Plain,
  level: number,
): Promise<{ readonly plain: Buffer; readonly frame: Buffer; readonly of: string }> {
  const plain = await readFile(source.path);
  const frame = await compressSmall(plain, {
    // Without it zstd makes tables for a file of any size, which takes it a hundred times as long as a small one.
    pledgedSrcSize: plain.length,
    chunkSize: Math.max(1024, Math.min(256 * 1024, plain.length + 128)),
    params: parameters(plain.length, level),
  });
  return { plain, frame, of: hash("sha256", plain) };
}

/**
 * The frame of a file of any size, in memory that does not depend on it.
 *
 * @param out path of the frame, which must not exist
 * @param level of zstd, from 1 to 19
 * @param threads for a file of {@link LARGE_FILE} bytes and more
 * @param read told of every piece that was read
 */
export async function compressFile(
  source: Plain,
  out: string,
  { level, threads }: { readonly level: number; readonly threads: number },
  read: (bytes: number) => void,
  signal: AbortSignal,
): Promise<Spooled & { readonly of: string }> {
  const digest = createHash("sha256");
  async function* input(): AsyncIterable<Uint8Array> {
    for await (const chunk of readRange(source.path, 0, source.size)) {
      signal.throwIfAborted();
      digest.update(chunk);
      read(chunk.length);
      yield chunk;
    }
  }
  const encoder = createZstdCompress({
    pledgedSrcSize: source.size,
    chunkSize: 256 * 1024,
    params: {
      ...parameters(source.size, level),
      ...(source.size >= LARGE_FILE && { [constants.ZSTD_c_nbWorkers]: Math.max(1, threads) }),
    },
  });
  // Its error destroys the encoder, so that spool meets it.
  pipeline(Readable.from(input(), { objectMode: false }), encoder, () => undefined);
  const spooled = await spool(out, encoder);
  return { ...spooled, of: digest.digest("hex") };
}

function parameters(size: number, level: number): Record<number, number> {
  return {
    [constants.ZSTD_c_compressionLevel]: level,
    // Never above what clients decode with; smaller for small files.
    [constants.ZSTD_c_windowLog]: Math.min(
      FULL_WINDOW_LOG,
      Math.max(10, Math.ceil(Math.log2(size + 1))),
    ),
  };
}

/** Bytes of each stretch that is tried. */
const SAMPLE = 64 * 1024;

/**
 * Whether compression would gain anything, by a quick try of eight stretches. Pictures, archives and encrypted files would else take most
 * of the time of a large release, for nothing.
 */
export async function isCompressible({ path, size }: Plain): Promise<boolean> {
  if (size < 16 * SAMPLE) return true;
  await using file = await open(path, "r");
  const sample = Buffer.alloc(8 * SAMPLE);
  for (let index = 0; index < 8; index++)
    await file.read(sample, index * SAMPLE, SAMPLE, Math.floor((index * (size - SAMPLE)) / 7));
  const frame = await compressSmall(sample, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  return frame.length < sample.length * 0.99;
}
