/**
 * The serving certificate of a replica in a cluster: read from the Secret, compared with what the API server trusts, served, and, by the leader,
 * rotated. Nothing is remembered but what is served: every round reads what holds and does one step (src/serving-certificate.ts).
 */
import type { V1MutatingWebhookConfiguration, V1Secret } from "@kubernetes/client-node";
import type { Clock } from "#core/clock.ts";
import { codeOf, EdgeSyncError, unreachable } from "#core/errors.ts";
import { choose, nextStep, untrusted, wantedKey } from "#core/serving-certificate.ts";
import type { Identity, Kept, Seen, Step, Times } from "#core/serving-certificate.ts";
import type { Log, WebhookMetrics } from "#core/telemetry.ts";
import { makeCertificate } from "./certificate.ts";
import { isConflict, pauseMs, statusOf } from "./cluster-api.ts";
import type { ClusterApi } from "./cluster-api.ts";

/** An operator's wish for a new certificate, on the Secret: `kubectl annotate secret … edgesync.dev/rotate=now`. */
const ROTATE = "edgesync.dev/rotate";
/** Between two looks when nothing is heard of a change. */
const RESYNC_MS = 30_000;

export interface KeepOptions {
  readonly api: ClusterApi;
  readonly namespace: string;
  readonly service: string;
  /** Names of the Secret and of the MutatingWebhookConfiguration, which are there already. */
  readonly secret: string;
  readonly configuration: string;
  /** Of a certificate that is made. */
  readonly lifetimeMs: number;
  readonly times: Times;
  /** `undefined` where somebody else writes both, such as cert-manager. */
  readonly leader: { isLeader(): boolean } | undefined;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: WebhookMetrics;
  readonly serve: (identity: Identity) => void;
  /** Told after each round why no admission should be sent here; `undefined` when it should. */
  readonly judge: (problem: string | undefined) => void;
}

export interface Keeper {
  /** Looks at once. */
  wake(): void;
  /** Until the signal aborts. What is served stays served whatever fails. */
  run(signal: AbortSignal): Promise<void>;
}

/** What was read in one round. */
interface Round {
  readonly secret: V1Secret;
  readonly configuration: V1MutatingWebhookConfiguration;
  readonly kept: Kept;
  readonly bundles: readonly string[];
}

export function openKeeper(options: KeepOptions): Keeper {
  const { api, namespace, clock, log, metrics } = options;
  const host = `${options.service}.${namespace}.svc`;
  let served: Identity | undefined;
  let settled = { key: "", since: 0 };
  let woken = Promise.withResolvers<undefined>();
  const wake = (): void => woken.resolve(undefined);

  /** Milliseconds until the next round; 0 after a step, whose outcome is read at once. */
  const round = async (signal: AbortSignal): Promise<number> => {
    const read = await readBoth(options, signal);
    const { kept, bundles } = read;
    const now = api.now();
    const chosen = choose({ kept, served, bundles, host, now });
    if (chosen !== undefined && chosen.certificate !== served?.certificate) {
      options.serve(chosen);
      served = chosen;
    }
    const problem =
      served === undefined ? "no serving certificate" : untrusted(served, bundles, host, now);
    metrics.set("edgesync_webhook_certificate_trusted", {}, problem === undefined ? 1 : 0);
    options.judge(problem);
    if (options.leader?.isLeader() !== true) {
      settled = { key: "", since: 0 };
      return RESYNC_MS;
    }
    const seen: Seen = {
      kept,
      served,
      bundles,
      host,
      now,
      asked: read.secret.metadata?.annotations?.[ROTATE] !== undefined,
      settledMs: settled.key === wantedKey(kept) ? clock.monotonic() - settled.since : 0,
      times: options.times,
    };
    const step = nextStep(seen);
    if (step.step !== "wait") {
      settled = { key: "", since: 0 };
      await perform(step, read, options, signal);
      return 0;
    }
    if (settled.key !== wantedKey(kept))
      settled = { key: wantedKey(kept), since: clock.monotonic() };
    return Math.min(step.ms, RESYNC_MS);
  };

  const rounds = async (signal: AbortSignal): Promise<void> => {
    let failures = 0;
    let failure = "";
    while (!signal.aborted) {
      woken = Promise.withResolvers<undefined>();
      let pause: number;
      try {
        pause = await round(signal);
        failures = 0;
        failure = "";
      } catch (err) {
        if (signal.aborted) return;
        pause = isConflict(err) ? 0 : pauseMs(err, failures++, options.random);
        const status = statusOf(err);
        metrics.add("edgesync_webhook_api_failures_total", { status: String(status ?? "none") });
        if (!isConflict(err) && String(err) !== failure) {
          failure = String(err);
          log.warn({ err, code: codeOf(err) }, "certificate not compared with the caBundle");
        }
        // Told to wait, or none there: a change that is heard of does not hurry it.
        await clock.sleep(pause, signal).catch(() => {});
        continue;
      }
      const over = new AbortController();
      const slept = clock.sleep(pause, AbortSignal.any([signal, over.signal])).catch(() => {});
      await Promise.race([slept, woken.promise]);
      over.abort();
    }
  };

  return {
    wake,
    async run(signal) {
      await Promise.all([
        rounds(signal),
        ...watched(options).map(([path, name]) =>
          api.watch(path, { fieldSelector: `metadata.name=${name}` }, wake, signal),
        ),
      ]);
    },
  };
}

