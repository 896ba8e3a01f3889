/**
 * The application as the sidecar sees it: its health, its starts, and the lever that restarts it. Everything here is on the
 * pod's own network; nothing of it depends on the outside.
 */
import type { Clock } from "#core/clock.ts";
import type { Answer, Lever, LeverEvent } from "#core/lever.ts";
import { heldBackSince, initialLever, nextLever, ownProbe } from "#core/lever.ts";
import { deliveryOf } from "#core/on-update.ts";
import type { Delivery, OnUpdate } from "#core/on-update.ts";
import type { AppProbes, Probe } from "#core/probe.ts";
import type { DeliveryReason } from "#core/reasons.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { healthPlan } from "./health-plan.ts";
import { carryOut } from "./probe.ts";
import type { Programs } from "./programs.ts";
import { reload } from "./reload.ts";
import type { OwnProcess, ReloadWay } from "./reload.ts";

export interface Workload {
  /** What becomes of the application's process for a new release, by annotation `on-update`. */
  readonly delivery: Delivery;
  /**
   * Gives the application what `current` names, as `on-update` says. With `restart` every container that has the payload is restarted, and
   * this resolves when each has been seen to start again; else when the application has been told, at once with `none`. What does not work
   * is tried again without an end. An abort gives it up where it has not happened yet. Asked again meanwhile, it is the same restart.
   */
  restart(signal: AbortSignal): Promise<void>;
  /** Milliseconds since the lever last restarted a container, or began to; null when it has not in this process. */
  sinceRestartMs(): number | null;
  /**
   * Milliseconds for which the kubelet has held a container back in the restart that is under way, or the last one: no fault of the release
   * that waits for it. At most ten minutes, the time after which the kubelet forgets.
   */
  backOffMs(): number;
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
  /** Why a restart takes longer than it should. */
  readonly waiting: Extract<DeliveryReason, "kubelet_backoff"> | null;
  /** Pulls of the lever since the sidecar came up, the last ten at most. */
  readonly pulls: number;
  /** Milliseconds since the last pull began. */
  readonly lastPullAgoMs: number | undefined;
}

/** What the application has not got yet, although it has been swapped in. A rollback's waits without an end, so it must be seen. */
export interface DeliveryView {
  readonly by: OnUpdate["kind"];
  readonly forMs: number;
  readonly waiting: DeliveryReason;
  /** The container, or what was answered. */
  readonly detail: string | null;
}

/** What the server answers the kubelet with, besides. */
export interface ObservedWorkload extends Workload, Disposable {
  /** The application as one payload sees it: the containers of `settings.app`, which share their levers with other payloads. */
  of(settings: WorkloadDeps["settings"]): Workload;
  /** `undefined` when there is no such container. */
  answer(container: string, probe: "startup" | "liveness"): Answer;
  containers(): readonly ContainerView[];
  deliveries(): readonly DeliveryView[];
}

export interface WorkloadDeps {
  readonly settings: Pick<
    Settings,
    "app" | "channel" | "onUpdate" | "restartWindow" | "health" | "trialDuration"
  >;
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Whether the containers may have been started before this process; false when absent. */
  readonly inherited?: () => boolean;
  /** For on-update signal. */
  readonly own?: OwnProcess;
  /** For on-update and health by a command; absent in a pod, where the sidecar runs none. */
  readonly programs?: Programs | undefined;
}

/** Milliseconds: after so long without a restart the kubelet's back-off begins anew. */
const BACK_OFF_CAP_MS = 600_000;

/** Milliseconds without a probe after which somebody should know: no period of a probe of ours is longer. */
const NO_PROBES_MS = 120_000;

/** Of the time that is left after SIGTERM, this much goes into finding out whether the application has ended. */
const ENDED_TIMEOUT_MS = 300;

interface Unit {
  readonly probes: AppProbes;
  lever: Lever;
  /** How many payloads wait for a restart of it. */
  asking: number;
  /** Monotonic milliseconds: when the lever last restarted it. */
  restartedAt: number | undefined;
  /** Milliseconds in which the kubelet has held it back, as far as they are over. */
  heldBackMs: number;
  /** Stops the loop that carries out the application's own probe; a new one is made for each instance and probe. */
  probing: AbortController | undefined;
}

/** What is being given to the application. */
interface Delivering {
  readonly way: OnUpdate;
  readonly units: readonly Unit[];
  readonly since: number;
  detail: string | null;
}

