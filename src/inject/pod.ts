/**
 * The part of a Kubernetes pod that injection reads. Fields that are not named here are kept as they are, because a changed
 * pod is always made from the given one by spreading it. Lists and maps may be null: that is how Go writes empty ones.
 */
import {
  anything,
  boolean,
  either,
  fields,
  integer,
  listOf,
  mapOf,
  nullish,
  number,
  optional,
  text,
} from "./shape.ts";

export interface Pod {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata?: Metadata | null;
  readonly spec?: PodSpec | null;
}

export interface Metadata {
  readonly name?: string;
  readonly generateName?: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>> | null;
  readonly annotations?: Readonly<Record<string, string>> | null;
  readonly ownerReferences?: readonly OwnerReference[] | null;
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean | null;
}

export interface PodSpec {
  readonly containers?: readonly Container[] | null;
  readonly initContainers?: readonly Container[] | null;
  readonly ephemeralContainers?: readonly Container[] | null;
  readonly volumes?: readonly Volume[] | null;
  readonly restartPolicy?: string;
  readonly serviceAccountName?: string;
  readonly hostNetwork?: boolean;
  readonly shareProcessNamespace?: boolean | null;
  /** Of the pod as a whole, since Kubernetes 1.34. */
  readonly resources?: Resources | null;
  readonly nodeName?: string;
  readonly securityContext?: SecurityContext | null;
  readonly nodeSelector?: Readonly<Record<string, string>> | null;
  readonly os?: { readonly name?: string } | null;
}

export interface Container {
  readonly name: string;
  readonly image?: string;
  readonly imagePullPolicy?: string;
  readonly command?: readonly string[] | null;
  readonly args?: readonly string[] | null;
  readonly restartPolicy?: string;
  readonly env?: readonly EnvVar[] | null;
  readonly envFrom?: readonly unknown[] | null;
  readonly ports?: readonly ContainerPort[] | null;
  readonly volumeMounts?: readonly VolumeMount[] | null;
  readonly volumeDevices?: readonly { readonly devicePath: string }[] | null;
  readonly resources?: Resources | null;
  readonly securityContext?: SecurityContext | null;
  readonly startupProbe?: KubeProbe | null;
  readonly livenessProbe?: KubeProbe | null;
  readonly readinessProbe?: KubeProbe | null;
  readonly lifecycle?: object | null;
}

export interface EnvVar {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: object;
}

export interface ContainerPort {
  readonly name?: string;
  readonly containerPort: number;
  readonly hostPort?: number;
  readonly protocol?: string;
}

export interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly subPath?: string;
  readonly readOnly?: boolean;
  readonly mountPropagation?: string;
}

/** A name and one source, whose kind is the name of its field. */
export interface Volume {
  readonly name: string;
}

export interface Resources {
  readonly requests?: Readonly<Record<string, string | number>> | null;
  readonly limits?: Readonly<Record<string, string | number>> | null;
}

export interface SecurityContext {
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
}

type Port = number | string;

export interface KubeProbe {
  readonly httpGet?: {
    readonly path?: string;
    readonly port: Port;
    readonly host?: string;
    readonly scheme?: string;
    readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[] | null;
  } | null;
  readonly tcpSocket?: { readonly port: Port; readonly host?: string } | null;
  readonly grpc?: { readonly port: number; readonly service?: string | null } | null;
  readonly exec?: object | null;
  readonly initialDelaySeconds?: number;
  readonly periodSeconds?: number;
  readonly timeoutSeconds?: number;
  readonly successThreshold?: number;
  readonly failureThreshold?: number;
  readonly terminationGracePeriodSeconds?: number | null;
}

const word = optional(text);
const seconds = optional(integer);
const texts = nullish(listOf(text));
const strings = nullish(mapOf(text));
const quantities = nullish(mapOf(either(text, number)));
const port = either(number, text);
const object = nullish(fields({}));
const securityContext = nullish(
  fields({ runAsUser: optional(number), runAsGroup: optional(number) }),
);

