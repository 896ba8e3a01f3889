import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inject } from "#core/inject/inject.ts";
import type { Container, Pod } from "#core/inject/pod.ts";
import { fromEnv } from "#core/settings.ts";
import {
  CLUSTER,
  containerOf,
  envOf,
  injected,
  podWith,
  prefixed,
  sidecarOf,
  WEB,
} from "../support/inject.ts";

const CHANNEL = { channel: "web/stable" };
const SECRET = { "secret.db": "database/creds/web" };
const BOTH = { ...CHANNEL, ...SECRET };

function settingsOf(pod: Pod): ReturnType<typeof fromEnv> {
  return fromEnv(envOf(sidecarOf(pod)));
}

function labelled(pod: Pod, value: string): Pod {
  return { ...pod, metadata: { ...pod.metadata, labels: { "edgesync.dev/inject": value } } };
}

const mountsOf = (pod: Pod, name: string): readonly (readonly [string, string])[] =>
  (containerOf(pod, name).volumeMounts ?? []).map(({ name, mountPath }) => [name, mountPath]);

describe("who is injected", () => {
  const plain: Pod = { spec: { containers: [WEB] } };
  const skips: readonly (readonly [string, Pod, string])[] = [
    ["a pod without annotations and label", plain, "not_requested"],
    [
      "a pod labelled false, whatever its annotations",
      labelled(podWith(BOTH), "false"),
      "opted_out",
    ],
    [
      "a Windows pod by its os",
      podWith(BOTH, { containers: [WEB], os: { name: "windows" } }),
      "windows",
    ],
    [
      "a Windows pod by its node selector",
      podWith(BOTH, { nodeSelector: { "kubernetes.io/os": "windows" } }),
      "windows",
    ],
    [
      "a mirror pod",
      {
        ...plain,
        metadata: { annotations: { ...prefixed(BOTH), "kubernetes.io/config.mirror": "1" } },
      },
      "mirror_pod",
    ],
  ];
  for (const [what, pod, reason] of skips)
    test(`leaves ${what} alone`, () => {
      const result = inject(pod, CLUSTER);
      assert.equal(result.kind === "skip" && result.reason, reason);
    });

  test("takes a pod with an annotation, and one labelled true", () => {
    assert.equal(inject(podWith(CHANNEL), CLUSTER).kind, "injected");
    assert.equal(inject(labelled(podWith(SECRET), "true"), CLUSTER).kind, "injected");
  });
});

