import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Entry } from "#core/release.ts";
import { damageOf, firstPassMs, nextPassMs, repairAgainMs, usedUntil } from "#core/scrub.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

describe("a scrub", () => {
  test("begins within an hour of a start, each site at a time of its own, and then once a day", () => {
    assert.equal(
      firstPassMs(DAY_MS, () => 0),
      0,
    );
    assert.ok(firstPassMs(DAY_MS, () => 0.999) < HOUR_MS);
    assert.equal(
      nextPassMs(DAY_MS, () => 0.5),
      DAY_MS,
    );
  });

  test("tries a repair again after a minute, then ever later, and at least once an interval", () => {
    const pauses = [1, 2, 3, 30].map((failures) => repairAgainMs(failures, DAY_MS, () => 0.5));
    assert.deepEqual(pauses, [60_000, 120_000, 240_000, DAY_MS]);
  });

  test("uses up its rate with what it reads, and saves nothing of it in its pauses", () => {
    assert.equal(usedUntil(0, 5_000, 1_000, 1_000), 6_000);
    assert.equal(usedUntil(6_000, 5_100, 500, 1_000), 6_500);
    assert.equal(usedUntil(6_500, 60_000, 1_000, 1_000), 61_000);
  });

  test("calls damage what an application would notice, and nothing that a volume does by itself", () => {
    const file: Entry = { type: "file", path: "a", mode: 0o644, sha256: "0".repeat(64) };
    const link: Entry = { type: "symlink", path: "l", target: "a" };
    const folder: Entry = { type: "directory", path: "d", mode: 0o755 };
    assert.equal(damageOf(file, undefined, 0o444), "missing");
    assert.equal(damageOf(file, { kind: "directory", mode: 0o755 }, 0o444), "kind");
    assert.equal(damageOf(file, { kind: "file", mode: 0o444 }, 0o444), undefined);
    // As with an fsGroup.
    assert.equal(damageOf(file, { kind: "file", mode: 0o664 }, 0o444), undefined);
    assert.equal(damageOf(file, { kind: "file", mode: 0o400 }, 0o444), "mode");
    assert.equal(damageOf(file, { kind: "file", mode: 0o555 }, 0o444), "mode");
    assert.equal(damageOf(file, { kind: "file", mode: 0o444 }, 0o555), "mode");
    assert.equal(damageOf(folder, { kind: "directory", mode: 0o2775 }, 0o755), undefined);
    assert.equal(damageOf(folder, { kind: "directory", mode: 0o700 }, 0o755), "mode");
    assert.equal(damageOf(link, { kind: "symlink", mode: 0o777, target: "a" }, 0o755), undefined);
    assert.equal(damageOf(link, { kind: "symlink", mode: 0o777, target: "b" }, 0o755), "target");
  });
});
