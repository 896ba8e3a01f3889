/** The kernel's part in the tensor codec: what it decodes is what the JavaScript that it stands for decodes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "../support/property.ts";
import { openKernel, openMemory } from "#core/delta/kernel.ts";
import type { Memory, QuickElements } from "#core/delta/kernel.ts";
import { METHODS, openSource } from "#core/delta/source.ts";
import { ELEMENT_BYTES, openElements } from "#core/delta/tensor-symbols.ts";
import { KEYS, KINDS, MAX_CLASSES, SYMBOL_STREAMS } from "#core/delta/tensor-table.ts";
import type { Kind, Table } from "#core/delta/tensor-table.ts";
import { codeOf } from "#core/errors.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import { never } from "../support/delta.ts";

/** Streams of the tensor codec: escapes and their ends are frequent, and a stream may be too short. */
async function elementsOf(
  memory: Memory,
  quick: QuickElements | undefined,
  { table, seed, count, bytes }: { table: Table; seed: number; count: number; bytes: number },
): Promise<Buffer | string> {
  const chance = chanceFrom(seed);
  const piece = memory.bytes(count * table.width);
  for (let index = 0; index < piece.length; index++) piece[index] = chance.bits() & 255;
  const streams = Array.from({ length: SYMBOL_STREAMS + 2 }, (_, lane) => {
    const content = Buffer.alloc(lane < SYMBOL_STREAMS ? bytes : 4 * bytes);
    for (let index = 0; index < content.length; index++) {
      const bits = chance.bits();
      content[index] = (bits & 0x700) === 0 ? 255 : (bits & 0x800) === 0 ? bits & 7 : bits & 127;
    }
    const chunks = [content].values();
    return openSource(METHODS.stored, () => Promise.resolve(chunks.next().value), content.length);
  });
  const reader = openElements([table], streams, memory, quick);
  const elements = {
    words: new Int32Array(piece.buffer, piece.byteOffset, Math.floor(piece.length / 4)),
    halves: new Uint16Array(piece.buffer, piece.byteOffset, piece.length / 2),
  };
  try {
    await reader.decode(0, elements, 0, count, never);
  } catch (error) {
    return codeOf(error);
  }
  return Buffer.from(piece);
}

test("elements of tensors are decoded as without the kernel, whatever the tables and the streams say", async () => {
  const shift = fc.integer({ min: 0, max: 24 });
  const stream = fc.integer({ min: 0, max: SYMBOL_STREAMS - 1 });
  const entry = fc.record({
    kind: fc.constantFrom<Kind>(KINDS.same, KINDS.gaps, KINDS.gaps, KINDS.direct),
    gapShift: fc.oneof(fc.constant(0), shift),
    gapStream: stream,
    valueShift: shift,
    valueStream: stream,
  });
  const tables = fc.record({
    width: fc.constantFrom<2 | 4>(2, 4),
    unitLog: fc.constant(0),
    classes: fc.array(entry, { minLength: 1, maxLength: MAX_CLASSES }),
  });
  let [decoded, refused] = [0, 0];
  const cases = fc.record({
    seed: fc.nat(),
    count: fc.integer({ min: 1, max: 700 }),
    bytes: fc.constantFrom(40, 5000),
  });
  await fc.assert(
    fc.asyncProperty(tables, cases, async ({ width, unitLog, classes }, { seed, count, bytes }) => {
      const map = Uint8Array.from(
        { length: KEYS },
        (_, key) => (key * 7 + (key >> 5)) % classes.length,
      );
      const task = { table: { width, unitLog, classes, map }, seed, count, bytes };
      const kernel = openKernel([...ELEMENT_BYTES, 4 * 700]);
      assert.ok(kernel !== undefined);
      const made = await elementsOf(kernel, kernel.elements, task);
      kernel.close();
      assert.deepEqual(made, await elementsOf(openMemory(), undefined, task));
      if (typeof made === "string") refused++;
      else decoded++;
    }),
    { numRuns: 300 },
  );
  assert.ok(decoded > 30 && refused > 10, `${decoded} decoded, ${refused} refused`);
});
