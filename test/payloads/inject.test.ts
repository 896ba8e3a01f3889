import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inject } from "#core/inject/inject.ts";
import type { Container, Pod, PodSpec } from "#core/inject/pod.ts";
import { fromEnv, payloadNames, settingsOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import {
  CLUSTER,
  containerOf,
  denied,
  envOf,
  injected,
  podWith,
  sidecarOf,
  WEB,
} from "../support/inject.ts";

const MAIN = { channel: "web/stable" };
const MODELS = { "channel.models": "web/models", "payload-path.models": "/models" };
const BOTH = { ...MAIN, ...MODELS };
const INDEXER: Container = { name: "indexer", image: "indexer:1" };

function settings(pod: Pod): Settings {
  return fromEnv(envOf(sidecarOf(pod)));
}

function mounts(container: Container): readonly string[] {
  return (container.volumeMounts ?? []).map(
    ({ name, mountPath, readOnly }) => `${name} ${mountPath}${readOnly === true ? " ro" : ""}`,
  );
}

describe("a pod with several payloads", () => {
  test("has a volume for each, which the sidecar writes and the application reads", () => {
    const { pod } = injected(podWith(BOTH));
    assert.deepEqual(mounts(containerOf(pod, "web")), [
      "edgesync-payload /payload ro",
      "edgesync-payload-models /models ro",
    ]);
    assert.deepEqual(mounts(sidecarOf(pod)).slice(0, 3), [
      "edgesync-payload /edgesync/payload",
      "edgesync-trust /edgesync/trust ro",
      "edgesync-payload-models /edgesync/payload-models",
    ]);
    assert.deepEqual(payloadNames(settings(pod)), ["main", "models"]);
    const { payloadDir, trustRootFile } = settingsOf(settings(pod), "models");
    assert.equal(payloadDir, "/edgesync/payload-models");
    assert.equal(trustRootFile, "/edgesync/trust/root.json");
  });

  test("is left alone by a second call, and is the same where main comes later or not at all", () => {
    for (const annotations of [BOTH, MODELS, { ...MODELS, ...MAIN, site: "shop-1" }]) {
      const { pod } = injected(podWith(annotations));
      assert.equal(inject(pod, CLUSTER).kind, "skip");
      const { site } = settingsOf(settings(pod), "models");
      assert.equal(site, "site" in annotations ? "shop-1" : undefined);
    }
  });

  test("tells an older sidecar that there is something that it does not know", () => {
    const version = (annotations: Readonly<Record<string, string>>): string | undefined =>
      envOf(sidecarOf(injected(podWith(annotations)).pod))["EDGESYNC_SETTINGS_VERSION"];
    assert.equal(version(MAIN), "1");
    assert.equal(version(BOTH), "2");
  });

  test("gives each container the payloads that are meant for it, and a lever where one of them wants it", () => {
    const annotations = {
      ...BOTH,
      "payload-containers.models": "indexer",
      "on-update.models": "none",
    };
    const { pod } = injected(podWith(annotations, { containers: [WEB, INDEXER] }));
    assert.deepEqual(mounts(containerOf(pod, "indexer")), ["edgesync-payload-models /models ro"]);
    assert.equal(containerOf(pod, "indexer").livenessProbe, undefined);
    assert.equal(containerOf(pod, "web").livenessProbe?.httpGet?.path, "/app/web/live");
    const names = (payload: string): readonly string[] =>
      settingsOf(settings(pod), payload).app.map(({ container }) => container);
    assert.deepEqual([names("main"), names("models")], [["web"], ["indexer"]]);
  });

  test("keeps one repository's credentials from another, and mounts what is the same once", () => {
    const { pod } = injected(
      podWith(
        {
          ...BOTH,
          "repository-credentials": "login",
          "import-volume": "stick",
          "channel.rules": "rules/stable",
          "payload-path.rules": "/rules",
          "repository.rules": "https://other.example/rules",
        },
        { volumes: [{ name: "stick" }] },
      ),
    );
    const of = (payload: string): readonly (string | undefined)[] => {
      const { repositoryCredentialsDir, importDir } = settingsOf(settings(pod), payload);
      return [repositoryCredentialsDir, importDir];
    };
    const login = "/edgesync/repository-credentials";
    assert.deepEqual(of("main"), [login, "/edgesync/import"]);
    assert.deepEqual(of("models"), [login, "/edgesync/import"]);
    assert.deepEqual(of("rules"), [undefined, "/edgesync/import"]);
    const all = mounts(sidecarOf(pod));
    assert.equal(new Set(all).size, all.length);
  });

  test("counts the room of each where the pod's storage is limited", () => {
    const limited = {
      containers: [{ ...WEB, resources: { limits: { "ephemeral-storage": "1Gi" } } }],
    };
    const limitOf = (more: Readonly<Record<string, string>>): unknown =>
      sidecarOf(injected(podWith({ ...BOTH, ...more }, limited)).pod).resources?.limits?.[
        "ephemeral-storage"
      ];
    assert.equal(limitOf({ "payload-size": "64Mi", "payload-size.models": "128Mi" }), "288Mi");
    assert.equal(limitOf({ "payload-size": "64Mi" }), undefined, "one of them has none");
  });

  test("warns for each of them by its own annotation", () => {
    const { warnings } = injected(podWith({ ...BOTH, "payload-storage": "claim/web" }));
    assert.ok(warnings.some((one) => one.startsWith("edgesync.dev/payload-storage.models ")));
    assert.ok(!warnings.some((one) => one.startsWith("edgesync.dev/payload-storage ")));
  });
});

describe("payloads that do not go together", () => {
  const cases: readonly (readonly [
    string,
    Readonly<Record<string, string>>,
    readonly string[],
    PodSpec?,
  ])[] = [
    [
      "two on one claim",
      { "payload-storage": "claim/a", "payload-storage.models": "claim/a" },
      ["edgesync.dev/payload-storage.models is claim/a, which edgesync.dev/payload-storage has"],
    ],
    [
      "one below the other, and below the secrets",
      { "payload-path": "/models/web", "secret.db": "a/b", "secrets-path": "/models/secrets" },
      [
        "edgesync.dev/payload-path /models/web and edgesync.dev/payload-path.models /models must not",
        "edgesync.dev/payload-path.models /models and edgesync.dev/secrets-path /models/secrets must not",
      ],
    ],
    [
      "one in a folder of the system",
      { "payload-path.models": "/proc/x" },
      ["payload-path.models"],
    ],
    [
      "a trial that is over before it can be long enough",
      { "trial-duration.models": "10m" },
      [
        "edgesync.dev/trial-timeout is 10m; it must be longer than edgesync.dev/trial-duration.models, 10m",
      ],
    ],
    [
      "a trial that is over before its restart",
      { "trial-timeout.models": "61s" },
      ["edgesync.dev/trial-timeout.models is 1m1s; it must be longer than 1m30s"],
    ],
    [
      "a repository that is not allowed",
      { "repository.models": "https://evil.example" },
      ["edgesync.dev/repository.models is"],
    ],
    [
      "a container that is not there",
      { "payload-containers.models": "nobody" },
      ['edgesync.dev/payload-containers.models names "nobody"'],
    ],
    [
      "bundles on no volume",
      { "import-volume.models": "stick" },
      ["edgesync.dev/import-volume.models is stick"],
    ],
    [
      "a restart in a job",
      { "on-update": "none", "on-update.models": "restart" },
      ["set edgesync.dev/on-update.models: none"],
      { restartPolicy: "Never" },
    ],
  ];
  for (const [what, more, named, spec] of cases)
    test(`are refused: ${what}`, () => {
      const { message } = denied(podWith({ ...BOTH, ...more }, spec));
      for (const text of named) assert.ok(message.includes(text), `${text}: ${message}`);
    });

  test("are refused with all that is wrong, each thing once", () => {
    const everything = Object.assign({}, ...cases.slice(1).map(([, more]) => more));
    const { message } = denied(
      podWith({ ...BOTH, ...everything, "payload-containers": "nobody-else" }),
    );
    const said = message.split("; edgesync.dev/");
    assert.equal(new Set(said).size, said.length);
    for (const key of ["trial-duration.models", "import-volume.models", "repository.models"])
      assert.ok(message.includes(`edgesync.dev/${key}`), key);
  });
});
