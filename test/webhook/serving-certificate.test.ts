import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { array, assert as check, constantFrom, property } from "../support/property.ts";
import { choose, nextStep, untrusted, wantedKey } from "#core/serving-certificate.ts";
import type { Identity, Kept, Seen } from "#core/serving-certificate.ts";
import { makeCertificate } from "../../webhook/certificate.ts";

const NOW = Date.parse("2026-11-22T12:00:00Z");
const DAY_MS = 86_400_000;
const HOST = "edgesync-webhook.edgesync.svc";
const NAMES = { service: "edgesync-webhook", namespace: "edgesync", names: [] };
const TIMES = { settleMs: 60_000, keepMs: 3_600_000 };

const [one, two, three] = (await Promise.all([0, 1, 2].map(() => makeCertificate(NAMES, NOW)))) as [
  Identity,
  Identity,
  Identity,
];
const other = await makeCertificate({ ...NAMES, namespace: "elsewhere" }, NOW);

const NOTHING: Kept = { serving: undefined, next: undefined, previousCa: undefined };

function seen(kept: Partial<Kept>, bundle: string, more: Partial<Seen> = {}): Seen {
  return {
    kept: { ...NOTHING, ...kept },
    served: undefined,
    bundles: [bundle, bundle],
    host: HOST,
    now: NOW,
    settledMs: 0,
    asked: false,
    times: TIMES,
    ...more,
  };
}

describe("the leader", () => {
  test("makes a certificate where there is none, and trusts it everywhere before anything else", () => {
    assert.deepEqual(nextStep(seen({}, "")), { step: "make", as: "serving" });
    assert.deepEqual(nextStep(seen({ serving: one }, "")), { step: "trust", bundle: one.ca });
    const half = seen({ serving: one }, one.ca, { bundles: [one.ca, ""] });
    assert.deepEqual(nextStep(half), { step: "trust", bundle: one.ca });
  });

  test("never trusts nothing because the authority was taken out of the Secret", () => {
    for (const ca of ["", two.ca]) {
      const kept = { serving: { ...one, ca } };
      const step = nextStep(seen(kept, one.ca, { served: one }));
      assert.deepEqual(step, { step: "restore", identity: one });
    }
  });

  test("puts back what it serves when the chain in the Secret cannot be read", () => {
    const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const kept = { serving: { ...one, certificate: one.certificate + broken } };
    assert.deepEqual(nextStep(seen(kept, one.ca, { served: one })), {
      step: "restore",
      identity: one,
    });
    const found = { kept: { ...NOTHING, ...kept }, bundles: [one.ca], host: HOST, now: NOW };
    assert.equal(choose({ ...found, served: one }), one);
  });

  test("waits until two thirds of its life have passed", () => {
    const wait = nextStep(seen({ serving: one }, one.ca));
    assert.deepEqual(wait, { step: "wait", ms: 20 * DAY_MS });
    const now = NOW + 20 * DAY_MS;
    assert.deepEqual(nextStep(seen({ serving: one }, one.ca, { now })), {
      step: "make",
      as: "next",
    });
    const asked = seen({ serving: one }, one.ca, { asked: true });
    assert.deepEqual(nextStep(asked), { step: "make", as: "next" });
  });

  test("serves the next one only when its authority has been trusted for long enough", () => {
    const kept = { serving: one, next: two };
    const both = one.ca + two.ca;
    assert.deepEqual(nextStep(seen(kept, one.ca)), { step: "trust", bundle: both });
    const early = seen(kept, both, { settledMs: 59_999 });
    assert.deepEqual(nextStep(early), { step: "wait", ms: 1 });
    const late = seen(kept, both, { settledMs: 60_000 });
    assert.deepEqual(nextStep(late), { step: "promote", identity: two, previousCa: one.ca });
  });

  test("waits for nobody when nobody can trust what is served", () => {
    const now = NOW + 31 * DAY_MS;
    const expired = seen({ serving: one }, one.ca, { now });
    assert.deepEqual(nextStep(expired), { step: "make", as: "next" });
    const early = seen({ serving: one, next: two }, one.ca + two.ca, { now: NOW - 2 * DAY_MS });
    assert.deepEqual(nextStep(early), { step: "make", as: "next" });
  });

  test("drops the old authority later, and its bundle after that", () => {
    const kept = { serving: two, previousCa: one.ca };
    // In any order: the API server does not care.
    const both = one.ca + two.ca;
    const early = seen(kept, both, { settledMs: TIMES.keepMs - 1 });
    assert.deepEqual(nextStep(early), { step: "wait", ms: 1 });
    const late = seen(kept, both, { settledMs: TIMES.keepMs });
    assert.deepEqual(nextStep(late), { step: "forget" });
    assert.deepEqual(nextStep(seen({ serving: two }, both)), { step: "trust", bundle: two.ca });
  });

  test("makes another for another Service, and one whose key was mixed up", () => {
    assert.deepEqual(nextStep(seen({ serving: other }, other.ca)), { step: "make", as: "next" });
    const mixed = { ...one, key: two.key };
    assert.deepEqual(nextStep(seen({ serving: mixed }, one.ca)), { step: "make", as: "serving" });
  });
});

