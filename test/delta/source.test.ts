import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { setImmediate, setTimeout } from "node:timers/promises";
import { describe, test } from "node:test";
import { brotliCompressSync, constants, zstdCompressSync } from "node:zlib";
import { METHODS, READY_BYTES, openSource } from "#core/delta/source.ts";
import type { ByteSource } from "#core/delta/source.ts";
import { never } from "../support/delta.ts";

const CHUNK_BYTES = 16 * 1024;
/** What a decompressor makes at a time. */
const PIECE_BYTES = 32 * 1024;
const ZEROS = Buffer.alloc(PIECE_BYTES);

// Bytes that are never 0, and hardly compress: whoever writes them to the wrong place is seen.
const CONTENT = randomFillSync(Buffer.alloc(2_000_000)).map((byte) => byte | 1);
const QUICK = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };
const PACKED = [
  ["brotli", METHODS.brotli, brotliCompressSync(CONTENT, QUICK)],
  ["zstd", METHODS.zstd, zstdCompressSync(CONTENT)],
] as const;

function open(method: number, packed: Buffer): ByteSource {
  let at = 0;
  const pull = async (): Promise<Uint8Array | undefined> => {
    const chunk = packed.subarray(at, at + CHUNK_BYTES);
    at += chunk.length;
    return chunk.length === 0 ? undefined : chunk;
  };
  return openSource(method, pull, packed.length);
}

describe("a compressed stream", () => {
  for (const [name, method, packed] of PACKED)
    // glibc ends a process whose heap has been written over, which it was here.
    test(`is let go of while its decompressor works, and nothing else is written over: ${name}`, async () => {
      for (let round = 0; round < 40; round++) {
        const source = open(method, packed);
        for (let turn = round % 20; turn > 0; turn--) {
          source.at = source.end;
          await source.ready(READY_BYTES, never);
        }
        source.at = source.end;
        const asked = source.ready(READY_BYTES, never);
        if (round % 2 === 0) await setImmediate();
        source.close();
        const others = Array.from({ length: 64 }, () => Buffer.from(new ArrayBuffer(PIECE_BYTES)));
        await setTimeout(2);
        assert.ok(others.every((other) => other.equals(ZEROS)));
        // It is of no use any more, whether it came to an end or not.
        void asked.catch(() => undefined);
      }
    });
});
