/** The kernel of WebAssembly: that it is what its source says, and writes what the JavaScript that it stands for writes. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { KERNEL_CODE } from "#core/delta/kernel-code.ts";
import { openKernel } from "#core/delta/kernel.ts";
import { REGIONS, addressEnd, pageFlags } from "#core/delta/image.ts";
import type { Image, RegionName } from "#core/delta/image.ts";
import { openMoves } from "#core/delta/moves.ts";
import type { Shifts } from "#core/delta/moves.ts";
import { turnBack } from "#core/delta/new-code.ts";
import { openPlaces } from "#core/delta/places.ts";
import type { Layout } from "#core/delta/places.ts";
import { before, behind, openRebase, openScanners } from "#core/delta/rebase.ts";
import type { Placing } from "#core/delta/rebase.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import { assemble } from "../../scripts/wat.ts";
import { inMemory, never } from "../support/delta.ts";

/** Upper ten bits of ADD, LDR, STR and vectors of every size, and of an ADRP. */
const SECOND = [0x244, 0x3e5, 0x2e4, 0x0f5, 0x0f6, 0x0f7, 0x1e4, 0x240, 0x245];
/** Highest byte of B, BL, B.cond, CBZ, CBNZ, TBZ and TBNZ. */
const BRANCHES = [0x14, 0x17, 0x94, 0x97, 0x54, 0x34, 0xb5, 0x36, 0xb7];
const OLD_BYTES = 6000;
const KERNEL_BYTES = 4 * 1024 * 1024;

/** Bytes that are opcodes of interest, or parts of them, on either machine. */
const TELLING = [
  0xe8, 0xe9, 0x0f, 0x84, 0x05, 0x0d, 0x3d, 0xb8, 0xbf, 0x68, 0xc7, 0x81, 0x04, 0x25, 0x44, 0x85,
  0x14, 0x17, 0x94, 0x90, 0xb0, 0xd0, 0x91, 0xf9, 0x3d, 0x54, 0x34, 0x36, 0x40, 0xc0, 0, 1, 2,
];

/** Known addresses that are more than a few times 16 MiB away, as many as the last byte of an operand can be told by, and next to all. */
const FARAWAY = [2 ** 24 - 4096, 2 ** 25, 2 ** 30 + 2 ** 28, 2 ** 31 - 2 ** 17];

/** A little of everything: random bytes, opcodes, small numbers as operands, ADRP with an instruction that takes its register. */
const code = fc.nat().map((seed): Buffer => {
  const chance = chanceFrom(seed);
  const bits = (): number => chance.bits();
  const bytes = Buffer.alloc(OLD_BYTES + 16);
  for (let at = 0; at < OLD_BYTES;) {
    const [kind, value] = [bits() % 11, bits()];
    if (kind < 4) bytes.writeUInt8(TELLING[value % TELLING.length] ?? 0, at++);
    else if (kind === 4) bytes.writeUInt8(value & 255, at++);
    else if (kind === 5) at = bytes.writeInt32LE(value | 0, at);
    else if (kind === 6) {
      const far = FARAWAY[bits() % 40] ?? 0;
      const near = (value % 18_000) - 9000;
      at = bytes.writeInt32LE((value & 1) === 0 ? near + far : near - far, at);
    } else if (kind < 9) {
      at += -at & 3;
      const near = (value % 2048) << 5;
      const operand = (value & 0x8000) === 0 ? near : 0xff_ffff - near;
      at = bytes.writeInt32LE(((BRANCHES[bits() % BRANCHES.length] ?? 0) << 24) | operand, at);
    } else {
      at += -at & 3;
      const register = value & 31;
      const pages = (value >> 5) & 15;
      const high = pages < 12 ? pages >> 2 : 0x7_ffff - (value & 0xf);
      at = bytes.writeInt32LE(0x9000_0000 | ((pages & 3) << 29) | (high << 5) | register, at);
      // Up to 16 words on, and also just too far.
      const gap = (value >>> 20) % 3 === 0 ? bits() % 17 : 0;
      for (let words = 0; words < gap && at < OLD_BYTES; words++)
        at = bytes.writeInt32LE(register === 0 ? 1 : 0, at);
      const second = SECOND[(value >>> 9) % SECOND.length] ?? 0;
      at = bytes.writeInt32LE((second << 22) | (bits() & 0x3f_fc00) | (register << 5), at);
    }
  }
  return bytes.subarray(0, OLD_BYTES);
});