function watched({ namespace, secret, configuration }: KeepOptions): readonly [string, string][] {
  return [
    [`/api/v1/namespaces/${namespace}/secrets`, secret],
    ["/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", configuration],
  ];
}

/**
 * The configuration first: whoever adds an authority to it has written the Secret before, so that an authority that is in what is read here, and not in
 * the Secret that is read after it, is wanted by nobody.
 */
async function readBoth(options: KeepOptions, signal: AbortSignal): Promise<Round> {
  const { api, namespace } = options;
  const configuration = await api.registration.readMutatingWebhookConfiguration(
    { name: options.configuration },
    api.options(signal),
  );
  const secret = await api.core.readNamespacedSecret(
    { name: options.secret, namespace },
    api.options(signal),
  );
  const bundles = (configuration.webhooks ?? []).map(({ clientConfig }) =>
    decode(clientConfig.caBundle),
  );
  return { secret, configuration, kept: keptIn(secret), bundles };
}

function decode(base64: string | undefined): string {
  return Buffer.from(base64 ?? "", "base64").toString();
}

/** Keys of the Secret: the first three as cert-manager names them. */
function keptIn({ data = {} }: V1Secret): Kept {
  const identity = (ca: string, certificate: string, key: string): Identity | undefined =>
    data[certificate] === undefined || data[key] === undefined
      ? undefined
      : { ca: decode(data[ca]), certificate: decode(data[certificate]), key: decode(data[key]) };
  const previous = data["previous-ca.crt"];
  return {
    serving: identity("ca.crt", "tls.crt", "tls.key"),
    next: identity("next-ca.crt", "next-tls.crt", "next-tls.key"),
    previousCa: previous === undefined ? undefined : decode(previous),
  };
}

type Data = Readonly<Record<string, string | null>>;

function dataOf(prefix: "" | "next-", identity: Identity | undefined): Data {
  const encode = (text: string | undefined): string | null =>
    text === undefined ? null : Buffer.from(text).toString("base64");
  return {
    [`${prefix}ca.crt`]: encode(identity?.ca),
    [`${prefix}tls.crt`]: encode(identity?.certificate),
    [`${prefix}tls.key`]: encode(identity?.key),
  };
}

async function perform(
  step: Exclude<Step, { step: "wait" }>,
  read: Round,
  options: KeepOptions,
  signal: AbortSignal,
): Promise<void> {
  const { log, metrics } = options;
  switch (step.step) {
    case "make": {
      const { service, namespace, lifetimeMs, api } = options;
      const made = await makeCertificate({ service, namespace, names: [], lifetimeMs }, api.now());
      await writeSecret(read, dataOf(step.as === "next" ? "next-" : "", made), options, signal);
      log.info({ part: step.as }, "certificate made");
      break;
    }
    case "restore":
      await writeSecret(read, dataOf("", step.identity), options, signal);
      log.warn({}, "certificate put back into the Secret, which had lost it");
      break;
    case "trust":
      await writeBundles(read.configuration, step.bundle, options, signal);
      log.info({}, "caBundle written");
      break;
    case "promote": {
      const previous = Buffer.from(step.previousCa).toString("base64");
      const data = { ...dataOf("", step.identity), ...dataOf("next-", undefined) };
      await writeSecret(read, { ...data, "previous-ca.crt": previous }, options, signal);
      metrics.add("edgesync_webhook_certificate_rotations_total", {});
      log.info({}, "certificate rotated");
      break;
    }
    case "forget":
      await writeSecret(read, { "previous-ca.crt": null }, options, signal);
      log.info({}, "old authority dropped");
      break;
    default:
      unreachable(step);
  }
}

/** Only if nobody has written it since it was read; otherwise the API server answers 409. */
async function writeSecret(
  { secret }: Round,
  data: Data,
  { api, namespace, secret: name }: KeepOptions,
  signal: AbortSignal,
): Promise<void> {
  const resourceVersion = secret.metadata?.resourceVersion;
  const body = { metadata: { resourceVersion, annotations: { [ROTATE]: null } }, data };
  const patch = api.options(signal, "application/merge-patch+json");
  await api.core.patchNamespacedSecret({ name, namespace, body }, patch);
}

/** A patch of the bundles alone: a newer API server may know fields of an entry that our client does not. */
async function writeBundles(
  { metadata, webhooks = [] }: V1MutatingWebhookConfiguration,
  bundle: string,
  { api, configuration: name }: KeepOptions,
  signal: AbortSignal,
): Promise<void> {
  if (metadata?.resourceVersion === undefined)
    throw new EdgeSyncError("INTERNAL", `${name} has no resourceVersion`);
  const value = Buffer.from(bundle).toString("base64");
  const body = [
    // Another one than the object has makes the API server answer 409.
    { op: "replace", path: "/metadata/resourceVersion", value: metadata.resourceVersion },
    ...webhooks.map((_, index) => ({
      op: "add",
      path: `/webhooks/${index}/clientConfig/caBundle`,
      value,
    })),
  ];
  const patch = api.options(signal, "application/json-patch+json");
  await api.registration.patchMutatingWebhookConfiguration({ name, body }, patch);
}
