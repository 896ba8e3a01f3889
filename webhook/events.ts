/**
 * Events on the owner of a pod that was denied, skipped or warned about: whoever has applied a Deployment never sees the answer that its
 * ReplicaSet gets. They are a courtesy: sent after the answer, few, and nobody's concern when they fail.
 */
import { codeOf } from "#core/errors.ts";
import type { Clock } from "#core/clock.ts";
import type { OwnerReference } from "#core/inject/pod.ts";
import type { EventReason } from "#core/reasons.ts";
import type { Log } from "#core/telemetry.ts";
import type { ClusterApi } from "./cluster-api.ts";

export interface OwnerEvent {
  readonly namespace: string;
  readonly owner: OwnerReference;
  readonly type: "Normal" | "Warning";
  readonly reason: EventReason;
  readonly message: string;
}

export interface Events {
  /** Returns at once. */
  send(event: OwnerEvent): void;
}

export interface EventsDeps {
  readonly api: Pick<ClusterApi, "core" | "options">;
  readonly clock: Clock;
  readonly log: Log;
}

/** Milliseconds in which the same is not said again of the same owner: a controller tries again and again, and each replica is a pod. */
const QUIET_MS = 600_000;
/** Owners and reasons that are remembered. */
const REMEMBERED = 1_000;
/** At most so many at once, and then one every so many milliseconds: the API server has more to do. */
const BURST = 20;
const REFILL_MS = 1_000;
/** Bytes of an Event's note (events.k8s.io/v1). */
const MESSAGE_LIMIT = 1_024;

const COMPONENT = "edgesync-webhook";

export function openEvents({ api, clock, log }: EventsDeps, signal: AbortSignal): Events {
  const said = new Map<string, number>();
  let tokens = BURST;
  let filledAt = clock.monotonic();

  const mayBeSaid = (key: string): boolean => {
    const now = clock.monotonic();
    const before = said.get(key);
    if (before !== undefined && now - before < QUIET_MS) return false;
    tokens = Math.min(BURST, tokens + (now - filledAt) / REFILL_MS);
    filledAt = now;
    if (tokens < 1) return false;
    tokens -= 1;
    said.delete(key);
    said.set(key, now);
    const [oldest] = said.keys();
    if (said.size > REMEMBERED && oldest !== undefined) said.delete(oldest);
    return true;
  };

  const post = async ({ namespace, owner, type, reason, message }: OwnerEvent): Promise<void> => {
    const { apiVersion, kind, name, uid } = owner;
    const at = new Date(clock.now());
    await api.core.createNamespacedEvent(
      {
        namespace,
        body: {
          metadata: { generateName: `${name.slice(0, 200)}.`, namespace },
          involvedObject: { apiVersion, kind, name, uid, namespace },
          type,
          reason,
          message: cut(message),
          source: { component: COMPONENT },
          reportingComponent: COMPONENT,
          reportingInstance: COMPONENT,
          firstTimestamp: at,
          lastTimestamp: at,
          count: 1,
        },
      },
      api.options(signal),
    );
  };

  return {
    send(event) {
      if (signal.aborted || !mayBeSaid(`${event.owner.uid} ${event.reason}`)) return;
      void post(event).catch((err: unknown) => {
        log.debug({ err, code: codeOf(err), namespace: event.namespace }, "event not sent");
      });
    },
  };
}

function cut(message: string): string {
  const bytes = Buffer.from(message);
  if (bytes.byteLength <= MESSAGE_LIMIT) return message;
  // A character that was cut in two becomes a replacement character, which is left out.
  const text = bytes.subarray(0, MESSAGE_LIMIT - 3).toString();
  return `${text.replace(/\uFFFD+$/, "")}…`;
}
