import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import patches from "fast-json-patch";
import { inject } from "#core/inject/inject.ts";
import type { Container, EnvVar, Pod, PodSpec, VolumeMount } from "#core/inject/pod.ts";
import { diff } from "#core/json-patch.ts";
import {
  CLUSTER,
  containerOf,
  denied,
  injected,
  podWith,
  prefixed,
  sidecarOf,
} from "../support/inject.ts";
import { schemaProblems } from "../support/kubernetes-schema.ts";

const BOTH = { channel: "web/stable", "secret.db": "database/creds/web" };

function assertUnchanged(pod: Pod): void {
  const result = inject(pod, CLUSTER);
  assert.equal(result.kind === "skip" && result.reason, "already_injected", JSON.stringify(result));
}

function changeSpec(pod: Pod, change: (spec: PodSpec) => PodSpec): Pod {
  return { ...pod, spec: change(pod.spec ?? {}) };
}

function changeAll(pod: Pod, change: (container: Container) => Container): Pod {
  return changeSpec(pod, (spec) => ({
    ...spec,
    containers: (spec.containers ?? []).map(change),
    initContainers: (spec.initContainers ?? []).map(change),
  }));
}

function changeSidecar(pod: Pod, change: (container: Container) => Container): Pod {
  return changeAll(pod, (one) => (one.name === "edgesync" ? change(one) : one));
}

/** As an API server does between two calls: defaults, and the pod's own token wherever nothing is mounted in its place. */
function throughApiServer(pod: Pod): Pod {
  const token: VolumeMount = {
    name: "kube-api-access",
    mountPath: "/var/run/secrets/kubernetes.io/serviceaccount",
    readOnly: true,
  };
  const defaulted = changeAll(pod, (container) => {
    const mounts = container.volumeMounts ?? [];
    const covered = mounts.some(({ mountPath }) => mountPath === token.mountPath);
    return {
      terminationMessagePath: "/dev/termination-log",
      terminationMessagePolicy: "File",
      imagePullPolicy: "IfNotPresent",
      resources: {},
      ...container,
      volumeMounts: covered ? mounts : [...mounts, token],
    };
  });
  return changeSpec(defaulted, (spec) => ({
    dnsPolicy: "ClusterFirst",
    restartPolicy: "Always",
    serviceAccountName: "default",
    ...spec,
    volumes: [...(spec.volumes ?? []), { name: token.name, projected: { sources: [] } }],
  }));
}

