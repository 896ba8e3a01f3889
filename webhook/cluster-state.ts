/**
 * What the webhook knows of the cluster besides its settings: whether every kubelet knows native sidecars, and what namespaces state for
 * their pods. It is read, watched and read again; a decision about a pod takes what is known at that moment and never waits.
 */
import { codeOf } from "#core/errors.ts";
import type { Clock } from "#core/clock.ts";
import { DEFAULTS_NAME } from "#core/inject/defaults.ts";
import { runsNativeSidecars } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import { isObject } from "#core/json.ts";
import type { Log } from "#core/telemetry.ts";
import { pauseMs } from "./cluster-api.ts";
import type { ClusterApi } from "./cluster-api.ts";

export interface ClusterState {
  /** @param nodeName of a pod that states its node itself */
  facts(namespace: string | undefined, nodeName: string | undefined): Facts;
  /** Resolves when everything has been read once, or could not be. */
  readonly tried: Promise<unknown>;
  /** Reads and watches until aborted; then resolves. */
  run(signal: AbortSignal): Promise<void>;
}

export interface ClusterStateDeps {
  readonly api: ClusterApi;
  /** Of the webhook: its defaults are those of the cluster. */
  readonly namespace: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/** Milliseconds after which everything is read again although nothing was heard: a watch does not tell of what it has missed. */
const REREAD_MS = 300_000;
/** Milliseconds in which changes are gathered, so that a roll-out of nodes is not a reading for each. */
const GATHER_MS = 250;
/** Nodes of one answer; each has tens of kilobytes, most of them names of images. */
const PAGE = 100;

export function openClusterState(deps: ClusterStateDeps): ClusterState {
  const { api, namespace: own, clock } = deps;
  /** Versions of kubelets by node. */
  let kubelets: ReadonlyMap<string, string> = new Map();
  /** By namespace. */
  let defaults: ReadonlyMap<string, Readonly<Record<string, string>>> = new Map();

  const readNodes = async (signal: AbortSignal): Promise<void> => {
    const found = new Map<string, string>();
    let next: string | undefined;
    do {
      const { items, metadata } = await api.core.listNode(
        { limit: PAGE, ...(next === undefined ? {} : { _continue: next }) },
        api.options(signal),
      );
      for (const { metadata: node, status } of items)
        if (node?.name !== undefined) found.set(node.name, status?.nodeInfo?.kubeletVersion ?? "");
      next = metadata?._continue === "" ? undefined : metadata?._continue;
    } while (next !== undefined);
    if (isNative(found) !== isNative(kubelets))
      deps.log.info(
        { outcome: isNative(found) ? "native" : "container" },
        "the mode of sidecars changed with the nodes",
      );
    kubelets = found;
  };
  const readDefaults = async (signal: AbortSignal): Promise<void> => {
    const { items } = await api.core.listConfigMapForAllNamespaces(SELECTED, api.options(signal));
    defaults = new Map(
      items.flatMap(({ metadata, data }) =>
        metadata?.namespace === undefined ? [] : [[metadata.namespace, data ?? {}] as const],
      ),
    );
  };
  const nodes = keep(
    { path: "/api/v1/nodes", parameters: {}, read: readNodes },
    // A node reports its state every few minutes; only its version matters.
    (object) => {
      const [name, version] = kubeletOf(object);
      return name === undefined || kubelets.get(name) !== version;
    },
    deps,
  );
  const configMaps = keep(
    { path: "/api/v1/configmaps", parameters: SELECTED, read: readDefaults },
    () => true,
    deps,
  );
  return {
    facts(namespace, nodeName) {
      const version = nodeName === undefined ? undefined : kubelets.get(nodeName);
      return {
        nativeSidecars: version === undefined ? isNative(kubelets) : runsNativeSidecars(version),
        defaults: [...new Set([namespace, own])].flatMap((one) => {
          const values = one === undefined ? undefined : defaults.get(one);
          return values === undefined
            ? []
            : [{ source: `ConfigMap ${one}/${DEFAULTS_NAME}`, values }];
        }),
        now: clock.now(),
      };
    },
    tried: Promise.all([nodes.tried, configMaps.tried]),
    async run(signal) {
      await Promise.all([nodes.run(signal), configMaps.run(signal)]);
    },
  };
}

const SELECTED = { fieldSelector: `metadata.name=${DEFAULTS_NAME}` };

/** Of a cluster whose nodes are not known, it is taken to be so: every version that Kubernetes still maintains knows them. */
function isNative(kubelets: ReadonlyMap<string, string>): boolean {
  return [...kubelets.values()].every((version) => runsNativeSidecars(version));
}

function kubeletOf(node: unknown): readonly [name: string | undefined, version: string] {
  const part = (value: unknown, key: string): unknown => (isObject(value) ? value[key] : undefined);
  const name = part(part(node, "metadata"), "name");
  const version = part(part(part(node, "status"), "nodeInfo"), "kubeletVersion");
  return [typeof name === "string" ? name : undefined, typeof version === "string" ? version : ""];
}

interface Watched {
  readonly path: string;
  readonly parameters: Readonly<Record<string, string>>;
  readonly read: (signal: AbortSignal) => Promise<void>;
}

/** Reads, and reads again when something has changed; what cannot be read stays as it was. */
function keep(
  { path, parameters, read }: Watched,
  matters: (object: unknown) => boolean,
  { api, clock, random, log }: ClusterStateDeps,
): { readonly tried: Promise<undefined>; run(signal: AbortSignal): Promise<void> } {
  const { promise: tried, resolve } = Promise.withResolvers<undefined>();
  let wake = new AbortController();
  const attempt = async (failures: number, signal: AbortSignal): Promise<number | undefined> => {
    try {
      await read(signal);
      return undefined;
    } catch (err) {
      // Once for as long as it lasts: a right that is missing may stay so.
      if (!signal.aborted && failures === 0)
        log.warn(
          { err, code: codeOf(err), route: path },
          "the cluster could not be read; what was known of it stands",
        );
      return pauseMs(err, failures, random);
    }
  };
  return {
    tried,
    async run(signal) {
      const watching = api.watch(
        path,
        parameters,
        (object) => {
          if (matters(object)) wake.abort();
        },
        signal,
      );
      for (let failures = 0; !signal.aborted;) {
        wake = new AbortController();
        const pause = await attempt(failures, signal);
        resolve(undefined);
        failures = pause === undefined ? 0 : failures + 1;
        // A failure is not tried again at once for a change.
        const until = pause === undefined ? AbortSignal.any([signal, wake.signal]) : signal;
        await clock.sleep(pause ?? REREAD_MS, until).catch(() => {});
        await clock.sleep(GATHER_MS, signal).catch(() => {});
      }
      await watching;
    },
  };
}
