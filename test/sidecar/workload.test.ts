import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { AppProbes, Probe, ProbeHandler } from "#core/probe.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openServer } from "../../sidecar/server.ts";
import { openWorkload } from "../../sidecar/application/workload.ts";
import type { ObservedWorkload, WorkloadDeps } from "../../sidecar/application/workload.ts";
import { manualClock } from "../support/clock.ts";
import { eventually, freePort } from "../support/process.ts";
import { realClock } from "../support/real-clock.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";

const forever = new AbortController().signal;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

function probe(handler: ProbeHandler, more: Partial<Probe> = {}): Probe {
  return {
    handler,
    initialDelayMs: 0,
    periodMs: 20,
    timeoutMs: 1_000,
    successThreshold: 1,
    failureThreshold: 2,
    ...more,
  };
}

function main(more: Partial<AppProbes> = {}): AppProbes {
  return { container: "main", startupWindow: { periodMs: 20, failureThreshold: 5 }, ...more };
}

function open(
  settings: Partial<WorkloadDeps["settings"]> = {},
  more: Partial<WorkloadDeps> = {},
): {
  workload: ObservedWorkload;
  registry: Registry;
  metrics: WorkloadDeps["metrics"];
} & Disposable {
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const workload = openWorkload({
    settings: {
      app: [main()],
      onUpdate: { kind: "restart" },
      health: { kind: "probe" },
      trialDuration: 60_000,
      restartWindow: 30_000,
      channel: undefined,
      ...settings,
    },
    clock: realClock,
    random: () => 0.5,
    log: quiet,
    metrics,
    ...more,
  });
  return { workload, registry, metrics, [Symbol.dispose]: () => workload[Symbol.dispose]() };
}

/** The kubelet's loop over real HTTP: startup until it passes, then liveness; a container that is killed starts again. */
async function kubelet(
  url: string,
  thresholds: { startup: number; liveness: number },
  signal: AbortSignal,
): Promise<{ readonly kills: () => number; readonly done: Promise<void> }> {
  let kills = 0;
  const loop = async (): Promise<void> => {
    let started = false;
    let failures = 0;
    while (!signal.aborted) {
      const { status } = await fetch(`${url}/app/main/${started ? "live" : "startup"}`);
      if (status === 200) {
        started = true;
        failures = 0;
      } else if (++failures >= (started ? thresholds.liveness : thresholds.startup)) {
        kills++;
        started = false;
        failures = 0;
      }
      await realClock.sleep(20, signal).catch(() => undefined);
    }
  };
  return { kills: () => kills, done: loop() };
}

async function withKubelet(
  settings: Partial<WorkloadDeps["settings"]>,
  act: (parts: {
    workload: ObservedWorkload;
    kills: () => number;
    registry: Registry;
  }) => Promise<void>,
): Promise<void> {
  using opened = open(settings);
  const { workload, registry, metrics } = opened;
  const port = await freePort();
  await using _ = await openServer({
    port,
    log: quiet,
    metrics,
    start: () => "ok",
    ready: () => "ok",
    status: () => ({}),
    scrape: () => Promise.resolve({ contentType: "text/plain", text: "" }),
    lever: (container, which) => workload.answer(container, which),
  });
  const stop = new AbortController();
  const { kills, done } = await kubelet(
    `http://127.0.0.1:${port}`,
    { startup: 5, liveness: 3 },
    stop.signal,
  );
  try {
    await act({ workload, kills, registry });
  } finally {
    stop.abort(new Error("the test ends"));
    await done;
  }
}

async function live(workload: ObservedWorkload): Promise<void> {
  await eventually(
    () => workload.containers()[0]?.phase === "live" || undefined,
    () => `the container is ${JSON.stringify(workload.containers())}`,
  );
}

