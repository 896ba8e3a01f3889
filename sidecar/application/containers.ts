/** The containers that have the payload, each with its lever: what the kubelet is answered, and the application's own probes behind it. */
import type { Clock } from "#core/clock.ts";
import type { Answer, Lever, LeverEvent } from "#core/lever.ts";
import { heldBackSince, initialLever, nextLever, ownProbe } from "#core/lever.ts";
import type { AppProbes, Probe } from "#core/probe.ts";
import type { DeliveryReason } from "#core/reasons.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { carryOut } from "./probe.ts";

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

export interface Unit {
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

export interface Containers extends Disposable {
  readonly units: readonly Unit[];
  readonly apply: (unit: Unit, event: LeverEvent) => Answer;
  /** Milliseconds for which the kubelet holds one back by now. */
  readonly heldBackNow: (unit: Unit, now: number) => number;
  /** Called whenever a restart that was asked for has come about. */
  readonly watchers: Set<() => void>;
  /** `undefined` when there is no such container. */
  readonly answer: (container: string, probe: "startup" | "liveness") => Answer;
  readonly views: () => readonly ContainerView[];
}

export interface ContainersDeps {
  readonly app: readonly AppProbes[];
  /** Milliseconds in which the kubelet kills a container whose liveness fails, at least. */
  readonly restartWindow: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Whether the containers may have been started before this process; false when absent. */
  readonly inherited?: (() => boolean) | undefined;
}

export function openContainers(deps: ContainersDeps): Containers {
  const { clock, log, metrics } = deps;
  const units = deps.app.map((probes): Unit => ({
    probes,
    lever: initialLever,
    asking: 0,
    restartedAt: undefined,
    heldBackMs: 0,
    probing: undefined,
  }));
  const watchers = new Set<() => void>();

  /** In which the kubelet kills a container whose liveness fails, by the webhook's rule. */
  function windowMs({ probes: { liveness } }: Unit): number {
    const own = liveness === undefined ? 0 : liveness.periodMs * liveness.failureThreshold;
    return Math.max(deps.restartWindow, own);
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
      for (const look of watchers) look();
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

  return {
    units,
    apply,
    heldBackNow,
    watchers,
    answer(container, probe) {
      const unit = units.find(({ probes }) => probes.container === container);
      return unit && apply(unit, { kind: probe, at: clock.monotonic() });
    },
    views: () =>
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
    [Symbol.dispose]() {
      for (const unit of units) unit.probing?.abort(new Error("the sidecar stops"));
    },
  };
}

/** Starts of several containers as one number that only grows. */
export function countRounds(starts: () => readonly number[]): {
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
