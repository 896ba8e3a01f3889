import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import * as fc from "../support/property.ts";
import { CODEC, knownCodecs } from "#core/delta/codec-names.ts";
import { decoderOf } from "#core/delta/codec.ts";
import { allRead } from "#core/delta/decoder.ts";
import { AARCH64, X86_64 } from "#core/delta/elf.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import { inspectDelta } from "#core/delta/inspect.ts";
import { matchHere } from "#core/delta/match.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { makeElf } from "../support/elf.ts";
import { collect, inMemory, inPieces, never } from "../support/delta.ts";

const crew = {
  run: <T>(work: () => Promise<T>): Promise<T> => work(),
  search: matchHere,
  memory: openSharedMemory(),
  advance: (): void => undefined,
};

function encode(old: Uint8Array, target: Uint8Array): Promise<Buffer> {
  return collect(encodeDelta(inMemory(old), inMemory(target), crew, never));
}

function decode(
  old: Uint8Array,
  delta: Uint8Array,
  size: number,
  step: number = 1000,
): Promise<Buffer> {
  const decoder = decoderOf(CODEC);
  assert.ok(decoder);
  return collect(decoder.apply(inMemory(old), inPieces(delta, step), size, never));
}

async function codecsOf(delta: Uint8Array): Promise<readonly string[]> {
  return (await inspectDelta(inPieces(delta, 500), never)).segments.map(({ codec }) => codec);
}

/** Bytes that do not compress, the same for the same seed. */
function noise(length: number, seed: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(
    Buffer.alloc(length),
  );
}

const INVALID = { code: "DELTA_INVALID" };
const FUNCTIONS = Array.from({ length: 1000 }, (_, index) => index + 100);

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
        async ([old, target], step) => {
          const delta = await encode(old, target);
          assert.deepEqual(await decode(old, delta, target.length, step), target);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("of a file whose parts have moved is a small part of it", async () => {
    const [a, b] = [noise(3_000_000, 1), noise(1_000_000, 2)];
    const target = Buffer.concat([b, Buffer.from("new"), a]);
    const old = Buffer.concat([a, b]);
    const delta = await encode(old, target);
    assert.deepEqual(await decode(old, delta, target.length, 65_536), target);
    assert.ok(delta.length < 150, `${delta.length} bytes`);
  });

  test("of files that have nothing in common is hardly larger than the new one", async () => {
    const [old, target] = [noise(400_000, 3), noise(400_000, 4)];
    const delta = await encode(old, target);
    assert.deepEqual(await codecsOf(delta), ["stored"]);
    assert.ok(delta.length < target.length + 64, `${delta.length} bytes`);
    assert.deepEqual(await decode(old, delta, target.length), target);
  });

  test("of equal files is the same bytes each time", async () => {
    const [old, target] = [noise(50_000, 1), noise(60_000, 1)];
    assert.deepEqual(await encode(old, target), await encode(old, target));
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

describe("a delta of executables", () => {
  /** Some functions are new, some are gone, and two groups have changed places. */
  const newer = [
    ...FUNCTIONS.slice(700, 900),
    11,
    18,
    ...FUNCTIONS.slice(0, 640),
    25,
    ...FUNCTIONS.slice(900),
  ];

  for (const [machine, base] of [
    [X86_64, 0],
    [X86_64, 0x40_0000],
    [AARCH64, 0],
  ] as const) {
    test(`knows what moved on machine ${machine} at ${base}, and is half of a plain one`, async () => {
      const old = makeElf({ machine, base, functions: FUNCTIONS });
      const target = makeElf({ machine, base, functions: newer });
      const delta = await encode(old, target);
      assert.deepEqual(await codecsOf(delta), ["placed"]);
      assert.deepEqual(await decode(old, delta, target.length, 4096), target);
      // Without its magic it is any file.
      const [hidden, other] = [Buffer.from(old), Buffer.from(target)];
      hidden[0] = 0;
      other[0] = 0;
      const plain = await encode(hidden, other);
      assert.ok(delta.length < plain.length / 2, `${delta.length} and ${plain.length} bytes`);
    });
  }

  for (const machine of [X86_64, AARCH64])
    test(`knows where a copy goes, also one of code that has not moved, on machine ${machine}`, async () => {
      const old = makeElf({ machine, base: 0, functions: FUNCTIONS.slice(0, 400) });
      // The second time they are at another place, while the first is still there: no move says so.
      const functions = [...FUNCTIONS.slice(0, 400), ...FUNCTIONS.slice(100, 200)];
      const target = makeElf({ machine, base: 0, functions });
      const delta = await encode(old, target);
      const [segment] = (await inspectDelta(inPieces(delta, 4096), never)).segments;
      const wrong = segment?.streams.find(({ name }) => name === "changes");
      assert.ok(wrong && wrong.bytes < 400, JSON.stringify(segment));
      assert.deepEqual(await decode(old, delta, target.length), target);
    });

  test("moves operands that are addresses as they are", async () => {
    const changed: number[] = [];
    for (const operands of [false, true]) {
      const elf = { machine: X86_64, base: 0x40_0000, absolute: () => operands };
      const old = makeElf({ ...elf, functions: FUNCTIONS });
      const target = makeElf({ ...elf, functions: newer });
      const delta = await encode(old, target);
      const [segment] = (await inspectDelta(inPieces(delta, 4096), never)).segments;
      changed.push(segment?.streams.find(({ name }) => name === "changes")?.bytes ?? 0);
      assert.deepEqual(await decode(old, delta, target.length), target);
    }
    // Not taken for addresses they are nearly three times those without.
    const [without = 0, moved = 0] = changed;
    assert.ok(moved < 1.7 * without, `${moved} and ${without} bytes of changes`);
  });

  test("makes the new file whatever is wrong with the headers", async () => {
    const old = makeElf({ machine: X86_64, base: 0, functions: FUNCTIONS.slice(0, 60) });
    const target = makeElf({ machine: X86_64, base: 0, functions: FUNCTIONS.slice(5, 70) });
    const change = fc.record({ old: fc.boolean(), at: fc.nat(), value: fc.nat(255) });
    const headers = (file: Buffer, at: number): number =>
      at % 2 === 0 ? (at >> 1) % 176 : file.length - 1 - ((at >> 1) % 512);
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
        const files = [Buffer.from(old), Buffer.from(target)] as const;
        for (const { old, at, value } of changes) {
          const file = files[old ? 0 : 1];
          // Not the magic: that would make it another test.
          file[Math.max(5, headers(file, at))] = value;
        }
        const delta = await encode(...files);
        assert.deepEqual(await decode(files[0], delta, target.length), files[1]);
      }),
      { numRuns: 40 },
    );
  });
});

