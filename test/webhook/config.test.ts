import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { variableOf } from "#core/settings.ts";
import type { Value } from "#core/values.ts";
import { clusterOptions, WEBHOOK_SETTINGS, webhookConfig } from "../../webhook/config.ts";

const IMAGE = { EDGESYNC_IMAGE: "edgesync:1" };

describe("the settings of the webhook", () => {
  test("have defaults for all but the image", () => {
    const config = webhookConfig(IMAGE);
    assert.equal(config.tlsPort, 8443);
    assert.equal(config.drainDelay, 5_000);
    assert.deepEqual(clusterOptions(config), {
      image: "edgesync:1",
      images: [],
      repository: undefined,
      repositories: [],
      repositoryMirrors: [],
      proxy: {},
      site: undefined,
      vaultAddress: undefined,
      vaultAddresses: [],
      sidecarPort: 19465,
    });
  });

  test("are refused all at once, each by its variable", () => {
    const wrong = {
      EDGESYNC_TLS_PORT: "tcp://10.0.0.1:443",
      EDGESYNC_REPOSITORY: "releases.example",
      EDGESYNC_DRAIN_DELAY: "5",
      EDGESYNC_VAULT_ADDRESSES: "https://a.example http://b.example",
    };
    assert.throws(
      () => webhookConfig(wrong),
      (error: { code?: string; message?: string }) => {
        assert.equal(error.code, "CONFIG_INVALID");
        for (const variable of [...Object.keys(wrong), "EDGESYNC_IMAGE"])
          assert.ok(error.message?.includes(variable), variable);
        return true;
      },
    );
  });

  test("take an empty variable for an absent one, as a ConfigMap leaves it", () => {
    assert.deepEqual(webhookConfig({ ...IMAGE, EDGESYNC_REPOSITORY: "" }), webhookConfig(IMAGE));
  });

  test("take lists apart by commas, spaces or lines", () => {
    const env = { ...IMAGE, EDGESYNC_IMAGES: " a.example/x:1,\n b.example/*\n" };
    assert.deepEqual(webhookConfig(env).images, ["a.example/x:1", "b.example/*"]);
  });

  test("allow no star that would reach into other hosts", () => {
    for (const entry of ["https://*", "https://releases.example*", "*"])
      assert.throws(() => webhookConfig({ ...IMAGE, EDGESYNC_REPOSITORIES: entry }), {
        code: "CONFIG_INVALID",
      });
    for (const entry of ["registry.example*", "*"])
      assert.throws(() => webhookConfig({ ...IMAGE, EDGESYNC_IMAGES: entry }), {
        code: "CONFIG_INVALID",
      });
    for (const entry of ["registry.example/*", "edgesync:*", "edgesync@sha256:*"])
      assert.deepEqual(webhookConfig({ ...IMAGE, EDGESYNC_IMAGES: entry }).images, [entry]);
    const entry = "https://releases.example/*";
    assert.deepEqual(webhookConfig({ ...IMAGE, EDGESYNC_REPOSITORIES: entry }).repositories, [
      entry,
    ]);
  });

  for (const [key, row] of Object.entries(WEBHOOK_SETTINGS))
    test(`describe ${variableOf(key)} in a sentence, and its default is one that it takes`, () => {
      assert.match(row.help, /^[A-Z][^\n]*\.$/);
      if (!("default" in row)) return;
      const value: Value<unknown> = row.value;
      const parsed = value.parse(row.default);
      assert.notEqual(parsed, undefined);
      assert.equal(value.format(parsed), row.default);
    });
});
