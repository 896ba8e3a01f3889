/**
 * The application as the sidecar sees it: its health, its starts, and the lever that restarts it. Everything here is on the
 * pod's own network; nothing of it depends on the outside.
 */
import type { Clock } from "#core/clock.ts";
import { unreachable } from "#core/errors.ts";
import type { Answer, Lever, LeverEvent } from "#core/lever.ts";
import { initialLever, nextLever, ownProbe } from "#core/lever.ts";
import type { HealthCheck } from "#core/health-check.ts";
import type { AppProbes, Probe, ProbeHandler } from "#core/probe.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { carryOut } from "./probe.ts";
import type { Programs } from "./programs.ts";

export interface Workload {
  /**
   * Asks for a restart of every container that has the payload; resolves when each has been seen to start again, at once with
   * on-update none. An abort gives the restart up where it has not happened yet. Asked again meanwhile, it is the same restart.
   */
  restart(signal: AbortSignal): Promise<void>;
  /** One health check as annotation `health` says; `unknown` when nothing could tell. */
  check(signal: AbortSignal): Promise<"healthy" | "unhealthy" | "unknown">;
  /**
   * How often the application was seen to start since the sidecar came up. With several containers a common restart counts
   * once, and between two of them the container that started most often.
   */
  starts(): number;
  /** Whether the application is known to have ended: every port that its probes name refuses connections. */
  ended(signal: AbortSignal): Promise<boolean>;
  /** Milliseconds between two checks, and how many in a row must fail before the application is unhealthy. */
  readonly healthPeriodMs: number;
  readonly healthFailureThreshold: number;
}

export interface ContainerView {
  readonly container: string;
  readonly phase: Lever["phase"];
  readonly starts: number;
  readonly restarting: boolean;
  /** Pulls of the lever since the sidecar came up, the last ten at most. */
  readonly pulls: number;
  /** Milliseconds since the last pull began. */
  readonly lastPullAgoMs: number | undefined;
}

/** What the server answers the kubelet with, besides. */
export interface ObservedWorkload extends Workload, Disposable {
  /** The application as one payload sees it: the containers of `settings.app`, which share their levers with other payloads. */
  of(settings: WorkloadDeps["settings"]): Workload;
  /** `undefined` when there is no such container. */
  answer(container: string, probe: "startup" | "liveness"): Answer;
  containers(): readonly ContainerView[];
}

export interface WorkloadDeps {
  readonly settings: Pick<Settings, "app" | "onUpdate" | "health" | "trialDuration">;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Absent in a pod, where the sidecar runs none. */
  readonly programs?: Programs | undefined;
}

/** For a check that the annotation states: not the pod's own probe, so it has no period or threshold of its own. */
const CHECK_TIMEOUT_MS = 3_000;
const CHECK_FAILURE_THRESHOLD = 3;
const CHECK_PERIOD_MS = { least: 1_000, most: 10_000 };

/** Of the time that is left after SIGTERM, this much goes into finding out whether the application has ended. */
const ENDED_TIMEOUT_MS = 300;

interface Unit {
  readonly probes: AppProbes;
  lever: Lever;
  /** How many payloads wait for a restart of it. */
  asking: number;
  /** Stops the loop that carries out the application's own probe; a new one is made for each instance and probe. */
  probing: AbortController | undefined;
}