describe("a restart", () => {
  test("makes the kubelet kill the container once, and is over when it has started again", async () => {
    await withKubelet({}, async ({ workload, kills, registry }) => {
      await live(workload);
      assert.equal(workload.starts(), 1);
      await workload.restart(forever);
      assert.equal(kills(), 1);
      assert.equal(workload.starts(), 2);
      await live(workload);
      assert.equal(kills(), 1);
      assert.match(await registry.metrics(), /edgesync_sidecar_restarts_total 1\n/);
      assert.equal(workload.containers()[0]?.pulls, 1);
    });
  });

  test("asked for twice at a time is one restart", async () => {
    await withKubelet({}, async ({ workload, kills }) => {
      await live(workload);
      await Promise.all([workload.restart(forever), workload.restart(forever)]);
      assert.equal(kills(), 1);
    });
  });

  test("of a container that has not started yet goes through its startup probe", async () => {
    const startup = probe({ kind: "tcp", port: await closedPort() });
    await withKubelet({ app: [main({ startup })] }, async ({ workload, kills }) => {
      await eventually(
        () => workload.containers()[0]?.phase === "starting" || undefined,
        () => "no startup probe came",
      );
      await workload.restart(forever);
      assert.ok(kills() >= 1);
    });
  });

  test("can be given up, and then the container is left alone", async () => {
    using opened = open();
    const { workload } = opened;
    assert.equal(workload.answer("main", "startup"), 200);
    assert.equal(workload.answer("main", "liveness"), 200);
    const abort = new AbortController();
    const reason = new Error("trial timed out");
    const restart = workload.restart(abort.signal);
    assert.equal(workload.answer("main", "liveness"), 503);
    abort.abort(reason);
    await assert.rejects(restart, reason);
    assert.equal(workload.answer("main", "liveness"), 200);
  });

  test("waits for every container that has the payload, and counts as one start", async () => {
    using opened = open({ app: [main(), main({ container: "second" })] });
    const { workload } = opened;
    for (const container of ["main", "second"])
      for (const kind of ["startup", "liveness"] as const) workload.answer(container, kind);
    assert.equal(workload.starts(), 1);
    let over = false;
    const restart = workload.restart(forever).then(() => (over = true));
    workload.answer("main", "liveness");
    workload.answer("main", "startup");
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(over, false);
    workload.answer("second", "startup");
    await restart;
    assert.equal(workload.starts(), 2);
  });

  test("is over at once with on-update none, or when no container goes through the lever", async () => {
    using none = open({ onUpdate: { kind: "none" } });
    await none.workload.restart(forever);
    assert.equal(none.workload.answer("main", "liveness"), 200);
    using empty = open({ app: [] });
    await empty.workload.restart(forever);
  });
});

describe("what the application has not got yet", () => {
  test("is shown, with what it waits for", async () => {
    const clock = manualClock();
    using opened = open({}, { clock });
    const { workload } = opened;
    workload.answer("main", "startup");
    workload.answer("main", "liveness");
    assert.deepEqual(workload.deliveries(), []);
    assert.equal(workload.sinceRestartMs(), null);
    const restart = workload.restart(forever);
    await clock.advance(5_000);
    assert.equal(workload.answer("main", "liveness"), 503);
    const shown = { by: "restart", detail: "main" };
    assert.deepEqual(workload.deliveries(), [
      { ...shown, forMs: 5_000, waiting: "restart_pending" },
    ]);
    assert.equal(workload.backOffMs(), 0);
    await clock.advance(40_001);
    assert.deepEqual(workload.deliveries(), [
      { ...shown, forMs: 45_001, waiting: "kubelet_backoff" },
    ]);
    assert.equal(workload.backOffMs(), 40_001);
    assert.equal(workload.containers()[0]?.waiting, "kubelet_backoff");
    await clock.advance(3_600_000);
    assert.equal(workload.backOffMs(), 600_000, "and no more than the kubelet remembers");
    workload.answer("main", "startup");
    await restart;
    assert.deepEqual(workload.deliveries(), []);
    assert.equal(workload.backOffMs(), 600_000, "until the next restart");
    await clock.advance(1_000);
    assert.equal(workload.sinceRestartMs(), 1_000);
    const stop = new AbortController();
    const again = workload.restart(stop.signal);
    assert.equal(workload.backOffMs(), 0);
    stop.abort(new Error("the test ends"));
    await assert.rejects(again);
  });

  test("says when the kubelet does not ask at all", async () => {
    const clock = manualClock();
    using opened = open({}, { clock });
    const stop = new AbortController();
    const restart = opened.workload.restart(stop.signal);
    await clock.advance(120_001);
    assert.equal(opened.workload.deliveries()[0]?.waiting, "no_probes");
    stop.abort(new Error("the test ends"));
    await assert.rejects(restart);
  });

  test("is told over HTTP with on-update http, and what it answers is shown", async () => {
    let status = 500;
    await using app = await httpServer((_, response) => {
      response.writeHead(status).end("no memory");
    });
    using opened = open({ onUpdate: { kind: "http", port: app.port, path: "/reload" } });
    const { workload } = opened;
    assert.equal(workload.delivery, "reload");
    const restart = workload.restart(forever);
    const [view] = await eventually(
      () => (workload.deliveries()[0]?.detail === "no memory" ? workload.deliveries() : undefined),
      () => JSON.stringify(workload.deliveries()),
    );
    assert.deepEqual([view?.by, view?.waiting], ["http", "not_taken"]);
    status = 204;
    await restart;
    assert.deepEqual(workload.deliveries(), []);
    assert.equal(workload.answer("main", "liveness"), 200);
  });

  test("is not taken for given when the sidecar was restarted while the container started", async () => {
    using opened = open({}, { inherited: () => true });
    const { workload } = opened;
    let over = false;
    const restart = workload.restart(forever).then(() => (over = true));
    for (let asked = 0; asked < 5; asked++) assert.equal(workload.answer("main", "startup"), 503);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(over, false);
    assert.equal(workload.answer("main", "startup"), 200);
    await restart;
  });
});

