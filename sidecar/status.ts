/** The gates as they stand, and the document of `/status`: made from what the agents say at the moment of asking. */
import type { Clock } from "#core/clock.ts";
import type { ErrorCode } from "#core/errors.ts";
import { gates } from "#core/gate.ts";
import type { Gates } from "#core/gate.ts";
import type { GateReason } from "#core/reasons.ts";
import { GATE_REASONS } from "#core/reasons.ts";
import { MAIN_PAYLOAD } from "#core/payloads.ts";
import { payloadNames } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { holdView } from "./application/hold.ts";
import type { HoldBook } from "./application/hold.ts";
import type { Hooks } from "./application/hooks.ts";
import type { Clients } from "./clients.ts";
import type { SecretsAgent } from "./secrets/agent.ts";
import type { UpdateAgent } from "./update/agent.ts";
import type { ObservedWorkload } from "./application/workload.ts";

export type Part = "update agent" | `update agent ${string}` | "secrets agent";

/** The part of the sidecar that follows a payload. */
export function updatePart(payload: string): Part {
  return payload === MAIN_PAYLOAD ? "update agent" : `update agent ${payload}`;
}

/** The agents as far as they have come up; absent while they have not. */
export interface Agents {
  /** By payload. */
  readonly updates: Map<string, UpdateAgent>;
  secrets?: SecretsAgent;
  /** Those that cannot come up because of a setting. */
  readonly invalid: Set<Part>;
  /** Why those that are not up now are not: they are opened again and again. */
  readonly failed: Map<Part, ErrorCode>;
}

export interface StatusDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly workload: ObservedWorkload;
  readonly agents: Agents;
  readonly holds: Pick<HoldBook, "known" | "problems">;
  readonly clients: Pick<Clients, "skews">;
  /** By payload. */
  readonly hooks: ReadonlyMap<string, Pick<Hooks, "view">>;
}

export interface Status {
  /** To be asked for the kubelet's startup probe only: an `ok` lets the main container start. */
  start(): GateReason;
  ready(): GateReason;
  /** Whether `start` has never said `ok`, so that the main container cannot run yet. Outside of a pod nobody asks, and nothing is held. */
  held(): boolean;
  document(): unknown;
  /** Brings the gauges of the gates up to date. */
  record(): void;
}

export function openStatus(deps: StatusDeps): Status {
  const { settings, clock, log, metrics, workload, agents, holds, hooks, clients } = deps;
  let held = true;
  let last: Partial<Gates> = {};

  const names = payloadNames(settings);
  const others = names.filter((name) => name !== MAIN_PAYLOAD);
  const every = (holds: (agent: UpdateAgent) => boolean): boolean =>
    names.every((name) => {
      const agent = agents.updates.get(name);
      return agent !== undefined && holds(agent);
    });

  const payload = (): { recovered: boolean; installed: boolean } | undefined =>
    names.length === 0
      ? undefined
      : {
          // The start has been let go; an agent that recovers from a fault of its own later cannot take that back.
          recovered: !held || every((agent) => agent.recovered()),
          installed: every((agent) => agent.installed()),
        };
  const secrets = (): { published: boolean; expiredSince: number | undefined } | undefined => {
    if (settings.secrets.length === 0) return undefined;
    return {
      published: agents.secrets?.published() === true,
      expiredSince: agents.secrets?.expiredSince(),
    };
  };
  const look = (): Gates => {
    const now: Gates =
      held && agents.invalid.size > 0
        ? { start: "config_invalid", ready: "config_invalid" }
        : gates({ settings, payload: payload(), secrets: secrets(), now: clock.now() });
    if (now.start !== last.start) log.info({ reason: now.start }, "start gate changed");
    if (now.ready !== last.ready) log.info({ reason: now.ready }, "readiness changed");
    last = now;
    return now;
  };

  const statusOf = (payloads: readonly string[]): object =>
    Object.fromEntries(
      payloads.map((name) => {
        const update = agents.updates.get(name)?.status();
        return [name, update === undefined ? null : { ...update, hooks: hooks.get(name)?.view() }];
      }),
    );

  return {
    start() {
      const { start } = look();
      if (start === "ok") held = false;
      return start;
    },
    ready: () => look().ready,
    held: () => held && settings.podName !== undefined,
    document() {
      const { start, ready } = look();
      return {
        pod: settings.podName,
        namespace: settings.podNamespace,
        start: { reason: start, means: GATE_REASONS[start] },
        ready: { reason: ready, means: GATE_REASONS[ready] },
        update: agents.updates.get(MAIN_PAYLOAD)?.status(),
        ...(others.length === 0 ? {} : { payloads: statusOf(others) }),
        secrets: agents.secrets?.status(),
        failed: Object.fromEntries(agents.failed),
        clockSkew: clients.skews(),
        holds: holds.known().map(holdView),
        holdProblems: holds.problems(),
        hooks: hooks.get(MAIN_PAYLOAD)?.view(),
        delivering: workload.deliveries(),
        containers: workload.containers(),
      };
    },
    record() {
      const { ready } = look();
      const installed = payload()?.installed !== false;
      const published = secrets()?.published !== false;
      metrics.set("edgesync_sidecar_gate_open", { condition: "payload" }, Number(installed));
      metrics.set("edgesync_sidecar_gate_open", { condition: "secrets" }, Number(published));
      metrics.clear("edgesync_sidecar_delivery_waiting_seconds");
      for (const { waiting, forMs } of workload.deliveries())
        metrics.set("edgesync_sidecar_delivery_waiting_seconds", { reason: waiting }, forMs / 1000);
      recordReady(metrics, ready);
    },
  };
}

/** A status that never changes: the sidecar stays up to say what is wrong. */
export function stuckStatus(reason: Exclude<GateReason, "ok">, metrics: SidecarMetrics): Status {
  const gate = { reason, means: GATE_REASONS[reason] };
  return {
    start: () => reason,
    ready: () => reason,
    held: () => true,
    document: () => ({ start: gate, ready: gate }),
    record: () => recordReady(metrics, reason),
  };
}

function recordReady(metrics: SidecarMetrics, reason: GateReason): void {
  metrics.clear("edgesync_sidecar_ready");
  metrics.set("edgesync_sidecar_ready", { reason }, Number(reason === "ok"));
}
