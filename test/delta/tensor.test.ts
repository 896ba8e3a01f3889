import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { containerDecoder } from "#core/delta/container.ts";
import { openWriter } from "#core/delta/numbers.ts";
import { tensor } from "#core/delta/tensor.ts";
import { WIDTHS } from "#core/delta/tensor-differences.ts";
import type { Dtype, Region } from "#core/delta/tensor-differences.ts";
import { encodeTensors } from "#core/delta/tensor-encoder.ts";
import { tensorsOf } from "#core/delta/tensor-layout.ts";
import { planTensors } from "#core/delta/tensor-plan.ts";
import { copiesMayWin } from "#core/delta/tensor-trial.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import { collect, deltaOf, inMemory, inPieces, never } from "../support/delta.ts";

const decoder = containerDecoder("tensors", [tensor]);

function apply(old: Uint8Array, delta: Uint8Array, size: number, step = 777): Promise<Buffer> {
  return collect(decoder.apply(inMemory(old), inPieces(delta, step), size, never));
}

async function roundTrip(
  old: Uint8Array,
  target: Uint8Array,
  regions: readonly Region[],
): Promise<Buffer> {
  const streams = encodeTensors(old, target, regions, never);
  assert.ok(streams !== undefined);
  const segment = {
    codec: "tensor",
    old: { offset: 0, size: old.length },
    size: target.length,
    streams,
  } as const;
  const delta = await deltaOf(old, target.length, segment, tensor);
  assert.deepEqual(await apply(old, delta, target.length), Buffer.from(target));
  return delta;
}

