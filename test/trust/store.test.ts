/** The store under kills, power cuts and errors of the disk, at every operation of a look that changes all of it. */
import assert from "node:assert/strict";
import { cp, readFile, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, test } from "node:test";
import { NO_SKEW } from "#core/clock-skew.ts";
import { codeOf } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource, TrustDeps } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { openTrustStore } from "../../sidecar/channel/trust-store.ts";
import { crashDisk } from "../support/crash-model.ts";
import type { CrashDisk, Image } from "../support/crash-model.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { failingAt, faultyDisk, killedAt } from "../update/support/faulty-disk.ts";
import { NOW, TARGET, makeKey, makeWorld, never } from "./world.ts";
import type { World } from "./world.ts";

const ISSUED = {
  timestamp: (signed: object) => ({ ...signed, "x-edgesync-issued": "2026-11-22T11:00:00Z" }),
};

interface History {
  readonly world: World;
  /** What was served before anything was stored. */
  readonly older: MetadataSource;
  /** What is stored when the test begins. */
  readonly before: MetadataSource;
  /** What is served then: all is new. */
  readonly after: MetadataSource;
  readonly rotates: boolean;
}

/** @param rotates whether the timestamp's key is another one in the end, which makes the store forget */
function makeHistory(rotates: boolean): History {
  const world = makeWorld();
  const publish = (version: number): MetadataSource => {
    const versions = { timestamp: version, snapshot: version, targets: version };
    world.publish(versions, ISSUED);
    return sourceOf(new Map(world.files));
  };
  const [older, before] = [publish(2), publish(3)];
  if (rotates) world.keys.timestamp = makeKey();
  world.publishRoot(2);
  return { world, older, before, after: publish(4), rotates };
}

function sourceOf(files: ReadonlyMap<string, Buffer>): MetadataSource {
  return {
    metadata: (name) => Promise.resolve(files.get(`metadata/${name}`)),
    target: (path) => Promise.resolve(files.get(`targets/${path}`)),
  };
}

/** One look by a process that begins with what is stored. */
async function look(
  { world }: History,
  source: MetadataSource,
  folder: string,
  disk: Disk,
): Promise<number> {
  const store = await openTrustStore(folder, disk);
  const timing = { skew: NO_SKEW, monotonic: 0, memory: { expiries: new Map<string, number>() } };
  const deps: TrustDeps = { ...world.deps, source, store, now: NOW, timing };
  const trusted = await refresh(deps, never);
  await fetchTarget(trusted, TARGET, 1_000, deps, never);
  return trusted.timestamp.version;
}

const NAMES = [
  "app.web.json",
  "pinned-root",
  "root.json",
  "snapshot.json",
  "targets.json",
  "time-floor",
  "timestamp.json",
];

/** Everything that is stored is what was served, byte for byte, and nothing is missing. */
function assertHealed({ world }: History, files: ReadonlyMap<string, Buffer>): void {
  assert.deepEqual([...files.keys()].filter((name) => !name.endsWith(".new")).toSorted(), NAMES);
  for (const [name, served] of [
    ["root.json", "2.root.json"],
    ["timestamp.json", "timestamp.json"],
    ["snapshot.json", "4.snapshot.json"],
    ["targets.json", "4.targets.json"],
    ["app.web.json", "4.app.web.json"],
  ] as const)
    assert.deepEqual(files.get(name), world.files.get(`metadata/${served}`), name);
}

/** A site that comes up after what has happened. */
interface Found {
  readonly disk: Disk;
  readonly folder: string;
  readonly files: () => Promise<ReadonlyMap<string, Buffer>>;
}

/** @param open opens a copy of what was found */
async function assertHeals(history: History, open: () => Promise<Found>): Promise<void> {
  const served = async (source: MetadataSource): Promise<number | string> => {
    const { disk, folder } = await open();
    return look(history, source, folder, disk).catch(codeOf);
  };
  // Nothing that was known is forgotten: what is older than it is a rollback, before and after the healing.
  if (!history.rotates) assert.equal(await served(history.older), "METADATA_UNTRUSTED");
  // The old state may go on to be served as long as nothing of the new one is stored.
  const again = await served(history.before);
  assert.ok(again === 3 || again === "METADATA_UNTRUSTED", String(again));
  const { disk, folder, files } = await open();
  assert.equal(await look(history, history.after, folder, disk), 4);
  assertHealed(history, await files());
}

async function readFolder(folder: string): Promise<ReadonlyMap<string, Buffer>> {
  const names = await readdir(folder);
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await readFile(join(folder, name))] as const),
    ),
  );
}