describe("the sidecar", () => {
  const { pod } = injected(podWith(BOTH));

  test("states every field of the restricted Pod Security Standard on itself", () => {
    assert.deepEqual(sidecarOf(pod).securityContext, {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      privileged: false,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      readOnlyRootFilesystem: true,
      seccompProfile: { type: "RuntimeDefault" },
    });
  });

  test("is a native sidecar whose start is never given up on", () => {
    const { restartPolicy, startupProbe } = sidecarOf(pod);
    assert.equal(restartPolicy, "Always");
    assert.equal(startupProbe?.failureThreshold, 2 ** 31 - 1);
    assert.equal(startupProbe.httpGet?.port, 19465);
  });

  test("has requests and limits, with the secrets' memory on top", () => {
    assert.deepEqual(sidecarOf(pod).resources, {
      requests: { cpu: "5m", memory: "48Mi" },
      limits: { cpu: "500m", memory: "136Mi" },
    });
  });

  test("writes secrets into memory of a stated size", () => {
    const sized = injected(podWith({ "secret.db": "database/creds/web", "secrets-size": "2Mi" }));
    const volume = sized.pod.spec?.volumes?.find(({ name }) => name === "edgesync-secrets");
    const emptyDir = { medium: "Memory", sizeLimit: "2Mi" };
    assert.deepEqual(volume, { name: "edgesync-secrets", emptyDir });
  });

  test("reads the settings that the annotations say", () => {
    const settings = settingsOf(
      injected(podWith({ ...BOTH, "poll-interval": "1h", gate: "none" })).pod,
    );
    assert.deepEqual(settings.channel, { app: "web", channel: "stable" });
    assert.equal(settings.pollInterval, 3_600_000);
    assert.deepEqual(settings.gate, []);
    assert.equal(settings.repository, CLUSTER.repository);
    assert.equal(settings.vaultAddress, CLUSTER.vaultAddress);
    assert.equal(settings.vaultRole, "default");
    assert.deepEqual(settings.secrets[0]?.request, {
      kind: "vault",
      path: "database/creds/web",
      parameters: {},
    });
    assert.equal(settings.trustRootFile, "/edgesync/trust/root.json");
  });

  test("learns who it is from the downward API", () => {
    const references = (sidecarOf(pod).env ?? []).filter(
      ({ valueFrom }) => valueFrom !== undefined,
    );
    assert.deepEqual(
      references.map(({ name }) => name),
      ["EDGESYNC_POD_NAME", "EDGESYNC_POD_NAMESPACE", "EDGESYNC_POD_UID", "EDGESYNC_NODE_NAME"],
    );
  });

  test("gets the cluster's proxy for Vault only where the pod says so", () => {
    const cluster = { ...CLUSTER, proxy: { HTTPS_PROXY: "http://proxy.example:3128" } };
    const proxyOf = (annotations: Readonly<Record<string, string>>): string | undefined =>
      envOf(sidecarOf(injected(podWith(annotations), cluster).pod))["HTTPS_PROXY"];
    assert.equal(proxyOf(SECRET), undefined);
    assert.equal(
      proxyOf({ "secret.a": "mounted:web.tls", "vault-proxy": "environment" }),
      undefined,
    );
    const asked = { ...SECRET, "vault-proxy": "environment" };
    assert.equal(proxyOf(asked), "http://proxy.example:3128");
  });

  test("shows a login's Secret to the sidecar alone, and has no token besides", () => {
    for (const [method, kind] of [
      ["cert", "tls"],
      ["approle", "approle"],
    ] as const) {
      const key = `vault-${kind}-secret`;
      const { pod } = injected(podWith({ ...SECRET, "vault-auth": method, [key]: "login" }));
      const volume = `edgesync-vault-${kind}`;
      assert.ok(mountsOf(pod, "edgesync").some(([name]) => name === volume));
      assert.ok(!mountsOf(pod, "web").some(([name]) => name === volume));
      assert.ok(!(pod.spec?.volumes ?? []).some(({ name }) => name === "edgesync-token"));
      assert.equal(settingsOf(pod).vaultRole, undefined);
    }
    const mounted = { "secret.a": "mounted:web.tls", "vault-auth": "cert" };
    assert.equal(settingsOf(injected(podWith(mounted)).pod).vaultTlsDir, undefined);
  });

  test("gets a value with dollar signs as it was written, past the kubelet's expansion", () => {
    const request = "pki/issue/web common_name=$(POD_IP)$$x";
    const result = injected(podWith({ "secret.cert": request })).pod;
    const raw = sidecarOf(result).env?.find(({ name }) => name === "EDGESYNC_SECRET_CERT")?.value;
    assert.match(raw ?? "", /common_name=\$\$\(POD_IP\)\$\$\$\$x/);
    const [secret] = settingsOf(result).secrets;
    assert.deepEqual(secret?.request, {
      kind: "vault",
      path: "pki/issue/web",
      parameters: { common_name: "$(POD_IP)$$x" },
    });
  });

  test("has what Secrets hold, in folders of their names, and needs no Vault for it", () => {
    const only = {
      "secret.a": "mounted:web.tls",
      "secret.b": "mounted:web.tls",
      "secret.c": "mounted:api",
    };
    const made = injected(podWith(only), { ...CLUSTER, vaultAddress: undefined }).pod;
    const settings = settingsOf(made);
    assert.equal(settings.vaultAddress, undefined);
    assert.equal(settings.vaultRole, undefined);
    assert.equal(settings.tokenFile, undefined);
    assert.equal(settings.mountedDir, "/edgesync/mounted");
    const names = (made.spec?.volumes ?? []).map(({ name }) => name);
    assert.ok(!names.includes("edgesync-token"));
    const mounts = (sidecarOf(made).volumeMounts ?? []).filter(({ name }) =>
      name.startsWith("edgesync-mounted"),
    );
    assert.deepEqual(
      mounts.map(({ name, mountPath, readOnly }) => [name, mountPath, readOnly]),
      [
        ["edgesync-mounted-1", "/edgesync/mounted/api", true],
        ["edgesync-mounted-2", "/edgesync/mounted/web.tls", true],
      ],
    );
    const others = (made.spec?.containers ?? []).flatMap(({ volumeMounts }) => volumeMounts ?? []);
    assert.ok(!others.some(({ name }) => name.startsWith("edgesync-mounted")));
  });

  test("logs in as the pod's service account unless a role is given", () => {
    const spec = { serviceAccountName: "web-account" };
    assert.equal(settingsOf(injected(podWith(SECRET, spec)).pod).vaultRole, "web-account");
    const named = injected(podWith({ ...SECRET, "vault-role": "reader" }, spec)).pod;
    assert.equal(settingsOf(named).vaultRole, "reader");
  });

  test("has its own token with the audience that is asked for, and nobody else mounts it", () => {
    const jwt = { ...SECRET, "vault-auth": "jwt", "vault-audience": "vault" };
    const result = injected(podWith(jwt)).pod;
    const volume = result.spec?.volumes?.find(({ name }) => name === "edgesync-token");
    assert.deepEqual(volume, {
      name: "edgesync-token",
      projected: {
        sources: [
          { serviceAccountToken: { audience: "vault", expirationSeconds: 3600, path: "token" } },
        ],
        defaultMode: 0o444,
      },
    });
    const others = (result.spec?.containers ?? []).flatMap(
      ({ volumeMounts }) => volumeMounts ?? [],
    );
    assert.ok(!others.some(({ name }) => name === "edgesync-token"));
  });

  test("has something at the default token's path, so that the pod's own is not mounted there", () => {
    assert.ok(
      sidecarOf(pod).volumeMounts?.some(
        ({ mountPath }) => mountPath === "/var/run/secrets/kubernetes.io/serviceaccount",
      ),
    );
  });

  test("has only what is asked for", () => {
    const volumes = (annotations: Readonly<Record<string, string>>): readonly string[] =>
      (injected(podWith(annotations)).pod.spec?.volumes ?? []).map(({ name }) => name);
    assert.deepEqual(volumes(CHANNEL), ["edgesync-payload", "edgesync-trust", "edgesync-no-token"]);
    assert.deepEqual(volumes(SECRET), ["edgesync-secrets", "edgesync-token", "edgesync-no-token"]);
  });
});

