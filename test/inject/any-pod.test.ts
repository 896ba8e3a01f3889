/** Pods of every shape that Kubernetes allows: whatever comes in, what goes out is a pod that it would take, and nobody has lost anything. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import { inject } from "#core/inject/inject.ts";
import type { Container, Pod, PodSpec } from "#core/inject/pod.ts";
import { CLUSTER, prefixed } from "../support/inject.ts";
import { qosClass, restrictedProblems, ruleProblems } from "../support/kubernetes-rules.ts";
import { schemaProblems } from "../support/kubernetes-schema.ts";

const port = fc.constantFrom<number | string>(8080, 1, 65_535, "http", "https");
const numbers = {
  initialDelaySeconds: fc.nat({ max: 600 }),
  periodSeconds: fc.integer({ min: 1, max: 120 }),
  timeoutSeconds: fc.integer({ min: 1, max: 60 }),
  failureThreshold: fc.integer({ min: 1, max: 100 }),
  successThreshold: fc.constant(1),
};
const http = fc.record(
  {
    port,
    path: fc.constantFrom("/", "/livez?full=1"),
    scheme: fc.constantFrom("HTTP", "HTTPS"),
    httpHeaders: fc.constantFrom(null, [], [{ name: "X-Probe", value: "$(X)" }]),
  },
  { requiredKeys: ["port"] },
);
const proxied = fc.oneof(
  http.map((httpGet) => ({ httpGet })),
  port.map((one) => ({ tcpSocket: { port: one } })),
  fc.record({ port: fc.constant(9000), service: fc.constantFrom(null, "live") }).map((grpc) => ({
    grpc,
  })),
);
const exec = fc.constant({ exec: { command: ["cat", "/tmp/ready"] } });
const probeOf = (handler: fc.Arbitrary<object>, more: object = {}): fc.Arbitrary<object> =>
  fc
    .tuple(handler, fc.record({ ...numbers, ...more }, { requiredKeys: [] }))
    .map(([one, rest]) => ({ ...one, ...rest }));
const grace = { terminationGracePeriodSeconds: fc.integer({ min: 1, max: 60 }) };
const amounts = fc.constantFrom(
  undefined,
  {},
  { requests: { cpu: "100m" } },
  { requests: { cpu: "1", memory: "64Mi" }, limits: { cpu: "1000m", memory: "64Mi" } },
  { limits: { cpu: "0.5", memory: "1Gi" } },
  { requests: { memory: "1Gi" }, limits: { memory: "2Gi", "ephemeral-storage": "4Gi" } },
);
const PORTS = [
  { name: "http", containerPort: 8080 },
  { name: "https", containerPort: 8443, protocol: "TCP" },
];
const hook = { exec: { command: ["sleep", "1"] } };

/** @param lever whether its probes must be able to go through the sidecar */
function containerOf(name: string, lever: boolean): fc.Arbitrary<Container> {
  const kinds = lever ? proxied : fc.oneof(proxied, exec);
  return fc
    .record(
      {
        startupProbe: fc.option(probeOf(kinds, grace)),
        livenessProbe: fc.option(probeOf(kinds, grace)),
        readinessProbe: fc.option(probeOf(fc.oneof(proxied, exec))),
        resources: amounts,
        lifecycle: fc.constantFrom(null, { preStop: hook }, { postStart: hook, preStop: hook }),
        securityContext: fc.constantFrom(
          null,
          {},
          { runAsUser: 1000, runAsGroup: 3000 },
          { runAsUser: 0, privileged: true },
        ),
        env: fc.constantFrom(null, [], [{ name: "A", value: "$(B)" }]),
        volumeMounts: fc.constantFrom(null, [], [{ name: "data", mountPath: "/data" }]),
        tty: fc.boolean(),
      },
      { requiredKeys: [] },
    )
    .map((one) => ({ name, image: `${name}:1`, ports: PORTS, ...one }) as Container);
}

const init = fc.constantFrom<Container>(
  { name: "migrate", image: "migrate:1" },
  { name: "istio-init", image: "istio:1", securityContext: {} },
  { name: "istio-proxy", image: "istio:1", restartPolicy: "Always" },
  { name: "logs", image: "logs:1", restartPolicy: "Always", ports: [{ containerPort: 7000 }] },
);

