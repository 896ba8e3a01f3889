/**
 * The API server as the webhook uses it: through Kubernetes' own client, with every call bounded in time and ended by a signal, and with the
 * API server's time, which is the one that judges our certificate.
 */
import {
  AdmissionregistrationV1Api,
  ApiException,
  CoordinationV1Api,
  CoreV1Api,
  KubeConfig,
  Observable,
  Watch,
} from "@kubernetes/client-node";
import type { ConfigurationOptions } from "@kubernetes/client-node";
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";

/** Of one call that is not a watch. */
const CALL_MS = 10_000;
/** An API server that is told to wait longer is asked again all the same. */
const LONGEST_RETRY_AFTER_MS = 120_000;
const LONGEST_PAUSE_MS = 10_000;

/** Media types of a PATCH. */
export type Patch = "application/merge-patch+json" | "application/json-patch+json";

export interface ClusterApi {
  readonly core: CoreV1Api;
  readonly coordination: CoordinationV1Api;
  readonly registration: AdmissionregistrationV1Api;
  /** The last argument of each call of the three: it ends with the signal, and after 10 s. */
  options(signal: AbortSignal, patch?: Patch): ConfigurationOptions;
  /** Milliseconds since the epoch by the API server's clock as far as its answers have told it; ours before the first. */
  now(): number;
  /**
   * Calls `changed` for each event of a list or of one object, such as `/api/v1/nodes` and no parameters, and at least whenever the watch has begun
   * anew, which it does until the signal aborts. What holds is to be read then: events may have been missed.
   */
  watch(
    path: string,
    parameters: Readonly<Record<string, string>>,
    changed: (object: unknown) => void,
    signal: AbortSignal,
  ): Promise<void>;
}

export interface ClusterApiDeps {
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * @param kubeconfig path of a file; without one, the service account of the pod
 * @throws EdgeSyncError CONFIG_INVALID
 */
export function openClusterApi(kubeconfig: string | undefined, deps: ClusterApiDeps): ClusterApi {
  const { clock } = deps;
  const config = loadConfig(kubeconfig);
  let offset = 0;
  return {
    core: config.makeApiClient(CoreV1Api),
    coordination: config.makeApiClient(CoordinationV1Api),
    registration: config.makeApiClient(AdmissionregistrationV1Api),
    options(signal, patch) {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]);
      return {
        middleware: [
          {
            pre(context) {
              context.setSignal(bounded);
              if (patch !== undefined) context.setHeaderParam("Content-Type", patch);
              return new Observable(Promise.resolve(context));
            },
            post(context) {
              const date = Date.parse(context.headers["date"] ?? "");
              if (!Number.isNaN(date)) offset = date - clock.now();
              return new Observable(Promise.resolve(context));
            },
          },
        ],
        middlewareMergeStrategy: "append",
      };
    },
    now: () => clock.now() + offset,
    async watch(path, parameters, changed, signal) {
      const watch = new Watch(config);
      for (let failures = 0; !signal.aborted;) {
        const failed = await watchOnce(watch, path, parameters, changed, signal);
        failures = failed ? failures + 1 : 0;
        const pause = backoffMs(failures, deps.random, LONGEST_PAUSE_MS);
        // An abort only ends the wait: whoever aborts knows why.
        await clock.sleep(pause, signal).catch(() => {});
      }
    },
  };
}

function loadConfig(kubeconfig: string | undefined): KubeConfig {
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) config.loadFromCluster();
    else config.loadFromFile(kubeconfig);
    const { server = "" } = config.getCurrentCluster() ?? {};
    // Outside of a pod the client makes an address of variables that are not there.
    if (!server.startsWith("https://") || !URL.canParse(server))
      throw new Error("no cluster at an https:// address");
  } catch (cause) {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      kubeconfig === undefined
        ? "no API server: expected to run in a pod with a service account token, or EDGESYNC_KUBECONFIG"
        : `cannot use ${kubeconfig} (EDGESYNC_KUBECONFIG); expected a kubeconfig`,
      { cause },
    );
  }
  return config;
}

/** Whether it ended before anything came. The client ends a watch that has been silent for 30 s, so that a dead connection is noticed. */
async function watchOnce(
  watch: Watch,
  path: string,
  parameters: Readonly<Record<string, string>>,
  changed: (object: unknown) => void,
  signal: AbortSignal,
): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const end = (): void => resolve(undefined);
  signal.addEventListener("abort", end);
  try {
    let events = 0;
    const seen = (_type: string, object: unknown): void => {
      events++;
      changed(object);
    };
    const begun = watch.watch(path, { ...parameters }, seen, end);
    // It may never begin, as with a token that cannot be read, or only after half a minute: nobody waits for that at the end.
    begun.then((begun) => void promise.then(() => begun.abort()), end);
    await promise;
    return events === 0;
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** The HTTP status of a failed call; `undefined` when there was no answer. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof ApiException ? error.code : undefined;
}

/** Somebody else has changed the object since it was read, so it is to be read again. */
export function isConflict(error: unknown): boolean {
  return statusOf(error) === 409;
}

/** Milliseconds before the next attempt: what the API server asks for (429, 503), or a growing pause. */
export function pauseMs(error: unknown, failures: number, random: () => number): number {
  const told =
    error instanceof ApiException ? Number(error.headers["retry-after"] ?? Number.NaN) : Number.NaN;
  const pause = backoffMs(failures, random, LONGEST_PAUSE_MS);
  return Number.isNaN(told) || told < 0
    ? pause
    : Math.max(pause, Math.min(told * 1000, LONGEST_RETRY_AFTER_MS));
}
