/** The real agent on a disk and a repository in memory, from an image of its volume to the end of what it has to do. */
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { crashDisk } from "../../support/crash-model.ts";
import type { CrashDisk, Image, Node } from "../../support/crash-model.ts";
import { memoryHttp } from "../../support/memory-http.ts";
import type { MemoryHttp, RepositoryFiles } from "../../support/memory-http.ts";
import type { Disk } from "../../../sidecar/disk/durable.ts";
import type { UpdateStatus } from "../../../sidecar/update/report.ts";
import { floorsOf } from "../../update/support/invariants.ts";
import type { Floors, Relied } from "../../update/support/invariants.ts";
import { application, committed, openSite } from "../../update/support/site.ts";
import type { Application, Site } from "../../update/support/site.ts";
import { changed, noise, openWorld } from "../../update/support/world.ts";
import type { Files } from "../../update/support/world.ts";
import { idleClock } from "./idle-clock.ts";

export const PAYLOAD = "/site/payload";
const ROOT = "/site/root.json";
const ORIGIN = "http://127.0.0.1:1";

/** What a repository was after each of its changes, by the version that its channel named then. */
export interface Repository {
  readonly root: Buffer;
  readonly states: ReadonlyMap<string, RepositoryFiles>;
}

const MODEL = noise(5, 150_000);

/** Everything that a tree can hold. */
function treeOf(mark: string, health = "good"): Files {
  return {
    health,
    mark,
    "bin/run": { executable: `#!/bin/sh\necho ${mark}\n` },
    "bin/start": { link: "run" },
    "lib/model.bin": changed(MODEL, 10, mark),
    "lib/fresh.bin": noise(Number(mark.replace(".", "")), 100_000),
    "lib/same.txt": "same",
    "lib/deep/twin.txt": "same",
    "lib/deep/empty": "",
  };
}

/** A real publisher's work: 1.0.0 and 1.1.0 are well, 1.2.0 is not. */
export async function publishAll(): Promise<Repository> {
  await using world = await openWorld();
  const states = new Map<string, RepositoryFiles>();
  for (const [version, health] of [
    ["1.0.0", "good"],
    ["1.1.0", "good"],
    ["1.2.0", "bad"],
  ] as const) {
    await world.publish(version, treeOf(version.slice(0, 3), health));
    states.set(version, await readTree(world.repository));
  }
  return { root: await readFile(world.root), states };
}

async function readTree(folder: string): Promise<RepositoryFiles> {
  const items = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = items.filter((item) => item.isFile());
  return new Map(
    await Promise.all(
      files.map(async (item) => {
        const path = join(item.parentPath, item.name);
        return [path.slice(folder.length + 1), await readFile(path)] as const;
      }),
    ),
  );
}

/** What has to come about. */
export interface Goal {
  /** What the channel names. */
  readonly offered: string;
  /** What must be committed in the end. */
  readonly committed: string;
  readonly blocked: string | undefined;
  /** Whether the release is also to be found sound, or made so. */
  readonly scrubbed?: true;
}

const folder = (): Node => ({ kind: "directory", bytes: Buffer.alloc(0), mode: 0o755 });

/** A volume with nothing on it. */
export function emptyVolume({ root }: Repository): Image {
  return new Map([
    ["/site", folder()],
    [ROOT, { kind: "file", bytes: root, mode: 0o644 }],
    [PAYLOAD, folder()],
  ]);
}

/** What may be asked at any operation: how far things are, as others than the agent see it. */
export interface Witness {
  readonly relied: Relied;
  readonly floors: Floors;
  /** Bytes that were fetched so far, by path. */
  readonly received: ReadonlyMap<string, number>;
}

export interface Play {
  readonly model: CrashDisk;
  readonly http: MemoryHttp;
  readonly site: Site;
  readonly application: Application;
  readonly witness: () => Witness;
}

export interface PlayOptions {
  readonly repository: Repository;
  /** What is found, or a disk to go on with. */
  readonly start: Image | CrashDisk;
  readonly goal: Goal;
  /** Told before each operation that changes the disk. */
  readonly watch?: (
    model: CrashDisk,
    witness: () => Witness,
    operation: string,
    path: string,
  ) => void;
  /** Puts something between the agent and the disk. */
  readonly between?: (disk: Disk) => Disk;
  /** Whether to give up before the goal is reached. */
  readonly given?: () => boolean;
  /** Called when the agent has recovered the volume and does nothing yet. */
  readonly recovered?: (model: CrashDisk, http: MemoryHttp) => Promise<unknown>;
  /** Told then whether the agent says that there is something to start. */
  readonly opened?: (installed: boolean) => void;
}