describe("a second call", () => {
  const { pod } = injected(podWith(BOTH, { initContainers: [{ name: "migrate" }] }));

  test("changes nothing", () => {
    assertUnchanged(pod);
  });

  test("changes nothing behind the API server's defaults", () => {
    assertUnchanged(throughApiServer(pod));
  });

  test("changes nothing behind a webhook that put containers before, between and after", () => {
    const proxy = { name: "proxy" };
    assertUnchanged(
      changeSpec(pod, (spec) => ({
        ...spec,
        containers: [proxy, ...(spec.containers ?? []), { name: "late" }],
        initContainers: [
          { name: "first" },
          ...(spec.initContainers ?? []).slice(0, 1),
          { name: "between" },
          ...(spec.initContainers ?? []).slice(1),
        ],
      })),
    );
  });

  test("changes nothing behind a mesh that put itself in front of the probes", () => {
    assertUnchanged(
      changeAll(pod, (container) =>
        container.name === "web"
          ? {
              ...container,
              livenessProbe: { httpGet: { path: "/app-health/web/livez", port: 15020 } },
              readinessProbe: { httpGet: { path: "/app-health/web/readyz", port: 15020 } },
            }
          : container,
      ),
    );
  });

  test("changes nothing where a mesh asks the sidecar in the kubelet's place, as one that wants its own certificate must", () => {
    const meshed = changeSidecar(pod, (sidecar) => {
      const through = (name: string): object => ({
        path: `/app-health/edgesync/${name}`,
        port: 15020,
        scheme: "HTTP",
      });
      return {
        ...sidecar,
        startupProbe: { ...sidecar.startupProbe, httpGet: through("startupz") },
        readinessProbe: { ...sidecar.readinessProbe, httpGet: through("readyz") },
        livenessProbe: { ...sidecar.livenessProbe, httpGet: through("livez") },
      } as Container;
    });
    assertUnchanged(meshed);
  });

  test("takes back a probe of the sidecar that goes anywhere else", () => {
    const meddled = changeSidecar(pod, (sidecar) => ({
      ...sidecar,
      startupProbe: { httpGet: { path: "/", port: 8080 } },
    }));
    assert.deepEqual(sidecarOf(injected(meddled).pod), sidecarOf(pod));
  });

  test("keeps what others added to the sidecar: variables, mounts, sizes, an allowed mirror of the image", () => {
    const added = changeSidecar(pod, (sidecar) => ({
      ...sidecar,
      image: "mirror.example/edgesync:1.0.0",
      imagePullPolicy: "Always",
      env: [{ name: "AWS_REGION", value: "x" }, ...(sidecar.env ?? [])].toSorted(byOurs),
      volumeMounts: [
        { name: "identity", mountPath: "/var/run/identity" },
        ...(sidecar.volumeMounts ?? []),
      ],
      resources: {
        requests: { cpu: "10m", memory: "64Mi" },
        limits: { cpu: "1", memory: "256Mi" },
      },
    }));
    assertUnchanged(added);
  });

  test("takes back an image, a capability and a setting that nobody may change", () => {
    const meddled = changeSidecar(pod, (sidecar) => ({
      ...sidecar,
      image: "evil.example/edgesync",
      securityContext: { ...sidecar.securityContext, capabilities: { add: ["SYS_ADMIN"] } },
      env: [
        ...(sidecar.env ?? []).map((one) =>
          one.name === "EDGESYNC_REPOSITORY" ? { ...one, value: "https://evil.example" } : one,
        ),
        { name: "EDGESYNC_SECRET_MORE", value: "{}" },
      ],
    }));
    const again = injected(meddled).pod;
    assert.deepEqual(sidecarOf(again), sidecarOf(pod));
  });

  test("goes behind a mesh's native proxy that came later", () => {
    const meshed = changeSpec(pod, (spec) => ({
      ...spec,
      initContainers: [
        ...(spec.initContainers ?? []),
        { name: "istio-proxy", restartPolicy: "Always" },
      ],
    }));
    const again = injected(meshed).pod;
    assert.deepEqual(
      again.spec?.initContainers?.map(({ name }) => name),
      ["migrate", "istio-proxy", "edgesync"],
    );
    assertUnchanged(again);
  });

  test("refuses a volume of ours that has become another one", () => {
    const changed = changeSpec(pod, (spec) => ({
      ...spec,
      volumes: (spec.volumes ?? []).map((volume) =>
        volume.name === "edgesync-secrets"
          ? { name: volume.name, hostPath: { path: "/" } }
          : volume,
      ),
    }));
    const { code, message } = denied(changed);
    assert.equal(code, "INJECTION_CONFLICT");
    assert.match(message, /spec\.volumes\[2\]\.name/);
  });

  test("puts a mount back that was lost", () => {
    const lost = changeAll(pod, (container) =>
      container.name === "web" ? { ...container, volumeMounts: [] } : container,
    );
    const again = injected(lost).pod;
    assert.deepEqual(containerOf(again, "web").volumeMounts, containerOf(pod, "web").volumeMounts);
  });
});

/** Ours in front, the order within each part kept. */
function byOurs(a: EnvVar, b: EnvVar): number {
  const rank = ({ name }: EnvVar): number => (name.startsWith("EDGESYNC_") ? 0 : 1);
  return rank(a) - rank(b);
}

const name = fc.constantFrom("web", "other", "third", "istio-proxy", "linkerd-proxy", "logs");
// Not one of the sidecar's own, which a container may not claim.
const port = fc.integer({ min: 1, max: 9_000 });
const probe = fc.oneof(
  fc.record({ httpGet: fc.record({ port, path: fc.constantFrom("/", "/h") }) }),
  fc.record({ tcpSocket: fc.record({ port }), periodSeconds: fc.integer({ min: 1, max: 60 }) }),
  fc.record({ grpc: fc.record({ port }), failureThreshold: fc.integer({ min: 1, max: 60 }) }),
);
const quantity = fc.constantFrom("100m", "1", "64Mi");
const amounts = fc.record({ cpu: quantity, memory: quantity }, { requiredKeys: [] });
const container = fc.record(
  {
    name,
    image: fc.constantFrom("a:1", "b:2"),
    ports: fc.array(fc.record({ containerPort: port }), { maxLength: 2 }),
    startupProbe: probe,
    livenessProbe: probe,
    readinessProbe: probe,
    resources: fc.record({ requests: amounts, limits: amounts }, { requiredKeys: [] }),
    volumeMounts: fc.constantFrom([], [{ name: "data", mountPath: "/data" }]),
    securityContext: fc.record({ runAsGroup: fc.constantFrom(0, 1000) }),
    env: fc.constantFrom([{ name: "A", value: "$(B) $$" }]),
  },
  { requiredKeys: ["name"] },
);
const initContainer = fc
  .tuple(container, fc.boolean())
  .map(([one, native]): Container =>
    native ? { ...one, restartPolicy: "Always" } : { name: one.name },
  );
