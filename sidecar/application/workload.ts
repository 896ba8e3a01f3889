/**
 * The application as the sidecar sees it: its health, its starts, and the lever that restarts it. Everything here is on the
 * pod's own network; nothing of it depends on the outside.
 */
import type { Clock } from "#core/clock.ts";
import type { Failure } from "#core/failure.ts";
import { failureOf } from "#core/failure.ts";
import type { Answer } from "#core/lever.ts";
import { deliveryOf, onUpdateTarget } from "#core/on-update.ts";
import type { Delivery } from "#core/on-update.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { checkOnce } from "./check.ts";
import { countRounds, openContainers } from "./containers.ts";
import type { ContainerView } from "./containers.ts";
import { troubleOf, viewOf } from "./deliveries.ts";
import type { Delivering, DeliveryView } from "./deliveries.ts";
import { healthPlan } from "./health-plan.ts";
import type { Programs } from "./programs.ts";
import { reload } from "./reload.ts";
import type { OwnProcess, Refusal, ReloadWay } from "./reload.ts";

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
  /** What stood in the way at last, of a check or of the restart that is under way; and whether anything of that restart can have reached the application. */
  trouble(): Trouble;
  /** Milliseconds between two checks, and how many in a row must fail before the application is unhealthy. */
  readonly healthPeriodMs: number;
  readonly healthFailureThreshold: number;
}

export interface Trouble {
  readonly failure: Failure | null;
  readonly reached: boolean;
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

export function openWorkload(deps: WorkloadDeps): ObservedWorkload {
  const { settings, clock, log } = deps;
  const { app, restartWindow } = settings;
  const containers = openContainers({ ...deps, app, restartWindow });
  const { units, apply, heldBackNow, watchers } = containers;
  const delivering = new Set<Delivering>();

  async function tell(
    way: ReloadWay,
    channel: Settings["channel"],
    view: Delivering,
    signal: AbortSignal,
  ): Promise<void> {
    const refused = ({ detail, result, reached }: Refusal): void => {
      // Once: what it says may be another at each attempt, like a time or a number.
      if (view.detail === null)
        log.warn({ detail, reason: "not_taken" }, "the application does not take the release");
      view.detail = detail;
      view.reached ||= reached;
      view.failure = failureOf("on-update", onUpdateTarget(way), result, clock.now());
    };
    await reload(way, { ...deps, channel, refused }, signal);
  }

  function view(own: WorkloadDeps["settings"]): Workload {
    const mine = units.filter(({ probes }) =>
      own.app.some(({ container }) => container === probes.container),
    );
    const rounds = countRounds(() => mine.map(({ lever }) => lever.starts));
    const done = (): boolean => mine.every(({ lever }) => lever.request === undefined);
    const { checks, periodMs, failureThreshold } = healthPlan(own);
    let callers = 0;
    let checked: Failure | null = null;
    let current: Delivering | undefined;
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
      watchers.add(look);
      signal.addEventListener("abort", look);
      look();
      await promise;
      signal.removeEventListener("abort", look);
      watchers.delete(look);
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
        const begun = { way: own.onUpdate, units: mine, since: clock.monotonic() };
        const view: Delivering = { ...begun, detail: null, failure: null, reached: false };
        delivering.add(view);
        current = view;
        checked = null;
        try {
          await (own.onUpdate.kind === "restart"
            ? pull(signal)
            : tell(own.onUpdate, own.channel, view, signal));
        } finally {
          delivering.delete(view);
          if (current === view) current = undefined;
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
          checks.map((one) => checkOnce(one, deps.programs, signal)),
        );
        const failed = results.find(({ verdict }) => verdict !== "healthy");
        if (failed === undefined) return "healthy";
        checked = failureOf("health", failed.target, failed.result, clock.now());
        return results.some(({ verdict }) => verdict === "unhealthy") ? "unhealthy" : "unknown";
      },
      starts: rounds.total,
      trouble: () =>
        current === undefined
          ? { failure: checked, reached: true }
          : troubleOf(current, clock, containers),
    };
  }

  return {
    ...view(settings),
    of: view,
    answer: containers.answer,
    containers: containers.views,
    deliveries: () => Array.from(delivering, (one) => viewOf(one, clock.monotonic(), containers)),
    [Symbol.dispose]: () => containers[Symbol.dispose](),
  };
}