export function openWorkload(deps: WorkloadDeps): ObservedWorkload {
  const { settings, clock, log, metrics } = deps;
  const units = settings.app.map((probes): Unit => ({
    probes,
    lever: initialLever,
    asking: 0,
    restartedAt: undefined,
    heldBackMs: 0,
    probing: undefined,
  }));
  const waiting = new Set<() => void>();
  const delivering = new Set<Delivering>();

  /** In which the kubelet kills a container whose liveness fails, by the webhook's rule. */
  function windowMs({ probes: { liveness } }: Unit): number {
    const own = liveness === undefined ? 0 : liveness.periodMs * liveness.failureThreshold;
    return Math.max(settings.restartWindow, own);
  }

  function heldBackNow(unit: Unit, now: number): number {
    const since = heldBackSince(unit.lever, windowMs(unit), now);
    return since === undefined ? 0 : now - since;
  }

  function apply(unit: Unit, event: LeverEvent): Answer {
    const known = { ...unit.lever, inherited: deps.inherited?.() ?? false };
    const before = unit.lever.phase === "unseen" ? known : unit.lever;
    if ("at" in event)
      unit.heldBackMs += event.kind === "restart" ? 0 : heldBackNow(unit, event.at);
    const [lever, answer] = nextLever(before, event, unit.probes);
    unit.lever = lever;
    const container = unit.probes.container;
    if (lever.starts > before.starts) {
      log.info({ container }, "container started");
      if (before.request?.pulled === true) {
        unit.restartedAt = clock.monotonic();
        metrics.add("edgesync_sidecar_restarts_total", {});
      }
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

  async function tell(
    way: ReloadWay,
    channel: Settings["channel"],
    view: Delivering,
    signal: AbortSignal,
  ): Promise<void> {
    const refused = (detail: string): void => {
      // Once: what it says may be another at each attempt, like a time or a number.
      if (view.detail === null)
        log.warn({ detail, reason: "not_taken" }, "the application does not take the release");
      view.detail = detail;
    };
    await reload(way, { ...deps, channel, refused }, signal);
  }

  function viewOf({ way, units: all, since, detail }: Delivering): DeliveryView {
    const now = clock.monotonic();
    const told = { by: way.kind, forMs: Math.round(now - since) };
    if (way.kind !== "restart") return { ...told, waiting: "not_taken", detail };
    const behind = all.find(({ lever }) => lever.request !== undefined);
    const container = behind?.probes.container ?? null;
    if (behind !== undefined && heldBackNow(behind, now) > 0)
      return { ...told, waiting: "kubelet_backoff", detail: container };
    const asked = Math.max(since, behind?.lever.lastProbe ?? since);
    const waiting = now - asked > NO_PROBES_MS ? "no_probes" : "restart_pending";
    return { ...told, waiting, detail: container };
  }

  function view(own: WorkloadDeps["settings"]): Workload {
    const mine = units.filter(({ probes }) =>
      own.app.some(({ container }) => container === probes.container),
    );
    const rounds = countRounds(() => mine.map(({ lever }) => lever.starts));
    const done = (): boolean => mine.every(({ lever }) => lever.request === undefined);
    const { checks, periodMs, failureThreshold } = healthPlan(own);
    let callers = 0;
    let heldBackBefore: readonly number[] = [];

    function begin(): void {
      rounds.begin();
      heldBackBefore = mine.map(({ heldBackMs }) => heldBackMs);
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

    async function pull(signal: AbortSignal): Promise<void> {
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
    }

    return {
      healthPeriodMs: periodMs,
      healthFailureThreshold: failureThreshold,
      delivery: deliveryOf(own.onUpdate),
      async restart(signal) {
        signal.throwIfAborted();
        if (own.onUpdate.kind === "none") return;
        const view = { way: own.onUpdate, units: mine, since: clock.monotonic(), detail: null };
        delivering.add(view);
        try {
          await (own.onUpdate.kind === "restart"
            ? pull(signal)
            : tell(own.onUpdate, own.channel, view, signal));
        } finally {
          delivering.delete(view);
        }
      },
      sinceRestartMs() {
        const times = mine.flatMap(({ lever, restartedAt }) => [
          ...lever.pulls.slice(-1),
          ...(restartedAt === undefined ? [] : [restartedAt]),
        ]);
        return times.length === 0 ? null : clock.monotonic() - Math.max(...times);
      },
      backOffMs() {
        const now = clock.monotonic();
        const held = mine.map(
          (unit, index) => unit.heldBackMs + heldBackNow(unit, now) - (heldBackBefore[index] ?? 0),
        );
        return Math.min(BACK_OFF_CAP_MS, Math.max(0, ...held));
      },
      async check(signal) {
        if (checks.length === 0) return "unknown";
        const results = await Promise.all(
          checks.map(({ handler, timeoutMs }) =>
            handler.kind === "command"
              ? succeeds(handler.argv, deps.programs, timeoutMs, signal)
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
      units.map((unit) => {
        const { phase, starts, request, pulls } = unit.lever;
        const now = clock.monotonic();
        const last = pulls.at(-1);
        return {
          container: unit.probes.container,
          phase,
          starts,
          restarting: request !== undefined,
          waiting: heldBackNow(unit, now) > 0 ? "kubelet_backoff" : null,
          pulls: pulls.length,
          lastPullAgoMs: last === undefined ? undefined : Math.round(now - last),
        };
      }),
    deliveries: () => Array.from(delivering, viewOf),
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