describe("the application's own probes", () => {
  test("decide when it has started, and when it has failed, by their own thresholds", async () => {
    let status = 503;
    await using app = await httpServer((_, response) => {
      response.writeHead(status).end();
    });
    const handler = {
      kind: "http",
      scheme: "http",
      port: app.port,
      path: "/",
      headers: [],
    } as const;
    const probes = main({ startup: probe(handler), liveness: probe(handler) });
    using opened = open({ app: [probes] });
    const { workload } = opened;
    assert.equal(workload.answer("main", "startup"), 503);
    status = 200;
    await eventually(
      () => workload.answer("main", "startup") === 200 || undefined,
      () => "the startup probe does not pass",
    );
    assert.equal(workload.answer("main", "liveness"), 200);
    status = 500;
    await eventually(
      () => workload.answer("main", "liveness") === 503 || undefined,
      () => "the liveness probe does not fail",
    );
  });

  test("are not carried out before their initial delay", async () => {
    let asked = 0;
    await using app = await byteServer(() => {
      asked++;
    });
    const startup = probe({ kind: "tcp", port: app.port }, { initialDelayMs: 100 });
    using opened = open({ app: [main({ startup })] });
    const begun = performance.now();
    opened.workload.answer("main", "startup");
    await eventually(
      () => asked > 0 || undefined,
      () => "the probe is not carried out",
    );
    assert.ok(performance.now() - begun >= 99);
  });
});

describe("the health check", () => {
  test("asks for readiness before liveness, and for every container", async () => {
    await using up = await byteServer(() => undefined);
    const good = probe({ kind: "tcp", port: up.port }, { periodMs: 3_000, failureThreshold: 4 });
    const bad = probe({ kind: "tcp", port: await closedPort() });
    using one = open({ app: [main({ readiness: good, liveness: bad })] });
    assert.equal(await one.workload.check(forever), "healthy");
    assert.equal(one.workload.healthPeriodMs, 3_000);
    assert.equal(one.workload.healthFailureThreshold, 4);
    using two = open({ app: [main({ readiness: good }), main({ readiness: bad })] });
    assert.equal(await two.workload.check(forever), "unhealthy");
  });

  test("goes where the annotation says", async () => {
    await using up = await httpServer((request, response) => {
      response.writeHead(request.url === "/ok" ? 200 : 500).end();
    });
    for (const [path, verdict] of [
      ["/ok", "healthy"],
      ["/other", "unhealthy"],
    ] as const) {
      using http = open({ health: { kind: "http", port: up.port, path } });
      assert.equal(await http.workload.check(forever), verdict);
    }
    using tcp = open({ health: { kind: "tcp", port: up.port } });
    assert.equal(await tcp.workload.check(forever), "healthy");
  });

  test("looks several times in a short trial", () => {
    using short = open({ health: { kind: "tcp", port: 1 }, trialDuration: 8_000 });
    assert.equal(short.workload.healthPeriodMs, 1_600);
  });

  test("knows nothing when there is nobody to ask", async () => {
    using none = open({ health: { kind: "none" } });
    assert.equal(await none.workload.check(forever), "unknown");
    using probeless = open({ app: [main()] });
    assert.equal(await probeless.workload.check(forever), "unknown");
  });
});