const unique = { selector: ({ name }: Container): string => name, maxLength: 3 };
const annotations = fc
  .record(
    {
      channel: fc.constant("web/stable"),
      "secret.db": fc.constant("database/creds/web"),
      "secret.cert": fc.constant("pki/issue/web common_name=$(X)"),
      "payload-path": fc.constantFrom("/payload", "/srv/models"),
      "payload-size": fc.constantFrom("64Mi", "1Gi"),
      "payload-storage": fc.constantFrom("ephemeral", "claim/models"),
      "on-update": fc.constantFrom("restart", "none"),
      "restart-window": fc.constantFrom("2s", "45s", "10m"),
      "run-as": fc.constantFrom("1000", "1000:2000"),
      "vault-ca": fc.constant("vault-ca"),
      gate: fc.constantFrom("none", "secrets"),
    },
    { requiredKeys: ["channel"] },
  )
  // Longer than any restart, which would else be refused.
  .map((given): Readonly<Record<string, string>> => ({ ...given, "trial-timeout": "48h" }));

/** Pods whose containers are of different names across both lists, as the API server demands. */
const generated: fc.Arbitrary<Pod> = fc
  .record({
    annotations,
    containers: fc.uniqueArray(container, { ...unique, minLength: 1 }),
    initContainers: fc.option(fc.uniqueArray(initContainer, unique)),
    volumes: fc.constantFrom(undefined, null, [{ name: "data", emptyDir: {} }]),
    labels: fc.constantFrom(undefined, null, { app: "web" }),
  })
  .map(({ annotations, containers, initContainers, volumes, labels }) => {
    const names = new Set<string>(containers.map(({ name }) => name));
    const inits = initContainers?.filter(({ name }) => !names.has(name)) ?? null;
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        generateName: "web-",
        annotations: prefixed(annotations),
        ...(labels === undefined ? {} : { labels }),
      },
      spec: {
        containers,
        initContainers: inits,
        ...(volumes === undefined ? {} : { volumes }),
      },
    };
    // As it arrives: parsed from JSON.
    return JSON.parse(JSON.stringify(pod)) as Pod;
  });

describe("any pod that is injected", () => {
  test("is reached by the patch, and a second call leaves it", () => {
    fc.assert(
      fc.property(generated, (pod) => {
        const { pod: wanted } = injected(pod);
        const copy = structuredClone(pod);
        const operations = structuredClone(diff(pod, wanted)) as patches.Operation[];
        assert.deepEqual(patches.applyPatch(copy, operations, true).newDocument, wanted);
        assertUnchanged(wanted);
        assertUnchanged(throughApiServer(wanted));
      }),
      { numRuns: 300 },
    );
  });

  test("is a pod that the API server's schema allows", () => {
    fc.assert(
      fc.property(generated, (pod) => {
        const { pod: wanted } = injected(pod);
        const { metadata, spec } = wanted;
        assert.deepEqual(schemaProblems(withoutNulls({ ...wanted, metadata, spec })), []);
      }),
      { numRuns: 50 },
    );
  });

  test("keeps every container, in its order, with every mount read-only", () => {
    fc.assert(
      fc.property(generated, (pod) => {
        const { pod: wanted } = injected(pod);
        const names = (list: readonly Container[] | null | undefined): readonly string[] =>
          (list ?? []).map(({ name }) => name);
        assert.deepEqual(names(wanted.spec?.containers), names(pod.spec?.containers));
        assert.deepEqual(
          names(wanted.spec?.initContainers).filter((one) => one !== "edgesync"),
          names(pod.spec?.initContainers),
        );
        const ours = (wanted.spec?.containers ?? [])
          .flatMap(({ volumeMounts }) => volumeMounts ?? [])
          .filter(({ name }) => name.startsWith("edgesync-"));
        assert.ok(ours.every(({ readOnly }) => readOnly === true));
      }),
      { numRuns: 100 },
    );
  });

  test("is given as the same bytes each time", () => {
    fc.assert(
      fc.property(generated, (pod) => {
        assert.equal(JSON.stringify(injected(pod)), JSON.stringify(injected(structuredClone(pod))));
      }),
      { numRuns: 50 },
    );
  });
});

/** Go's null for an empty list or map is not in the schema, but API servers accept and send it. */
function withoutNulls(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, one: unknown) => (one === null ? undefined : one)));
}
