import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { parseChannelDocument } from "#core/channel-document.ts";
import type { ChannelDocument, Releases } from "#core/channel-document.ts";
import { serialize } from "#core/document.ts";
import { nextVersion, shareAt } from "#core/rollout.ts";
import type { Shelf } from "../../publisher/catalog.ts";
import {
  downgrade,
  pause,
  pointTo,
  promoted,
  releasesOf,
  reschedule,
  resume,
  rollOut,
} from "../../publisher/channel-change.ts";
import type { Before } from "../../publisher/channel-change.ts";

const NOW = Date.parse("2026-03-01T00:00:00Z");
const HOUR_MS = 3_600_000;
const VERSIONS = ["1", "2", "3", "4"];

/** Versions in the order in which they were published, for one platform; `2` is for another one too. */
function shelf(listed: readonly string[] = VERSIONS): Shelf {
  return {
    orderOf: (platform, version) =>
      listed.includes(version) && (platform === "os-x" || version === "2")
        ? VERSIONS.indexOf(version) + 1
        : undefined,
    platformsOf: (version) =>
      !listed.includes(version) ? [] : version === "2" ? ["os-x", "os-y"] : ["os-x"],
    versions: listed.toReversed(),
  };
}

const reference = { app: "web", channel: "stable" };
const at = (document?: ChannelDocument, listed?: readonly string[]): Before => ({
  reference,
  document,
  shelf: shelf(listed),
});
const x = (version: string): Releases => [{ platform: "os-x", version }];
const set = (version: string, before?: ChannelDocument): ChannelDocument =>
  pointTo(at(before), x(version), {});

describe("a channel that is set", () => {
  test("goes forward, and its number grows each time", () => {
    const one = set("1");
    assert.deepEqual(one, { schema: 1, ...reference, sequence: 1, releases: x("1") });
    assert.equal(set("3", one).sequence, 2);
    assert.equal(set("1", one).sequence, 2);
  });

  test("does not go back by itself, and says how it would", () => {
    assert.throws(() => set("2", set("3")), { code: "RELEASE_DOWNGRADE" });
    assert.throws(() => rollOut(at(set("3")), x("2"), {}, {}, NOW), { code: "RELEASE_DOWNGRADE" });
    const back = downgrade(at(set("3")), x("2"));
    assert.equal(back.downgrade, true);
    assert.equal(back.sequence, 2);
    assert.throws(() => downgrade(at(set("2")), x("3")), { code: "USAGE" });
    assert.throws(() => downgrade(at(), x("3")), { code: "RELEASE_NOT_FOUND" });
  });

  test("leaves a platform without the version where it is", () => {
    const both = releasesOf(at(), { version: "2", platforms: [] });
    assert.deepEqual(
      both.map((item) => item.platform),
      ["os-x", "os-y"],
    );
    const next = pointTo(at(pointTo(at(), both, {})), x("3"), {});
    assert.deepEqual(next.releases, [
      { platform: "os-x", version: "3" },
      { platform: "os-y", version: "2" },
    ]);
    assert.throws(() => releasesOf(at(), { version: "3", platforms: ["os-y"] }), {
      code: "RELEASE_NOT_FOUND",
    });
  });

  test("keeps the way back open for sites that missed it, until nothing newer is listed", () => {
    const back = downgrade(at(set("4")), x("1"));
    const after = set("2", back);
    assert.equal(after.downgrade, true);
    assert.equal(set("4", after).downgrade, undefined);
    const gone = pointTo(at(back, ["1", "2"]), x("2"), {});
    assert.equal(gone.downgrade, undefined);
  });

  test("has a minimum that stays, is never newer than the release, and goes with none", () => {
    const document = pointTo(at(), x("3"), { minimum: "2" });
    assert.equal(document.minimum, "2");
    assert.equal(set("4", document).minimum, "2");
    assert.equal(pointTo(at(document), x("4"), { minimum: null }).minimum, undefined);
    assert.throws(() => pointTo(at(), x("2"), { minimum: "3" }), { code: "USAGE" });
    assert.throws(() => pointTo(at(), x("2"), { minimum: "9" }), { code: "RELEASE_NOT_FOUND" });
    assert.equal(downgrade(at(document), x("1")).minimum, undefined);
    assert.equal(downgrade(at(document), x("2")).minimum, "2");
  });
});

