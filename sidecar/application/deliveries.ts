/** What is being given to the application, and what stands in the way of it: for `/status`, and for the trial that waits for it. */
import type { Clock } from "#core/clock.ts";
import type { Failure } from "#core/failure.ts";
import { failureOf } from "#core/failure.ts";
import { onUpdateTarget } from "#core/on-update.ts";
import type { OnUpdate } from "#core/on-update.ts";
import type { DeliveryReason } from "#core/reasons.ts";
import type { Containers, Unit } from "./containers.ts";

/** What the application has not got yet, although it has been swapped in. A rollback's waits without an end, so it must be seen. */
export interface DeliveryView {
  readonly by: OnUpdate["kind"];
  readonly forMs: number;
  readonly waiting: DeliveryReason;
  /** The container, or what was answered. */
  readonly detail: string | null;
}

export interface Delivering {
  readonly way: OnUpdate;
  readonly units: readonly Unit[];
  /** Monotonic milliseconds. */
  readonly since: number;
  /** What was answered last. */
  detail: string | null;
  failure: Failure | null;
  /** Whether anything of it can have reached the application. */
  reached: boolean;
}

/** Milliseconds without a probe after which somebody should know: no period of a probe of ours is longer. */
const NO_PROBES_MS = 120_000;

export function viewOf(
  { way, units, since, detail }: Delivering,
  now: number,
  { heldBackNow }: Pick<Containers, "heldBackNow">,
): DeliveryView {
  const told = { by: way.kind, forMs: Math.round(now - since) };
  if (way.kind !== "restart") return { ...told, waiting: "not_taken", detail };
  const behind = units.find(({ lever }) => lever.request !== undefined);
  const container = behind?.probes.container ?? null;
  if (behind !== undefined && heldBackNow(behind, now) > 0)
    return { ...told, waiting: "kubelet_backoff", detail: container };
  const asked = Math.max(since, behind?.lever.lastProbe ?? since);
  const waiting = now - asked > NO_PROBES_MS ? "no_probes" : "restart_pending";
  return { ...told, waiting, detail: container };
}

/** What a trial that was given up is told. A container whose lever was pulled may have been killed, and not come up with the release. */
export function troubleOf(
  delivering: Delivering,
  clock: Clock,
  containers: Pick<Containers, "heldBackNow">,
): { readonly failure: Failure | null; readonly reached: boolean } {
  const { way, units, failure, reached } = delivering;
  if (way.kind !== "restart") return { failure, reached };
  const { waiting, detail } = viewOf(delivering, clock.monotonic(), containers);
  const target = `${onUpdateTarget(way)}:${detail ?? ""}`;
  return {
    failure: failureOf("on-update", target, waiting, clock.now()),
    reached: units.some(({ lever: { request } }) => request === undefined || request.pulled),
  };
}
