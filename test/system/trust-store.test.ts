/**
 * The trust store of a real process on a real disk, killed before each system call that it makes on it. `npm run test:system` runs this;
 * strace does the killing.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { startProgram } from "../support/process.ts";
import { httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { makeKey, makeWorld } from "../trust/world.ts";
import type { World } from "../trust/world.ts";

const STRACE = "/usr/bin/strace";
const COMMAND = resolve(import.meta.dirname, "../../bin/edgesync.ts");

/** Calls that change something on a disk, or come between two that do. */
const CALLS = [
  "openat",
  "write",
  "fsync",
  "close",
  "rename",
  "unlink",
  "rmdir",
  "mkdir",
  "chmod",
  "fchmod",
] as const;

const NAMES = [
  "root.json",
  "timestamp.json",
  "snapshot.json",
  "targets.json",
  "pinned-root",
  "time-floor",
];

interface Served {
  readonly url: string;
  readonly world: World;
  /** What is served from now on is the new state. */
  readonly advance: () => void;
}

async function serve(cleanup: AsyncDisposableStack): Promise<Served> {
  const issued = {
    timestamp: (signed: object) => ({ ...signed, "x-edgesync-issued": "2026-11-22T11:00:00Z" }),
  };
  const world = makeWorld(Date.now(), "2099-01-01T00:00:00Z");
  world.publish({ timestamp: 3, snapshot: 3, targets: 3 }, issued);
  const server = await httpServer((request, response) => {
    const bytes = world.files.get(decodeURIComponent(request.url ?? "").slice(1));
    if (bytes === undefined) response.writeHead(404).end();
    else response.writeHead(200, { "content-length": bytes.length }).end(bytes);
  });
  cleanup.use(server);
  return {
    url: server.url,
    world,
    advance() {
      world.keys.timestamp = makeKey();
      world.publishRoot(2);
      world.publish({ timestamp: 4, snapshot: 4, targets: 4 }, issued);
    },
  };
}

/** @param wrapper what starts the client, such as strace with its arguments */
async function client(
  folder: string,
  args: readonly string[],
  wrapper: readonly string[] = [],
): Promise<number | NodeJS.Signals | null> {
  const [program, ...rest] = [...wrapper, process.execPath, COMMAND, "tuf-client"];
  // One thread for files: strace counts calls of each thread for itself.
  const env = { UV_THREADPOOL_SIZE: "1" };
  await using child = startProgram(program, [...rest, "--metadata-dir", folder, ...args], env);
  return await child.ended();
}

/** Restricts strace to what concerns the store. */
function watching(folder: string): readonly string[] {
  const paths = [
    folder,
    ...NAMES.flatMap((name) => [join(folder, name), join(folder, `${name}.new`)]),
  ];
  return [STRACE, "-f", "-qq", ...paths.flatMap((path) => ["-P", path])];
}

async function readFolder(folder: string): Promise<ReadonlyMap<string, Buffer>> {
  const names = (await readdir(folder)).filter((name) => !name.endsWith(".new"));
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await readFile(join(folder, name))] as const),
    ),
  );
}

describe("a process that is killed before a system call on its trust store", () => {
  test("finds old files or new ones, whole, and heals", async (t) => {
    if (!existsSync(STRACE)) {
      t.diagnostic(`${STRACE} is not there; scripts/system-packages.sh installs it`);
      return;
    }
    await using cleanup = new AsyncDisposableStack();
    const { path: folder } = cleanup.use(await temporaryFolder());
    const { url, world, advance } = await serve(cleanup);
    const [old, store, root] = [join(folder, "old"), join(folder, "trust"), join(folder, "root")];
    const refresh = ["--metadata-url", `${url}/metadata`, "refresh"];
    await writeFile(root, world.files.get("metadata/1.root.json") ?? "");
    await mkdir(old);
    assert.equal(await client(old, ["init", root]), 0);
    assert.equal(await client(old, refresh), 0);
    const before = await readFolder(old);
    assert.deepEqual([...before.keys()].toSorted(), NAMES.toSorted());
    advance();

    const begin = async (): Promise<void> => {
      await rm(store, { recursive: true, force: true });
      await cp(old, store, { recursive: true });
    };
    await begin();
    const log = join(folder, "log");
    assert.equal(
      await client(store, refresh, [...watching(store), "-o", log, `-etrace=${CALLS.join()}`]),
      0,
    );
    const after = await readFolder(store);
    assert.deepEqual(after.get("timestamp.json"), world.files.get("metadata/timestamp.json"));
    const made = readFileSync(log, "utf8");
    let kills = 0;
    for (const call of CALLS) {
      const count = [...made.matchAll(new RegExp(`^\\d+ +${call}\\(`, "gm"))].length;
      for (let number = 1; number <= count; number++) {
        await begin();
        const inject = `-einject=${call}:signal=SIGKILL:when=${number}`;
        const strace = [...watching(store), "-o", "/dev/null", `-etrace=${call}`, inject];
        assert.equal(await client(store, refresh, strace), "SIGKILL", `${call} ${number}`);
        kills += 1;
        for (const [name, bytes] of await readFolder(store))
          assert.ok(
            [before.get(name), after.get(name)].some((whole) => whole?.equals(bytes)),
            `${name} after a kill before ${call} ${number}`,
          );
        assert.equal(await client(store, refresh), 0, `${call} ${number}`);
        assert.deepEqual(await readFolder(store), after, `${call} ${number}`);
      }
    }
    t.diagnostic(`${kills} kills`);
    assert.ok(kills > 40, `${kills} kills`);
  });
});
