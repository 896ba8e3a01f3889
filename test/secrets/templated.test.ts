import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { denied, injected, podWith, sidecarOf, envOf } from "../support/inject.ts";
import { fromEnv } from "#core/settings.ts";
import { startSidecar, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());

const kv = (name: string): string => `${world.names.kv}/data/web/${name}`;

async function write(name: string, data: object): Promise<void> {
  await world.configure("POST", kv(name), { data });
}

describe("a template's annotation", () => {
  const text = '{{ with secret "database/creds/web" }}{{ .Data.username }}{{ end }}\n$(X)';

  test("comes to the sidecar as it is written, and needs Vault like a secret", () => {
    const { pod } = injected(
      podWith({ "template.db": text, "file.db": "db.conf", "mode.db": "0440" }),
    );
    const settings = fromEnv(envOf(sidecarOf(pod)));
    assert.deepEqual(settings.secrets, [
      {
        name: "db",
        request: { kind: "template", text },
        format: { kind: "json" },
        file: "db.conf",
        mode: 0o440,
      },
    ]);
    assert.ok(settings.vaultAddress !== undefined && settings.tokenFile !== undefined);
  });

  test("is denied for an error in it, with line and column", () => {
    const { message } = denied(podWith({ "template.db": "one\n{{ if }}x{{ end }}" }));
    assert.match(message, /edgesync\.dev\/template\.db:2:\d+/);
  });

  test("stands alone: beside a secret or a format of its name it is denied", () => {
    for (const more of [{ "secret.db": "kv/web" }, { "format.db": "env" }])
      assert.match(denied(podWith({ "template.db": "x", ...more })).message, /template\.db/);
  });
});

describe("a template", () => {
  test("is one file of what it calls for, found out pass by pass, and rendered again with each change", async () => {
    await write("pointer", { next: kv("target-a") });
    await write("target-a", { value: "a" });
    await write("target-b", { value: "b" });
    const text = `{{ with secret "${kv("pointer")}" }}{{ with secret .Data.data.next }}{{ .Data.data.value }}{{ end }}{{ end }}`;
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: { db: { template: text, file: "db.conf" } },
    });
    await until(() => sidecar.agent.published(), "published");
    assert.equal(await sidecar.file("db.conf"), "a");
    await write("target-a", { value: "again" });
    await until(async () => (await sidecar.file("db.conf")) === "again", "a change below");
    await write("pointer", { next: kv("target-b") });
    await until(async () => (await sidecar.file("db.conf")) === "b", "another path");
  });

  test("has the credential of the files beside it that ask for the same", async () => {
    const path = `${world.names.broker}/creds/app`;
    const made = world.broker.created();
    await using sidecar = await startSidecar(world, {
      secrets: {
        user: { request: path, format: "raw:username" },
        both: {
          template: `{{ with secret "${path}" }}{{ .Data.username }} {{ .Data.password }}{{ end }}`,
        },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    const [user, password] = (await sidecar.file("both")).split(" ");
    assert.equal(user, await sidecar.file("user"));
    assert.ok(world.broker.accepts(user ?? "", password ?? ""));
    assert.equal(world.broker.created(), made + 1);
  });

  test("that fails says where and nothing of the secret; its old file and all others go on", async () => {
    await write("frail", { value: "canary-1" });
    await write("other", { value: "1" });
    const text = `{{ with secret "${kv("frail")}" }}\n{{ .Data.data.value }}{{ end }}`;
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: { frail: { template: text }, other: { request: kv("other"), format: "raw:value" } },
    });
    await until(() => sidecar.agent.published(), "published");
    await write("frail", { another: "canary-2" });
    await until(
      () => sidecar.agent.status().secrets.some(({ code }) => code === "TEMPLATE_FAILED"),
      "the code",
    );
    await write("other", { value: "2" });
    await until(async () => (await sidecar.file("other")) === "2", "the other's change");
    assert.equal(await sidecar.file("frail"), "\ncanary-1");
    const told = sidecar.log.lines.join("\n");
    assert.match(told, /frail:2:\d+/);
    assert.ok(!told.includes("canary"));
  });
});