describe("where the sidecar goes", () => {
  const native = (name: string): Container => ({ name, restartPolicy: "Always" });
  const order = (...initContainers: readonly Container[]): readonly string[] =>
    (injected(podWith(BOTH, { initContainers })).pod.spec?.initContainers ?? []).map(
      ({ name }) => name,
    );

  test("is before the other init containers", () => {
    assert.deepEqual(order({ name: "migrate" }, native("logs")), ["edgesync", "migrate", "logs"]);
  });

  test("is behind a mesh's native proxy and what precedes that", () => {
    assert.deepEqual(order({ name: "istio-init" }, native("istio-proxy"), { name: "migrate" }), [
      "istio-init",
      "istio-proxy",
      "edgesync",
      "migrate",
    ]);
    assert.deepEqual(order(native("linkerd-proxy")), ["linkerd-proxy", "edgesync"]);
  });

  test("does not care for an ordinary init container of a mesh's name", () => {
    assert.deepEqual(order({ name: "istio-proxy" }), ["edgesync", "istio-proxy"]);
  });
});

describe("the application's containers", () => {
  const proxy: Container = { name: "istio-proxy" };
  const other: Container = { name: "other" };

  test("mount payload and secrets read-only, the main one alone unless others are named", () => {
    const { pod } = injected(podWith(BOTH, { containers: [WEB, other] }));
    assert.deepEqual(containerOf(pod, "web").volumeMounts, [
      { name: "edgesync-payload", mountPath: "/payload", readOnly: true },
      {
        name: "edgesync-secrets",
        mountPath: "/run/secrets/edgesync",
        subPath: "set",
        readOnly: true,
      },
    ]);
    assert.deepEqual(containerOf(pod, "other"), other);
  });

  test("mount what they are named for, init containers behind the sidecar too", () => {
    const annotations = {
      ...BOTH,
      "payload-containers": "other, migrate",
      "secrets-containers": "migrate",
      "payload-path": "/models",
    };
    const spec = { containers: [WEB, other], initContainers: [{ name: "migrate" }] };
    const { pod } = injected(podWith(annotations, spec));
    assert.deepEqual(mountsOf(pod, "web"), []);
    assert.deepEqual(mountsOf(pod, "other"), [["edgesync-payload", "/models"]]);
    assert.deepEqual(mountsOf(pod, "migrate"), [
      ["edgesync-payload", "/models"],
      ["edgesync-secrets", "/run/secrets/edgesync"],
    ]);
  });

  test("keep kubectl on the main one, which is never a mesh's proxy", () => {
    const main = (pod: Pod): string | undefined =>
      injected(pod).pod.metadata?.annotations?.["kubectl.kubernetes.io/default-container"];
    assert.equal(main(podWith(BOTH, { containers: [proxy, WEB] })), "web");
    const chosen = podWith(BOTH, { containers: [WEB, other] });
    const annotations = {
      ...chosen.metadata?.annotations,
      "kubectl.kubernetes.io/default-container": "other",
    };
    const result = injected({ ...chosen, metadata: { annotations } }).pod;
    assert.equal(main({ ...chosen, metadata: { annotations } }), "other");
    assert.deepEqual(mountsOf(result, "web"), []);
  });

  test("keep kubectl on an init container that the pod states; an empty name is none", () => {
    const stated = (name: string): Pod => {
      const pod = podWith(BOTH, {
        containers: [proxy, WEB],
        initContainers: [{ name: "logs", restartPolicy: "Always" }],
      });
      const annotations = { "kubectl.kubernetes.io/default-container": name };
      return {
        ...pod,
        metadata: { annotations: { ...pod.metadata?.annotations, ...annotations } },
      };
    };
    for (const [name, shown] of [
      ["logs", "logs"],
      ["", "web"],
    ] as const) {
      const { pod } = injected(stated(name));
      assert.equal(pod.metadata?.annotations?.["kubectl.kubernetes.io/default-container"], shown);
      assert.deepEqual(mountsOf(pod, "web"), mountsOf(injected(stated("web")).pod, "web"));
      const again = inject(pod, CLUSTER);
      assert.equal(again.kind === "skip" && again.reason, "already_injected");
    }
  });

  test("keep every field that edgesync does not know", () => {
    const odd = { ...WEB, tty: true, "x-unknown": { deep: [1, null] } };
    const spec = { containers: [odd], tolerations: [{ operator: "Exists" }] };
    const { pod } = injected(podWith(BOTH, spec));
    assert.deepEqual({ ...containerOf(pod, "web"), ...odd }, containerOf(pod, "web"));
    assert.deepEqual((pod.spec as typeof spec).tolerations, spec.tolerations);
  });
});