const shape = fc.record(
  {
    volumes: fc.constantFrom(
      [{ name: "data", emptyDir: {} }],
      [
        { name: "data", persistentVolumeClaim: { claimName: "data" } },
        { name: "extra", secret: { secretName: "extra" } },
      ],
    ),
    securityContext: fc.constantFrom(
      null,
      {},
      { fsGroup: 2000, runAsUser: 1000, runAsGroup: 2000 },
      { runAsNonRoot: true, runAsUser: 1_000_680_000, seccompProfile: { type: "RuntimeDefault" } },
    ),
    automountServiceAccountToken: fc.boolean(),
    serviceAccountName: fc.constantFrom("default", "web"),
    schedulingGates: fc.constant([{ name: "example.com/quota" }]),
    hostUsers: fc.boolean(),
    hostPID: fc.constant(false),
    shareProcessNamespace: fc.boolean(),
    nodeName: fc.constant("node-1"),
    nodeSelector: fc.constantFrom(null, { "kubernetes.io/os": "linux" }),
    os: fc.constant({ name: "linux" }),
    tolerations: fc.constant([{ operator: "Exists" }]),
    imagePullSecrets: fc.constant([{ name: "login" }]),
    terminationGracePeriodSeconds: fc.constantFrom(0, 30),
    ephemeralContainers: fc.constantFrom(null, []),
    dnsPolicy: fc.constant("None"),
    overhead: fc.constant({ cpu: "10m" }),
    topologySpreadConstraints: fc.constant([]),
  },
  { requiredKeys: ["volumes"] },
);

const options = fc.record(
  {
    channel: fc.constant("web/stable"),
    "secret.db": fc.constant("database/creds/web"),
    "payload-size": fc.constantFrom("64Mi", "3Gi"),
    "payload-storage": fc.constantFrom("ephemeral", "claim/models"),
    "payload-containers": fc.constantFrom("web", "web,other"),
    "restart-window": fc.constantFrom("2s", "10m"),
    "sidecar-mode": fc.constantFrom("auto", "native", "container"),
    "run-as": fc.constantFrom("1000", "2147483647", "70000:70001", "assigned"),
    "vault-audience": fc.constant("vault"),
    "cpu-limit": fc.constantFrom("1", "250m"),
    gate: fc.constantFrom("none", "payload", "payload,secrets"),
  },
  { requiredKeys: ["channel"] },
);

interface Case {
  readonly pod: Pod;
  readonly facts: Facts;
  /** Whether a release restarts the containers with the payload. */
  readonly lever: boolean;
}

const cases: fc.Arbitrary<Case> = fc
  .record({ lever: fc.boolean(), native: fc.boolean(), host: fc.boolean() })
  .chain(({ lever, native, host }) =>
    fc
      .record({
        options,
        web: containerOf("web", lever),
        other: containerOf("other", lever),
        initContainers: fc.option(fc.uniqueArray(init, { selector: ({ name }) => name })),
        shape,
        restartPolicy: lever
          ? fc.constantFrom(undefined, "Always")
          : fc.constantFrom(undefined, "Always", "OnFailure", "Never"),
        metadata: fc.constantFrom(
          { name: "web" },
          { generateName: "web-", labels: null },
          { generateName: "web-", namespace: "", labels: { "a.example/b~c": "d" } },
        ),
        odd: fc.constantFrom({}, { "example.com/a~1b": "x/y~z", plain: 'ü\u2028"' }),
      })
      .map((given) => {
        const annotations = {
          ...prefixed({
            ...given.options,
            "on-update": lever ? "restart" : "none",
            // The sidecar of a pod that ends may have to bring everything before it does.
            ...(given.restartPolicy === "OnFailure" || given.restartPolicy === "Never"
              ? { gate: "payload,secrets" }
              : {}),
            // Longer than any restart, which would else be refused.
            "trial-timeout": "48h",
            ...(host ? { "sidecar-port": "19470", "control-port": "19471" } : {}),
          }),
          ...given.odd,
        };
        // On the node's network two containers cannot have the same ports.
        const { ports: _, ...portless } = given.other;
        const spec = {
          ...given.shape,
          containers: [given.web, host ? named(portless) : given.other],
          initContainers: given.initContainers,
          ...(given.restartPolicy === undefined ? {} : { restartPolicy: given.restartPolicy }),
          ...(host ? { hostNetwork: true } : {}),
        };
        const pod = {
          apiVersion: "v1",
          kind: "Pod",
          metadata: { ...given.metadata, annotations },
          spec,
        };
        return {
          // As it arrives: parsed from JSON.
          pod: JSON.parse(JSON.stringify(pod)) as Pod,
          facts: { ...PLAIN_FACTS, nativeSidecars: native },
          lever,
        };
      }),
  );

/** Probes that name ports would find none. */
function named(one: Container): Container {
  return JSON.parse(JSON.stringify(one).replaceAll(/"port":"https?"/g, '"port":8080')) as Container;
}

function outcome({ pod, facts }: Case): { readonly pod: Pod; readonly mode: string } {
  const result = inject(pod, CLUSTER, facts);
  if (result.kind !== "injected") throw new Error(JSON.stringify(result));
  return { pod: result.pod, mode: result.mode };
}

/** Go's null for an empty list or map is not in the schema, but API servers accept and send it. */
function withoutNulls<T>(value: T): T {
  return JSON.parse(
    JSON.stringify(value, (_, one: unknown) => (one === null ? undefined : one)),
  ) as T;
}

const isOurs = ({ name }: { readonly name: string }): boolean => /^edgesync(-|$)/.test(name);

