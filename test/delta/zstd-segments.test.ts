import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import process from "node:process";
import { describe, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import * as fc from "fast-check";
import { decoderOf, knownCodecs } from "#core/delta/codec.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";
import { encodeDelta } from "#core/delta/encode.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

function inMemory(bytes: Buffer): RandomAccess & { readonly reads: number[] } {
  const reads: number[] = [];
  return {
    size: bytes.length,
    reads,
    readInto(into, position) {
      reads.push(into.length);
      assert.ok(position >= 0 && position + into.length <= bytes.length);
      into.set(bytes.subarray(position, position + into.length));
      return Promise.resolve();
    },
  };
}

async function encode(old: Buffer, target: Buffer): Promise<Buffer> {
  const parts = await Array.fromAsync(
    encodeDelta(inMemory(old), inMemory(target), (work) => work(), signal),
  );
  return Buffer.concat(parts);
}

async function* inPieces(bytes: Buffer, size: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function decode(
  old: Buffer,
  delta: Buffer,
  size: number,
  piece: number = 1000,
): Promise<Buffer> {
  const decoder = decoderOf("zstd-segments");
  assert.ok(decoder);
  const parts: Uint8Array[] = [];
  let made = 0;
  for await (const part of decoder.apply(inMemory(old), inPieces(delta, piece), size, signal)) {
    made += part.length;
    assert.ok(made <= size);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Bytes that do not compress, the same for the same seed. */
function noise(length: number, seed: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(
    Buffer.alloc(length),
  );
}

const INVALID = { code: "DELTA_INVALID" };

describe("a delta", () => {
  test("makes the new file from the old one, for any two files", async () => {
    const bytes = fc.uint8Array({ maxLength: 3000 }).map((array) => Buffer.from(array));
    const edited = fc.tuple(bytes, fc.nat(), bytes).map(([old, at, added]) => {
      const cut = old.length === 0 ? 0 : at % old.length;
      return [old, Buffer.concat([old.subarray(0, cut), added, old.subarray(cut)])] as const;
    });
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(edited, fc.tuple(bytes, bytes)),
        fc.integer({ min: 1, max: 500 }),
        async ([old, target], piece) => {
          const delta = await encode(old, target);
          assert.deepEqual(await decode(old, delta, target.length, piece), target);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("of a file that has moved inside is a small part of it", async () => {
    const [a, b] = [noise(6 * MIB, 1), noise(2 * MIB, 2)];
    const old = Buffer.concat([a, b]);
    const target = Buffer.concat([b, Buffer.from("new"), a]);
    const delta = await encode(old, target);
    assert.deepEqual(await decode(old, delta, target.length, 65_536), target);
    assert.ok(delta.length < target.length / 5, `${delta.length} bytes`);
  });

  test("of equal files is the same bytes each time", async () => {
    const [old, target] = [noise(50_000, 1), noise(60_000, 1)];
    assert.deepEqual(await encode(old, target), await encode(old, target));
  });

  test("works when a window begins with zstd's dictionary magic", async () => {
    const old = Buffer.concat([Buffer.from([0x37, 0xa4, 0x30, 0xec]), noise(10_000, 3)]);
    const target = Buffer.concat([Buffer.from("x"), old]);
    const delta = await encode(old, target);
    assert.ok(delta.length < 1000);
    assert.deepEqual(await decode(old, delta, target.length), target);
  });

  test("of an empty file, or from one, works too", async () => {
    for (const [old, target] of [
      ["", "new"],
      ["old", ""],
      ["", ""],
    ] as const) {
      const delta = await encode(Buffer.from(old), Buffer.from(target));
      assert.equal((await decode(Buffer.from(old), delta, target.length)).toString(), target);
    }
  });
});

describe("the decoder", () => {
  const old = Buffer.concat([noise(20_000, 5), Buffer.alloc(5000, "text ")]);
  const target = Buffer.concat([old.subarray(3000), noise(2000, 6), old.subarray(0, 8000)]);

  test("is known by the name that manifests use", () => {
    assert.deepEqual(knownCodecs, ["zstd-segments"]);
    assert.equal(decoderOf("other"), undefined);
  });

  test("refuses a delta that is cut anywhere", async () => {
    const delta = await encode(old, target);
    for (let end = 0; end < delta.length; end += Math.ceil(delta.length / 60))
      await assert.rejects(decode(old, delta.subarray(0, end), target.length), INVALID);
  });

  test("refuses what comes after the last segment", async () => {
    const delta = Buffer.concat([await encode(old, target), Buffer.from([0])]);
    await assert.rejects(decode(old, delta, target.length), INVALID);
  });

  test("refuses another size than the signed one", async () => {
    const delta = await encode(old, target);
    await assert.rejects(decode(old, delta, target.length + 1), INVALID);
    await assert.rejects(decode(old, delta, target.length - 1), INVALID);
  });

  test("checks every field of the headers before it reads or allocates", async () => {
    const delta = await encode(old, target);
    const changes: readonly ((bytes: Buffer) => void)[] = [
      (bytes) => bytes.writeUInt8(0, 0),
      (bytes) => bytes.writeUInt32LE(2, 4),
      (bytes) => bytes.writeBigUInt64LE(2n ** 63n, 8),
      (bytes) => bytes.writeUInt32LE(0, 16),
      (bytes) => bytes.writeUInt32LE(0xffff_ffff, 16),
      (bytes) => bytes.writeUInt32LE(0, 20),
      (bytes) => bytes.writeUInt32LE(0xffff_ffff, 20),
      (bytes) => bytes.writeUInt32LE(0xffff_ffff, 24),
      (bytes) => bytes.writeUInt32LE(old.length + 1, 24),
      (bytes) => bytes.writeBigUInt64LE(2n ** 64n - 1n, 28),
      (bytes) => bytes.writeBigUInt64LE(1n, 28),
    ];
    for (const change of changes) {
      const bytes = Buffer.from(delta);
      change(bytes);
      await assert.rejects(decode(old, bytes, target.length), INVALID);
    }
  });

  test("stops a frame that makes more than its header says", async () => {
    const frame = zstdCompressSync(Buffer.alloc(64 * MIB));
    const header = Buffer.alloc(36);
    header.write("ESZS");
    header.writeUInt32LE(1, 4);
    header.writeBigUInt64LE(1000n, 8);
    header.writeUInt32LE(1000, 16);
    header.writeUInt32LE(frame.length, 20);
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(decode(old, Buffer.concat([header, frame]), 1000), INVALID);
    assert.ok(process.memoryUsage().arrayBuffers - before < 8 * MIB);
  });

  test("answers mutated deltas with an error or with bytes of the right size, never otherwise", async () => {
    const delta = await encode(old, target);
    const mutation = fc.record({
      at: fc.nat(delta.length - 1),
      value: fc.nat(255),
      cut: fc.nat(3),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 6 }), async (mutations) => {
        let bytes = Buffer.from(delta);
        for (const { at, value, cut } of mutations) {
          const place = at % bytes.length;
          bytes[place] = value;
          if (cut === 0)
            bytes = Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + 1)]);
        }
        try {
          assert.equal((await decode(old, bytes, target.length)).length, target.length);
        } catch (error) {
          assert.ok(
            error instanceof Error && "code" in error && error.code === "DELTA_INVALID",
            String(error),
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  test("ends with the reason when it is cancelled, and closes its source", async () => {
    const delta = await encode(old, target);
    const stop = new AbortController();
    const reason = new Error("stop");
    let closed = false;
    async function* source(): AsyncIterable<Uint8Array> {
      try {
        yield delta.subarray(0, 20);
        stop.abort(reason);
        yield delta.subarray(20, 30);
        yield delta.subarray(30);
      } finally {
        closed = true;
      }
    }
    const made = decoderOf("zstd-segments")?.apply(
      inMemory(old),
      source(),
      target.length,
      stop.signal,
    );
    assert.ok(made);
    await assert.rejects(Array.fromAsync(made), reason);
    assert.ok(closed);
  });

  test("passes on what its source throws", async () => {
    const failure = new Error("link is down");
    async function* source(): AsyncIterable<Uint8Array> {
      yield Buffer.from("ESZS");
      throw failure;
    }
    const made = decoderOf("zstd-segments")?.apply(inMemory(old), source(), 10, signal);
    assert.ok(made);
    await assert.rejects(Array.fromAsync(made), failure);
  });
});