const shifts: fc.Arbitrary<Shifts> = fc
  .uniqueArray(fc.tuple(fc.nat(20_000), fc.integer({ min: -300_000, max: 300_000 })), {
    maxLength: 60,
    selector: ([address]) => address,
  })
  .map((pairs) => {
    const sorted = pairs.toSorted(([a], [b]) => a - b);
    return {
      addresses: Int32Array.from(sorted, ([address]) => address),
      shifts: Int32Array.from(sorted, ([, shift]) => shift),
    };
  });

/** What tables are full of: small numbers, addresses of 32 and 64 bits, lengths of records, and zeros. */
const table = fc
  .record({ seed: fc.nat(), base: fc.constantFrom(0, 0x40_0000, 2 ** 32) })
  .map(({ seed, base }): Buffer => {
    const chance = chanceFrom(seed);
    const bits = (): number => chance.bits();
    const bytes = Buffer.alloc(OLD_BYTES + 48);
    for (let at = 0; at < OLD_BYTES;) {
      const [kind, value] = [bits() % 8, bits()];
      if (kind === 0) at = bytes.writeUInt8(value & 255, at);
      else if (kind === 1) at = bytes.writeInt32LE(value | 0, at);
      else if (kind === 2) at = bytes.writeInt32LE((value % 60_000) - 30_000, at);
      else if (kind === 3) at = bytes.writeInt32LE(value % 9 === 0 ? -1 : value % 9, at);
      else if (kind === 4) at += 4 * (value % 4);
      else if (kind < 7) {
        at += -at & 7;
        at = bytes.writeBigUInt64LE(BigInt(base + (value % 40_000)), at);
        if (kind === 6) at = bytes.writeBigUInt64LE(8n, at);
      } else at = bytes.writeUInt32LE(value % 40_000, at);
    }
    return bytes.subarray(0, OLD_BYTES);
  });

/** The same with records of .eh_frame that follow each other from a position on: many short ones, some long ones, CIEs, and lengths of 0. */
function withFrames(table: Buffer, from: number): Buffer {
  const bytes = Buffer.concat([table, Buffer.alloc(32)]);
  for (let at = from; at < table.length;) {
    const value = bytes.readUInt32LE(at);
    const length = value % 41 === 0 ? 0 : value % 17 === 0 ? value % 1200 : 12 + (value % 40);
    bytes.writeUInt32LE(value % 397 === 0 ? 2 ** 21 : length, at);
    if (value % 3 > 0) bytes.writeUInt8(4, at + 16);
    for (const place of value % 5 > 0 ? [4, 8, 17] : [8])
      bytes.writeInt32LE(bytes.readInt32LE(at + place) % 20_000, at + place);
    at += 4 + length;
  }
  return bytes.subarray(0, table.length);
}

/** Kinds of regions, with how many parameters. */
const KINDS = Object.entries(REGIONS) as readonly [RegionName, { readonly parameters: number }][];

