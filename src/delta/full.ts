/** Full blobs: a file as it is, or one zstd frame of it. */
import { Readable, promises } from "node:stream";
import { constants, createZstdDecompress } from "node:zlib";
import { EdgeSyncError } from "../errors.ts";

/** The most that decoding holds: 2^23 bytes. It is what zstd takes by itself at level 19. */
export const FULL_WINDOW_LOG = 23;

/**
 * The file that a full blob holds, piece by piece; exactly `size` bytes, or an error. The caller hashes them.
 *
 * @param size bytes of the file, from the signed manifest
 * @throws EdgeSyncError DIGEST_MISMATCH when the blob does not make a file of that size; what `blob` throws passes unchanged
 */
export async function* decodeFull(
  encoding: "identity" | "zstd",
  blob: AsyncIterable<Uint8Array>,
  size: number,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  let rest = size;
  for await (const chunk of encoding === "zstd" ? decompress(blob, signal) : blob) {
    signal.throwIfAborted();
    rest -= chunk.length;
    if (rest < 0) throw mismatch(`makes more than the signed ${size} bytes`);
    yield chunk;
  }
  if (rest > 0) throw mismatch(`makes ${size - rest} of the signed ${size} bytes`);
}

function mismatch(problem: string, cause?: unknown): EdgeSyncError {
  return new EdgeSyncError("DIGEST_MISMATCH", `full blob ${problem}`, { cause });
}

async function* decompress(
  blob: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const decoder = createZstdDecompress({
    chunkSize: 64 * 1024,
    params: { [constants.ZSTD_d_windowLogMax]: FULL_WINDOW_LOG },
  });
  let failure: { readonly error: unknown } | undefined;
  async function* input(): AsyncIterable<Uint8Array> {
    const iterator = blob[Symbol.asyncIterator]();
    const next = async (): Promise<IteratorResult<Uint8Array, unknown>> => {
      try {
        return await iterator.next();
      } catch (error) {
        // Told apart from the decoder's error, which a stream throws into its source as well.
        failure = { error };
        throw error;
      }
    };
    try {
      for (let item = await next(); item.done !== true; item = await next()) yield item.value;
    } finally {
      await iterator.return?.();
    }
  }
  const feeding = promises.pipeline(Readable.from(input(), { objectMode: false }), decoder, {
    signal,
  });
  // Its error also destroys the decoder, so that the loop below meets it.
  feeding.catch(() => undefined);
  try {
    yield* decoder;
    await feeding;
  } catch (error) {
    signal.throwIfAborted();
    if (failure !== undefined) throw failure.error;
    throw mismatch("cannot be decompressed", error);
  }
}
