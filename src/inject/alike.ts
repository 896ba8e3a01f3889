/**
 * Decisions that are kept for the pods that come after: those of one controller are alike, but for the name of a token volume that the API server makes
 * for each, and for fields that no decision looks at.
 */
import { POD_LABEL } from "#core/annotations.ts";
import type { Facts } from "./facts.ts";
import { COMMAND } from "./mode.ts";
import type { Container, Pod, PodSpec } from "./pod.ts";
import { workloadOf } from "./workload.ts";

/** Of a pod's own token (kubernetes, plugin/pkg/admission/serviceaccount): its volume's name is all that differs between replicas. */
const TOKEN_VOLUME = /^kube-api-access-[a-z0-9]{5}$/;

/** Everything of a spec that a decision reads. Other fields stay as they are in any pod, so they may differ. */
const READ: Readonly<Record<keyof PodSpec, true>> = {
  containers: true,
  initContainers: true,
  ephemeralContainers: true,
  volumes: true,
  restartPolicy: true,
  serviceAccountName: true,
  hostNetwork: true,
  shareProcessNamespace: true,
  resources: true,
  nodeName: true,
  securityContext: true,
  nodeSelector: true,
  os: true,
};

/** Of a container that is not the sidecar, only names and values for the application: of no concern to a decision, and most of a large pod. */
const UNREAD = "env";

interface Kept<T> {
  readonly pod: Pod;
  readonly facts: Facts;
  /** The name of the token volume, and how often it is in what is read of the pod. */
  readonly token: string | undefined;
  readonly uses: number;
  readonly bytes: number;
  readonly value: T;
}

export interface Memory<T> {
  /** What was kept for a pod that this one is like in all that a decision reads. */
  recall(pod: Pod, facts: Facts): T | undefined;
  /**
   * Keeps what was decided about a pod, from the second time that pods of its workload come: many come only once.
   *
   * @param bytes of the pod's JSON
   * @param text in which the name of the token volume must not be, because it goes to other pods too
   */
  keep(pod: Pod, facts: Facts, value: T, bytes: number, text: string): void;
}

/** Workloads whose pods have come once. */
const MOST_SEEN = 1_024;

/** Characters of a workload that is worth its place. */
const LONGEST_KEY = 1_024;

/** @param budgetBytes of the JSON of all pods that are kept; in memory each takes some times that */
export function openMemory<T>(budgetBytes: number): Memory<T> {
  const seen = new Set<string>();
  /** The oldest first. */
  const kept = new Map<string, Kept<T>>();
  let used = 0;
  const drop = (key: string): void => {
    used -= kept.get(key)?.bytes ?? 0;
    kept.delete(key);
  };
  return {
    recall(pod, facts) {
      const before = kept.get(keyOf(pod));
      return before !== undefined && isFor(before, pod, facts) ? before.value : undefined;
    },
    keep(pod, facts, value, bytes, text) {
      const key = keyOf(pod);
      if (key.length > LONGEST_KEY || bytes > budgetBytes / 8) return;
      if (!seen.has(key)) {
        if (seen.size >= MOST_SEEN) seen.clear();
        seen.add(key);
        return;
      }
      const tokens = isPlain(pod) ? tokensOf(pod.spec) : undefined;
      const [token] = tokens ?? [];
      drop(key);
      if (tokens === undefined || new Set(tokens).size > 1) return;
      if (token !== undefined && text.includes(token)) return;
      kept.set(key, { pod, facts, token, uses: tokens.length, bytes, value });
      used += bytes;
      for (const oldest of kept.keys()) {
        if (used <= budgetBytes) break;
        drop(oldest);
      }
    },
  };
}

/** What a decision reads of a pod's names, and which version of the workload it is of. */
function keyOf(pod: Pod): string {
  return JSON.stringify([workloadOf(pod), pod.metadata?.generateName]);
}

/** Without a sidecar from an earlier call, whose variables are read, and with names by which lists can be compared. */
function isPlain({ spec }: Pod): boolean {
  return [spec?.containers, spec?.initContainers].every((list) => {
    const containers = list ?? [];
    const names = new Set(containers.map(({ name }) => name));
    return (
      names.size === containers.length && !containers.some(({ args }) => args?.[0] === COMMAND)
    );
  });
}

