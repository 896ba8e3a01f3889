import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { CHANNEL_DOCUMENT_LIMIT, isTime, parseChannelDocument } from "#core/channel-document.ts";
import type { ChannelDocument, Rollout } from "#core/channel-document.ts";
import { serialize } from "#core/document.ts";

const plain: ChannelDocument = {
  schema: 1,
  app: "web",
  channel: "stable",
  sequence: 7,
  releases: [{ platform: "linux-x64", version: "1.4.0" }],
};
const rollout: Rollout = {
  start: "2026-03-01T06:00:00Z",
  duration: 86_400,
  percent: 12.5,
  paused: false,
  salt: "7",
  from: [{ platform: "linux-x64", version: "1.3.0" }],
};

function parse(document: object): ChannelDocument {
  return parseChannelDocument(serialize(document));
}

function of(field: keyof Rollout, ...values: readonly unknown[]): readonly object[] {
  return values.map((value) => ({ rollout: { ...rollout, [field]: value } }));
}

describe("a channel document", () => {
  test("is what was serialized, with and without a roll-out", () => {
    const more = { minimum: "1.2.0", downgrade: true, urgency: "urgent" } as const;
    const full = { ...plain, rollout, ...more };
    assert.deepEqual(parse(plain), plain);
    assert.deepEqual(parse(full), full);
  });

  test("may hold fields of a later version, which are ignored", () => {
    assert.deepEqual(parse({ ...plain, urgency: "high", rollout: { ...rollout, wave: 3 } }), {
      ...plain,
      rollout,
    });
  });

  test("may have a roll-out with nothing before it", () => {
    const first = { ...plain, rollout: { ...rollout, from: [] } };
    assert.deepEqual(parse(first), first);
  });

  const releases = plain.releases;
  const wrong: Readonly<Record<string, readonly object[]>> = {
    schema: [{ schema: 2 }],
    sequence: [{ sequence: 0 }, { sequence: "7" }],
    releases: [{ releases: [...releases, ...releases] }, { releases: {} }],
    minimum: [{ minimum: "../1" }],
    downgrade: [{ downgrade: false }],
    "rollout.start": of("start", "2026-03-01", "2026-02-30T06:00:00Z", "2026-03-01T06:00:00+01:00"),
    "rollout.duration": of("duration", -1, 1.5, 400_000_000, "60", undefined),
    "rollout.percent": of("percent", -0.1, 100.1, "50", null, undefined),
    "rollout.paused": of("paused", "no", undefined),
    "rollout.salt": of("salt", "", "a b", "x".repeat(65), "\u0000", undefined),
    "rollout.from": of("from", [{ platform: "linux-x64" }], [...releases, ...releases], undefined),
  };
  for (const [field, changes] of Object.entries(wrong))
    test(`is refused for a wrong ${field}, and the message names it`, () => {
      for (const change of changes)
        assert.throws(() => parse({ ...plain, ...change }), {
          code: "RELEASE_INVALID",
          message: new RegExp(field.replace(".", "\\.")),
        });
    });

  test("is refused when it is no JSON, or longer than anything that is meant", () => {
    assert.throws(() => parseChannelDocument(Buffer.from("{")), { code: "RELEASE_INVALID" });
    const long = { ...plain, note: "x".repeat(CHANNEL_DOCUMENT_LIMIT) };
    assert.throws(() => parse(long), { code: "RELEASE_INVALID" });
  });

  test("says a time as the calendar has it", () => {
    fc.assert(
      fc.property(fc.date({ noInvalidDate: true, min: new Date(0) }), (date) => {
        const text = date.toISOString().replace(/\.\d+Z$/, "Z");
        assert.equal(isTime(text), /^\d{4}-/.test(text));
      }),
    );
  });
});
