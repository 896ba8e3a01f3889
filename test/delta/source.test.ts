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
const CONTENT = Buffer.from(randomFillSync(Buffer.alloc(2_000_000)).map((byte) => byte | 1));
const QUICK = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };
const PACKED = [
  ["brotli", METHODS.brotli, brotliCompressSync(CONTENT, QUICK)],
  ["zstd", METHODS.zstd, zstdCompressSync(CONTENT)],
] as const;

function open(method: number, packed: Buffer, whole?: boolean): ByteSource {
  let at = 0;
  const pull = async (): Promise<Uint8Array | undefined> => {
    const chunk = packed.subarray(at, at + CHUNK_BYTES);
    at += chunk.length;
    return chunk.length === 0 ? undefined : chunk;
  };
  return openSource(method, pull, packed.length, whole);
}

async function readAll(source: ByteSource): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    source.at = source.end;
    await source.ready(1, never);
    if (source.at === source.end) return Buffer.concat(parts);
    parts.push(Buffer.from(source.buffer.subarray(source.at, source.end)));
  }
}

describe("a compressed stream", () => {
  const contents = [
    ["nothing", Buffer.alloc(0)],
    ["a byte", Buffer.alloc(1, 7)],
    ["what hardly compresses", CONTENT.subarray(0, 200_000)],
    ["exactly a piece", CONTENT.subarray(0, PIECE_BYTES)],
    ["a thousand times what it is compressed", Buffer.alloc(20_000_000, "abc")],
  ] as const;
  for (const [name, method, pack] of [
    ["brotli", METHODS.brotli, (bytes: Buffer) => brotliCompressSync(bytes, QUICK)],
    ["zstd", METHODS.zstd, zstdCompressSync],
  ] as const)
    for (const [what, content] of contents)
      test(`gives back ${what}, read whole or in chunks: ${name}`, async () => {
        const packed = pack(content);
        for (const whole of [true, false, undefined]) {
          const source = open(method, packed, whole);
          assert.ok((await readAll(source)).equals(content), `whole: ${whole}`);
          source.close();
        }
      });

  for (const [name, method, packed] of PACKED)
    test(`that is cut off, or changed, is refused, read whole or in chunks: ${name}`, async () => {
      const changed = Buffer.from(packed.subarray(0, 100_000));
      changed.fill(0xff, 50_000, 50_100);
      for (const bytes of [packed.subarray(0, 100_000), changed, Buffer.alloc(100, 0xff)])
        for (const whole of [true, false]) {
          const source = open(method, bytes, whole);
          await assert.rejects(readAll(source), { code: "DELTA_INVALID" });
          source.close();
        }
    });

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
