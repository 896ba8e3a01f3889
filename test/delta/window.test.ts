import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { describe, test } from "node:test";
import { array, assert as check, integer, nat, property, record } from "../support/property.ts";
import { openPieces } from "#core/delta/pieces.ts";
import { STEP, markOld } from "#core/delta/window.ts";
import { inMemory, never } from "../support/delta.ts";

function noise(length: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(
    Buffer.alloc(length),
  );
}

const half = STEP / 2;

describe("parts of an old file that is too large to be searched", () => {
  const old = noise(6 * STEP);

  test("are those that a part of the new one comes from, however far apart", async () => {
    const target = Buffer.concat([
      old.subarray(5 * STEP + 1000, 5 * STEP + half),
      Buffer.from("inserted"),
      old.subarray(2 * STEP + 77, 2 * STEP + half),
      old.subarray(3000, half),
    ]);
    const marks = await markOld(inMemory(old), inMemory(target), 3 * STEP, never);
    assert.deepEqual(await marks.piecesFor({ offset: 0, size: target.length }, never), [
      { offset: 0, size: STEP },
      { offset: 2 * STEP, size: STEP },
      { offset: 5 * STEP, size: STEP },
    ]);
  });

  test("are still found where the old file repeats itself", async () => {
    const twice = Buffer.concat([old, old]);
    const target = old.subarray(4 * STEP, 5 * STEP);
    const marks = await markOld(inMemory(twice), inMemory(target), STEP, never);
    assert.deepEqual(await marks.piecesFor({ offset: 0, size: target.length }, never), [
      { offset: 4 * STEP, size: STEP },
    ]);
  });

  test("are those at the same relative place when nothing is the same", async () => {
    const target = Buffer.alloc(2 * STEP + half, 7);
    const marks = await markOld(inMemory(old), inMemory(target), 2 * STEP, never);
    const [piece, ...more] = await marks.piecesFor({ offset: 2 * STEP, size: half }, never);
    assert.equal(more.length, 0);
    assert.ok(piece !== undefined && piece.offset <= 5 * STEP && piece.size === 2 * STEP);
    assert.ok(piece.offset + piece.size > 5 * STEP);
  });
});

describe("pieces of a file", () => {
  const pieces = array(
    record({ gap: integer({ min: 1, max: 9 }), size: integer({ min: 1, max: 9 }) }),
    {
      minLength: 1,
      maxLength: 6,
    },
  ).map((parts) => {
    let end = 0;
    return parts.map(({ gap, size }) => {
      const offset = end + gap;
      end = offset + size;
      return { offset, size };
    });
  });

  test("have each byte where the file has it, and no copy crosses from one to the next", () => {
    check(
      property(pieces, nat(), nat(), (ranges, from, length) => {
        const file = noise(128);
        const together = Buffer.concat(
          ranges.map(({ offset, size }) => file.subarray(offset, offset + size)),
        );
        const opened = openPieces(ranges);
        assert.equal(opened.size, together.length);
        const view = file.subarray(opened.span.offset, opened.span.offset + opened.span.size);
        const first = from % together.length;
        const count = 1 + (length % (together.length - first));
        const made: Buffer[] = [];
        const copies = opened.split(Int32Array.of(0, first, count));
        for (let index = 0; index < copies.length; index += 3) {
          const [at = 0, source = 0, size = 0] = copies.subarray(index, index + 3);
          assert.equal(at, Buffer.concat(made).length);
          const start = opened.place(source);
          made.push(view.subarray(start, start + size));
        }
        assert.deepEqual(Buffer.concat(made), together.subarray(first, first + count));
      }),
    );
  });
});