describe("a replica", () => {
  const bundles = [two.ca, two.ca];
  const now = NOW;
  test("goes on with what is trusted while what is kept is not", () => {
    const kept = { ...NOTHING, serving: one };
    assert.equal(choose({ kept, served: two, bundles, host: HOST, now }), two);
    assert.equal(choose({ kept, served: undefined, bundles, host: HOST, now }), one);
    assert.equal(choose({ kept, served: two, bundles: [one.ca], host: HOST, now }), one);
  });

  test("is not ready for one entry that would fail", () => {
    assert.equal(untrusted(one, [one.ca, two.ca + one.ca], HOST, now), undefined);
    for (const wrong of [[one.ca, ""], [one.ca, two.ca], []])
      assert.notEqual(untrusted(one, wrong, HOST, now), undefined);
    assert.notEqual(untrusted(one, [one.ca], "other.edgesync.svc", now), undefined);
    assert.notEqual(untrusted(one, [one.ca], HOST, now + 31 * DAY_MS), undefined);
  });
});

describe("any two leaders and two replicas, in any order", () => {
  test("never serve what an API server does not trust", () => {
    const turn = constantFrom(
      "a reads",
      "a acts",
      "b reads",
      "b acts",
      "x looks",
      "y looks",
      "time",
    );
    check(
      property(array(turn, { minLength: 20, maxLength: 150 }), (turns) => {
        play(turns);
      }),
      { numRuns: 60 },
    );
  });
});

/** A world of one Secret and one bundle, each with a version that a write must name. */
function play(turns: readonly string[]): void {
  const supply = [two, three];
  const world = {
    kept: { ...NOTHING, serving: one } as Kept,
    bundle: one.ca,
    secretVersion: 0,
    bundleVersion: 0,
    time: 0,
  };
  type Read = { -readonly [K in keyof typeof world]: (typeof world)[K] };
  const read: Record<string, Read | undefined> = {};
  const settled: Record<string, { key: string; since: number }> = {};
  const served: Record<string, Identity> = { x: one, y: one };
  /** What an API server may still use: it follows its configuration within the time to settle. */
  let known: { bundle: string; until: number }[] = [];
  for (const text of turns) {
    const [who = "", what] = text.split(" ");
    if (text === "time") {
      world.time += 30_000;
      // A replica hears of a change within that time.
      for (const replica of ["x", "y"]) look(replica);
    } else if (what === "reads") read[who] = { ...world };
    else if (what === "looks") look(who);
    else act(who);
    known = known.filter(({ until }) => until > world.time);
    for (const identity of Object.values(served))
      for (const { bundle } of [{ bundle: world.bundle }, ...known])
        assert.equal(untrusted(identity, [bundle], HOST, NOW), undefined);
  }

  function look(replica: string): void {
    const chosen = choose({
      kept: world.kept,
      served: served[replica],
      bundles: [world.bundle],
      host: HOST,
      now: NOW,
    });
    if (chosen !== undefined) served[replica] = chosen;
  }

  function act(leader: string): void {
    const at = read[leader];
    if (at === undefined) return;
    read[leader] = undefined;
    const key = wantedKey(at.kept);
    const before = settled[leader];
    const settledMs = before?.key === key ? at.time - before.since : 0;
    const asked =
      at.kept.next === undefined && at.kept.previousCa === undefined && supply.length > 0;
    const step = nextStep(seen(at.kept, at.bundle, { settledMs, asked }));
    if (step.step === "wait") {
      if (before?.key !== key) settled[leader] = { key, since: at.time };
      return;
    }
    delete settled[leader];
    if (step.step === "trust") {
      if (at.bundleVersion !== world.bundleVersion) return;
      known.push({ bundle: world.bundle, until: world.time + 20_000 });
      world.bundle = step.bundle;
      world.bundleVersion++;
      return;
    }
    if (at.secretVersion !== world.secretVersion) return;
    world.secretVersion++;
    if (step.step === "make") world.kept = { ...world.kept, next: supply.shift() };
    else if (step.step === "promote")
      world.kept = { serving: step.identity, next: undefined, previousCa: step.previousCa };
    else if (step.step === "forget") world.kept = { ...world.kept, previousCa: undefined };
  }
}