/** Where the region lies in the old range and among the addresses, and which addresses are known. */
const images = fc
  .record({
    kind: fc.constantFrom(...KINDS),
    parameter: fc.nat(1),
    parameters: fc.array(fc.oneof(fc.constantFrom(0, 8), fc.nat(20_000), fc.nat(2 ** 31 - 1)), {
      minLength: 4,
      maxLength: 4,
    }),
    offset: fc.oneof(
      { weight: 3, arbitrary: fc.nat(300).map((words) => 4 * words) },
      { weight: 1, arbitrary: fc.nat(1200) },
    ),
    size: fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 3000, max: 4500 }) },
      { weight: 1, arbitrary: fc.nat(4000) },
    ),
    address: fc.oneof(
      { weight: 9, arbitrary: fc.nat(2500).map((words) => 4 * words) },
      { weight: 1, arbitrary: fc.constant(2 ** 31 - 2 ** 17) },
    ),
    areas: fc.array(
      fc.record({
        address: fc.oneof(
          { weight: 9, arbitrary: fc.nat(12_000) },
          { weight: 1, arbitrary: fc.constantFrom(...FARAWAY) },
        ),
        size: fc.nat(30_000),
        executable: fc.boolean(),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    bases: fc.constantFrom([0, 0], [0x40_0000, 0x1000_0000], [2 ** 32, 2 ** 33], [0, 2 ** 40]),
  })
  .map(({ kind, parameter, parameters, offset, size, address, areas, bases }): Image => {
    const [oldBase, newBase] = bases;
    const [name, { parameters: count }] = kind;
    const isCode = name === "x86" || name === "aarch64";
    const given = isCode ? [parameter] : parameters.slice(0, count);
    const region = { name, offset, size, address, parameters: given };
    return { oldBase, newBase, areas, regions: [region] };
  });

/** Where the new file's bytes are loaded; undefined for segments whose copies do not know where they go. */
const layouts: fc.Arbitrary<Layout | undefined> = fc.option(
  fc
    .array(fc.tuple(fc.nat(3000), fc.nat(2 ** 31 - 2 ** 17)), { maxLength: 4 })
    .map((pairs): Layout => {
      let offset = 0;
      const parts = pairs.map(([step, address]) => {
        offset += step;
        return { offset, address, executable: true };
      });
      return { machine: 1, end: 2 ** 31 - 2 ** 16, parts };
    }),
  { nil: undefined },
);

describe("the kernel of WebAssembly", () => {
  test("is what its source says", async () => {
    const source = await readFile(new URL("../../src/delta/kernel.wat", import.meta.url), "utf8");
    assert.equal(KERNEL_CODE, assemble(source).toString("base64"));
  });

  test("moves addresses as the JavaScript does that it stands for", async () => {
    const written = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(code, table),
        images,
        shifts,
        shifts,
        fc.integer({ min: 1, max: 1800 }),
        layouts,
        async (content, image, starts, points, length, layout) => {
          const [region] = image.regions;
          assert.ok(region !== undefined);
          const { name, offset } = region;
          const old = name === "frames" ? withFrames(content, offset) : content;
          const kernel = openKernel([KERNEL_BYTES]);
          assert.ok(kernel !== undefined, "this Node has WebAssembly");
          const known = pageFlags(image.areas);
          const flags = kernel.bytes(known.length);
          flags.set(known);
          const moves = openMoves(starts, points, addressEnd(image), kernel.words);
          const scanners = await openScanners(image, inMemory(old), never);
          const places = layout && openPlaces(layout);
          const placing: Placing =
            places === undefined
              ? { place: (_, address) => moves.position(address), stays: false }
              : { place: places.address, stays: true };
          const quick = kernel.open(image, flags, moves.tables, places);
          const [bytes, into] = [kernel.bytes(OLD_BYTES), kernel.bytes(OLD_BYTES)];
          const rebased = [quick, undefined].map((quick) => {
            const rebase = openRebase(scanners, moves, image.newBase, placing, quick);
            for (let from = 0, count = length, step = 0; from < OLD_BYTES; from += step) {
              // Copies of a few bytes too, which begin and end within fields.
              count = 1 + ((count * 7) % length);
              // The next one goes on behind this one, or with bytes or blocks left out, or in it.
              step = Math.max(1, count + ([0, 0, 1, 5, 700, -20][count % 6] ?? 0));
              const to = Math.min(OLD_BYTES, from + count);
              const start = before(from);
              const source = bytes.subarray(0, behind(to, OLD_BYTES) - start);
              source.set(old.subarray(start, start + source.length));
              rebase(source, start, from, to, into, from, (from * 3) % 5000);
            }
            return Buffer.from(into);
          });
          kernel.close();
          assert.deepEqual(rebased[0], rebased[1]);
          if (rebased[0]?.equals(old) === false) written.set(name, (written.get(name) ?? 0) + 1);
        },
      ),
      { numRuns: 600 },
    );
    for (const [name] of KINDS)
      assert.ok((written.get(name) ?? 0) > 2, `${name}: ${written.get(name)} runs moved anything`);
  });

  test("turns new code back as the JavaScript does that it stands for", () => {
    let turned = 0;
    fc.assert(
      fc.property(
        code,
        layouts,
        fc.constantFrom(1, 2),
        fc.nat(40),
        fc.nat(2000),
        (old, layout = { machine: 1, end: 0, parts: [] }, machine, from, length) => {
          const kernel = openKernel([OLD_BYTES]);
          assert.ok(kernel !== undefined);
          const given = { ...layout, machine };
          const places = openPlaces(given);
          const bytes = kernel.bytes(OLD_BYTES);
          const results = [kernel.turn(given, places), undefined].map((quick) => {
            bytes.set(old);
            const turn = turnBack(given, places, quick);
            for (let at = from; at < OLD_BYTES; at += length + 1)
              turn(bytes, at, Math.min(at + length, OLD_BYTES), at * 3);
            return Buffer.from(bytes);
          });
          kernel.close();
          assert.deepEqual(results[0], results[1]);
          if (results[0]?.equals(old) === false) turned++;
        },
      ),
      { numRuns: 200 },
    );
    assert.ok(turned > 50, `only ${turned} of the runs had anything to turn`);
  });

  describe("at the edges of what is looked at", () => {
    /** An operand that leads far behind the code, to where everything has moved. */
    const FAR = 0x1010_1010;
    const SHIFT = 8192;

    interface Given {
      readonly calls?: readonly number[];
      readonly words?: Readonly<Record<number, number>>;
      readonly size?: number;
      readonly address?: number;
      readonly from?: number;
      readonly to?: number;
      readonly layout?: Layout;
      /** Copies that are made before it. */
      readonly earlier?: readonly (readonly [from: number, to: number])[];
    }

    /** Old bytes, all 0x10 but for what is given, moved by both alike. */
    async function moved(
      name: "x86" | "aarch64",
      {
        calls = [],
        words = {},
        size = 1200,
        address = 0,
        from = 0,
        to = size,
        layout,
        earlier = [],
      }: Given,
    ): Promise<Buffer> {
      const old = Buffer.alloc(size, 0x10);
      for (const at of calls) old.writeUInt8(0xe8, at);
      for (const [at, word] of Object.entries(words)) old.writeInt32LE(word, Number(at));
      const region = { name, offset: 0, size, address, parameters: [0] };
      const areas = [{ address: 0, size: 2 ** 29, executable: true }];
      const image: Image = { oldBase: 0, newBase: 0, areas, regions: [region] };
      const kernel = openKernel([KERNEL_BYTES]);
      assert.ok(kernel !== undefined);
      const known = pageFlags(areas);
      const flags = kernel.bytes(known.length);
      flags.set(known);
      const starts = { addresses: Int32Array.of(2 ** 24), shifts: Int32Array.of(SHIFT) };
      const none = { addresses: new Int32Array(0), shifts: new Int32Array(0) };
      const moves = openMoves(starts, none, addressEnd(image), kernel.words);
      const scanners = await openScanners(image, inMemory(old), never);
      const places = layout && openPlaces(layout);
      const placing: Placing =
        places === undefined
          ? { place: (_, address) => moves.position(address), stays: false }
          : { place: places.address, stays: true };
      const quick = kernel.open(image, flags, moves.tables, places);
      const source = kernel.bytes(size);
      source.set(old);
      const into = kernel.bytes(size);
      const [first, second] = [quick, undefined].map((quick) => {
        const rebase = openRebase(scanners, moves, image.newBase, placing, quick);
        for (const [from, to] of earlier) rebase(source, 0, from, to, into, from, from);
        into.set(old);
        rebase(source, 0, from, to, into, from, from);
        return Buffer.from(into);
      });
      kernel.close();
      assert.deepEqual(first, second);
      return first ?? old;
    }

    test("an opcode counts when it begins six bytes before the end of the code, and not behind that", async () => {
      const last = await moved("x86", { calls: [594], size: 600 });
      assert.equal(last.readInt32LE(595), FAR + SHIFT);
      const late = await moved("x86", { calls: [595], size: 600 });
      assert.equal(late.readInt32LE(596), FAR);
    });

    test("the search begins 16 bytes before the block", async () => {
      // From 496 on each call hides those that a search from 497 on would find.
      const calls = [496, 498, 501, 503, 506, 508, 511];
      const bytes = await moved("x86", { calls, from: 512 });
      assert.equal(bytes.readInt32LE(512), FAR + SHIFT);
      const without = await moved("x86", { calls: calls.slice(1), from: 512 });
      assert.equal(without.readInt32LE(512), FAR);
    });

    test("the search goes on behind an earlier copy from the same block, and from no other", async () => {
      // In each block calls that hide others two bytes behind them, for a search that meets one of them first.
      const places = Array.from({ length: 95 }, (_, index) => 5 * index);
      const hiding = [0, 512].flatMap((block) => places.map((place) => block + place));
      const hidden = hiding.map((at) => at + 2);
      const calls = [...hiding, ...hidden];
      for (const [earlier, from] of [
        [[], 712],
        [[[512, 612]], 712],
        [[[512, 614]], 617],
        [[[512, 616]], 617],
        [[[512, 617]], 617],
        [[[512, 650]], 617],
        [[[0, 102]], 712],
        [[[0, 614]], 205],
        [[[512, 614]], 205],
      ] as const) {
        const bytes = await moved("x86", { calls, earlier, from });
        assert.equal(bytes.readInt32LE(from + 1), 0x1010_e810 + SHIFT, `from ${from}`);
      }
      // Nor by what was found in the second block of a copy.
      const others = calls.filter((at) => at < 512 || hidden.includes(at));
      const first = await moved("x86", { calls: others, earlier: [[0, 615]], from: 205 });
      assert.equal(first.readInt32LE(206), 0x1010_e810 + SHIFT);
      // Nor by what was found there in another file.
      await moved("x86", { calls: hidden, from: 512, to: 614 });
      const bytes = await moved("x86", { calls, from: 712 });
      assert.equal(bytes.readInt32LE(713), 0x1010_e810 + SHIFT);
    });

    test("the second instruction of a pair may be 64 bytes behind the last of a block", async () => {
      // ADRP x1 to the page at 2^28, and ADD x1, x1, #0; nothing between them is of x1.
      const adrp = 0x9008_0001 | 0;
      const near = await moved("aarch64", { words: { 508: adrp, 572: 0x9100_0021 | 0 }, to: 512 });
      assert.notEqual(near.readInt32LE(508), adrp);
      const far = await moved("aarch64", { words: { 508: adrp, 576: 0x9100_0021 | 0 }, to: 512 });
      assert.equal(far.readInt32LE(508), adrp);
    });

    test("what is known is found however far it is, and nothing behind it", async () => {
      const before = 2 ** 24 + 100;
      for (const [target, known] of [
        [2 ** 29 - 1, true],
        [2 ** 29, false],
        [2 ** 29 + 2 ** 24, false],
        [before, true],
        [-1, false],
      ] as const) {
        const bytes = await moved("x86", { calls: [150], words: { 151: target - 155 } });
        const shift = known ? SHIFT : 0;
        assert.equal(bytes.readInt32LE(151), target - 155 + shift, `to ${target}`);
      }
      // A jump with a condition, and a call: only the last byte of the operand is that of an address.
      const operands = { 152: 0x180_0000 - 156, 201: 0x180_0000 - 205 };
      const both = await moved("x86", { calls: [200], words: { 150: 0x840f, ...operands } });
      assert.equal(both.readInt32LE(152), operands[152] + SHIFT);
      assert.equal(both.readInt32LE(201), operands[201] + SHIFT);
      // From code behind all that is known, which moves as it does.
      const address = 2 ** 30 + 2 ** 28;
      const words = { 151: 200 - address - 155 };
      const bytes = await moved("x86", { calls: [150], words, address });
      assert.equal(bytes.readInt32LE(151), words[151] - SHIFT);
    });

    test("what leads to the first or the last byte of its own copy stays, and no other", async () => {
      const parts = [{ offset: 0, address: 4096, executable: true }];
      const copy = {
        calls: [150],
        from: 100,
        to: 300,
        layout: { machine: 1, end: 2 ** 29, parts },
      };
      for (const [target, stays] of [
        [99, false],
        [100, true],
        [299, true],
        [300, false],
      ] as const) {
        const bytes = await moved("x86", { ...copy, words: { 151: target - 155 } });
        assert.equal(bytes.readInt32LE(151) === target - 155, stays, `to ${target}`);
      }
    });
  });

  test("leaves bytes that are elsewhere to others", () => {
    const kernel = openKernel([KERNEL_BYTES]);
    assert.ok(kernel !== undefined);
    const nothing = { addresses: new Int32Array(0), shifts: new Int32Array(0) };
    const region = { offset: 0, size: 64, address: 0, parameters: [0] };
    const image: Image = { oldBase: 0, newBase: 0, areas: [], regions: [] };
    const moves = openMoves(nothing, nothing, 4096, kernel.words);
    const quick = kernel.open(image, kernel.bytes(0), moves.tables, undefined);
    const [inside, into] = [kernel.bytes(64), kernel.bytes(64)];
    const outside = Buffer.alloc(64);
    const x86 = { ...region, name: "x86" } as const;
    assert.equal(quick.move({ region: x86 }, inside, 0, 0, 64, into, 0, 0), true);
    assert.equal(quick.move({ region: x86 }, outside, 0, 0, 64, into, 0, 0), false);
    assert.equal(quick.move({ region: x86 }, inside, 0, 0, 64, outside, 0, 0), false);
    kernel.close();
  });
});