describe("the decoder", () => {
  const old = makeElf({ machine: X86_64, base: 0, functions: FUNCTIONS.slice(0, 300) });
  const target = makeElf({
    machine: X86_64,
    base: 0,
    functions: [9, ...FUNCTIONS.slice(20, 300), 2],
  });

  test("is known by the name that manifests use", () => {
    assert.deepEqual(knownCodecs, ["edgesync-1"]);
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

  test("refuses another size than the signed one, and an old file of another size", async () => {
    const delta = await encode(old, target);
    await assert.rejects(decode(old, delta, target.length + 1), INVALID);
    await assert.rejects(decode(old, delta, target.length - 1), INVALID);
    await assert.rejects(decode(old.subarray(1), delta, target.length), INVALID);
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
        yield delta.subarray(0, 40);
        stop.abort(reason);
        yield delta.subarray(40, 50);
        yield delta.subarray(50);
      } finally {
        closed = true;
      }
    }
    const made = decoderOf(CODEC)?.apply(inMemory(old), source(), target.length, stop.signal);
    assert.ok(made);
    await assert.rejects(collect(made), reason);
    assert.ok(closed);
  });

  test("passes on what its source throws", async () => {
    const failure = new Error("link is down");
    async function* source(): AsyncIterable<Uint8Array> {
      yield Buffer.from("ED");
      throw failure;
    }
    const made = decoderOf(CODEC)?.apply(inMemory(old), source(), 10, never);
    assert.ok(made);
    await assert.rejects(collect(made), failure);
  });
});

describe("reads side by side", () => {
  test("are all waited for when one fails: the others still write into their buffers", async () => {
    const slow = Promise.withResolvers<void>();
    const order: string[] = [];
    const all = allRead([Promise.reject(new Error("a bad sector")), slow.promise]).catch(() => {
      order.push("failed");
    });
    await setImmediate();
    order.push("read");
    slow.resolve();
    await all;
    assert.deepEqual(order, ["read", "failed"]);
  });
});
