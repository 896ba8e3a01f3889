import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { pauseMs, restMs, retryOf } from "#core/retry.ts";
import { formatJournal, parseJournal } from "#core/journal.ts";
import { policyOf } from "#core/policy.ts";
import type { AppProbes, Probe } from "#core/probe.ts";

const bank = {
  channel: "web/stable",
  sequence: 3,
  version: "1.2.3+4",
  id: "1.2.3+4-0123456789ab",
  tree: "0".repeat(64),
};
const committed = { schema: 1, channels: {}, phase: "committed", bank, previous: null };
const parse = (value: unknown): unknown => parseJournal(Buffer.from(JSON.stringify(value)));

describe("a journal", () => {
  test("is read back as it was written", () => {
    const state = parseJournal(Buffer.from(JSON.stringify(committed)));
    assert.deepEqual(parseJournal(Buffer.from(formatJournal(state))), state);
  });

  for (const [what, value] of [
    ["of a schema that is not known", { ...committed, schema: 2 }],
    ["in a phase that is not known", { ...committed, phase: "paused" }],
    ["whose bank is not where banks are", { ...committed, bank: { ...bank, id: "../../etc" } }],
    ["whose bank has no digest", { ...committed, bank: { ...bank, tree: "" } }],
    ["with a sequence below zero", { ...committed, bank: { ...bank, sequence: -1 } }],
    ["without what its phase needs", { ...committed, bank: undefined }],
    ["that is a list", []],
  ] as const)
    test(`${what} is refused`, () => {
      assert.throws(() => parse(value), { code: "JOURNAL_INVALID" });
    });

  test("that is torn, empty or not text is refused", () => {
    const whole = Buffer.from(JSON.stringify(committed));
    for (const bytes of [
      whole.subarray(0, 40),
      Buffer.alloc(0),
      Buffer.alloc(100),
      Buffer.from([0xff]),
    ])
      assert.throws(() => parseJournal(bytes), { code: "JOURNAL_INVALID" });
  });
});

describe("a failure", () => {
  const middle = (): number => 0.5;

  test("that may pass is tried again soon, but never more often than the channel is looked at", () => {
    assert.equal(retryOf("ORIGIN_UNAVAILABLE", true), "soon");
    assert.equal(pauseMs("soon", 1, 900_000, middle), 500);
    assert.equal(pauseMs("soon", 30, 900_000, middle), 150_000);
    assert.equal(pauseMs("soon", 30, 10_000, middle), 5_000);
  });

  test("that only a person can cure waits for the next look", () => {
    assert.equal(retryOf("METADATA_UNTRUSTED", false), "later");
    assert.equal(
      pauseMs("later", 9, 900_000, () => 0),
      810_000,
    );
    assert.equal(pauseMs("later", 9, 900_000, () => 0.999_999) > 989_000, true);
  });

  test("that costs the bytes of a release leaves it alone for longer each time, up to a day", () => {
    assert.equal(retryOf("DIGEST_MISMATCH", true), "rarely");
    assert.equal(retryOf("DIGEST_MISMATCH", false), "later");
    assert.deepEqual(
      [1, 2, 3, 60].map((count) => restMs(count, middle)),
      [60_000, 120_000, 240_000, 86_400_000],
    );
  });
});

describe("the policy of a trial", () => {
  const probe: Probe = {
    handler: { kind: "tcp", port: 80 },
    initialDelayMs: 5_000,
    periodMs: 10_000,
    timeoutMs: 1_000,
    successThreshold: 1,
    failureThreshold: 12,
  };
  const container: AppProbes = {
    container: "web",
    startupWindow: { periodMs: 1_000, failureThreshold: 30 },
  };
  const settings = {
    app: [container],
    health: { kind: "probe" },
    onUpdate: { kind: "restart" },
    trialDuration: 60_000,
    trialTimeout: 600_000,
    trialStarts: 2,
  } as const;

  test("gives a program as long to come up as its startup probe does", () => {
    const app = [{ ...container, startup: probe }];
    assert.equal(policyOf({ ...settings, app }, 3, () => false).graceMs, 125_000);
    assert.equal(policyOf(settings, 3, () => false).graceMs, 60_000);
  });

  test("judges nothing where there is no probe to judge by", () => {
    assert.equal(policyOf(settings, 3, () => false).judged, false);
    assert.equal(
      policyOf({ ...settings, app: [{ ...container, liveness: probe }] }, 3, () => false).judged,
      true,
    );
    assert.equal(
      policyOf({ ...settings, health: { kind: "tcp", port: 1 } }, 3, () => false).judged,
      true,
    );
    assert.equal(policyOf({ ...settings, health: { kind: "none" } }, 3, () => false).judged, false);
  });
});
