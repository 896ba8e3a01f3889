import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { denied, injected, podWith, sidecarOf, envOf } from "../support/inject.ts";
import type { Clock } from "#core/clock.ts";
import { fromEnv } from "#core/settings.ts";
import { savedState, startSidecar, until } from "../vault/sidecar.ts";
import { realClock } from "../support/real-clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";
import type { Sidecar } from "../vault/sidecar.ts";
import { openTemplateFile } from "../../sidecar/secrets/template-file.ts";
import { showVersion } from "./volume.ts";

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

describe("a template in a ConfigMap", () => {
  const pod = podWith({
    "template.db": "configmap:web-templates/db.conf.tpl",
    "template.api": "configmap:web-templates/api",
    "template.other": "configmap:others/..x.tpl".replace("..", "_"),
  });

  test("is mounted in the sidecar alone, with the keys that are templates", () => {
    const { spec } = injected(pod).pod;
    const volume = spec?.volumes?.find(({ name }) => name === "edgesync-templates-2");
    assert.deepEqual(volume, {
      name: "edgesync-templates-2",
      configMap: {
        name: "web-templates",
        items: ["api", "db.conf.tpl"].map((key) => ({ key, path: key })),
        defaultMode: 0o444,
      },
    });
    const sidecar = sidecarOf(injected(pod).pod);
    assert.deepEqual(
      sidecar.volumeMounts?.filter(({ name }) => name.startsWith("edgesync-templates")),
      ["others", "web-templates"].map((name, index) => ({
        name: `edgesync-templates-${index + 1}`,
        mountPath: `/edgesync/templates/${name}`,
        readOnly: true,
      })),
    );
    const mounts = (spec?.containers ?? []).flatMap(({ volumeMounts }) => volumeMounts ?? []);
    assert.ok(!JSON.stringify(mounts).includes("edgesync-templates"));
    const settings = fromEnv(envOf(sidecar));
    assert.equal(settings.templatesDir, "/edgesync/templates");
    const request = { kind: "template", configMap: "web-templates", key: "db.conf.tpl" };
    assert.deepEqual(settings.secrets.find(({ name }) => name === "db")?.request, request);
    assert.ok(settings.vaultAddress !== undefined, "what it will call for is not known");
  });

  test("is told in a way that a sidecar that knows only texts refuses", () => {
    const { EDGESYNC_SECRET_DB: text = "" } = envOf(sidecarOf(injected(pod).pod));
    assert.deepEqual(JSON.parse(text), {
      templateFile: "web-templates/db.conf.tpl",
      format: "json",
      file: "db",
    });
  });

  test("is denied where it names no key, and is not taken for a text", () => {
    for (const wrong of [
      "configmap:",
      "configmap:web",
      "configmap:web/",
      "configmap:W/x",
      "configmap:w/..",
      "configmap:w/a/b",
    ])
      assert.match(denied(podWith({ "template.db": wrong })).message, /template\.db/, wrong);
  });
});

/** Ten times as fast, for a folder that is looked at every two seconds. */
const hasty: Clock = {
  now: () => realClock.now(),
  monotonic: () => realClock.monotonic() * 10,
  sleep: (ms, signal) => realClock.sleep(ms / 10, signal),
};