describe("who can read the secrets", () => {
  const modeAndGroup = (
    annotations: Readonly<Record<string, string>>,
    ...containers: readonly Container[]
  ): readonly [number, unknown] => {
    const { pod } = injected(podWith({ ...SECRET, ...annotations }, { containers }));
    return [settingsOf(pod).secretsMode, sidecarOf(pod).securityContext?.runAsGroup];
  };
  const grouped = (runAsGroup: number, name = "web"): Container => ({
    ...WEB,
    name,
    securityContext: { runAsGroup },
  });

  test("is everybody in the pod who mounts them, while no group is stated", () => {
    assert.deepEqual(modeAndGroup({}, WEB), [0o444, 65532]);
  });
  test("is the main container's group, when the pod states it", () => {
    assert.deepEqual(modeAndGroup({}, grouped(2000)), [0o440, 2000]);
    const spec = { securityContext: { runAsGroup: 3000 } };
    const { pod } = injected(podWith(SECRET, spec));
    assert.equal(settingsOf(pod).secretsMode, 0o440);
    assert.equal(sidecarOf(pod).securityContext?.runAsGroup, 3000);
  });
  test("is everybody again when two readers are of two groups, or of group 0", () => {
    const both = { "secrets-containers": "web,other" };
    assert.deepEqual(modeAndGroup(both, grouped(2000), grouped(2001, "other")), [0o444, 2000]);
    assert.deepEqual(modeAndGroup({}, grouped(0)), [0o444, 65532]);
  });
  test("is as run-as says", () => {
    assert.deepEqual(modeAndGroup({ "run-as": "70000:2000" }, grouped(2000)), [0o440, 2000]);
    assert.deepEqual(modeAndGroup({ "run-as": "70000" }, WEB), [0o444, 70000]);
  });
  test("never takes an fsGroup", () => {
    const { pod } = injected(podWith(BOTH));
    assert.equal(pod.spec?.securityContext, undefined);
  });
});