/** The pod with everything of ours taken out again; what the lever has changed is taken from what was before. */
function withoutOurs(pod: Pod, before: Pod, lever: boolean): unknown {
  const spec: PodSpec = pod.spec ?? {};
  const old = new Map(
    [...(before.spec?.containers ?? []), ...(before.spec?.initContainers ?? [])].map(
      (one) => [one.name, one] as const,
    ),
  );
  const restore = (one: Container): Container => {
    const mine = old.get(one.name);
    const mounts = (one.volumeMounts ?? []).filter((mount) => !isOurs(mount));
    return {
      ...one,
      volumeMounts: mounts,
      ...(lever && one.livenessProbe?.httpGet?.path?.startsWith("/app/") === true
        ? { startupProbe: mine?.startupProbe ?? null, livenessProbe: mine?.livenessProbe ?? null }
        : {}),
    };
  };
  const { "kubectl.kubernetes.io/default-container": _, ...annotations } =
    pod.metadata?.annotations ?? {};
  return normal({
    ...pod,
    metadata: { ...pod.metadata, annotations },
    spec: {
      ...spec,
      volumes: (spec.volumes ?? []).filter((volume) => !isOurs(volume)),
      containers: (spec.containers ?? []).filter((one) => !isOurs(one)).map(restore),
      initContainers: (spec.initContainers ?? []).filter((one) => !isOurs(one)).map(restore),
    },
  });
}

/** Lists that are empty, null or absent mean the same. */
function normal(value: unknown): unknown {
  if (value === undefined || value === null) return undefined;
  return JSON.parse(
    JSON.stringify(value, (_, one: unknown) =>
      one === null || (Array.isArray(one) && one.length === 0) ? undefined : one,
    ),
  );
}

function check(property: (given: Case) => void, numRuns: number): void {
  fc.assert(fc.property(cases, property), { numRuns });
}

describe("any pod that Kubernetes allows", () => {
  test("is valid as the generator makes it, so that what follows means something", () => {
    check(({ pod }) => {
      assert.deepEqual(ruleProblems(pod), []);
      assert.deepEqual(schemaProblems(withoutNulls(pod)), []);
    }, 100);
  });

  test("is valid by the API server's rules and schema when it is injected", () => {
    check((given) => {
      const { pod } = outcome(given);
      assert.deepEqual(ruleProblems(pod), []);
      assert.deepEqual(schemaProblems(withoutNulls(pod)), []);
    }, 300);
  });

  test("loses nothing, and gains nothing that is not ours", () => {
    check((given) => {
      const { pod } = outcome(given);
      assert.deepEqual(withoutOurs(pod, given.pod, given.lever), normal(given.pod));
    }, 300);
  });

  test("is left alone the second time, whatever the nodes are by then", () => {
    check((given) => {
      const { pod } = outcome(given);
      for (const nativeSidecars of [true, false]) {
        const again = inject(pod, CLUSTER, { ...given.facts, nativeSidecars });
        assert.equal(again.kind === "skip" && again.reason, "already_injected");
      }
    }, 200);
  });

  test("stays Guaranteed when it was, and is Burstable otherwise", () => {
    let guaranteed = 0;
    check((given) => {
      const { "edgesync.dev/cpu-limit": _, ...annotations } = given.pod.metadata?.annotations ?? {};
      const pod = { ...given.pod, metadata: { ...given.pod.metadata, annotations } };
      const before = qosClass(pod);
      if (before === "Guaranteed") guaranteed++;
      const after = qosClass(outcome({ ...given, pod }).pod);
      assert.equal(after, before === "Guaranteed" ? "Guaranteed" : "Burstable");
    }, 500);
    assert.ok(guaranteed > 0, "no pod of the run was Guaranteed");
  });

  test("has a sidecar that the restricted Pod Security Standard allows, with requests and limits", () => {
    check((given) => {
      const { pod } = outcome(given);
      const all = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
      const sidecar = all.filter(({ name }) => name === "edgesync");
      assert.equal(sidecar.length, 1);
      assert.deepEqual(sidecar.flatMap(restrictedProblems), []);
      for (const list of ["requests", "limits"] as const)
        for (const name of ["cpu", "memory"])
          assert.notEqual(sidecar[0]?.resources?.[list]?.[name], undefined);
    }, 100);
  });

  test("never has exec probes changed, nor hooks, nor users, nor what its containers run", () => {
    check((given) => {
      const { pod } = outcome(given);
      const fixed = (of: Pod): unknown =>
        normal(
          [...(of.spec?.containers ?? []), ...(of.spec?.initContainers ?? [])]
            .filter((one) => !isOurs(one))
            .map(({ name, image, command, args, lifecycle, securityContext, env, ...one }) => ({
              own: [name, image, command, args, lifecycle, securityContext, env],
              exec: [one.startupProbe, one.livenessProbe, one.readinessProbe].map(
                (probe) => probe?.exec,
              ),
              readiness: one.readinessProbe,
            })),
        );
      assert.deepEqual(fixed(pod), fixed(given.pod));
      assert.deepEqual(normal(pod.spec?.securityContext), normal(given.pod.spec?.securityContext));
    }, 200);
  });
});
