/**
 * A process killed before and after each step that its journal knows, in a first installation, an update, a rollback, and the recovery from
 * one of those; what it leaves keeps every promise, and the next process ends the work.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { sampleOf } from "../support/random.ts";
import { faultyDisk } from "../update/support/faulty-disk.ts";
import { floorsOn } from "../update/support/invariants.ts";
import { committed, openSite } from "../update/support/site.ts";
import { FULL, SEED, forEach } from "./full.ts";
import { PASSAGES, checkPassage, openFrozen, runSite } from "./frozen.ts";
import type { Frozen, Passage } from "./frozen.ts";

/** What a step does to the disk, by its name. The longest names of a path win. */
const STEPS: readonly (readonly [name: string, operation: string, path: RegExp])[] = [
  ["the journal", "rename", /\/state\.json$/],
  ["the swap", "rename", /\/current$/],
  ["a download begins", "append", /\/partial\//],
  ["bytes of a download are made durable", "sync", /\/partial\//],
  ["a bank is begun", "makeDirectory", /\/banks\/[^/]*\.building-\d+$/],
  ["a file of the bank", "create", /\.building-\d+\//],
  ["a kept file of the bank", "link", /\.building-\d+\//],
  ["the files of the bank are made durable", "sync", /\.building-\d+\//],
  ["the manifest of the bank", "rename", /\/banks\/.*\.json$/],
  ["the bank has its name", "rename", /\/banks\/.*-[0-9a-f]{12}$/],
  ["the old bank loses its name", "rename", /\.removing-\d+$/],
  ["the old bank is taken apart", "removeTree", /\.removing-\d+$/],
  ["a file that repairs another", "rename", /\/banks\/[^/]*\/./],
  ["a mode that is repaired", "chmod", /\/banks\/[^/]*\/./],
  ["the trust", "rename", /\/trust\/[^/]+$/],
  ["the site's name", "rename", /\/site$/],
];

interface Point {
  readonly passage: Passage;
  readonly name: string;
  readonly operation: string;
  readonly path: string;
  readonly nth: number;
  readonly after: boolean;
  /** Whether it is a second process that is killed, after a first one was killed in the swap. */
  readonly recovering: boolean;
}

describe("a process that is killed", () => {
  let frozen: Frozen;
  before(async () => {
    frozen = await openFrozen();
  });
  after(() => frozen[Symbol.asyncDispose]());

  /** A volume whose process was killed before the last swap. */
  async function interrupted(passage: Passage): Promise<string> {
    const payload = await frozen.volume(passage);
    const nth = passage.name === "rollback" ? 2 : 1;
    const path = passage.scrubbed ? "/banks/[^/]*/." : "/current$";
    const kill = { operation: "rename", path, nth };
    const { outcome } = await runSite({ ...frozen.place(passage), ...passage, payload, kill });
    assert.equal(outcome, "SIGKILL");
    return payload;
  }

  /** The named steps of a passage, each as often as it occurs, as one that nobody kills takes them. */
  async function pointsOf(passage: Passage, start: string, recovering: boolean): Promise<Point[]> {
    const payload = `${start}-copy`;
    await cp(start, payload, { recursive: true, verbatimSymlinks: true });
    const counts = new Map<string, number>();
    const points: Point[] = [];
    await using faulty = faultyDisk((operation, path) => {
      const step = STEPS.find(([, does, on]) => does === operation && on.test(path));
      if (step === undefined) return;
      const [name, , on] = step;
      const nth = (counts.get(name) ?? 0) + 1;
      counts.set(name, nth);
      // Of many files of one kind the first and the second stand for all.
      if (nth > 2 && !["the journal", "the swap", "the trust"].includes(name)) return;
      const phase = name === "the journal" ? ` says ${phaseIn(`${path}.new`)}` : ` ${nth}`;
      for (const late of [false, true])
        points.push({
          passage,
          name: `${late ? "after" : "before"} ${name}${phase}`,
          operation,
          path: on.source,
          nth,
          after: late,
          recovering,
        });
    });
    await using site = await openSite({
      ...frozen.place(passage),
      payload,
      disk: faulty.disk,
      settings: {
        pollInterval: passage.scrubbed ? 40 : 5,
        trialDuration: 10,
        scrubInterval: passage.scrubbed ? 60 : 0,
        scrubRate: 1e10,
      },
    });
    if (site.agent.installed()) site.application.crash();
    await site.until(
      "the end",
      (status) =>
        committed(passage.version)(status) &&
        status.blocked?.version === passage.blocked &&
        (!passage.scrubbed || typeof status.scrub?.lastPass === "string"),
    );
    await site.looked();
    return points;
  }

  test("leaves what keeps the promises, and the next one ends the work", async (t) => {
    const points: Point[] = [];
    for (const passage of PASSAGES) {
      points.push(...(await pointsOf(passage, await frozen.volume(passage), false)));
      points.push(...(await pointsOf(passage, await interrupted(passage), true)));
    }
    const kinds = Map.groupBy(points, kindOf).values();
    const chosen = FULL ? points : [...kinds].flatMap((some) => sampleOf(some, 10, SEED));
    const told = new Map<string, number>();
    let killed = 0;
    await forEach(
      chosen,
      (point) => `${kindOf(point)}: ${point.name}`,
      async (point) => {
        const { passage, operation, path, nth, after: late, recovering } = point;
        const payload = recovering ? await interrupted(passage) : await frozen.volume(passage);
        const floors = floorsOn(payload);
        const kill = { operation, path, nth, after: late };
        const where = { ...frozen.place(passage), payload };
        const { outcome, complaints } = await runSite({ ...where, ...passage, kill });
        // What comes after the last operation is the end.
        assert.ok(outcome === "SIGKILL" || (late && outcome === 0), `${outcome}: ${complaints}`);
        killed += Number(outcome === "SIGKILL");
        const served = await checkPassage(passage, payload);
        if (passage.installed) assert.notEqual(served, undefined, "the old release is still there");
        await frozen.recover(passage, payload, floors);
        told.set(kindOf(point), (told.get(kindOf(point)) ?? 0) + 1);
      },
    );
    const counts = [...told].map(([kind, count]) => `${kind} ${count}`).join("; ");
    t.diagnostic(`${killed} kills at ${chosen.length} of ${points.length} points: ${counts}`);
    assert.ok(points.length > 100, `${points.length} points`);
  });
});

function kindOf({ passage, recovering }: Point): string {
  return recovering ? `${passage.name}, recovering` : passage.name;
}

function phaseIn(file: string): string {
  const journal = JSON.parse(readFileSync(file, "utf8")) as {
    readonly phase: string;
    readonly stage?: string;
  };
  return journal.stage === undefined ? journal.phase : `${journal.phase} (${journal.stage})`;
}