/** Looks at the new state with ever later kills, until one comes too late. @returns operations */
async function killEverywhere(history: History, folder: string): Promise<number> {
  const old = join(folder, "old");
  await look(history, history.before, old, nodeDisk);
  for (let number = 1; ; number++) {
    const path = join(folder, String(number));
    await cp(old, path, { recursive: true });
    const killed = Promise.withResolvers<"killed">();
    await using faulty = faultyDisk(killedAt(number, () => killed.resolve("killed")));
    const ended = look(history, history.after, path, faulty.disk);
    const over = (await Promise.race([ended, killed.promise])) !== "killed";
    let copies = 0;
    await assertHeals(history, async () => {
      const copy = join(folder, `${number}-${copies++}`);
      await cp(path, copy, { recursive: true });
      return { disk: nodeDisk, folder: copy, files: () => readFolder(copy) };
    });
    if (over) return number;
  }
}

/** The same with power cuts. @returns cases of what was found after them */
async function cutEverywhere(history: History): Promise<number> {
  const folder = "/trust";
  // That the folder itself is on the platter is the business of whoever makes it.
  const first = crashDisk(
    new Map([[folder, { kind: "directory", bytes: Buffer.alloc(0), mode: 0o700 }]]),
  );
  await look(history, history.before, folder, first.disk);
  const [start, ...others] = imagesOf(first);
  assert.deepEqual(others, [], "all is on the platter when a look is over");
  let cases = 0;
  for (let number = 1; ; number++) {
    const cut = new Error("power cut");
    let found: readonly Image[] = [];
    const model = crashDisk(start, (_operation, _path, now) => {
      if (now !== number) return;
      found = imagesOf(model);
      throw cut;
    });
    const outcome = await look(history, history.after, folder, model.disk).catch(
      (error: unknown) => error,
    );
    assert.ok(outcome === cut || outcome === 4, String(outcome));
    for (const image of found) {
      cases += 1;
      await assertHeals(history, async () => {
        const copy = crashDisk(image);
        const files = async (): Promise<ReadonlyMap<string, Buffer>> => filesIn(copy.image());
        return { disk: copy.disk, folder, files };
      });
    }
    if (outcome === 4) return cases;
  }
}

/** Each case of what may be found after a power cut now. */
function imagesOf(disk: CrashDisk): readonly Image[] {
  const drawn = disk.everyImage(1_000);
  // Whoever saves one thing after the other has one of them in the air.
  assert.ok(drawn !== undefined, "not too much is written and not synced");
  return drawn.map(({ image }) => image);
}

function filesIn(image: Image): ReadonlyMap<string, Buffer> {
  const files = [...image].filter(([, { kind }]) => kind === "file");
  return new Map(files.map(([path, { bytes }]) => [basename(path), bytes]));
}

describe("the trust store", () => {
  test("holds what was served, byte for byte", async () => {
    const history = makeHistory(true);
    await using folder = await temporaryFolder(MEMORY);
    const path = join(folder.path, "trust");
    await look(history, history.before, path, nodeDisk);
    await look(history, history.after, path, nodeDisk);
    assertHealed(history, await readFolder(path));
    assert.equal((await readdir(path)).length, NAMES.length);
  });

  for (const rotates of [false, true]) {
    const what = rotates ? " that withdraws a key" : "";
    test(`heals after a kill before any operation of a look${what}`, async () => {
      await using folder = await temporaryFolder(MEMORY);
      const operations = await killEverywhere(makeHistory(rotates), folder.path);
      assert.ok(operations > 30, `${operations} operations`);
    });

    test(`heals after a power cut in a look${what}, whatever is lost of what was not synced`, async () => {
      const cases = await cutEverywhere(makeHistory(rotates));
      assert.ok(cases > 40, `${cases} cases`);
    });
  }

  for (const code of ["DISK_FULL", "DISK_FAILED"] as const)
    test(`says ${code} at whichever operation, and heals when the disk works again`, async () => {
      const history = makeHistory(true);
      await using folder = await temporaryFolder(MEMORY);
      const old = join(folder.path, "old");
      await look(history, history.before, old, nodeDisk);
      let failed = true;
      for (let number = 1; failed; number++) {
        const path = join(folder.path, String(number));
        await cp(old, path, { recursive: true });
        await using faulty = faultyDisk(failingAt(number, 1, code));
        const outcome = await look(history, history.after, path, faulty.disk).catch(codeOf);
        failed = outcome !== 4;
        if (failed) assert.equal(outcome, code);
        assert.equal(await look(history, history.after, path, nodeDisk), 4);
        assertHealed(history, await readFolder(path));
      }
    });
});
