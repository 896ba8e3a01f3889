import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { turnBack, turnToAddresses } from "#core/delta/new-code.ts";
import { MACHINES, openPlaces } from "#core/delta/places.ts";

const ADDRESS = 0x1000;

function layoutOf(machine: number, end: number, executable: boolean) {
  return { machine, end, parts: [{ offset: 0, address: ADDRESS, executable }] };
}

describe("new code in a delta", () => {
  test("is the same again after it was turned to addresses and back, whatever it holds", () => {
    const opcode = fc.constantFrom(0xe8, 0x0f, 0x80, 0x05, 0x94, 0x90, 0xff, 0x00);
    const bytes = fc.array(fc.oneof(opcode, fc.nat(255)), { maxLength: 200 });
    fc.assert(
      fc.property(
        bytes,
        fc.constantFrom(MACHINES.x86, MACHINES.aarch64),
        fc.oneof(fc.nat(300), fc.nat(2 ** 31 - 2 ** 16)),
        fc.oneof(fc.nat(300), fc.nat(2 ** 31 - 2 ** 16)),
        (values, machine, end, position) => {
          const code = Buffer.from(values);
          const layout = layoutOf(machine, end, true);
          const places = openPlaces(layout);
          turnToAddresses(layout, places)(code, 0, code.length, position);
          turnBack(layout, places)(code, 0, code.length, position);
          assert.deepEqual([...code], values);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("has the same bytes for two calls of one function", () => {
    const layout = layoutOf(MACHINES.x86, 0x10_0000, true);
    const code = Buffer.from("e800010000e8fb000000", "hex");
    turnToAddresses(layout, openPlaces(layout))(code, 0, code.length, 0x40);
    assert.deepEqual(code.subarray(0, 5), code.subarray(5));
  });

  test("has the same bytes for two branches to one function, and for two uses of one page", () => {
    const layout = layoutOf(MACHINES.aarch64, 0x10_0000, true);
    const code = Buffer.alloc(16);
    code.writeUInt32LE(0x9400_0010, 0);
    code.writeUInt32LE(0x9400_000f, 4);
    code.writeUInt32LE(0xb000_0003, 8);
    code.writeUInt32LE(0x9000_0003, 12);
    // The last word is the first of the next page.
    turnToAddresses(layout, openPlaces(layout))(code, 0, code.length, 0xff4);
    assert.equal(code.readUInt32LE(0), code.readUInt32LE(4));
    assert.equal(code.readUInt32LE(8), code.readUInt32LE(12));
  });

  test("is left as it is where there is no code", () => {
    const layout = layoutOf(MACHINES.x86, 0x10_0000, false);
    const data = Buffer.from("e800010000", "hex");
    turnToAddresses(layout, openPlaces(layout))(data, 0, data.length, 0);
    assert.equal(data.toString("hex"), "e800010000");
  });
});