const probe = nullish(
  fields({
    httpGet: nullish(
      fields({
        path: word,
        port,
        host: word,
        scheme: word,
        httpHeaders: nullish(listOf(fields({ name: text, value: text }))),
      }),
    ),
    tcpSocket: nullish(fields({ port, host: word })),
    grpc: nullish(fields({ port: number, service: nullish(text) })),
    exec: object,
    initialDelaySeconds: seconds,
    periodSeconds: seconds,
    timeoutSeconds: seconds,
    successThreshold: seconds,
    failureThreshold: seconds,
    terminationGracePeriodSeconds: nullish(number),
  }),
);

const container = fields({
  name: text,
  image: word,
  imagePullPolicy: word,
  command: texts,
  args: texts,
  restartPolicy: word,
  env: nullish(listOf(fields({ name: text, value: word }))),
  envFrom: nullish(listOf(anything)),
  ports: nullish(listOf(fields({ name: word, containerPort: number, protocol: word }))),
  volumeMounts: nullish(
    listOf(
      fields({
        name: text,
        mountPath: text,
        subPath: word,
        readOnly: optional(boolean),
      }),
    ),
  ),
  volumeDevices: nullish(listOf(fields({ devicePath: text }))),
  resources: nullish(fields({ requests: quantities, limits: quantities })),
  securityContext,
  startupProbe: probe,
  livenessProbe: probe,
  readinessProbe: probe,
  lifecycle: object,
});
const containers = nullish(listOf(container));

const pod = fields({
  apiVersion: word,
  kind: word,
  metadata: nullish(
    fields({
      name: word,
      generateName: word,
      namespace: word,
      labels: strings,
      annotations: strings,
      ownerReferences: nullish(
        listOf(
          fields({
            apiVersion: text,
            kind: text,
            name: text,
            uid: text,
            controller: nullish(boolean),
          }),
        ),
      ),
    }),
  ),
  spec: nullish(
    fields({
      containers,
      initContainers: containers,
      ephemeralContainers: containers,
      volumes: nullish(listOf(fields({ name: text }))),
      restartPolicy: word,
      serviceAccountName: word,
      hostNetwork: optional(boolean),
      shareProcessNamespace: nullish(boolean),
      resources: nullish(fields({ requests: quantities, limits: quantities })),
      nodeName: word,
      securityContext,
      nodeSelector: strings,
      os: nullish(fields({ name: word })),
    }),
  ),
});

/** Whether the fields of {@link Pod} have the right types. The value itself stays untouched: no field is dropped or filled in. */
export function isPod(input: unknown): input is Pod {
  return pod(input) === undefined;
}

/** Where a pod's value first differs from {@link Pod}, such as `spec.containers.0.name`; `undefined` when it does not. */
export function podProblem(input: unknown): string | undefined {
  const at = pod(input);
  return at === "" ? "the pod itself" : at?.slice(1);
}

export type ContainerList = "containers" | "initContainers";

/** A container and the field that holds it. */
export interface Place {
  readonly list: ContainerList;
  readonly index: number;
  readonly container: Container;
}

/** Every container of one list with its place. */
export function places(spec: PodSpec, list: ContainerList): readonly Place[] {
  return (spec[list] ?? []).map((container, index) => ({ list, index, container }));
}

/** The name of a field as kubectl would say it: `spec.containers[1]`. */
export function fieldOf({ list, index }: Place): string {
  return `spec.${list}[${index}]`;
}

/** Native sidecar: an init container that goes on running. */
export function isNativeSidecar({ list, container }: Place): boolean {
  return list === "initContainers" && container.restartPolicy === "Always";
}

/** Whether a field is there: Go leaves an empty one out or writes null. */
export function given<T>(value: T | null | undefined): value is T {
  return value !== undefined && value !== null;
}
