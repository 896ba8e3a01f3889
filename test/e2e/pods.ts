/** The pods of the test, all of them within the restricted Pod Security Standard. */
import type { V1Pod, V1Probe } from "@kubernetes/client-node";
import type { KubeObject } from "./api.ts";
import { APP_PORT, FILES, PORTS } from "./protocol.ts";

export type Annotations = Readonly<Record<string, string>>;

/** An application's user, unlike the sidecar's. */
const USER = 10_001;

export interface Application {
  readonly name: string;
  readonly namespace: string;
  readonly image: string;
  /** Of the test's run, so that its objects are told from others. */
  readonly run: string;
  /** Where the application tells that it has started. */
  readonly site: string;
  /** Without the prefix. */
  readonly annotations: Annotations;
  readonly labels?: Readonly<Record<string, string>>;
  /** Runs what the test brings, for pods without a payload. */
  readonly bare?: boolean;
  /** The sidecar's processes can be seen and killed from the application. */
  readonly shareProcesses?: boolean;
}

function security(): object {
  return { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } };
}

function podSecurity(): object {
  return {
    runAsNonRoot: true,
    runAsUser: USER,
    runAsGroup: USER,
    seccompProfile: { type: "RuntimeDefault" },
  };
}

function filesVolume(): object {
  return { name: "files", configMap: { name: "e2e-files" } };
}

/** With edgesync's prefix. */
export function prefixed(annotations: Annotations): Annotations {
  return Object.fromEntries(
    Object.entries(annotations).map(([key, value]) => [`edgesync.dev/${key}`, value]),
  );
}

/** A pod whose main container runs the test's application, from the payload or from a ConfigMap. */
export function applicationPod(of: Application): KubeObject {
  const probe: V1Probe = {
    httpGet: { path: "/healthz", port: "http" },
    periodSeconds: 2,
    timeoutSeconds: 5,
    failureThreshold: 3,
  };
  const isBare = of.bare === true;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: of.name,
      namespace: of.namespace,
      labels: { "edgesync-e2e": of.run, ...of.labels },
      annotations: prefixed(of.annotations),
    },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 5,
      securityContext: podSecurity(),
      ...(of.shareProcesses === true && { shareProcessNamespace: true }),
      containers: [
        {
          name: "main",
          image: of.image,
          imagePullPolicy: "IfNotPresent",
          command: ["node", isBare ? `${FILES}/app.mjs` : "/payload/current/app.mjs"],
          env: [
            { name: "E2E_SITE", value: of.site },
            { name: "HOSTNAME", value: of.name },
          ],
          ports: [{ name: "http", containerPort: APP_PORT }],
          readinessProbe: probe,
          livenessProbe: probe,
          resources: { requests: { cpu: "10m", memory: "48Mi" }, limits: { memory: "256Mi" } },
          securityContext: security(),
          ...(isBare && { volumeMounts: [{ name: "files", mountPath: FILES, readOnly: true }] }),
        },
      ],
      ...(isBare && { volumes: [filesVolume()] }),
    },
  };
}

/** A pod of a Job, which reads its payload and ends. */
export function jobOf(of: Application): KubeObject {
  const pod = applicationPod(of);
  const [main] = (pod["spec"] as { containers: readonly object[] }).containers;
  const script =
    "const v = require('node:fs').readFileSync('/payload/current/version.txt', 'utf8'); if (v.trim() === '') process.exit(3); setTimeout(() => {}, 3000)";
  const { readinessProbe: _, livenessProbe: __, ...rest } = main as Record<string, unknown>;
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: of.name, namespace: of.namespace, labels: { "edgesync-e2e": of.run } },
    spec: {
      backoffLimit: 0,
      template: {
        metadata: pod.metadata.labels === undefined ? {} : templateOf(pod),
        spec: {
          ...(pod["spec"] as object),
          restartPolicy: "Never",
          containers: [{ ...rest, command: ["node", "-e", script] }],
        },
      },
    },
  };
}

function templateOf({ metadata: { labels, annotations } }: KubeObject): object {
  return { labels, annotations };
}

/** The site's own pod. */
export function sitePod(of: {
  readonly namespace: string;
  readonly image: string;
  readonly run: string;
  /** Of a Secret with the variables that are nobody's business. */
  readonly secret: string;
}): KubeObject {
  const variable = (name: string): object => ({
    name,
    valueFrom: { secretKeyRef: { name: of.secret, key: name, optional: true } },
  });
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "site", namespace: of.namespace, labels: { "edgesync-e2e": of.run } },
    spec: {
      enableServiceLinks: true,
      terminationGracePeriodSeconds: 2,
      securityContext: podSecurity(),
      containers: [
        {
          name: "site",
          image: of.image,
          imagePullPolicy: "IfNotPresent",
          command: ["node", `${FILES}/site.mjs`],
          env: [
            { name: "E2E_POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
            ...["E2E_KEY", "E2E_VAULT_ADDR", "E2E_VAULT_TOKEN", "E2E_VAULT_CA"].map(variable),
          ],
          readinessProbe: { tcpSocket: { port: PORTS.control }, periodSeconds: 1 },
          resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "1Gi" } },
          securityContext: security(),
          volumeMounts: [
            { name: "files", mountPath: FILES, readOnly: true },
            { name: "data", mountPath: "/data" },
          ],
        },
      ],
      volumes: [filesVolume(), { name: "data", emptyDir: {} }],
    },
  };
}

export interface ContainerState {
  readonly restarts: number;
  readonly running: boolean;
  readonly started: boolean;
  /** Why it waits or has ended. */
  readonly reason: string;
}

/** A container of a pod, wherever it is listed; native sidecars are init containers. */
export function containerOf(pod: V1Pod, name: string): ContainerState {
  const all = [
    ...(pod.status?.initContainerStatuses ?? []),
    ...(pod.status?.containerStatuses ?? []),
  ];
  const found = all.find((status) => status.name === name);
  const { waiting, terminated, running } = found?.state ?? {};
  return {
    restarts: found?.restartCount ?? 0,
    running: running !== undefined,
    started: found?.started === true,
    reason: waiting?.reason ?? terminated?.reason ?? "",
  };
}

export function isReady(pod: V1Pod): boolean {
  return (pod.status?.conditions ?? []).some(
    ({ type, status }) => type === "Ready" && status === "True",
  );
}

/** Whether the webhook has been at a pod: as native sidecar, or in the mode for older kubelets. */
export function isInjected(pod: V1Pod): boolean {
  return [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].some(
    ({ name }) => name === "edgesync",
  );
}

/** A pod in a few words, for messages. */
export function describePod(pod: V1Pod): string {
  const states = [
    ...(pod.status?.initContainerStatuses ?? []),
    ...(pod.status?.containerStatuses ?? []),
  ].map(({ name }) => {
    const { running, reason, restarts } = containerOf(pod, name);
    return `${name} ${running ? "running" : reason}${restarts > 0 ? ` after ${restarts} restarts` : ""}`;
  });
  return `pod ${pod.metadata?.name} is ${pod.status?.phase}${isReady(pod) ? ", ready" : ""} (${states.join("; ")})`;
}