describe("a roll-out", () => {
  const schedule = { duration: 10 * 3600, percent: 50 };
  const begun = rollOut(at(set("1")), x("2"), {}, schedule, NOW);

  test("knows what was there before, also when it takes the place of one that was not complete", () => {
    assert.deepEqual(begun.rollout?.from, x("1"));
    assert.equal(begun.rollout?.salt, "2");
    const next = rollOut(at(begun), x("3"), {}, {}, NOW + HOUR_MS);
    assert.deepEqual(next.rollout?.from, x("1"));
    const all = reschedule(at(begun), {}, { percent: 100, duration: 0 });
    assert.deepEqual(rollOut(at(all), x("3"), {}, {}, NOW + HOUR_MS).rollout?.from, x("2"));
  });

  test("changes its schedule without changing any site's place", () => {
    const changed = reschedule(at(begun), {}, { percent: 80 });
    assert.equal(changed.sequence, begun.sequence);
    assert.deepEqual(changed.rollout, { ...begun.rollout, percent: 80 });
    assert.throws(() => reschedule(at(begun), {}, { salt: "other" }), { code: "USAGE" });
    assert.throws(() => reschedule(at(set("1")), {}, { percent: 5 }), { code: "USAGE" });
    assert.throws(() => rollOut(at(begun), x("2"), {}, {}, NOW), { code: "USAGE" });
  });

  test("goes on after a pause from where it was", () => {
    const pausedAt = NOW + 4 * HOUR_MS;
    const paused = pause(at(begun), undefined, pausedAt);
    assert.equal(paused.rollout?.paused, true);
    assert.equal(paused.sequence, begun.sequence);
    assert.throws(() => pause(at(paused), undefined, NOW), { code: "USAGE" });
    const later = pausedAt + 100 * HOUR_MS;
    const resumed = resume(at(paused), pausedAt, later);
    assert.ok(resumed.rollout !== undefined && begun.rollout !== undefined);
    assert.equal(shareAt(resumed.rollout, later), shareAt(begun.rollout, pausedAt));
    assert.equal(resumed.rollout.salt, begun.rollout.salt);
    assert.throws(() => resume(at(begun), undefined, NOW), { code: "USAGE" });
    const early = pause(at(begun), undefined, NOW - HOUR_MS);
    assert.equal(resume(at(early), NOW - HOUR_MS, NOW - 1000).rollout?.start, begun.rollout.start);
  });

  test("can be made of a channel that was set, to stop it", () => {
    assert.throws(() => pause(at(set("2")), undefined, NOW), { code: "USAGE" });
    const paused = pause(at(set("2")), x("1"), NOW);
    assert.deepEqual(paused.rollout?.from, x("1"));
    assert.throws(() => promoted(at(paused), at()), { code: "USAGE" });
    assert.deepEqual(promoted(at(set("2")), at()), x("2"));
  });
});

describe("any history of a channel", () => {
  type Step = readonly [
    "set" | "rollout" | "downgrade" | "pause" | "resume" | "reschedule",
    string,
  ];
  const history = fc.array(
    fc.tuple(
      fc.constantFrom("set", "rollout", "downgrade", "pause", "resume", "reschedule" as const),
      fc.constantFrom(...VERSIONS),
    ),
    { maxLength: 25 },
  );

  test("is readable by clients, numbers what they shall run, and never strands one that follows it", () => {
    fc.assert(
      fc.property(history, fc.infiniteStream(fc.boolean()), (steps, looks) => {
        let document: ChannelDocument | undefined;
        let site: string | null = null;
        let now = NOW;
        for (const step of steps) {
          now += HOUR_MS;
          const next = attempt(step, document, now);
          if (next === undefined) continue;
          assert.deepEqual(parseChannelDocument(serialize(next)), next);
          const same = JSON.stringify(next.releases) === JSON.stringify(document?.releases);
          const grown = next.sequence - (document?.sequence ?? 0);
          assert.ok(grown === 1 || (same && grown === 0));
          document = next;
          // A site that looks only now and then: it is never asked to go where it may not.
          if (looks.next().value !== true) continue;
          const wanted = next.releases[0]?.version ?? "";
          const orderOf = (version: string): number | undefined => shelf().orderOf("os-x", version);
          let hops = 0;
          while (site !== wanted) {
            assert.ok(hops++ < 3);
            site = nextVersion(next, site, wanted, orderOf);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  function attempt(
    [what, version]: Step,
    document: ChannelDocument | undefined,
    now: number,
  ): ChannelDocument | undefined {
    const before = at(document);
    try {
      if (what === "set") return pointTo(before, x(version), { minimum: null });
      if (what === "rollout") return rollOut(before, x(version), {}, { percent: 30 }, now);
      if (what === "downgrade") return downgrade(before, x(version));
      if (what === "pause") return pause(before, undefined, now);
      if (what === "resume") return resume(before, now - HOUR_MS, now);
      return reschedule(before, {}, { percent: 60 });
    } catch (error) {
      assert.ok(error instanceof Error && "code" in error, String(error));
      assert.ok(["USAGE", "RELEASE_DOWNGRADE", "RELEASE_NOT_FOUND"].includes(String(error.code)));
      return undefined;
    }
  }
});
