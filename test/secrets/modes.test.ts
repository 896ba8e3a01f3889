import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { PodSpec } from "#core/inject/pod.ts";
import { WEB, envOf, injected, podWith, sidecarOf } from "../support/inject.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** Who can read a secret's file: from the pod that is admitted, by way of an agent as a process of its own, to the file. */
let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
  for (const name of ["db", "api"])
    await world.configure("POST", `${world.names.kv}/data/web/${name}`, { data: { value: name } });
});
after(() => world[Symbol.asyncDispose]());

const GROUP = 3_000;
/** Only root can give a process another group. */
const isRoot = process.getuid?.() === 0;

interface Shown extends AsyncDisposable {
  /** Permissions and group. */
  of(file: string): Promise<readonly [mode: string, gid: number]>;
  /** Whether the file can be read by a user of a group. */
  isReadable(file: string, uid: number, gid: number): Promise<boolean>;
}

/** What the agent of a pod shows, which runs with the group that the webhook gives it, and a umask that lets nobody else in. */
async function shownOf(spec: PodSpec): Promise<Shown> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder("/dev/shm")).path;
  const request = (name: string): string => `${world.names.kv}/data/web/${name}`;
  const { pod } = injected(
    podWith({ "secret.db": request("db"), "secret.api": request("api"), "mode.api": "0400" }, spec),
  );
  const sidecar = sidecarOf(pod);
  const env = { ...envOf(sidecar), ...(await prepareEnvironment(world, folder, { secrets: {} })) };
  // What would be a mount.
  await chmod(folder, 0o755);
  const settings = join(folder, "settings.json");
  await writeFile(settings, JSON.stringify({ env, ca: world.ca }));
  const gid = sidecar.securityContext?.runAsGroup;
  const program = join(import.meta.dirname, "agent-process.ts");
  const command = 'umask 077; exec "$0" "$@"';
  const child = spawn("/bin/sh", ["-c", command, process.execPath, program, settings], {
    stdio: ["ignore", "pipe", "inherit"],
    ...(isRoot && gid !== undefined ? { gid } : {}),
  });
  stack.defer(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  await once(child.stdout, "data", { signal: AbortSignal.timeout(20_000) });
  const path = (file: string): string => join(folder, "volume", "set", file);
  const owned = stack.move();
  return {
    of: async (file) => {
      const { mode, gid: group } = await stat(path(file));
      return [(mode & 0o7777).toString(8), group];
    },
    isReadable: (file, uid, group) =>
      new Promise((resolve) => {
        execFile("/bin/cat", [path(file)], { uid, gid: group }, (error) => resolve(error === null));
      }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const withGroup: PodSpec = {
  securityContext: { runAsUser: 1_000, runAsGroup: GROUP },
};

describe("the files of an admitted pod", () => {
  test("are their group's alone where the pod states it, each with a mode of its own where it has one", async () => {
    await using shown = await shownOf(withGroup);
    const group = isRoot ? GROUP : process.getgid?.();
    assert.deepEqual(await shown.of("db"), ["440", group]);
    assert.deepEqual(await shown.of("api"), ["400", group]);
  });

  test("are everybody's where no group is stated, as the application's is not known", async () => {
    await using shown = await shownOf({ containers: [WEB] });
    assert.equal((await shown.of("db"))[0], "444");
    assert.equal((await shown.of("api"))[0], "400");
  });

  test(
    "are read by the application's group, and by no other",
    { skip: isRoot ? false : "only root can be somebody else" },
    async () => {
      await using shown = await shownOf(withGroup);
      assert.equal(await shown.isReadable("db", 1_000, GROUP), true);
      assert.equal(await shown.isReadable("db", 1_000, GROUP + 1), false);
      assert.equal(await shown.isReadable("api", 1_000, GROUP), false);
      await using open = await shownOf({ containers: [WEB] });
      assert.equal(await open.isReadable("db", 1_000, GROUP + 1), true);
    },
  );
});
