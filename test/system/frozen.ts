/** A repository after each of its changes, a site that has the first release, and what a process does to a copy of it. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  cp,
  mkdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { openOrigin } from "../support/origin.ts";
import type { Origin } from "../support/origin.ts";
import { application, committed, openSite } from "../update/support/site.ts";
import type { Application, Site } from "../update/support/site.ts";
import type { ProcessOptions } from "../update/support/site-process.ts";
import {
  assertNotBelow,
  checkRecovered,
  checkVolume,
  floorsOn,
} from "../update/support/invariants.ts";
import type { Floors } from "../update/support/invariants.ts";
import { realClock } from "../support/real-clock.ts";
import { closedPort } from "../support/server.ts";
import { changed, noise, openWorld } from "../update/support/world.ts";
import type { Files, World } from "../update/support/world.ts";

const MODEL = noise(5, 150_000);

/** A tree with everything that it can hold. */
export function treeOf(mark: string, health = "good"): Files {
  return {
    health,
    mark,
    "bin/run": { executable: `#!/bin/sh\necho ${mark}\n` },
    "bin/start": { link: "run" },
    "lib/model.bin": changed(MODEL, 10, mark),
    "lib/fresh.bin": noise(Number(mark.replaceAll(/\D/g, "")), 60_000),
    "lib/same.txt": "same",
    "lib/twin.txt": "same",
  };
}

/** From what to what a site goes. */
export interface Passage {
  readonly name: string;
  /** Whether 1.0.0 is installed when it begins. */
  readonly installed: boolean;
  /** Whether the release that is installed is damaged, and has to be repaired. */
  readonly scrubbed: boolean;
  /** What the channel names. */
  readonly offered: string;
  /** What is committed in the end. */
  readonly version: string;
  readonly blocked: string | undefined;
}

const SOUND = { scrubbed: false, blocked: undefined } as const;
export const PASSAGES: readonly Passage[] = [
  { ...SOUND, name: "install", installed: false, offered: "1.0.0", version: "1.0.0" },
  { ...SOUND, name: "update", installed: true, offered: "1.1.0", version: "1.1.0" },
  {
    ...SOUND,
    name: "rollback",
    installed: true,
    offered: "1.2.0",
    version: "1.0.0",
    blocked: "1.2.0",
  },
  {
    ...SOUND,
    name: "repair",
    installed: true,
    scrubbed: true,
    offered: "1.0.0",
    version: "1.0.0",
  },
];

/** What holds of the volume of a passage at any instant. Returns the bank that is served. */
export async function checkPassage(
  { scrubbed }: Passage,
  payload: string,
): Promise<string | undefined> {
  // A bank that is damaged is not whole; that it is served is what counts.
  if (!scrubbed) return checkVolume(payload);
  const target = await readlink(join(payload, "current"));
  assert.equal((await stat(join(payload, target))).isDirectory(), true);
  return target;
}

export interface Frozen extends AsyncDisposable {
  readonly world: World;
  /** A payload volume as a passage finds it. */
  volume(passage: Passage): Promise<string>;
  /** Where a passage looks, and the pinned root. */
  place(passage: Passage): { readonly url: string; readonly root: string };
  /** A site that goes on with a volume, the way a pod comes up: first without any repository. */
  recover(passage: Passage, payload: string, before: Floors): Promise<void>;
}