/** Weights, and the same after a share of them moved by a relative step. */
function moved(dtype: Dtype, count: number, share: number, sigma: number) {
  const chance = chanceFrom(count);
  const width = WIDTHS[dtype];
  const [old, target] = [new Float32Array(count), new Float32Array(count)];
  for (let index = 0; index < count; index++) {
    const value = 0.02 * chance.normal();
    old[index] = value;
    target[index] = chance.uniform() < share ? value * (1 + sigma * chance.normal()) : value;
  }
  if (width === 4) return { old: bytesOf(old), target: bytesOf(target) };
  return { old: upperHalves(old), target: upperHalves(target) };
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function upperHalves(floats: Float32Array): Uint8Array {
  return bytesOf(Uint16Array.from(new Uint32Array(floats.buffer), (word) => word >>> 16));
}

function whole(target: Uint8Array, dtype: Dtype): Region {
  return { old: 0, target: 0, size: target.length, dtype };
}

describe("the tensor codec", () => {
  for (const dtype of ["f32", "bf16", "f16"] as const)
    for (const [share, sigma] of [
      [1, 1e-3],
      [1, 1e-1],
      [0.01, 1e-2],
      [0, 0],
    ] as const)
      test(`makes ${dtype} weights of which ${share} moved by ${sigma}`, async () => {
        const { old, target } = moved(dtype, 200_000, share, sigma);
        const delta = await roundTrip(old, target, [whole(target, dtype)]);
        assert.ok(delta.length < target.length * 0.75, `${delta.length} of ${target.length}`);
      });

  test("makes any bytes from any others", async () => {
    const element = fc.constantFrom<Dtype>("f32", "f16", "bf16");
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 8, maxLength: 3000 }),
        fc.uint8Array({ minLength: 8, maxLength: 3000 }),
        fc.array(fc.tuple(element, fc.nat(), fc.nat(), fc.nat()), { maxLength: 4 }),
        async (old, target, cuts) => {
          const regions: Region[] = [];
          let at = 0;
          for (const [dtype, gap, from, length] of cuts) {
            const start = at + (gap % 9);
            const room = Math.min(target.length - start, old.length - (from % old.length));
            const size = Math.floor((length % 2000) / 4) * 4;
            if (size === 0 || size > room) continue;
            regions.push({ old: from % old.length, target: start, size, dtype });
            at = start + size;
          }
          if (regions.length > 0) await roundTrip(old, target, regions);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("costs next to nothing for rows that stay", async () => {
    const { old, target } = moved("f32", 1 << 18, 1, 1e-3);
    const kept = Buffer.from(target);
    kept.set(old.subarray(0, old.length - 4096), 0);
    const delta = await roundTrip(old, kept, [whole(kept, "f32")]);
    assert.ok(delta.length < 4096, `${delta.length}`);
  });

  test("follows floats through zero and through every exponent", async () => {
    const old = Float32Array.of(1e-30, -1e-30, 0, -0, 1, -1, Infinity, NaN, 65504, 5e-45);
    const target = Float32Array.of(-1e-30, 1e-30, -0, 0, -1, 1, NaN, -Infinity, 1e38, -5e-45);
    await roundTrip(bytesOf(old), bytesOf(target), [whole(bytesOf(target), "f32")]);
  });
});

describe("a tensor segment that is not what the format says", () => {
  async function refused(write: (control: ReturnType<typeof openWriter>) => void): Promise<void> {
    const control = openWriter();
    write(control);
    const old = Buffer.alloc(64);
    const empty = { bytes: new Uint8Array(0), codings: [] };
    const streams = tensor.streams.map((_, index) =>
      index === 0 ? { bytes: control.done(), codings: [] } : empty,
    );
    const segment = { codec: "tensor", old: { offset: 0, size: 64 }, size: 64, streams } as const;
    await assert.rejects(deltaOf(old, 64, segment, tensor), { code: "DELTA_INVALID" });
  }
  const table = (control: ReturnType<typeof openWriter>, kind = 0): void => {
    control.bytes(Uint8Array.of(1, 4, 0, 1, kind));
    if (kind === 1) control.bytes(Uint8Array.of(0, 0));
    if (kind > 0) control.bytes(Uint8Array.of(0, 0));
    control.number(4096);
    control.byte(0);
  };

  for (const [what, write] of [
    ["no table", (control) => control.bytes(Uint8Array.of(0, 0, 64, 0))],
    ["five tables", (control) => control.byte(5)],
    ["an element of three bytes", (control) => control.bytes(Uint8Array.of(1, 3))],
    ["no class", (control) => control.bytes(Uint8Array.of(1, 4, 0, 0))],
    ["a kind that is not known", (control) => control.bytes(Uint8Array.of(1, 4, 0, 1, 3))],
    ["a stream that is not there", (control) => control.bytes(Uint8Array.of(1, 4, 0, 1, 2, 0, 11))],
    [
      "a map with too many keys",
      (control) => control.bytes(Uint8Array.of(1, 4, 0, 1, 0, 255, 127)),
    ],
    [
      "an item that is too long",
      (control) => {
        table(control);
        control.bytes(Uint8Array.of(0, 68, 0, 0, 17));
      },
    ],
    [
      "old bytes outside of the old file",
      (control) => {
        table(control);
        control.bytes(Uint8Array.of(0, 64, 8, 16));
      },
    ],
    [
      "old bytes before the old file",
      (control) => {
        table(control);
        control.bytes(Uint8Array.of(0, 64, 7, 16));
      },
    ],
    [
      "runs without end",
      (control) => {
        table(control);
        control.bytes(new Uint8Array(100));
        control.bytes(Uint8Array.of(0, 64, 0, 0, 0, 0, 0));
      },
    ],
    [
      "elements without values",
      (control) => {
        table(control, 2);
        control.bytes(Uint8Array.of(0, 64, 0, 0, 16));
      },
    ],
    [
      "elements without gaps",
      (control) => {
        table(control, 1);
        control.bytes(Uint8Array.of(0, 64, 0, 0, 16));
      },
    ],
    [
      "raw bytes that are missing",
      (control) => {
        table(control);
        control.bytes(Uint8Array.of(255, 64));
      },
    ],
  ] as readonly (readonly [string, (control: ReturnType<typeof openWriter>) => void])[])
    test(`is refused: ${what}`, () => refused(write));
});

/** A file as safetensors has it. */
function safetensors(tensors: Readonly<Record<string, readonly [string, Uint8Array]>>): Buffer {
  let at = 0;
  const header = Object.fromEntries(
    Object.entries(tensors).map(([name, [dtype, { length }]]) => {
      at += length;
      return [name, { dtype, shape: [], data_offsets: [at - length, at] }];
    }),
  );
  const json = Buffer.from(JSON.stringify({ __metadata__: { format: "pt" }, ...header }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map(([, bytes]) => bytes)]);
}

/** A file as GGUF version 3 has it, with an array of strings before the tensors. */
function gguf(tensors: Readonly<Record<string, readonly [number, Uint8Array]>>): Buffer {
  const parts: Uint8Array[] = [];
  const u32 = (value: number): void => {
    parts.push(bytesOf(Uint32Array.of(value)));
  };
  const u64 = (value: number): void => {
    parts.push(bytesOf(BigUint64Array.of(BigInt(value))));
  };
  const string = (text: string): void => {
    u64(text.length);
    parts.push(Buffer.from(text));
  };
  parts.push(Buffer.from("GGUF"));
  u32(3);
  u64(Object.keys(tensors).length);
  u64(2);
  string("tokenizer.ggml.tokens");
  u32(9);
  u32(8);
  u64(2);
  string("a");
  string("bcd");
  string("general.alignment");
  u32(4);
  u32(64);
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const [name, [type, bytes]] of Object.entries(tensors)) {
    string(name);
    u32(1);
    u64(bytes.length / (type === 0 ? 4 : 2));
    u32(type);
    u64(offset);
    const padding = (64 - (bytes.length % 64)) % 64;
    data.push(bytes, new Uint8Array(padding));
    offset += bytes.length + padding;
  }
  const header = Buffer.concat(parts);
  return Buffer.concat([header, new Uint8Array((64 - (header.length % 64)) % 64), ...data]);
}

describe("the layout of tensors", () => {
  const { old: f32 } = moved("f32", 1000, 0, 0);
  const { old: bf16 } = moved("bf16", 1000, 0, 0);

  test("is read from safetensors", async () => {
    const file = safetensors({
      a: ["F32", f32],
      n: ["I64", new Uint8Array(16)],
      b: ["BF16", bf16],
    });
    const found = await tensorsOf(inMemory(file));
    assert.deepEqual(
      found.map(({ name, dtype, offset, size }) => [name, dtype, file.length - offset, size]),
      [
        ["a", "f32", 6016, 4000],
        ["b", "bf16", 2000, 2000],
      ],
    );
  });

  test("is read from GGUF", async () => {
    const file = gguf({ a: [0, f32], q: [8, new Uint8Array(34)], b: [30, bf16] });
    const found = await tensorsOf(inMemory(file));
    assert.deepEqual(
      found.map(({ name, dtype }) => [name, dtype]),
      [
        ["a", "f32"],
        ["b", "bf16"],
      ],
    );
    for (const { offset, size, dtype } of found)
      assert.deepEqual(
        file.subarray(offset, offset + size),
        Buffer.from(dtype === "f32" ? f32 : bf16),
      );
  });

  test("is unknown for anything else, however much it looks like one of them", async () => {
    const intact = [safetensors({ a: ["F32", f32] }), gguf({ a: [0, f32] })];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...intact),
        fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { minLength: 1, maxLength: 5 }),
        fc.nat(),
        async (file, changes, length) => {
          const broken = Buffer.from(file.subarray(0, length % file.length));
          for (const [at, value] of changes) if (at < broken.length) broken[at] = value;
          for (const { offset, size } of await tensorsOf(inMemory(broken)))
            assert.ok(offset >= 0 && offset + size <= broken.length);
        },
      ),
    );
  });
});

