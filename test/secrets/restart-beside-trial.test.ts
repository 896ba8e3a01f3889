/** `on-rotate: restart` pulls the same lever as a release on trial, in a sidecar that is a process of its own; the kubelet is played by the test. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { AppProbes } from "#core/probe.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { fromEnv } from "#core/settings.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openRotateHook } from "../../sidecar/application/rotate.ts";
import { openWorkload } from "../../sidecar/application/workload.ts";
import { openTurns } from "../../sidecar/claim/turn.ts";
import { openAppRepository } from "../support/app-repository.ts";
import { manualClock } from "../support/clock.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment, recordedLog } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";

const APP: AppProbes = {
  container: "main",
  startupWindow: { periodMs: 1_000, failureThreshold: 30 },
};

interface Status {
  readonly secrets?: { readonly onRotate?: { readonly state: string } };
}

/** Startup probes until one passes, then liveness; what fails three times is killed and starts again. */
function startKubelet(port: number) {
  const stop = new AbortController();
  const kubelet = { kills: 0, isStarted: false };
  const probe = async (path: string): Promise<number> => {
    try {
      return (await fetch(`http://127.0.0.1:${port}/app/main/${path}`)).status;
    } catch {
      // Not listening yet, or not any more.
      return 0;
    }
  };
  const loop = async (): Promise<void> => {
    let failures = 0;
    while (!stop.signal.aborted) {
      const status = await probe(kubelet.isStarted ? "live" : "startup");
      failures = status === 503 ? failures + 1 : 0;
      if (status === 200) kubelet.isStarted = true;
      if (kubelet.isStarted && failures === 3) {
        kubelet.kills++;
        kubelet.isStarted = false;
        failures = 0;
      }
      await delay(50);
    }
  };
  const done = loop();
  return Object.assign(kubelet, {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await done;
    },
  });
}

describe("on-rotate: restart", () => {
  test("waits for the end of a release's trial, in which its restart would count as a start", async () => {
    await using repository = await openAppRepository();
    await using world = await openWorld({ embedded: true });
    await using folder = await temporaryFolder("/dev/shm");
    const path = `${world.names.kv}/data/web/beside`;
    const write = (value: string): Promise<unknown> =>
      world.configure("POST", path, { data: { value } });
    await write("1");
    await repository.publish("1.0.0", { "version.txt": "1.0.0" });
    const payload = join(repository.folder, "payload");
    await mkdir(payload);
    const ca = join(folder.path, "ca.crt");
    await writeFile(ca, world.ca ?? "");
    const port = await freePort();
    const secrets = { db: { request: path, format: "raw:value" } };
    await using kubelet = startKubelet(port);
    await using sidecar = startNode(["bin/edgesync.ts", "agent"], {
      ...(await prepareEnvironment(world, folder.path, { secrets, refreshInterval: "1s" })),
      EDGESYNC_VAULT_CA_FILE: ca,
      EDGESYNC_PORT: String(port),
      EDGESYNC_CONTROL_PORT: String(await freePort()),
      EDGESYNC_ON_ROTATE: "restart",
      EDGESYNC_APP: JSON.stringify([APP]),
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: repository.url,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_TRUST_ROOT_FILE: repository.root,
      EDGESYNC_POLL_INTERVAL: "1s",
      EDGESYNC_TRIAL_DURATION: "4s",
      // One start more and the release would be rolled back.
      EDGESYNC_TRIAL_STARTS: "1",
      EDGESYNC_ON_UPDATE: "none",
      EDGESYNC_HEALTH: "none",
    });
    const logged = (text: string): boolean => sidecar.output().includes(text);
    const seen = (what: () => boolean | Promise<boolean>): Promise<true> =>
      eventually(
        async () => (await what()) || undefined,
        () => sidecar.output(),
        30_000,
      );
    const status = async (): Promise<Status> =>
      (await (await fetch(`http://127.0.0.1:${port}/status`)).json()) as Status;

    await seen(() => kubelet.isStarted);
    await seen(() => logged("the set of secrets was published"));
    // A first release has no trial.
    await seen(() => logged('"msg":"release committed"'));
    await repository.publish("1.1.0", { "version.txt": "1.1.0" });
    await seen(() => logged('"msg":"trial begun"'));
    await write("2");
    await seen(async () => (await status()).secrets?.onRotate?.state === "waiting");
    await seen(() => kubelet.kills === 1);
    await seen(() => logged('"msg":"the application was told of its new secrets"'));
    const lines = sidecar.output().split("\n");
    const at = (text: string): number => lines.findLastIndex((line) => line.includes(text));
    const committed = at('"version":"1.1.0","sequence":2,"msg":"release committed"');
    assert.ok(committed > at('"msg":"trial begun"'), sidecar.output());
    assert.ok(at('"msg":"restart lever pulled"') > committed, sidecar.output());
    assert.equal(await sidecar.end("SIGTERM"), 0);
  });

  test("keeps a release from its trial meanwhile, and comes a minute after the last at the earliest", async () => {
    const clock = manualClock();
    const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
    const settings = { ...fromEnv({}), app: [APP], onRotate: { kind: "restart" } as const };
    const shell = { settings, clock, random: () => 0, log: recordedLog() };
    using workload = openWorkload({ ...shell, metrics });
    const turnOf = openTurns(["main", "rotation"], 3_600_000, clock);
    turnOf("main").follow(false);
    const hook = openRotateHook({
      ...shell,
      workload,
      turn: turnOf("rotation"),
      held: () => false,
    });
    assert.ok(hook !== undefined);
    const forever = new AbortController().signal;
    assert.equal(workload.answer("main", "startup"), 200);
    assert.equal(hook.mayTell(), true);
    const telling = hook.tell(forever);
    assert.equal(workload.answer("main", "liveness"), 503);
    assert.equal(turnOf("main").ask(), false, "a release waits for the restart");
    await clock.advance(1_000);
    assert.equal(workload.answer("main", "startup"), 200);
    assert.equal(await telling, undefined);
    hook.ended();
    assert.equal(turnOf("main").ask(), true);
    turnOf("main").follow(false);
    await clock.advance(58_000);
    assert.equal(hook.mayTell(), false);
    await clock.advance(2_000);
    assert.equal(hook.mayTell(), true);
  });
});