export async function openFrozen(): Promise<Frozen> {
  const world = await openWorld();
  const origins = new Map<string, Origin>();
  let volumes = 0;
  for (const [version, health] of [
    ["1.0.0", "good"],
    ["1.1.0", "good"],
    ["1.2.0", "bad"],
  ] as const) {
    await world.publish(version, treeOf(version.slice(0, 3), health));
    const folder = join(world.folder, `repository-${version}`);
    await cp(world.repository, folder, { recursive: true });
    origins.set(version, await openOrigin(folder));
  }
  const url = (version: string): string => origins.get(version)?.url ?? "";
  const installed = join(world.folder, "installed");
  {
    const options = { payload: installed, url: url("1.0.0"), root: world.root };
    await using site = await openSite(options);
    await site.until("the first release", committed("1.0.0"));
    await site.looked();
  }

  async function volume(passage: Passage): Promise<string> {
    const payload = join(world.folder, `volume-${volumes++}`);
    if (passage.installed)
      await cp(installed, payload, { recursive: true, verbatimSymlinks: true });
    else await mkdir(payload);
    if (passage.scrubbed) await damage(join(payload, await readlink(join(payload, "current"))));
    return payload;
  }

  async function recover(passage: Passage, payload: string, before: Floors): Promise<void> {
    await checkPassage(passage, payload);
    const app = application(payload);
    let served: string | undefined;
    const recovered = async (): Promise<void> => {
      const check = passage.scrubbed ? checkPassage(passage, payload) : checkRecovered(payload);
      served = await check;
    };
    const quick = {
      // A scrub works in the pauses between two looks.
      pollInterval: passage.scrubbed ? 40 : 4,
      trialDuration: 3,
      trialTimeout: 5_000,
      scrubInterval: passage.scrubbed ? 60 : 0,
      scrubRate: 1e10,
    };
    const common = {
      payload,
      root: world.root,
      application: app,
      recovered,
      settings: quick,
      clock: passage.scrubbed ? realClock : quickClock,
    };
    {
      // Recovery and what is served depend on nobody.
      const dead = `http://127.0.0.1:${await closedPort()}`;
      await using cut = await openSite({ ...common, url: dead });
      assert.equal(cut.agent.installed(), served !== undefined, "what is served is known");
    }
    {
      await using site = await openSite({ ...common, url: url(passage.offered) });
      await finish(passage, site, app);
    }
    // Nobody works on it any more.
    await checkVolume(payload);
    assertNotBelow(floorsOn(payload), before);
  }

  return {
    world,
    volume,
    place: (passage) => ({ url: url(passage.offered), root: world.root }),
    recover,
    async [Symbol.asyncDispose]() {
      for (const origin of origins.values()) await origin[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
    },
  };
}

/** Pauses of seconds would only make it long. */
const quickClock: typeof realClock = {
  ...realClock,
  sleep: (ms, signal) => realClock.sleep(Math.min(ms, 2), signal),
};

/** Bytes, lengths, modes, links, names that are missing: something of each. */
async function damage(bank: string): Promise<void> {
  const model = join(bank, "lib/model.bin");
  const bytes = await readFile(model);
  bytes.writeUInt8((bytes.readUInt8(1_234) + 1) % 256, 1_234);
  await rm(model);
  await writeFile(model, bytes, { mode: 0o444 });
  await truncate(join(bank, "lib/fresh.bin"), 20_000);
  await chmod(join(bank, "bin/run"), 0o400);
  await rm(join(bank, "mark"));
  await rm(join(bank, "bin/start"));
  await symlink("../mark", join(bank, "bin/start"));
}

async function finish(
  { version, blocked, scrubbed }: Passage,
  site: Site,
  app: Application,
): Promise<void> {
  await site.until(`the end with ${version}`, (status) => {
    // The main container starts when the gate is open.
    if (site.agent.installed() && app.running() === undefined) app.crash();
    return (
      committed(version)(status) &&
      status.blocked?.version === blocked &&
      status.lastLook !== null &&
      (!scrubbed || typeof status.scrub?.lastPass === "string") &&
      status.error === null
    );
  });
}

const SCRIPT = fileURLToPath(new URL("../update/support/site-process.ts", import.meta.url));

export interface Ended {
  /** Exit status, or the signal that ended it. */
  readonly outcome: number | NodeJS.Signals | null;
  readonly output: string;
  readonly complaints: string;
}

/** A site in a process of its own until it ends. @param wrapper what starts it, such as strace with its arguments */
export async function runSite(
  options: ProcessOptions,
  wrapper: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const [program, ...args] = [...wrapper, process.execPath, SCRIPT, JSON.stringify(options)];
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const [output, complaints, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>,
  ]);
  return { outcome: signal ?? code, output, complaints };
}
