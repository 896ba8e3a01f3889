/**
 * The merge that makes a second call change nothing: what an earlier call put into the pod is taken on, with the fields that the API
 * server and other webhooks have added since, and everything that we state is as we state it.
 */
import { SIDECAR } from "./names.ts";
import type { Container } from "./pod.ts";
import { isAllowed } from "./cluster.ts";
import type { ClusterOptions } from "./cluster.ts";

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `found` with every field of `wanted` set to its value; objects are merged, lists are replaced. */
export function adopt<T extends object>(found: T | undefined, wanted: T): T {
  if (found === undefined) return wanted;
  const before: Json = Object.fromEntries(Object.entries(found));
  const merged = Object.entries(wanted).map(([key, value]) => {
    const old = Object.hasOwn(before, key) ? before[key] : undefined;
    return [key, isObject(value) && isObject(old) ? adopt(old, value) : value] as const;
  });
  return { ...found, ...Object.fromEntries(merged) };
}

/** As {@link adopt}, for lists whose items are known by a field; items that are not ours stay, behind ours or where they were. */
export function adoptList<T extends object>(
  found: readonly T[] | null | undefined,
  wanted: readonly T[],
  idOf: (item: T) => unknown,
): readonly T[] {
  const before = found ?? [];
  const kept = before.map((item) => {
    const own = wanted.find((one) => idOf(one) === idOf(item));
    return own === undefined ? item : adopt(item, own);
  });
  const added = wanted.filter((own) => !before.some((item) => idOf(item) === idOf(own)));
  return [...kept, ...added];
}

const OUR_VARIABLE = /^EDGESYNC_/;

/** Where Istio's agent asks in the kubelet's place (rewriteAppHTTPProbers), for whoever has no certificate of the mesh is not answered. */
const MESH_ROUTE = `/app-health/${SIDECAR}/`;

/** The probes of a sidecar that a mesh has put itself in front of: our times, its address. */
function meshProbes(found: Container, wanted: Container): Partial<Container> {
  return Object.fromEntries(
    (["startupProbe", "readinessProbe", "livenessProbe"] as const).flatMap((field) => {
      const own = wanted[field];
      const httpGet = found[field]?.httpGet;
      return own && httpGet?.path?.startsWith(MESH_ROUTE) === true
        ? [[field, { ...found[field], ...own, httpGet }]]
        : [];
    }),
  );
}

/**
 * The sidecar of an earlier call, made to be as we want it. Left as they are: an image that the operator allows (a webhook may have
 * named a mirror), the pull policy and the resources (others may size containers), variables and mounts that are not ours, and the address of
 * probes that a mesh asks instead.
 */
export function adoptSidecar(
  found: Container,
  wanted: Container,
  cluster: ClusterOptions,
): Container {
  const { image, imagePullPolicy, resources } = found;
  const wantedEnv = wanted.env ?? [];
  const ours = new Set(wantedEnv.map(({ name }) => name));
  const others = (found.env ?? []).filter(
    ({ name }) => !ours.has(name) && !OUR_VARIABLE.test(name),
  );
  const keptImage =
    image !== undefined && isAllowed(image, cluster.image, cluster.images) ? { image } : {};
  return {
    ...adopt(found, wanted),
    ...meshProbes(found, wanted),
    ...keptImage,
    ...(resources === undefined || resources === null ? {} : { resources }),
    ...(imagePullPolicy === undefined ? {} : { imagePullPolicy }),
    env: [...wantedEnv, ...others],
    // Not merged deeper: a capability that was added must not survive.
    securityContext: { ...found.securityContext, ...wanted.securityContext },
    ports: adoptList(found.ports, wanted.ports ?? [], ({ containerPort }) => containerPort),
    volumeMounts: adoptList(
      found.volumeMounts,
      wanted.volumeMounts ?? [],
      ({ mountPath }) => mountPath,
    ),
  };
}
