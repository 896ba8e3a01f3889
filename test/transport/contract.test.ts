/** What the webhook makes of the annotations and the operator's settings that say where the repository is and how it is reached. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import * as a from "#core/addresses.ts";
import { fromEnv } from "#core/settings.ts";
import type { Value } from "#core/values.ts";
import {
  CLUSTER,
  containerOf,
  denied,
  envOf,
  injected,
  podWith,
  sidecarOf,
} from "../support/inject.ts";
import { clusterOptions, webhookConfig } from "../../webhook/config.ts";

const CHANNEL = { channel: "web/stable" };
const IMAGE = { EDGESYNC_IMAGE: "edgesync:1" };

describe("an address of a repository", () => {
  const good = [
    "https://releases.example",
    "https://releases.example:8443/a/b",
    "http://127.0.0.1:8080",
    "oci://registry.example/edgesync",
    "oci://registry.example:5000/team/pay-loads__x/v1.2",
    "oci://[fd00::1]:5000/a",
    "oci+http://127.0.0.1:5000/a",
    "oci+http://localhost/a",
  ];
  const bad = [
    "http://releases.example",
    "https://user:password@releases.example",
    "https://releases.example?token=x",
    "oci://registry.example",
    "oci://registry.example/",
    "oci://registry.example/Upper",
    "oci://registry.example/a:tag",
    "oci://registry.example/a@sha256:00",
    "oci://registry.example/../a",
    "oci://registry.example/a//b",
    "oci://user:password@registry.example/a",
    "oci://registry.example:99999/a",
    "oci+http://registry.example/a",
    "oci+http://127.0.0.1.evil.example/a",
    `oci://registry.example/${"a".repeat(256)}`,
    "ftp://a/b",
    "",
  ];
  for (const address of good)
    test(`may be ${address}`, () => assert.equal(a.repositoryUrl.parse(address), address));
  for (const address of bad)
    test(`must not be ${JSON.stringify(address.slice(0, 60))}`, () =>
      assert.equal(a.repositoryUrl.parse(address), undefined));

  test("in a registry is read in its parts", () => {
    assert.deepEqual(a.parseOci("oci://registry.example:5000/team/a"), {
      origin: "https://registry.example:5000",
      registry: "registry.example:5000",
      name: "team/a",
    });
    assert.equal(a.parseOci("oci+http://[::1]:5000/a")?.origin, "http://[::1]:5000");
  });

  test("is read back from a list of them as it was written", () => {
    const lists = fc.uniqueArray(fc.constantFrom(...good), { minLength: 1 });
    fc.assert(
      fc.property(lists, (list) => {
        assert.deepEqual(a.repositoryUrls.parse(a.repositoryUrls.format(list)), list);
      }),
    );
    for (const list of ["", ",", "https://a.example,https://a.example", "https://a.example,b"])
      assert.equal(a.repositoryUrls.parse(list), undefined);
    const many = Array.from({ length: 9 }, (_, index) => `https://m${index}.example`);
    assert.equal(a.repositoryUrls.parse(many.join(" ")), undefined);
  });
});

describe("a proxy's setting", () => {
  const cases: readonly (readonly [Value<string>, string, boolean])[] = [
    [a.proxyUrl, "http://proxy.example:3128", true],
    [a.proxyUrl, "https://user:p%40ss@proxy.example", true],
    [a.proxyUrl, "socks5://proxy.example", false],
    [a.proxyUrl, "http://proxy.example/path", false],
    [a.proxyUrl, "proxy.example:3128", false],
    [a.noProxy, "localhost,.cluster.local, 10.0.0.0/8,[fd00::]/8,a.example:8443,*", true],
    [a.noProxy, "a;b", false],
  ];
  for (const [value, text, allowed] of cases)
    test(`${allowed ? "may" : "must not"} be ${text}`, () =>
      assert.equal(value.parse(text) !== undefined, allowed));

  test("that is wrong is refused without being shown", () => {
    const env = { ...IMAGE, EDGESYNC_HTTPS_PROXY: "http://user:canary-7@/" };
    assert.throws(
      () => webhookConfig(env),
      (error: { code?: string; message?: string }) => {
        assert.equal(error.code, "CONFIG_INVALID");
        assert.match(error.message ?? "", /EDGESYNC_HTTPS_PROXY/);
        assert.doesNotMatch(error.message ?? "", /canary/);
        return true;
      },
    );
  });
});

describe("a pod's sidecar", () => {
  test("gets the operator's proxies by the names that all programs know", () => {
    const env = {
      ...IMAGE,
      EDGESYNC_REPOSITORY: "https://releases.example",
      EDGESYNC_HTTPS_PROXY: "http://user:pa$$word@proxy.example:3128",
      EDGESYNC_NO_PROXY: "localhost,10.0.0.0/8",
    };
    const cluster = clusterOptions(webhookConfig(env));
    const once = injected(podWith(CHANNEL), cluster);
    const given = envOf(sidecarOf(once.pod));
    assert.equal(given["HTTPS_PROXY"], env.EDGESYNC_HTTPS_PROXY);
    assert.equal(given["NO_PROXY"], env.EDGESYNC_NO_PROXY);
    assert.equal(given["HTTP_PROXY"], undefined);
    assert.equal(containerOf(once.pod, "web").env, undefined);
  });

  test("has no proxy where it has no payload", () => {
    const cluster = { ...CLUSTER, proxy: { HTTPS_PROXY: "http://proxy.example:3128" } };
    const { pod } = injected(podWith({ "secret.db": "secret/data/db" }), cluster);
    assert.equal(envOf(sidecarOf(pod))["HTTPS_PROXY"], undefined);
  });

  test("alone mounts the Secret with the repository's credentials, read-only", () => {
    const { pod } = injected(podWith({ ...CHANNEL, "repository-credentials": "login" }));
    const name = "edgesync-repository-credentials";
    const volume = pod.spec?.volumes?.find((one) => one.name === name);
    assert.deepEqual(volume, { name, secret: { secretName: "login", defaultMode: 0o444 } });
    const mount = sidecarOf(pod).volumeMounts?.find((one) => one.name === name);
    assert.deepEqual(mount, {
      name,
      mountPath: "/edgesync/repository-credentials",
      readOnly: true,
    });
    const others = containerOf(pod, "web").volumeMounts ?? [];
    assert.ok(others.every((one) => one.name !== name));
    assert.equal(
      fromEnv(envOf(sidecarOf(pod))).repositoryCredentialsDir,
      "/edgesync/repository-credentials",
    );
  });

  test("has the cluster's mirrors with the cluster's repository only, and its own before those", () => {
    const cluster = {
      ...CLUSTER,
      repositoryMirrors: ["https://mirror.example", "oci://registry.example/team/a"],
    };
    const mirrors = (more: Readonly<Record<string, string>>): readonly string[] | undefined =>
      fromEnv(envOf(sidecarOf(injected(podWith({ ...CHANNEL, ...more }), cluster).pod)))
        .repositoryMirrors;
    assert.deepEqual(mirrors({}), cluster.repositoryMirrors);
    assert.equal(mirrors({ repository: "https://other.example/a" }), undefined);
    assert.deepEqual(mirrors({ "repository-mirrors": "https://mirror.example" }), [
      "https://mirror.example",
    ]);
  });

  test("gets no mirror and no registry that the operator does not allow", () => {
    for (const [key, value] of [
      ["repository-mirrors", "https://other.example/a,https://evil.example"],
      ["repository-mirrors", "oci://registry.example/other/a"],
      ["repository", "oci://evil.example/team/a"],
      ["repository", "oci+http://127.0.0.1:5000/team/a"],
    ] as const) {
      const { code, message } = denied(podWith({ ...CHANNEL, [key]: value }));
      assert.equal(code, "ANNOTATION_INVALID");
      assert.match(message, new RegExp(`edgesync.dev/${key}`));
    }
  });
});

describe("the operator's list of repositories", () => {
  test("takes registries, and no star that would reach into other hosts", () => {
    const list = (entry: string): readonly string[] =>
      webhookConfig({ ...IMAGE, EDGESYNC_REPOSITORIES: entry }).repositories;
    assert.deepEqual(list("oci://registry.example/team/*"), ["oci://registry.example/team/*"]);
    assert.deepEqual(list("oci://registry.example/a"), ["oci://registry.example/a"]);
    for (const entry of ["oci://*", "oci://registry.example*", "oci*"])
      assert.throws(() => list(entry), { code: "CONFIG_INVALID" });
  });
});
