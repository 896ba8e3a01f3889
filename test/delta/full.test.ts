import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { constants, zstdCompressSync } from "node:zlib";
import { decodeFull } from "#core/delta/full.ts";

const file = Buffer.from("some text, some text, ".repeat(20_000));
const blob = zstdCompressSync(file);

async function* inPieces(bytes: Buffer): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 100) yield bytes.subarray(at, at + 100);
}

async function decode(
  encoding: "identity" | "zstd",
  bytes: Buffer,
  size: number = file.length,
  signal: AbortSignal = new AbortController().signal,
): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(decodeFull(encoding, inPieces(bytes), size, signal)));
}

const MISMATCH = { code: "DIGEST_MISMATCH" };

describe("a full blob", () => {
  test("makes its file, compressed or as it is", async () => {
    assert.deepEqual(await decode("zstd", blob), file);
    assert.deepEqual(await decode("identity", file), file);
    assert.deepEqual(await decode("zstd", zstdCompressSync(Buffer.alloc(0)), 0), Buffer.alloc(0));
  });

  test("of another size is refused, whichever way", async () => {
    for (const size of [file.length - 1, file.length + 1]) {
      await assert.rejects(decode("zstd", blob, size), MISMATCH);
      await assert.rejects(decode("identity", file, size), MISMATCH);
    }
  });

  test("that is cut or is no zstd at all is refused", async () => {
    await assert.rejects(decode("zstd", blob.subarray(0, blob.length - 5)), MISMATCH);
    await assert.rejects(decode("zstd", file), MISMATCH);
  });

  test("that asks for more memory than allowed is refused", async () => {
    const params = { [constants.ZSTD_c_windowLog]: 27 };
    const greedy = zstdCompressSync(Buffer.alloc(1000), { params });
    assert.deepEqual(await decode("zstd", greedy, 1000), Buffer.alloc(1000));
    // A frame header with a window of 2^27 bytes and no content size: RFC 8878, 3.1.1.1.
    const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0x01, 0x00, 0x00]);
    await assert.rejects(decode("zstd", header, 0), MISMATCH);
  });

  test("lets the failure of its source through", async () => {
    const failure = new Error("link is down");
    async function* source(): AsyncIterable<Uint8Array> {
      yield blob.subarray(0, 10);
      throw failure;
    }
    const made = decodeFull("zstd", source(), file.length, new AbortController().signal);
    await assert.rejects(Array.fromAsync(made), failure);
  });

  test("ends with the reason when it is cancelled", async () => {
    const stop = new AbortController();
    const reason = new Error("stop");
    stop.abort(reason);
    await assert.rejects(decode("zstd", blob, file.length, stop.signal), reason);
    await assert.rejects(decode("identity", file, file.length, stop.signal), reason);
  });
});
