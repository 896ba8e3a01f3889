/** Files to zstd frames, as `core/delta/full.ts` decodes them. */
import { createHash } from "node:crypto";
import { Readable, pipeline } from "node:stream";
import { constants, createZstdCompress } from "node:zlib";
import { FULL_WINDOW_LOG } from "#core/delta/full.ts";
import { readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";

/** What takes longest, and makes the fewest bytes. */
export const HIGHEST_LEVEL = 19;

export interface CompressedFile extends Spooled {
  /** Digest of what was compressed. */
  readonly of: string;
}

/**
 * @param out path of the frame, which must not exist
 * @param level of zstd, from 1 to 19
 * @param read told of every piece that was read
 */
export async function compressFile(
  source: { readonly path: string; readonly size: number },
  out: string,
  level: number,
  read: (bytes: number) => void,
  signal: AbortSignal,
): Promise<CompressedFile> {
  const hash = createHash("sha256");
  async function* input(): AsyncIterable<Uint8Array> {
    for await (const chunk of readRange(source.path, 0, source.size)) {
      signal.throwIfAborted();
      hash.update(chunk);
      read(chunk.length);
      yield chunk;
    }
  }
  const encoder = createZstdCompress({
    pledgedSrcSize: source.size,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_windowLog]: windowLog(source.size),
    },
  });
  // Its error destroys the encoder, so that spool meets it.
  pipeline(Readable.from(input(), { objectMode: false }), encoder, () => undefined);
  const spooled = await spool(out, encoder);
  return { ...spooled, of: hash.digest("hex") };
}

/** Never above what clients decode with; smaller for small files. */
function windowLog(size: number): number {
  return Math.min(FULL_WINDOW_LOG, Math.max(10, Math.ceil(Math.log2(size + 1))));
}