describe("the plan for tensors", () => {
  async function planned(old: Uint8Array, target: Uint8Array): Promise<number> {
    const segments = await planTensors(inMemory(old), inMemory(target), never);
    let covered = 0;
    for (const { old: from, target: to, regions } of segments) {
      const [before, after] = [
        old.subarray(from.offset, from.offset + from.size),
        target.subarray(to.offset, to.offset + to.size),
      ];
      await roundTrip(before, after, regions);
      covered += to.size;
    }
    return covered / target.length;
  }

  test("finds tensors that changed their places, by their names", async () => {
    const a = moved("f32", 40_000, 1, 1e-3);
    const b = moved("bf16", 50_000, 1, 1e-2);
    const old = safetensors({ a: ["F32", a.old], b: ["BF16", b.old] });
    const target = safetensors({
      b: ["BF16", b.target],
      new: ["F32", a.old.subarray(0, 400)],
      a: ["F32", a.target],
    });
    assert.ok((await planned(old, target)) > 0.99);
  });

  test("finds weights without a header at any alignment, and after an insertion", async () => {
    const { old, target } = moved("f32", 400_000, 1, 1e-3);
    const text = Buffer.from("the same before");
    const share = await planned(
      Buffer.concat([text, old]),
      Buffer.concat([text, Buffer.from("and 15 more.."), target]),
    );
    assert.ok(share > 0.99, `${share}`);
  });

  test("leaves what is no weights to others", async () => {
    const chance = chanceFrom(1);
    const noise = (): Uint8Array =>
      bytesOf(Uint32Array.from({ length: 200_000 }, () => chance.bits()));
    assert.deepEqual(await planTensors(inMemory(noise()), inMemory(noise()), never), []);
  });

  test("is not misled by one part that looks like weights, in a file most of which is as it was", async () => {
    const chance = chanceFrom(2);
    const noise = (): Uint8Array =>
      bytesOf(Uint32Array.from({ length: 65_536 }, () => chance.bits()));
    const same = [noise(), noise(), noise(), noise(), noise()];
    const { old, target } = moved("f32", 65_536, 1, 1e-3);
    const before = Buffer.concat([...same, noise(), old, noise()]);
    const after = Buffer.concat([...same, noise(), target, noise()]);
    assert.deepEqual(await planTensors(inMemory(before), inMemory(after), never), []);
  });

  test("makes segments of a bounded size", async () => {
    const size = 300 * 2 ** 20;
    // Every read gives the same: only the plan is looked at.
    const { old, target } = moved("f32", 65_536, 1, 1e-3);
    const file = (bytes: Uint8Array) => ({
      size,
      readInto: (into: Uint8Array, position: number): Promise<void> => {
        for (let at = 0; at < into.length; at++)
          into[at] = bytes[(position + at) % bytes.length] ?? 0;
        return Promise.resolve();
      },
    });
    const segments = await planTensors(file(old), file(target), never);
    assert.ok(segments.length >= 5);
    assert.ok(segments.every((segment) => segment.target.size <= 64 * 2 ** 20));
    assert.equal(
      segments.reduce((sum, segment) => sum + segment.target.size, 0),
      size,
    );
  });
});

describe("a delta of weights", () => {
  test("is made without a look at copies, which takes a hundred times as long", async () => {
    const { old, target } = moved("bf16", 400_000, 1, 1e-2);
    const run = <T>(work: () => Promise<T>): Promise<T> => work();
    assert.equal(await copiesMayWin(old, target, [whole(target, "bf16")], run, never), false);
  });

  test("is not, when what is like weights is moved text after all", async () => {
    const text = Buffer.from(
      Array.from({ length: 40_000 }, (_, line) => `line ${line}\n`).join(""),
    );
    const target = Buffer.concat([Buffer.from("a new one\n"), text]);
    const size = text.length - (text.length % 4);
    const region = { old: 0, target: 0, size, dtype: "f32" } as const;
    const run = <T>(work: () => Promise<T>): Promise<T> => work();
    assert.equal(await copiesMayWin(text, target, [region], run, never), true);
  });
});