/** A hundred times what it takes. Not a time: a machine may stand still for a while. */
const MAX_TURNS = 10_000;

/**
 * Plays until the agent is killed before it does something for the nth time. What it has done is seen by the next agent on the disk, and is as
 * durable as it was.
 */
export async function playUntilKilled(
  options: PlayOptions,
  { operation, path, nth }: { operation: string; path: RegExp; nth: number },
): Promise<CrashDisk> {
  let seen = 0;
  let found: CrashDisk | undefined;
  const killed = new Error("killed");
  const watch: PlayOptions["watch"] = (model, _witness, now, where) => {
    if (found === undefined && now === operation && path.test(where)) seen += 1;
    if (seen < nth) return;
    found = model;
    throw killed;
  };
  const outcome = await play({ ...options, watch, given: () => found !== undefined });
  assert.ok(found !== undefined, `${operation} ${String(path)} did not happen ${nth} times`);
  outcome.model.watch(() => undefined);
  return found;
}

/** @throws when the goal is not reached */
export async function play(options: PlayOptions): Promise<Play> {
  const { repository, goal, start } = options;
  const files = repository.states.get(goal.offered);
  assert.ok(files !== undefined, `the repository was never at ${goal.offered}`);
  let site: Site | undefined;
  let said: Relied["committed"];
  const model = "disk" in start ? start : crashDisk(start);
  model.watch((operation, path) => options.watch?.(model, witness, operation, path));
  const floorsNow = (): Floors =>
    floorsOf(model.peekNames(`${PAYLOAD}/trust`), (path) => model.peek(`${PAYLOAD}/${path}`));
  let floors = floorsNow();
  /** Folders in which something has taken another's place and is not durable, as far as the agent knows. */
  const open = new Set<string>();
  const http = memoryHttp(ORIGIN, files, () => {
    // What is asked for next shows what was believed before; but two things may go on beside each other.
    if (open.size === 0) floors = floorsNow();
  });
  const reading = {
    link: (path: string): string => model.peekLink(path) ?? "",
    file: (path: string): Buffer => model.peek(path) ?? Buffer.alloc(0),
  };
  const app = application(PAYLOAD, reading);

  function witness(): Witness {
    const status = site?.agent.status();
    if (status?.phase === "committed" && status.release !== null)
      said = { channel: status.channel, sequence: status.release.sequence };
    const running = app.running()?.slice("banks/".length);
    return { relied: { running, committed: said }, floors, received: new Map(http.received) };
  }

  const under = options.between?.(model.disk) ?? model.disk;
  const disk: Disk = {
    ...under,
    async rename(from, to) {
      open.add(dirname(to));
      await under.rename(from, to);
    },
    async syncDirectory(path) {
      await under.syncDirectory(path);
      open.delete(path);
    },
  };
  await using opened = await openSite({
    payload: PAYLOAD,
    url: ORIGIN,
    root: ROOT,
    // As the main container is: it starts when the gate is open.
    held: () => app.running() === undefined,
    settings: {
      pollInterval: 3_600_000,
      trialDuration: 15,
      trialTimeout: 5_000,
      scrubInterval: goal.scrubbed === true ? 60_000 : 0,
      scrubRate: 1e10,
    },
    clock: idleClock(() => model.count() + http.requests()),
    disk,
    http,
    application: app,
    recovered: async () => options.recovered?.(model, http),
  });
  site = opened;
  options.opened?.(site.agent.installed());
  const played: Play = { model, http, site, application: app, witness };
  for (let turns = 0; ; turns++) {
    const status: UpdateStatus = site.agent.status();
    if (options.given?.() === true) return played;
    if (site.agent.installed() && app.running() === undefined) app.crash();
    if (
      committed(goal.committed)(status) &&
      status.blocked?.version === goal.blocked &&
      status.error === null &&
      status.lastLook !== null &&
      (goal.scrubbed !== true || typeof status.scrub?.lastPass === "string") &&
      app.running() !== undefined &&
      isTidy(model)
    )
      return played;
    assert.ok(
      turns < MAX_TURNS,
      `${goal.offered} did not come to its end: ${JSON.stringify(status)}`,
    );
    await delay(1);
  }
}

/** Whether nothing is left of what went before but the bank that is served, and its manifest. */
function isTidy(model: CrashDisk): boolean {
  return model.peekNames(`${PAYLOAD}/banks`).length === 2;
}