describe("a template that a ConfigMap brings", () => {
  const text = (name: string, more: string = ""): string =>
    `${more}{{ with secret "${kv(name)}" }}{{ .Data.data.value }}{{ end }}`;

  interface Bench extends AsyncDisposable {
    readonly sidecar: Sidecar;
    show(version: string, text: string | Uint8Array): Promise<void>;
    code(): string | undefined;
    failing(): Promise<number | undefined>;
    /** Lines of the log about the template. */
    complaints(): readonly string[];
  }

  async function bench(first: Readonly<Record<string, string>>): Promise<Bench> {
    await using stack = new AsyncDisposableStack();
    const { path } = stack.use(await temporaryFolder("/dev/shm"));
    await showVersion(`${path}/web`, "..v1", first);
    const sidecar = stack.use(
      await startSidecar(world, {
        clock: hasty,
        refreshInterval: "5s",
        secrets: { db: { templateFile: "web/db.tpl", file: "db.conf" } },
        environment: { EDGESYNC_TEMPLATES_DIR: path },
      }),
    );
    const owned = stack.move();
    return {
      sidecar,
      show: (version, contents) => showVersion(`${path}/web`, version, { "db.tpl": contents }),
      code: () => sidecar.agent.status().secrets[0]?.code,
      async failing() {
        const metric = sidecar.registry.getSingleMetric("edgesync_sidecar_template_failing");
        return (await metric?.get())?.values[0]?.value;
      },
      complaints: () => sidecar.log.lines.filter((line) => line.startsWith("warn the template")),
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  }

  test("is followed: another text is rendered without a restart", async () => {
    await write("cm-a", { value: "a" });
    await write("cm-b", { value: "b" });
    await using pod = await bench({ "db.tpl": text("cm-a") });
    await until(() => pod.sidecar.agent.published(), "published");
    assert.equal(await pod.sidecar.file("db.conf"), "a");
    await pod.show("..v2", text("cm-b", "# second\n"));
    await until(async () => (await pod.sidecar.file("db.conf")) === "# second\nb", "the second");
    assert.deepEqual([pod.code(), await pod.failing()], [undefined, 0]);
  });

  test("that is no template any more says so once, and the one before goes on with what changes", async () => {
    await write("cm-c", { value: "1" });
    await using pod = await bench({ "db.tpl": text("cm-c") });
    await until(() => pod.sidecar.agent.published(), "published");
    await pod.show("..v2", "one\n{{ if }}");
    await until(() => pod.code() === "TEMPLATE_INVALID", "the code");
    assert.equal(await pod.failing(), 1);
    await write("cm-c", { value: "2" });
    await until(async () => (await pod.sidecar.file("db.conf")) === "2", "a new value");
    assert.equal(pod.complaints().length, 1);
    assert.match(pod.complaints().join(), /db:2:\d+/);
    await pod.show("..v3", text("cm-c", "mended "));
    await until(async () => (await pod.sidecar.file("db.conf")) === "mended 2", "the repair");
    assert.deepEqual([pod.code(), await pod.failing()], [undefined, 0]);
  });

  test("that cannot be rendered leaves the one before in force, with what changes", async () => {
    await write("cm-d", { value: "1" });
    await using pod = await bench({ "db.tpl": text("cm-d") });
    await until(() => pod.sidecar.agent.published(), "published");
    await pod.show("..v2", text("cm-d").replace("value", "other"));
    await until(() => pod.code() === "TEMPLATE_FAILED", "the code");
    await write("cm-d", { value: "2" });
    await until(async () => (await pod.sidecar.file("db.conf")) === "2", "a new value");
    assert.equal(await pod.failing(), 1);
  });

  for (const [what, broken] of [
    ["is no template", () => "{{ if }}"],
    ["cannot be rendered", () => text("cm-g").replace("value", "other")],
  ] as const)
    test(`that ${what} does not keep a sidecar that starts anew from what goes on`, async () => {
      await write("cm-g", { value: "1" });
      await using folder = await temporaryFolder("/dev/shm");
      const options = {
        folder: folder.path,
        clock: hasty,
        refreshInterval: "5s",
        secrets: { db: { templateFile: "web/db.tpl" } },
        environment: { EDGESYNC_TEMPLATES_DIR: folder.path },
      };
      await showVersion(`${folder.path}/web`, "..v1", { "db.tpl": text("cm-g") });
      {
        await using sidecar = await startSidecar(world, options);
        await until(() => sidecar.agent.published(), "published");
        const kept = `${folder.path}/volume/state/template-db`;
        await until(() => existsSync(kept), "kept");
        await showVersion(`${folder.path}/web`, "..v2", { "db.tpl": broken() });
      }
      await write("cm-g", { value: "2" });
      await using sidecar = await startSidecar(world, options);
      await until(() => sidecar.agent.published(), "published again");
      await until(async () => (await sidecar.file("db")) === "2", "the new value");
      assert.match(String(sidecar.agent.status().secrets[0]?.code), /^TEMPLATE_/);
    });

  test("that is missing or too large is an error of its own, and heals", async () => {
    await write("cm-e", { value: "1" });
    await using pod = await bench({ another: "x" });
    assert.equal(pod.complaints().length, 1);
    for (const [version, size, complaints] of [
      ["..v2", 262_145, 2],
      ["..v3", 1_048_577, 3],
    ] as const) {
      await pod.show(version, "x".repeat(size));
      await until(() => pod.complaints().length === complaints, version);
      assert.equal(pod.code(), "TEMPLATE_INVALID", version);
    }
    assert.equal(pod.sidecar.agent.published(), false);
    await pod.show("..v4", text("cm-e"));
    await until(() => pod.sidecar.agent.published(), "published");
    assert.equal(pod.code(), undefined);
  });

  test("that is no text is refused each time that it is read, until it is one", async () => {
    await using folder = await temporaryFolder();
    const read = openTemplateFile({ folder: folder.path, key: "t" });
    for (let turn = 0; turn < 2; turn++) await assert.rejects(read(), { code: "TEMPLATE_INVALID" });
    await showVersion(folder.path, "..v1", { t: Uint8Array.of(0xff, 0xfe) });
    for (let turn = 0; turn < 2; turn++) await assert.rejects(read(), { code: "TEMPLATE_INVALID" });
    await showVersion(folder.path, "..v2", { t: "text" });
    assert.deepEqual([await read(), await read()], ["text", undefined]);
    await showVersion(folder.path, "..v3", { t: "text" });
    assert.equal(await read(), undefined, "the same text in another version");
  });

  test("and does not call for a credential any more gives its lease back", async () => {
    const creds = `${world.names.broker}/creds/app`;
    await write("cm-f", { value: "1" });
    await using pod = await bench({
      "db.tpl": `{{ with secret "${creds}" }}{{ .Data.username }}{{ end }}`,
    });
    await until(() => pod.sidecar.agent.published(), "published");
    /** Those that are kept, and those that are to be revoked. */
    const leases = async (): Promise<string> => {
      const { secrets, retired } = await savedState(pod.sidecar.folder);
      return `${secrets.filter(({ leaseId }) => leaseId !== undefined).length},${retired.length}`;
    };
    assert.equal(await leases(), "1,0");
    await pod.show("..v2", text("cm-f"));
    await until(async () => (await pod.sidecar.file("db.conf")) === "1", "the second");
    await until(async () => (await leases()) === "0,1", "the lease's end");
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
