import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { openAsked } from "./support.ts";
import type { Asked } from "./support.ts";

interface Status {
  readonly update?: {
    readonly phase: string;
    readonly release: { readonly version: string } | null;
    readonly waiting: { readonly reason: string } | null;
    readonly blocked: { readonly reason: string } | null;
  };
  readonly delivering?: readonly { readonly waiting: string; readonly detail: string | null }[];
  readonly holds?: readonly { readonly owner: string }[];
  readonly hooks?: readonly { readonly hook: string; readonly answer: string }[];
}

interface Machine {
  /** Starts the agent, and another one when the last has been killed. */
  start(): Program;
  status(): Promise<Status>;
  until(what: string, is: (status: Status) => boolean): Promise<Status>;
  command(...args: readonly string[]): Promise<void>;
  readonly holds: string;
}

/** The real agent as a process, and an application that it tells of releases over HTTP. */
async function openMachine(world: World, asked: Asked): Promise<Machine> {
  const [port, control] = [await freePort(), await freePort()];
  const payload = join(world.folder, "payload");
  const holds = join(world.folder, "holds");
  await mkdir(payload);
  await mkdir(holds);
  const hook = `http:${asked.port}/hooks`;
  const env = {
    EDGESYNC_PORT: String(port),
    EDGESYNC_CONTROL_PORT: String(control),
    EDGESYNC_CHANNEL: "web/stable",
    EDGESYNC_REPOSITORY: world.origin.url,
    EDGESYNC_PAYLOAD_DIR: payload,
    EDGESYNC_TRUST_ROOT_FILE: world.root,
    EDGESYNC_POLL_INTERVAL: "1s",
    EDGESYNC_ON_UPDATE: hook,
    EDGESYNC_HEALTH: "none",
    EDGESYNC_TRIAL_DURATION: "1s",
    EDGESYNC_TRIAL_TIMEOUT: "1m",
    EDGESYNC_HOLD_DIR: holds,
    EDGESYNC_HOOK_POST_SWAP: hook,
    EDGESYNC_HOOK_POST_COMMIT: hook,
    EDGESYNC_HOOK_POST_ROLLBACK: hook,
  };
  let program: Program | undefined;
  const status = async (): Promise<Status> => {
    const response = await fetch(`http://127.0.0.1:${control}/v1/status`);
    return (await response.json()) as Status;
  };
  return {
    holds,
    status,
    start() {
      program = startNode(["bin/edgesync.ts", "agent"], env);
      return program;
    },
    async until(what, is) {
      let last: unknown;
      return await eventually(
        async () => {
          try {
            const found = await status();
            last = found;
            return is(found) ? found : undefined;
          } catch {
            // Not up yet.
            return undefined;
          }
        },
        () => `${what}: ${JSON.stringify(last)}\n${program?.output() ?? ""}`,
        30_000,
      );
    },
    async command(...args) {
      await using command = startNode(["bin/edgesync.ts", ...args], env);
      assert.equal(await command.ended(), 0, command.output());
    },
  };
}

function runs(version: string): (status: Status) => boolean {
  return ({ update }) => update?.phase === "committed" && update.release?.version === version;
}

function waits(reason: string): (status: Status) => boolean {
  return ({ update }) => update?.waiting?.reason === reason;
}

describe("the agent as a process", () => {
  test("tells of a commit and of a rollback at least once, also when it is killed while it does", async () => {
    await using world = await openWorld();
    await using asked = await openAsked();
    const machine = await openMachine(world, asked);
    await world.publish("1.0.0", { mark: "one" });
    const told = (hook: "post-commit" | "post-rollback"): Promise<unknown> =>
      eventually(
        () => asked.of(hook)[0],
        () => `${hook} was not called`,
        30_000,
      );
    // Nobody answers: the notice is on its way when the agent is killed.
    asked.answer = ({ hook }) => (hook === "post-commit" ? hanging() : { status: 204 });
    const first = machine.start();
    await told("post-commit");
    await first.end("SIGKILL");
    asked.calls.length = 0;
    asked.answer = ({ hook }) => ({ status: hook === "post-swap" ? 422 : 204 });
    await using second = machine.start();
    await told("post-commit");
    assert.deepEqual(asked.of("post-commit")[0]?.version, "1.0.0");
    // The release before is swapped in again, and the application does not load it: that waits without an end, and is seen.
    let refused = false;
    asked.answer = ({ hook }) => {
      refused ||= hook === "post-swap";
      if (hook === "post-swap") return { status: 422 };
      return { status: hook === "reload" && refused ? 500 : 204, text: "no memory" };
    };
    await world.publish("1.1.0", { mark: "two" });
    const stuck = await machine.until(
      "a rollback that waits",
      ({ update, delivering }) =>
        update?.phase === "rolling-back" && delivering?.[0]?.detail === "no memory",
    );
    assert.equal(stuck.delivering?.[0]?.waiting, "not_taken");
    asked.answer = ({ hook }) => (hook === "post-rollback" ? hanging() : { status: 204 });
    await told("post-rollback");
    await second.end("SIGKILL");
    asked.calls.length = 0;
    asked.answer = () => ({ status: 204 });
    await using third = machine.start();
    await told("post-rollback");
    const [notice] = asked.of("post-rollback");
    assert.deepEqual([notice?.version, notice?.from], ["1.0.0", "1.1.0"]);
    const status = await machine.until(
      "the end of the notice",
      ({ hooks }) =>
        hooks?.some(({ hook, answer }) => hook === "post-rollback" && answer === "go") === true,
    );
    assert.equal(status.update?.blocked?.reason, "hook_refused");
    // Once heard, it is not told again.
    world.origin.reset();
    await machine.command("update", "look");
    await eventually(
      () => world.origin.requests.length > 0 || undefined,
      () => third.output(),
    );
    assert.equal(asked.of("post-rollback").length, 1);
  });

  test("holds a release for the application, also across its own end, until that lets go", async () => {
    await using world = await openWorld();
    await using asked = await openAsked();
    const machine = await openMachine(world, asked);
    await world.publish("1.0.0", { mark: "one" });
    const first = machine.start();
    await machine.until("the first release", runs("1.0.0"));
    await machine.command("update", "hold", "--owner", "till-4", "--reason", "inventory");
    await world.publish("1.1.0", { mark: "two" });
    await machine.until("the hold", waits("app_lease"));
    await first.end("SIGKILL");
    await using _ = machine.start();
    const held = await machine.until("the hold after a restart", waits("app_lease"));
    assert.deepEqual(
      held.holds?.map(({ owner }) => owner),
      ["till-4"],
    );
    assert.equal(held.update?.release?.version, "1.0.0");
    // A file holds as well, and longer.
    const file = join(machine.holds, "batch.hold");
    await writeFile(file, '{"seconds":600}');
    await machine.command("update", "release", "--owner", "till-4");
    await machine.until(
      "the file",
      ({ holds }) => holds?.map(({ owner }) => owner).join() === "batch",
    );
    assert.equal((await machine.status()).update?.release?.version, "1.0.0");
    await rm(file);
    await machine.until("the release", runs("1.1.0"));
  });
});

function hanging(): Promise<never> {
  return new Promise(() => undefined);
}
