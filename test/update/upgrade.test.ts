import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import * as fc from "../support/property.ts";
import { formatJournal, parseJournal } from "#core/journal.ts";
import { follow, history } from "./support/histories.ts";

const FOLDER = join(import.meta.dirname, "journals");

/** Every version whose journals are stored: each must be read, and each must be able to read what is written now. */
const VERSIONS = readdirSync(FOLDER).filter((name) => !name.endsWith(".json"));

function journalsOf(version: string): readonly (readonly [name: string, bytes: Buffer])[] {
  const folder = join(FOLDER, version);
  return readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]);
}

function schemaOf(version: string): (value: unknown) => boolean {
  const schema = JSON.parse(readFileSync(join(FOLDER, `${version}.schema.json`), "utf8")) as object;
  return new Ajv2020({ strictTypes: false }).compile(schema);
}

for (const version of VERSIONS)
  describe(`a site that ran ${version}`, () => {
    const journals = journalsOf(version);

    for (const [name, bytes] of journals)
      test(`is gone on with, its journal being ${name}`, () => {
        const state = parseJournal(bytes);
        const written: unknown = JSON.parse(formatJournal(state));
        // Nothing of what it knew is lost or has become something else.
        assert.deepEqual(written, JSON.parse(bytes.toString()));
      });

    test("left a journal that is what it reads itself", () => {
      const reads = schemaOf(version);
      for (const [name, bytes] of journals) assert.ok(reads(JSON.parse(bytes.toString())), name);
    });

    test("can be taken back to it at any time", () => {
      const reads = schemaOf(version);
      fc.assert(
        fc.property(history, (events) =>
          follow(events, (_before, _event, state) => {
            const text = formatJournal(state);
            assert.ok(reads(JSON.parse(text)), text);
          }),
        ),
        { numRuns: 300 },
      );
    });
  });

describe("a journal of a newer version", () => {
  const [, bytes] = journalsOf("0.1.0").find(([name]) => name === "rolling-back.json") ?? [];
  const text = String(bytes);

  test("is read but for what is not known here", () => {
    const newer = text
      .replace('{"channels"', '{"mood":"good","channels"')
      .replace('"blocked":{', '"blocked":{"detail":"tired",');
    assert.deepEqual(parseJournal(Buffer.from(newer)), parseJournal(Buffer.from(text)));
  });

  test("may name a reason that is not known here, and a release of which nothing was fetched", () => {
    const newer = text.replace("health_failed", "not_tuesday").replace(/"2{64}"/, "null");
    const { blocked } = parseJournal(Buffer.from(newer)).channels["web/stable"] ?? {};
    assert.deepEqual(blocked, { sequence: 2, version: "1.2.0", tree: null, reason: "unknown" });
  });

  test("in a phase that is not known cannot be acted on", () => {
    const newer = text.replace("rolling-back", "resting");
    assert.throws(() => parseJournal(Buffer.from(newer)), { code: "JOURNAL_INVALID" });
  });
});
