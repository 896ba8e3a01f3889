import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import { defaultKeys } from "#core/inject/defaults.ts";
import { inject } from "#core/inject/inject.ts";
import { fromEnv } from "#core/settings.ts";
import { CLUSTER, envOf, podWith, sidecarOf } from "../support/inject.ts";
import type { Annotations } from "../support/inject.ts";

const CHANNEL = { channel: "web/stable" };

function facts(namespace: Annotations, cluster: Annotations = {}): Facts {
  return {
    ...PLAIN_FACTS,
    defaults: [
      { source: "ConfigMap shop/edgesync-defaults", values: namespace },
      { source: "ConfigMap edgesync/edgesync-defaults", values: cluster },
    ],
  };
}

function settings(annotations: Annotations, given: Facts): ReturnType<typeof fromEnv> {
  const result = inject(podWith(annotations), CLUSTER, given);
  if (result.kind !== "injected") throw new Error(JSON.stringify(result));
  return fromEnv(envOf(sidecarOf(result.pod)));
}

describe("defaults", () => {
  test("are the namespace's before the cluster's, and the pod's own before both", () => {
    const given = facts(
      { "poll-interval": "2h", "download-rate": "1Mi" },
      { "poll-interval": "3h", "download-rate": "2Mi", site: "shop-7" },
    );
    const { pollInterval, downloadRate, site } = settings(
      { ...CHANNEL, "download-rate": "3Mi" },
      given,
    );
    assert.deepEqual([pollInterval, downloadRate, site], [7_200_000, 3 * 2 ** 20, "shop-7"]);
  });

  test("change nothing at the second call, and are not written into the pod's annotations", () => {
    const given = facts({ "poll-interval": "2h" });
    const first = inject(podWith(CHANNEL), CLUSTER, given);
    assert.ok(first.kind === "injected");
    assert.equal(first.pod.metadata?.annotations?.["edgesync.dev/poll-interval"], undefined);
    const again = inject(first.pod, CLUSTER, given);
    assert.equal(again.kind === "skip" && again.reason, "already_injected");
  });

  test("ask for no injection by themselves", () => {
    const given = facts({ "poll-interval": "2h" });
    const result = inject({ spec: { containers: [{ name: "web" }] } }, CLUSTER, given);
    assert.equal(result.kind === "skip" && result.reason, "not_requested");
  });

  test("of a repository stay with it: another that the pod names gets none of its credentials", () => {
    const given = facts({
      repository: "https://other.example/shop",
      "repository-credentials": "shop-login",
      "repository-ca": "shop-ca",
    });
    const own = settings({ ...CHANNEL, repository: "https://releases.example/" }, given);
    assert.equal(own.repositoryCredentialsDir, undefined);
    assert.equal(own.repositoryCaFile, undefined);
    const shared = settings(CHANNEL, given);
    assert.equal(shared.repository, "https://other.example/shop");
    assert.equal(shared.repositoryCredentialsDir, "/edgesync/repository-credentials");
  });

  test("of the cluster's repository do not go with the namespace's", () => {
    const given = facts(
      { repository: "https://other.example/shop" },
      { "repository-credentials": "cluster-login" },
    );
    assert.equal(settings(CHANNEL, given).repositoryCredentialsDir, undefined);
  });

  test("are held against the operator's lists like what a pod states", () => {
    const given = facts({ repository: "https://evil.example" });
    const result = inject(podWith(CHANNEL), CLUSTER, given);
    assert.equal(result.kind === "deny" && result.code, "ANNOTATION_INVALID");
  });

  const wrong: readonly (readonly [string, Annotations, RegExp])[] = [
    ["a value that is not allowed", { "poll-interval": "soon" }, /poll-interval is "soon"/],
    ["a key that is not known", { "pol-interval": "1h" }, /did you mean poll-interval/],
    ["what belongs to a pod", { channel: "web/stable" }, /channel belongs to a pod/],
    ["a secret", { "secret.db": "kv/db" }, /secret\.db is not known/],
  ];
  for (const [what, values, message] of wrong)
    test(`that hold ${what} deny the pod and name the ConfigMap`, () => {
      const result = inject(podWith(CHANNEL), CLUSTER, facts(values));
      assert.ok(result.kind === "deny" && result.code === "ANNOTATION_INVALID");
      assert.match(result.message, /ConfigMap shop\/edgesync-defaults: /);
      assert.match(result.message, message);
    });

  test("may hold whatever more than one pod can share", () => {
    const keys = defaultKeys();
    for (const key of ["repository", "vault-address", "hold", "run-as", "sidecar-mode", "site"])
      assert.ok(keys.includes(key), key);
    for (const key of ["channel", "payload-path", "payload-storage"])
      assert.ok(!keys.includes(key), key);
  });
});