export function openWorkload({
  settings,
  clock,
  log,
  metrics,
  programs,
}: WorkloadDeps): ObservedWorkload {
  const units = settings.app.map((probes): Unit => ({
    probes,
    lever: initialLever,
    asking: 0,
    probing: undefined,
  }));
  const waiting = new Set<() => void>();

  function apply(unit: Unit, event: LeverEvent): Answer {
    const before = unit.lever;
    const [lever, answer] = nextLever(before, event, unit.probes);
    unit.lever = lever;
    const container = unit.probes.container;
    if (lever.starts > before.starts) {
      log.info({ container }, "container started");
      if (before.request?.pulled === true) metrics.add("edgesync_sidecar_restarts_total", {});
    }
    if (lever.request?.pulled === true && before.request?.pulled !== true)
      log.info({ container }, "restart lever pulled");
    const wanted = ownProbe(lever, unit.probes);
    if (wanted !== ownProbe(before, unit.probes) || lever.starts > before.starts)
      keepProbing(unit, wanted);
    if (before.request !== undefined && lever.request === undefined)
      for (const look of waiting) look();
    return answer;
  }

  function keepProbing(unit: Unit, probe: Probe | undefined): void {
    unit.probing?.abort(new Error("the kubelet has gone on"));
    unit.probing = undefined;
    if (probe === undefined) return;
    unit.probing = new AbortController();
    const { signal } = unit.probing;
    probeForEver(unit, probe, signal).catch((err: unknown) => {
      if (!signal.aborted)
        log.error({ err, container: unit.probes.container }, "cannot probe the application");
    });
  }

  async function probeForEver(unit: Unit, probe: Probe, signal: AbortSignal): Promise<void> {
    const { phase, since, starts: instance } = unit.lever;
    const kind = phase === "starting" ? "startup" : "liveness";
    // Counted from the first sight of the instance, as the kubelet counts from its start.
    await clock.sleep(Math.max(0, since + probe.initialDelayMs - clock.monotonic()), signal);
    for (;;) {
      const begun = clock.monotonic();
      const passed = (await carryOut(probe.handler, probe.timeoutMs, signal)) === "passed";
      apply(unit, { kind: "probed", probe: kind, instance, passed });
      await clock.sleep(Math.max(1, begun + probe.periodMs - clock.monotonic()), signal);
    }
  }

  function view(own: WorkloadDeps["settings"]): Workload {
    const mine = units.filter(({ probes }) =>
      own.app.some(({ container }) => container === probes.container),
    );
    const rounds = countRounds(() => mine.map(({ lever }) => lever.starts));
    const done = (): boolean => mine.every(({ lever }) => lever.request === undefined);
    const { checks, periodMs, failureThreshold } = healthPlan(own);
    let callers = 0;

    function begin(): void {
      rounds.begin();
      for (const unit of mine) {
        unit.asking += 1;
        apply(unit, { kind: "restart", at: clock.monotonic() });
      }
    }

    function end(): void {
      for (const unit of mine) {
        unit.asking -= 1;
        if (unit.asking === 0) apply(unit, { kind: "withdraw" });
      }
    }

    return {
      healthPeriodMs: periodMs,
      healthFailureThreshold: failureThreshold,
      async restart(signal) {
        signal.throwIfAborted();
        if (own.onUpdate.kind !== "restart") return;
        // Who comes later waits for the same restart.
        if (callers === 0) begin();
        callers += 1;
        const { promise, resolve } = Promise.withResolvers<void>();
        const look = (): void => {
          if (signal.aborted || done()) resolve();
        };
        waiting.add(look);
        signal.addEventListener("abort", look);
        look();
        await promise;
        signal.removeEventListener("abort", look);
        waiting.delete(look);
        const happened = done();
        callers -= 1;
        if (callers === 0) end();
        if (!happened) signal.throwIfAborted();
      },
      async check(signal) {
        if (checks.length === 0) return "unknown";
        const results = await Promise.all(
          checks.map(({ handler, timeoutMs }) =>
            handler.kind === "command"
              ? succeeds(handler.argv, programs, timeoutMs, signal)
              : carryOut(handler, timeoutMs, signal).then((result) => result === "passed"),
          ),
        );
        return results.every((passed) => passed) ? "healthy" : "unhealthy";
      },
      starts: rounds.total,
      async ended(signal) {
        const handlers = mine.flatMap(({ probes: { startup, liveness, readiness } }) =>
          [startup, liveness, readiness].flatMap((probe) => probe?.handler ?? []),
        );
        const ports = new Set(
          [...handlers, ...checks.map(({ handler }) => handler)].flatMap((handler) =>
            "port" in handler ? handler.port : [],
          ),
        );
        const results = await Promise.all(
          Array.from(ports, (port) => carryOut({ kind: "tcp", port }, ENDED_TIMEOUT_MS, signal)),
        );
        return results.length > 0 && results.every((result) => result === "refused");
      },
    };
  }

  return {
    ...view(settings),
    of: view,
    answer(container, probe) {
      const unit = units.find(({ probes }) => probes.container === container);
      return unit && apply(unit, { kind: probe, at: clock.monotonic() });
    },
    containers: () =>
      units.map(({ probes: { container }, lever: { phase, starts, request, pulls } }) => {
        const last = pulls.at(-1);
        return {
          container,
          phase,
          starts,
          restarting: request !== undefined,
          pulls: pulls.length,
          lastPullAgoMs: last === undefined ? undefined : Math.round(clock.monotonic() - last),
        };
      }),
    [Symbol.dispose]() {
      for (const unit of units) unit.probing?.abort(new Error("the sidecar stops"));
    },
  };
}

/** Starts of several containers as one number that only grows. */
function countRounds(starts: () => readonly number[]): {
  readonly begin: () => void;
  readonly total: () => number;
} {
  let before = 0;
  let base = starts();
  const total = (): number =>
    before + Math.max(0, ...starts().map((count, index) => count - (base[index] ?? 0)));
  return {
    begin() {
      before = total();
      base = starts();
    },
    total,
  };
}

/** Whether a command says that all is well. Rejects with the signal's reason and with nothing else. */
async function succeeds(
  argv: readonly string[],
  programs: Programs | undefined,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const reply = await programs?.run(argv, {}, timeoutMs, signal);
  return reply?.kind === "exit" && reply.status === 0;
}

interface HealthPlan {
  readonly checks: readonly {
    readonly handler: ProbeHandler | Extract<HealthCheck, { kind: "command" }>;
    readonly timeoutMs: number;
  }[];
  readonly periodMs: number;
  readonly failureThreshold: number;
}

/** With `probe`, each container's readiness probe, or else its liveness or startup probe: the first says most about serving. */
function healthPlan({ app, health, trialDuration }: WorkloadDeps["settings"]): HealthPlan {
  // Several looks in a trial, however short it is.
  const { least, most } = CHECK_PERIOD_MS;
  const periodMs = Math.min(most, Math.max(least, trialDuration / 5));
  const stated = (handler: HealthPlan["checks"][number]["handler"]): HealthPlan => ({
    checks: [{ handler, timeoutMs: CHECK_TIMEOUT_MS }],
    periodMs,
    failureThreshold: CHECK_FAILURE_THRESHOLD,
  });
  switch (health.kind) {
    case "http":
      return stated({ ...health, scheme: "http", headers: [] });
    case "tcp":
    case "grpc":
    case "command":
      return stated(health);
    case "none":
      return { checks: [], periodMs, failureThreshold: CHECK_FAILURE_THRESHOLD };
    case "probe": {
      const probes = app.flatMap(
        ({ readiness, liveness, startup }) => readiness ?? liveness ?? startup ?? [],
      );
      if (probes.length === 0)
        return { checks: [], periodMs, failureThreshold: CHECK_FAILURE_THRESHOLD };
      return {
        checks: probes,
        periodMs: Math.max(least, Math.min(...probes.map((probe) => probe.periodMs))),
        failureThreshold: Math.max(...probes.map((probe) => probe.failureThreshold)),
      };
    }
    default:
      return unreachable(health);
  }
}