describe("resources", () => {
  const sized = (limit: string, request = limit): Container => ({
    ...WEB,
    resources: {
      limits: { cpu: "1", memory: limit },
      requests: { cpu: "1000m", memory: request },
    },
  });
  const resources = (
    annotations: Readonly<Record<string, string>>,
    container: Container,
  ): Container["resources"] =>
    sidecarOf(injected(podWith({ ...BOTH, ...annotations }, { containers: [container] })).pod)
      .resources;

  test("keep a Guaranteed pod Guaranteed, with enough CPU to start", () => {
    assert.deepEqual(resources({}, sized("1Gi", "1024Mi")), {
      requests: { cpu: "100m", memory: "136Mi" },
      limits: { cpu: "100m", memory: "136Mi" },
    });
    const fractions: Container = {
      ...WEB,
      resources: {
        limits: { cpu: "700m", memory: "1Gi" },
        requests: { cpu: "0.7", memory: "1Gi" },
      },
    };
    assert.equal(resources({}, fractions)?.requests?.["cpu"], "100m");
  });
  test("are the annotations' where they say something", () => {
    const asked = {
      "cpu-request": "20m",
      "cpu-limit": "1",
      "memory-request": "64Mi",
      "memory-limit": "200Mi",
    };
    assert.deepEqual(resources(asked, sized("1Gi", "512Mi")), {
      requests: { cpu: "20m", memory: "64Mi" },
      limits: { cpu: "1", memory: "200Mi" },
    });
  });
  test("count the payload where the pod's local storage is limited", () => {
    const limited: Container = { ...WEB, resources: { limits: { "ephemeral-storage": "1Gi" } } };
    assert.equal(
      resources({ "payload-size": "256Mi" }, limited)?.limits?.["ephemeral-storage"],
      "352Mi",
    );
  });
  test("let the sidecar's own budget end before the kubelet evicts the pod", () => {
    const { pod } = injected(podWith({ ...CHANNEL, "payload-size": "800Mi" }));
    const volume = pod.spec?.volumes?.find(({ name }) => name === "edgesync-payload");
    assert.deepEqual(volume, { name: "edgesync-payload", emptyDir: { sizeLimit: "900Mi" } });
  });
});

describe("payload storage", () => {
  test("is a claim where one is named, without the warning of a new download", () => {
    const { pod, warnings } = injected(podWith({ ...CHANNEL, "payload-storage": "claim/models" }));
    assert.deepEqual(pod.spec?.volumes?.[0], {
      name: "edgesync-payload",
      persistentVolumeClaim: { claimName: "models" },
    });
    assert.deepEqual(warnings, []);
    assert.equal(injected(podWith(CHANNEL)).warnings.length, 1);
  });
});

describe("a warning", () => {
  const warned = (annotations: Readonly<Record<string, string>>, container: Container): string =>
    injected(podWith(annotations, { containers: [container] })).warnings.join("\n");

  test("says that a trial without any probe can only watch starts", () => {
    assert.match(warned(CHANNEL, { name: "web" }), /health is probe/);
    assert.doesNotMatch(warned(CHANNEL, WEB), /health is probe/);
    assert.doesNotMatch(warned({ ...CHANNEL, health: "none" }, { name: "web" }), /health is probe/);
  });
  test("names an annotation that has no effect", () => {
    assert.match(warned({ ...SECRET, "poll-interval": "1m" }, WEB), /edgesync\.dev\/poll-interval/);
    assert.match(warned({ ...CHANNEL, "vault-role": "web" }, WEB), /edgesync\.dev\/vault-role/);
  });
  test("says that limits of local storage count the payload", () => {
    const limited: Container = { ...WEB, resources: { limits: { "ephemeral-storage": "1Gi" } } };
    assert.match(warned(CHANNEL, limited), /payload-size/);
  });
});
