import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import type { UpdateStatus } from "../../sidecar/update/report.ts";
import { checkVolume } from "./support/invariants.ts";
import { application, committed, openSite } from "./support/site.ts";
import type { ProcessOptions } from "./support/site-process.ts";
import { changed, noise, openWorld } from "./support/world.ts";
import type { World } from "./support/world.ts";

const SCRIPT = fileURLToPath(new URL("support/site-process.ts", import.meta.url));
const MODEL = noise(5, 400_000);
const files = (mark: string, health = "good"): Record<string, string | Buffer> => ({
  health,
  "model.bin": changed(MODEL, 10, mark),
});

interface Ended {
  readonly signal: string | null;
  readonly told: readonly UpdateStatus[];
  readonly complaints: string;
}

async function runSite(options: ProcessOptions, ...prefix: readonly string[]): Promise<Ended> {
  const line = [...prefix, process.execPath, SCRIPT, JSON.stringify(options)];
  const child = spawn("env", line, { stdio: ["ignore", "pipe", "pipe"] });
  const [out, complaints, [, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "exit") as Promise<[number | null, string | null]>,
  ]);
  const told = out.split("\n").filter((line) => line !== "");
  return { signal, told: told.map((line) => JSON.parse(line) as UpdateStatus), complaints };
}

describe("a process", () => {
  let world: World;
  let installed: string;
  before(async () => {
    world = await openWorld();
    await world.publish("1.0.0", files("one"));
    installed = join(world.folder, "installed");
    const options = { payload: installed, url: world.origin.url, root: world.root };
    await using site = await openSite(options);
    await site.until("the first release", committed("1.0.0"));
    await site.looked();
  });
  after(() => world[Symbol.asyncDispose]());

  /** Where the process is killed: before the journal says so, before it is done, and between. */
  const points = [
    ["the journal says downloading", "rename", "state.json$", 1],
    ["the download is complete", "sync", "partial/", 2],
    ["the manifest is written", "rename", "banks/1.1.0-.*json$", 1],
    ["the bank has its name", "rename", "banks/1.1.0-[0-9a-f]{12}$", 1],
    ["the journal says staged", "rename", "state.json$", 2],
    ["the journal says trial", "rename", "state.json$", 3],
    ["current is swapped", "rename", "current$", 1],
    ["the journal says restarted", "rename", "state.json$", 4],
    ["the journal says committed", "rename", "state.json$", 5],
    ["the old bank loses its name", "rename", "removing", 1],
    ["the old bank is removed", "removeTree", "removing", 1],
  ] as const;

  test("that is killed at each step of an update leaves a volume that serves, and the next one ends the work", async () => {
    await world.publish("1.1.0", files("two"));
    const work = points.map(async ([name, operation, path, nth], index) => {
      const payload = join(world.folder, `killed-${index}`);
      await cp(installed, payload, { recursive: true, verbatimSymlinks: true });
      const where = { payload, url: world.origin.url, root: world.root };
      const kill = { operation, path, nth };
      const { signal, complaints } = await runSite({ ...where, kill, version: "1.1.0" });
      assert.equal(signal, "SIGKILL", `before ${name}: ${complaints}`);
      assert.notEqual(await checkVolume(payload), undefined, name);
      // As after a power cut: the application starts when the volume is recovered.
      const app = application(payload);
      const recovered = (): Promise<unknown> => checkVolume(payload);
      await using site = await openSite({ ...where, application: app, recovered });
      app.crash();
      await site.until(`the end after a kill before ${name}`, committed("1.1.0"));
      await site.looked();
      await checkVolume(payload);
    });
    await Promise.all(work);
  });

  test("on a disk that is really full keeps the old release and says so, and goes on when there is room", async (t) => {
    const namespace = ["unshare", "--user", "--map-root-user", "--mount"];
    if (spawnSync("env", [...namespace, "true"]).status !== 0) {
      t.diagnostic(
        "no mount of one's own on this machine; a full disk is then only an injected error",
      );
      return;
    }
    await world.publish("1.1.1", { ...files("thr"), "more.bin": noise(8, 500_000) });
    const payload = join(world.folder, "small");
    await mkdir(payload);
    const where = { payload, url: world.origin.url, root: world.root, version: "1.1.1" };
    const small = { content: installed, size: "1100k" };
    const { told, complaints } = await runSite({ ...where, small }, ...namespace);
    assert.deepEqual(
      told.map((status) => [status.release?.version, status.error?.code]),
      [
        ["1.0.0", "DISK_FULL"],
        ["1.1.1", undefined],
      ],
      complaints,
    );
  });
});