/** Levels of objects and lists in a pod that is kept; Kubernetes' own types have some twenty. */
const DEEPEST = 64;

/** Names as of a token volume in what is read of a pod; undefined where it goes too deep. */
function tokensOf(spec: unknown): readonly string[] | undefined {
  const found: string[] = [];
  const isShallow = (value: unknown, key: string, left: number): boolean => {
    if (typeof value === "string" && TOKEN_VOLUME.test(value)) found.push(value);
    if (typeof value !== "object" || value === null || key === UNREAD) return true;
    return (
      left > 0 && Object.entries(value).every(([name, item]) => isShallow(item, name, left - 1))
    );
  };
  return isShallow(spec, "", DEEPEST) ? found : undefined;
}

/** How the token volume is called in a pod that is compared with a kept one. */
interface Renaming {
  readonly from: string | undefined;
  to: string | undefined;
  uses: number;
}

function isFor<T>(before: Kept<T>, pod: Pod, facts: Facts): boolean {
  const names: Renaming = { from: before.token, to: undefined, uses: 0 };
  return (
    factsAgree(before.facts, facts) &&
    firstOf(before.pod) === firstOf(pod) &&
    before.pod.metadata?.labels?.[POD_LABEL] === pod.metadata?.labels?.[POD_LABEL] &&
    same(before.pod.metadata?.annotations, pod.metadata?.annotations, names) &&
    sameSpec(before.pod.spec ?? {}, pod.spec ?? {}, names) &&
    // All of them or none: otherwise it is a pod with two such volumes.
    (names.uses === 0 || names.uses === before.uses)
  );
}

/** The order of fields counts, here and below: it is that of the operations of a patch. */
function firstOf(pod: Pod): string | undefined {
  return Object.keys(pod).find((key) => key === "metadata" || key === "spec");
}

/** But for the time: what depends on it is not kept. */
function factsAgree(a: Facts, b: Facts): boolean {
  return (
    a.nativeSidecars === b.nativeSidecars &&
    a.defaults.length === b.defaults.length &&
    a.defaults.every(({ source, values }, index) => {
      const other = b.defaults[index];
      return source === other?.source && values === other.values;
    })
  );
}

function sameSpec(a: PodSpec, b: PodSpec, names: Renaming): boolean {
  const keys = Object.keys(b).filter(isRead);
  const before = Object.keys(a).filter(isRead);
  return (
    keys.length === before.length &&
    keys.every(
      (key, index) =>
        key === before[index] &&
        (key === "containers" || key === "initContainers"
          ? sameContainers(a[key] ?? [], b[key] ?? [], names) &&
            (a[key] === null) === (b[key] === null)
          : same(a[key], b[key], names)),
    )
  );
}

function isRead(key: string): key is keyof PodSpec {
  return Object.hasOwn(READ, key);
}

function sameContainers(
  a: readonly Container[],
  b: readonly Container[],
  names: Renaming,
): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++)
    if (!sameFields(a[index] ?? {}, b[index] ?? {}, names, UNREAD)) return false;
  return true;
}

function same(a: unknown, b: unknown, names: Renaming): boolean {
  if (a === b) return true;
  if (typeof a === "string") return typeof b === "string" && isRenamed(a, b, names);
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  return sameFields(a, b, names, undefined);
}

/** @param unread a field that may differ, and need not be there */
function sameFields(a: object, b: object, names: Renaming, unread: string | undefined): boolean {
  const keys = fieldsOf(a, unread);
  const others = fieldsOf(b, unread);
  if (keys.length !== others.length) return false;
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index] ?? "";
    if (key !== others[index]) return false;
    if (!same((a as Fields)[key], (b as Fields)[key], names)) return false;
  }
  return true;
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: object, unread: string | undefined): readonly string[] {
  const keys = Object.keys(value);
  return unread === undefined ? keys : keys.filter((key) => key !== unread);
}

function isRenamed(a: string, b: string, names: Renaming): boolean {
  if (a !== names.from || (names.to ?? b) !== b) return false;
  if (names.to === undefined && !TOKEN_VOLUME.test(b)) return false;
  names.to = b;
  names.uses++;
  return true;
}
