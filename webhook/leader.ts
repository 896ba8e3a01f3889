/**
 * One leader among the replicas, by a Lease (coordination.k8s.io), as controllers of Kubernetes do it: nobody compares clocks, a lease counts as given
 * up when it has not been seen to change for as long as it says. What the leader writes is guarded by resource versions anyway, so that two who think
 * they lead do each other no harm.
 */
import type { V1Lease } from "@kubernetes/client-node";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { Log, WebhookMetrics } from "#core/telemetry.ts";
import { isConflict } from "./cluster-api.ts";
import type { ClusterApi } from "./cluster-api.ts";

/** Of its own accord the leader is none any more after two thirds, before anybody else may think so. */
const OWN_PART = 2 / 3;
const RELEASE_MS = 2_000;

export interface LeaderOptions {
  readonly api: ClusterApi;
  readonly namespace: string;
  /** Of the Lease, which is there already: no right to create one is needed. */
  readonly name: string;
  /** Of this replica; different for each. */
  readonly identity: string;
  /** Milliseconds, at least a second. */
  readonly leaseMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: WebhookMetrics;
  /** Called when this replica becomes the leader. */
  readonly elected: () => void;
}

export interface Leader {
  isLeader(): boolean;
  /** Keeps the lease, or waits for it, until the signal aborts; then gives it back, so that nobody waits for its end. */
  run(signal: AbortSignal): Promise<void>;
}

export function openLeader(options: LeaderOptions): Leader {
  const { api, namespace, name, identity, leaseMs, clock, log, metrics } = options;
  /** When the lease was last seen to change, and what it was then. */
  let seen = { version: "", at: 0 };
  let renewedAt = Number.NEGATIVE_INFINITY;
  const isLeader = (): boolean => clock.monotonic() - renewedAt < leaseMs * OWN_PART;

  const write = async (lease: V1Lease, holder: string, signal: AbortSignal): Promise<void> => {
    const now = microTime(api.now());
    const { holderIdentity, leaseTransitions = 0 } = lease.spec ?? {};
    const taken = holder !== "" && holderIdentity !== holder;
    const body = {
      metadata: { resourceVersion: lease.metadata?.resourceVersion },
      spec: {
        holderIdentity: holder,
        leaseDurationSeconds: Math.ceil(leaseMs / 1000),
        renewTime: now,
        ...(taken ? { acquireTime: now, leaseTransitions: leaseTransitions + 1 } : {}),
      },
    };
    const patch = api.options(signal, "application/merge-patch+json");
    await api.coordination.patchNamespacedLease({ name, namespace, body }, patch);
  };

  const attempt = async (signal: AbortSignal): Promise<void> => {
    const asked = clock.monotonic();
    const lease = await api.coordination.readNamespacedLease(
      { name, namespace },
      api.options(signal),
    );
    const version = lease.metadata?.resourceVersion ?? "";
    if (version !== seen.version) seen = { version, at: clock.monotonic() };
    const { holderIdentity, leaseDurationSeconds = 0 } = lease.spec ?? {};
    const free = holderIdentity === undefined || holderIdentity === "";
    const old = clock.monotonic() - seen.at > leaseDurationSeconds * 1000;
    if (!free && holderIdentity !== identity && !old) {
      renewedAt = Number.NEGATIVE_INFINITY;
      return;
    }
    await write(lease, identity, signal);
    const before = isLeader();
    renewedAt = asked;
    if (!before && isLeader()) {
      log.info({ owner: identity }, "leading the replicas");
      options.elected();
    }
  };

  return {
    isLeader,
    async run(signal) {
      let failure = "";
      while (!signal.aborted) {
        try {
          await attempt(signal);
          failure = "";
        } catch (err) {
          if (!signal.aborted && !isConflict(err) && String(err) !== failure) {
            failure = String(err);
            log.warn({ err, code: codeOf(err) }, "lease not renewed");
          }
        }
        metrics.set("edgesync_webhook_leader", {}, isLeader() ? 1 : 0);
        // Not all at one time: who leads renews often, the others look now and then.
        await clock.sleep(leaseMs * (isLeader() ? 1 / 4 : 1 / 3), signal).catch(() => {});
      }
      if (isLeader()) await release();
    },
  };

  async function release(): Promise<void> {
    renewedAt = Number.NEGATIVE_INFINITY;
    const signal = AbortSignal.timeout(RELEASE_MS);
    try {
      const lease = await api.coordination.readNamespacedLease(
        { name, namespace },
        api.options(signal),
      );
      if (lease.spec?.holderIdentity === identity) await write(lease, "", signal);
    } catch (err) {
      log.info({ err, code: codeOf(err) }, "lease not given back; it ends by itself");
    }
  }
}

/** RFC 3339 with microseconds, as the API wants it. */
function microTime(ms: number): string {
  return new Date(ms).toISOString().replace("Z", "000Z");
}
