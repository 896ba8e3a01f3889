import assert from "node:assert/strict";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { realClock } from "../support/real-clock.ts";
import { openOrigin } from "../support/origin.ts";
import type { Origin } from "../support/origin.ts";
import { failingAt, faultyDisk, killedAt } from "./support/faulty-disk.ts";
import { checkVolume, isTidy, journalOf } from "./support/invariants.ts";
import { application, committed, openSite } from "./support/site.ts";
import type { Site, SiteOptions } from "./support/site.ts";
import { changed, noise, openWorld } from "./support/world.ts";
import type { World } from "./support/world.ts";

const MODEL = noise(5, 70_000);

function files(mark: string, health = "good"): Record<string, string | Buffer> {
  return { health, mark, "lib/model.bin": changed(MODEL, 10, mark), "lib/same.txt": "same" };
}

/** `npm test` takes a part of the operations, `npm run test:system` more: of kills every one. */
const SPARING = process.env["EDGESYNC_TEST_FULL"] === undefined ? 8 : 1;

/** Pauses of seconds would only make the sweep long. */
const quickClock: typeof realClock = {
  ...realClock,
  sleep: (ms, signal) => realClock.sleep(Math.min(ms, 2), signal),
};

interface Scenario {
  readonly name: string;
  /** The version that is installed before; none for a first installation. */
  readonly from: string | undefined;
  /** What must be committed in the end. */
  readonly to: string;
  readonly blocked: string | undefined;
}

const SCENARIOS: readonly Scenario[] = [
  { name: "a first installation", from: undefined, to: "1.0.0", blocked: undefined },
  { name: "an update", from: "1.0.0", to: "1.1.0", blocked: undefined },
  { name: "a rollback", from: "1.0.0", to: "1.0.0", blocked: "1.2.0" },
];

describe("at every operation on the disk", () => {
  let world: World;
  const origins = new Map<string, Origin>();
  let runs = 0;

  before(async () => {
    world = await openWorld();
    for (const [version, health] of [
      ["1.0.0", "good"],
      ["1.1.0", "good"],
      ["1.2.0", "bad"],
    ] as const) {
      await world.publish(version, files(version.slice(0, 3), health));
      const frozen = join(world.folder, `repository-${version}`);
      await cp(world.repository, frozen, { recursive: true });
      origins.set(version, await openOrigin(frozen));
    }
    const installed = { ...optionsFor("1.0.0"), payload: join(world.folder, "installed") };
    await using site = await openSite(installed);
    await site.until("the first release", committed("1.0.0"));
    await site.looked();
  });
  after(async () => {
    for (const origin of origins.values()) await origin[Symbol.asyncDispose]();
    await world[Symbol.asyncDispose]();
  });

  function optionsFor(version: string): SiteOptions {
    const url = origins.get(version)?.url ?? "";
    const payload = join(world.folder, `run-${runs++}`);
    const settings = { pollInterval: 4, trialDuration: 3, trialTimeout: 5_000 };
    return { payload, url, root: world.root, clock: quickClock, settings };
  }

  /** A site as the scenario finds it. */
  async function prepare({ from, to, blocked }: Scenario): Promise<SiteOptions> {
    const options = optionsFor(blocked ?? to);
    if (from === undefined) await mkdir(options.payload);
    else
      await cp(join(world.folder, "installed"), options.payload, {
        recursive: true,
        verbatimSymlinks: true,
      });
    return options;
  }

  /** Resolves when all is as it shall be in the end. */
  async function reachEnd(site: Site, { name, to, blocked }: Scenario): Promise<void> {
    await site.until(
      `the end of ${name}`,
      (status) =>
        committed(to)(status) &&
        status.blocked?.version === blocked &&
        status.error === null &&
        isTidy(site.payload),
    );
    await checkVolume(site.payload);
  }

  async function countOperations(scenario: Scenario): Promise<number> {
    await using faulty = faultyDisk(() => undefined);
    await using site = await openSite({ ...(await prepare(scenario)), disk: faulty.disk });
    await reachEnd(site, scenario);
    return faulty.count();
  }

  for (const scenario of SCENARIOS) {
    test(`a kill during ${scenario.name} is recovered from`, async (t) => {
      const total = await countOperations(scenario);
      assert.ok(total > 20);
      await forEach(total, SPARING, async (number) => {
        const options = await prepare(scenario);
        const killed = Promise.withResolvers<void>();
        await using faulty = faultyDisk(killedAt(number, killed.resolve));
        // The application does not notice.
        const app = application(options.payload);
        const dying = openSite({ ...options, disk: faulty.disk, application: app });
        await killed.promise;
        // It does nothing any more; only its connections have to be closed.
        void dying.then((site) => site[Symbol.asyncDispose]());
        const served = await checkVolume(options.payload);
        if (scenario.from !== undefined) assert.notEqual(served, undefined);
        const recovered = (): Promise<unknown> => checkVolume(options.payload);
        await using site = await openSite({ ...options, application: app, recovered });
        assert.equal(site.agent.recovered(), true);
        await reachEnd(site, scenario);
      });
      t.diagnostic(`${Math.ceil(total / SPARING)} kills, of ${total} operations`);
    });

    for (const [code, stride] of [
      ["DISK_FULL", 3],
      ["DISK_FAILED", 5],
    ] as const)
      test(`${code} during ${scenario.name} is survived, told and retried`, async (t) => {
        const total = await countOperations(scenario);
        let told = 0;
        let failures = 0;
        await forEach(total, stride * SPARING, async (number) => {
          const options = await prepare(scenario);
          // Not only once: a full disk stays so for a while.
          await using faulty = faultyDisk(failingAt(number, 1 + (number % 3), code));
          const recovered = (): Promise<unknown> => checkVolume(options.payload);
          await using site = await openSite({ ...options, disk: faulty.disk, recovered });
          await reachEnd(site, scenario);
          failures += 1;
          if (site.log.some(({ fields }) => fields.code === code)) told += 1;
        });
        // What fails while an aborted attempt is cleared away hides behind what made it so.
        assert.ok(told >= failures * 0.9, `${told} of ${failures} were told of`);
        t.diagnostic(`${failures} failures, ${told} told of`);
      });
  }

  test("the journal knows what it blocked", async () => {
    const scenario = SCENARIOS[2];
    assert.ok(scenario !== undefined);
    await using site = await openSite(await prepare(scenario));
    await reachEnd(site, scenario);
    assert.equal(journalOf(site.payload).channels["web/stable"]?.blocked?.reason, "health_failed");
  });
});

/** Does something for 1, 1 + stride, …, total, a few at a time. An error says which one it was. */
async function forEach(
  total: number,
  stride: number,
  work: (number: number) => Promise<void>,
): Promise<void> {
  let next = 1;
  const worker = async (): Promise<void> => {
    while (next <= total) {
      const number = next;
      next += stride;
      try {
        await work(number);
      } catch (cause) {
        next = total + 1;
        throw new Error(`operation ${number} of ${total}`, { cause });
      }
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}
