import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { openCorrections } from "#core/delta/corrections.ts";
import { CORRECTION_BYTES, openKernel } from "#core/delta/kernel.ts";
import { openWriter } from "#core/delta/numbers.ts";
import { METHODS, openSource } from "#core/delta/source.ts";
import type { ByteSource } from "#core/delta/source.ts";
import { codeOf } from "#core/errors.ts";
import { never } from "../support/delta.ts";

const OUTPUT_BYTES = 4_000;

/** A stream that comes in pieces of `step` bytes. */
function sourceOf(bytes: Uint8Array, step: number): ByteSource {
  let at = 0;
  const pull = async (): Promise<Uint8Array | undefined> => {
    const piece = bytes.subarray(at, at + step);
    at += piece.length;
    return piece.length === 0 ? undefined : piece;
  };
  return openSource(METHODS.stored, pull, bytes.length);
}

interface Task {
  readonly gaps: Uint8Array;
  readonly changes: Uint8Array;
  readonly step: number;
  /** Lengths of copies; what is between them is not corrected. */
  readonly copies: readonly number[];
}

/** What the copies are after it, or the code of the error. */
async function correct(task: Task, isQuick: boolean): Promise<Buffer | string> {
  const kernel = isQuick ? openKernel([OUTPUT_BYTES, ...CORRECTION_BYTES]) : undefined;
  assert.equal(kernel !== undefined, isQuick);
  const output = kernel?.bytes(OUTPUT_BYTES) ?? Buffer.alloc(OUTPUT_BYTES);
  output.forEach((_, index) => (output[index] = index * 7));
  const [gaps, changes] = [sourceOf(task.gaps, task.step), sourceOf(task.changes, task.step)];
  const corrections = openCorrections(output, gaps, changes, kernel?.corrections());
  try {
    let at = 0;
    for (const length of task.copies) {
      const end = Math.min(at + length, OUTPUT_BYTES);
      for (let position = corrections.run(at, end); position < end;) {
        await corrections.ready(never);
        position = corrections.run(position, end);
      }
      at = Math.min(end + 3, OUTPUT_BYTES);
    }
    return Buffer.from(output);
  } catch (error) {
    return codeOf(error) ?? String(error);
  } finally {
    kernel?.close();
  }
}

/** Mostly near, and now and then of every length that a number can have. */
const gap = fc.oneof(
  { weight: 20, arbitrary: fc.nat(40) },
  { weight: 4, arbitrary: fc.nat(600) },
  { weight: 1, arbitrary: fc.constantFrom(0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0xfff_ffff, 2 ** 28, 2 ** 40, 2 ** 49 - 1) }, // prettier-ignore
);

const task: fc.Arbitrary<Task> = fc.record({
  gaps: fc.tuple(fc.array(gap, { maxLength: 400 }), fc.nat(3)).map(([numbers, cut]) => {
    const parts = numbers.map((number): Buffer => {
      const writer = openWriter();
      writer.number(number);
      const bytes = Buffer.from(writer.done());
      if (number !== 40) return bytes;
      // In six bytes, as no encoder would write it.
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) | 0x80, bytes.length - 1);
      return Buffer.concat([bytes, Buffer.alloc(5 - bytes.length, 0x80), Buffer.alloc(1)]);
    });
    const bytes = Buffer.concat(parts);
    return bytes.subarray(0, bytes.length - (cut === 0 ? 1 : 0));
  }),
  changes: fc.uint8Array({ minLength: 200, maxLength: 500 }),
  step: fc.constantFrom(1, 2, 5, 8, 100, 20_000),
  copies: fc.array(fc.nat(600), { minLength: 1, maxLength: 20 }),
});

describe("corrections in the kernel", () => {
  test("are those that the JavaScript makes, or fail as it does", async () => {
    const met = { corrected: 0, failed: 0 };
    await fc.assert(
      fc.asyncProperty(task, async (given) => {
        const [quick, slow] = [await correct(given, true), await correct(given, false)];
        assert.deepEqual(quick, slow);
        if (typeof slow === "string") met.failed++;
        else met.corrected++;
      }),
      { numRuns: 1_500 },
    );
    assert.ok(met.corrected > 100 && met.failed > 20, JSON.stringify(met));
  });
});
