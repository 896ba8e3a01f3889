/** Lives of a pod whose secrets agent is killed at a step and started again, against the embedded Vault over TLS. */
import assert from "node:assert/strict";
import { cp, mkdir, readFile, readdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { startNode } from "../../support/process.ts";
import { realClock } from "../../support/real-clock.ts";
import { MEMORY, temporaryFolder } from "../../support/temporary.ts";
import { prepareEnvironment, savedState, until } from "../../vault/sidecar.ts";
import { openWorld } from "../../vault/world.ts";
import type { World } from "../../vault/world.ts";
import type { Kill, Task } from "./steps.ts";

/** Of a pod that begins, or of a sidecar that comes back and finds another value in Vault. */
export type Passage = "first" | "resumed";

export interface Point extends Kill {
  readonly passage: Passage;
}

export interface Pods extends AsyncDisposable {
  /** Every step of both passages, killed before it and after it. */
  points(): Promise<readonly Point[]>;
  /** @returns whether the process was killed there; it may not have come to it */
  check(point: Point): Promise<boolean>;
  /** What nobody has taken up ends with its lease: lets that time pass, and sees that nothing is left. */
  checkExpiry(): Promise<void>;
}

/** The passages have these values. */
const VALUES: Readonly<Record<Passage, string>> = { first: "1", resumed: "2" };
const PROGRAM = join(import.meta.dirname, "killed-process.ts");

export async function openPods(): Promise<Pods> {
  await using stack = new AsyncDisposableStack();
  const time = { aheadMs: 0 };
  const clock: Clock = { ...realClock, now: () => Date.now() + time.aheadMs };
  const world = stack.use(await openWorld({ embedded: true, clock }));
  const { path: root } = stack.use(await temporaryFolder(MEMORY));
  const credential = `${world.names.broker}/creds/app`;
  const kv = `${world.names.kv}/data/web/kills`;
  const secrets = {
    user: { request: credential, format: "raw:username" },
    password: { request: credential, format: "raw:password" },
    value: { request: kv, format: "raw:value" },
    copy: { request: kv, format: "raw:copy" },
  };
  let folders = 0;
  let frozen: Promise<{ folder: string; steps: readonly string[] }> | undefined;

  const newFolder = async (from?: string): Promise<string> => {
    const folder = join(root, String(++folders));
    if (from === undefined) await mkdir(folder);
    else await cp(from, folder, { recursive: true, verbatimSymlinks: true });
    return folder;
  };
  const run = async (folder: string, passage: Passage, kill?: Kill) => {
    const value = VALUES[passage];
    await world.configure("POST", kv, { data: { value, copy: value } });
    const env = await prepareEnvironment(world, folder, { secrets, refreshInterval: "1s" });
    const volume = join(folder, "volume");
    const task: Task = { env, ca: world.ca, volume, kill, expected: value };
    const file = join(folder, "task.json");
    await writeFile(file, JSON.stringify(task));
    await using program = startNode(["--disable-warning=ExperimentalWarning", PROGRAM, file]);
    const outcome = await program.ended();
    assert.ok(outcome === 0 || (outcome === "SIGKILL" && kill !== undefined), program.output());
    return { isKilled: outcome === "SIGKILL", steps: program.output() };
  };
  /** What a pod has when its agent has published once. */
  const first = () =>
    (frozen ??= (async () => {
      const folder = await newFolder();
      const { steps } = await run(folder, "first");
      return { folder, steps: JSON.parse(steps) as readonly string[] };
    })());
  const start = async (passage: Passage): Promise<string> =>
    newFolder(passage === "first" ? undefined : (await first()).folder);

  const owned = stack.move();
  return {
    async points() {
      const resumed = await run(await start("resumed"), "resumed");
      const taken = {
        first: (await first()).steps,
        resumed: JSON.parse(resumed.steps) as readonly string[],
      };
      return (["first", "resumed"] as const).flatMap((passage) =>
        [...new Set(taken[passage])].flatMap((step) => {
          const times = taken[passage].filter((other) => other === step).length;
          // Of many of one kind the first three stand for all.
          return Array.from({ length: Math.min(3, times) }, (_, index) =>
            [false, true].map((isLate) => ({ passage, step, nth: index + 1, isLate })),
          ).flat();
        }),
      );
    },
    async check(point) {
      const { passage } = point;
      const folder = await start(passage);
      const begun = counts(world);
      const { isKilled } = await run(folder, passage, point);
      const left = await saved(folder);
      const before = { ...counts(world), set: await published(world, folder) };
      if (passage === "resumed") assert.ok(before.set !== undefined, "the set is never away");

      await run(folder, passage);
      const now = { ...counts(world), state: await saved(folder) };
      const set = await published(world, folder);
      assert.equal(set?.value, VALUES[passage]);
      assert.deepEqual(await leftovers(folder), []);
      // What was saved is taken up, and what was not is asked for once more: at most one of each for a kill.
      if (left?.token !== undefined) assert.equal(now.state?.token, left.token);
      assert.equal(now.logins - before.logins, Number(left?.token === undefined));
      if (left?.user !== undefined) assert.equal(now.state?.user, left.user);
      assert.equal(now.users - before.users, Number(left?.user === undefined));
      const most = passage === "first" ? 2 : 0;
      assert.ok(now.users - begun.users <= most && now.logins - begun.logins <= most);
      // Nobody has seen a credential that the next process does not know of.
      if (before.set !== undefined) assert.equal(set.user, before.set.user);
      return isKilled;
    },
    async checkExpiry() {
      time.aheadMs += 3 * 3_600_000;
      // The server looks when something new is issued.
      await world.configure("GET", credential);
      await until(() => world.broker.users.size === 1, "the end of all leases but the newest");
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function counts({ embedded, broker }: World): { readonly logins: number; readonly users: number } {
  const requests = embedded?.control.requests ?? [];
  return {
    logins: requests.filter((line) => line.endsWith("/login")).length,
    users: broker.created(),
  };
}

async function saved(folder: string) {
  try {
    const { token, secrets } = await savedState(folder);
    const user = secrets.find(({ data }) => "username" in data)?.data.username;
    return { token: token.token, user };
  } catch {
    return undefined;
  }
}

/** The set that readers see, which must be whole; `undefined` where there is none. */
async function published(
  { broker }: World,
  folder: string,
): Promise<{ readonly user: string; readonly value: string } | undefined> {
  const set = join(folder, "volume", "set");
  const version = await readlink(join(set, "..data")).catch(() => undefined);
  if (version === undefined) return undefined;
  const read = (name: string): Promise<string> => readFile(join(set, name), "utf8");
  const names = ["user", "password", "value", "copy"] as const;
  const [user, password, value, copy] = await Promise.all(names.map(read));
  assert.deepEqual((await readdir(join(set, version))).toSorted(), names.toSorted());
  assert.ok(broker.accepts(user ?? "", password ?? ""), "user and password belong together");
  assert.equal(copy, value);
  return { user: user ?? "", value: value ?? "" };
}

/** What a process that was killed has begun and the next one has not taken away. */
async function leftovers(folder: string): Promise<readonly string[]> {
  const state = await readdir(join(folder, "volume", "state"));
  const set = await readdir(join(folder, "volume", "set"));
  const versions = set.filter((name) => /^\.\.\d+$/.test(name));
  return [
    ...state.filter((name) => name !== "state.json"),
    ...set.filter((name) => name === "..data_next"),
    // The one before stays for its readers.
    ...versions.slice(2),
  ];
}
