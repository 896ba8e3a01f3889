import assert from "node:assert/strict";
import { chmod, chown, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { CONFIG_LIMIT, daemonRows, filesOf, parseDaemonConfig } from "#core/daemon-config.ts";
import { codeOf } from "#core/errors.ts";
import { camel } from "#core/pod-options.ts";
import { payloadNames, settingsOf } from "#core/settings.ts";
import { checkFiles, readConfigFile } from "../../sidecar/config-file.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { openWorld } from "../update/support/world.ts";

type Config = Readonly<Record<string, unknown>>;

const LEAST = {
  channel: "detector/stable",
  repository: "https://updates.example.com",
  "trust-root-file": "/etc/edgesync/root.json",
  "payload-dir": "/var/lib/edgesync/main",
  "on-update": "command:systemctl restart detector.service",
  health: "http:8080/ready",
};

const MODELS = {
  "channel.models": "detector/models",
  "payload-dir.models": "/var/lib/edgesync/models",
};

function refused(config: Config | string, ...named: readonly string[]): void {
  const text = typeof config === "string" ? config : JSON.stringify(config);
  assert.throws(
    () => parseDaemonConfig(text),
    (error: { code?: string; message?: string }) => {
      assert.equal(error.code, "CONFIG_INVALID");
      for (const part of named)
        assert.ok(error.message?.includes(part), `${part}: ${error.message}`);
      return true;
    },
  );
}

describe("the configuration of a daemon", () => {
  test("needs little, and listens on this machine only", () => {
    const settings = parseDaemonConfig(JSON.stringify(LEAST));
    assert.deepEqual(payloadNames(settings), ["main"]);
    assert.deepEqual(settings.onUpdate, {
      kind: "command",
      argv: ["systemctl", "restart", "detector.service"],
    });
    assert.deepEqual(settings.health, { kind: "http", port: 8080, path: "/ready" });
    assert.equal(settings.pollInterval, 900_000);
    assert.equal(settings.listenAddress, "127.0.0.1");
    assert.equal(settings.podName, undefined);
    assert.deepEqual(settings.app, []);
  });

  test("takes numbers as what they are written as", () => {
    const settings = parseDaemonConfig(JSON.stringify({ ...LEAST, port: 9000, "trial-starts": 3 }));
    assert.deepEqual([settings.port, settings.trialStarts], [9000, 3]);
  });

  test("has several payloads, each with what is its own and else with what is said for all", () => {
    const config = { ...LEAST, ...MODELS, "poll-interval.models": "6h", "health.models": "none" };
    const settings = parseDaemonConfig(JSON.stringify(config));
    assert.deepEqual(payloadNames(settings), ["main", "models"]);
    const models = settingsOf(settings, "models");
    assert.deepEqual(models.channel, { app: "detector", channel: "models" });
    assert.equal(models.payloadDir, "/var/lib/edgesync/models");
    assert.equal(models.trustRootFile, "/etc/edgesync/root.json");
    assert.equal(models.pollInterval, 6 * 3_600_000);
    assert.equal(models.onUpdate.kind, "command");
    assert.equal(models.health.kind, "none");
  });

  test("keeps what belongs to one repository from another", () => {
    const other = { ...LEAST, ...MODELS, "repository.models": "https://other.example" };
    refused({ ...other, "repository-ca-file": "/ca" }, "trust-root-file.models is needed");
    const settings = parseDaemonConfig(
      JSON.stringify({
        ...other,
        "trust-root-file.models": "/b",
        "repository-credentials-dir": "/c",
      }),
    );
    assert.equal(settingsOf(settings, "models").repositoryCredentialsDir, undefined);
  });

  test("may be without payload main, and then says nothing about its application", () => {
    const { "payload-dir": _, channel: __, ...rest } = LEAST;
    const { "on-update": update, health, ...repository } = rest;
    const settings = parseDaemonConfig(
      JSON.stringify({
        ...repository,
        ...MODELS,
        "on-update.models": update,
        "health.models": health,
      }),
    );
    assert.deepEqual(payloadNames(settings), ["models"]);
    assert.equal(settingsOf(settings, "models").health.kind, "http");
    assert.deepEqual([settings.onUpdate.kind, settings.health.kind], ["none", "none"]);
    refused({ ...repository, ...MODELS }, "on-update.models is needed", "health.models is needed");
  });

  test("declares secrets as a pod does", () => {
    const vault = {
      "vault-address": "https://vault.example:8200",
      "vault-role": "detector",
      "token-file": "/var/lib/edgesync/jwt",
      "secrets-dir": "/run/edgesync/secrets",
      "secret.db": "database/creds/detector",
      "format.db": "env",
    };
    const settings = parseDaemonConfig(JSON.stringify(vault));
    assert.equal(settings.vaultAuth, "jwt");
    assert.equal(settings.secretsMode, 0o440);
    assert.equal(settings.health.kind, "none");
    assert.deepEqual(settings.secrets[0]?.format, { kind: "env" });
    refused({ "secret.db": "database/creds/detector" }, "vault-address is", "token-file is");
    refused({ ...vault, "vault-auth": "kubernetes" }, "vault-auth is kubernetes");
    refused({ ...vault, "format.other": "env" }, "secret.other is missing");
  });

  test("logs in with a certificate or an AppRole, for which it needs neither token nor role", () => {
    const vault = {
      "vault-address": "https://vault.example:8200",
      "secrets-dir": "/run/edgesync/secrets",
      "secret.db": "database/creds/detector",
    };
    for (const [method, key] of [
      ["cert", "vault-tls-dir"],
      ["approle", "vault-approle-dir"],
    ] as const) {
      refused({ ...vault, "vault-auth": method }, `${key} is needed`);
      const given = { ...vault, "vault-auth": method, [key]: "/etc/edgesync/login" };
      const settings = parseDaemonConfig(JSON.stringify(given));
      assert.equal(settings.vaultAuth, method);
      assert.equal(settings.vaultRole, undefined);
      assert.ok(filesOf(settings).every(({ path }) => path.startsWith("/etc/edgesync/login/")));
      assert.ok(filesOf(settings).length > 0);
    }
  });

  const wrong: readonly (readonly [string, Config | string, readonly string[]])[] = [
    ["is not JSON", "channel = detector/stable", ["not JSON"]],
    ["is not an object", "[]", ["not a JSON object"]],
    ["is empty", "{}", ["neither channel nor secret"]],
    [
      "has a misspelt key",
      { ...LEAST, "pol-interval": "1m" },
      ['"pol-interval"', "poll-interval?"],
    ],
    [
      "has a misspelt key of a payload",
      { ...LEAST, ...MODELS, "pol-interval.models": "1m" },
      ["did you mean poll-interval.models?"],
    ],
    [
      "has a key that nobody knows",
      { ...LEAST, zzzzzz: "1" },
      ['"zzzzzz" is not known', "settings.md"],
    ],
    [
      "has a key of pods",
      { ...LEAST, "payload-path": "/x", "pod-name": "x" },
      ['"payload-path" is not known; it has a meaning in a pod only', '"pod-name"'],
    ],
    [
      "has a key that holds for all with a suffix",
      { ...LEAST, "site.models": "x" },
      ["site holds for"],
    ],
    [
      "has a key twice",
      '{"channel": "a/b", "site": "\\"channel\\":", "channel": "a/c"}',
      ['"channel" is there twice'],
    ],
    [
      "has a value of the wrong kind",
      { ...LEAST, site: ["a"], gate: null },
      ['"site" is', '"gate" is null'],
    ],
    [
      "has a value that is not allowed",
      { ...LEAST, "poll-interval": "soon" },
      ["poll-interval is"],
    ],
    [
      "wants what only a kubelet does",
      { ...LEAST, "on-update": "restart", health: "probe" },
      ["on-update is", "command:<program>", "health is"],
    ],
    [
      "leaves out what has no default here",
      { channel: "a/b" },
      ["repository is needed", "payload-dir is", "trust-root-file is", "on-update is", "health is"],
    ],
    [
      "has two payloads in one folder",
      { ...LEAST, ...MODELS, "payload-dir.models": "/var/lib/edgesync/main/models" },
      ["must not lie in each other"],
    ],
    [
      "calls the agent itself instead of the application",
      {
        ...LEAST,
        ...MODELS,
        "control-port": 9903,
        "on-update": "http:9903/reload",
        health: "tcp:19465",
        "hook.pre-swap.models": "http:19465/ask",
      },
      ["on-update names control-port", "health names port", "hook.pre-swap names port"],
    ],
    [
      "has two ports that are one",
      { ...LEAST, port: 9000, "control-port": 9000 },
      ["port and control-port are both 9000"],
    ],
    [
      "has holds in the folder of a payload, by whatever path",
      { ...LEAST, "hold-dir": "/var/lib//edgesync/./main/" },
      ["hold-dir", "must not lie in each other"],
    ],
    [
      "has a path that leads up",
      { ...LEAST, "payload-dir": "/var/lib/edgesync/../main" },
      ["payload-dir is /var/lib/edgesync/../main; expected"],
    ],
    [
      "names a program of a payload",
      {
        ...LEAST,
        ...MODELS,
        "hook.pre-swap": "exec:/var/lib/edgesync/main/current/bin/hook",
        "on-update.models": "command:/opt/../var/lib/edgesync/main/current/restart now",
        "health.models": "command:/var/lib/edgesync/models/current/check",
      },
      ["hook.pre-swap names", "on-update.models names", "health.models names"],
    ],
    [
      "names a program in another folder that others fill",
      {
        ...LEAST,
        "import-dir": "/media/stick",
        "hold-dir": "/run/holds",
        "hook.pre-swap": "exec:/media/stick/hook",
        "on-update": "command:/run/holds/restart",
      },
      ["hook.pre-swap names", "on-update names"],
    ],
    [
      "has a payload without a folder",
      { ...LEAST, "channel.models": "a/b" },
      ["payload-dir.models is needed"],
    ],
    [
      "has a payload without a channel",
      { ...LEAST, "poll-interval.models": "1m" },
      ["channel.models is missing"],
    ],
    [
      "has a trial that cannot be long enough",
      { ...LEAST, "trial-duration": "1h" },
      ["trial-timeout is 10m; it must be longer"],
    ],
  ];
  for (const [what, config, named] of wrong)
    test(`is refused when it ${what}`, () => {
      refused(config, ...named);
    });

  test("is refused with everything that is wrong with it", () => {
    const all = Object.assign(
      {},
      ...wrong.map(([, config]) => (typeof config === "string" ? {} : config)),
    );
    refused(
      { ...all, "on-update": "restart" },
      '"pol-interval"',
      '"zzzzzz"',
      '"pod-name"',
      "on-update is",
      "trial-timeout is",
    );
  });

  test("is never taken half: whatever the text is, it is refused as such or is a configuration", () => {
    const keys = fc.constantFrom(
      ...daemonRows().map(([key]) => key),
      "secret.db",
      "x",
      "channel.a",
    );
    const text = fc.oneof(
      fc.json().map((text): string => text),
      fc.dictionary(keys, fc.oneof(fc.string(), fc.integer())).map((all) => JSON.stringify(all)),
    );
    fc.assert(
      fc.property(text, (any) => {
        try {
          parseDaemonConfig(any);
        } catch (error) {
          assert.equal(codeOf(error), "CONFIG_INVALID");
        }
      }),
      { numRuns: 300 },
    );
  });

  for (const [key, row] of daemonRows())
    test(`has a default for ${key} that is taken, if any, and one name in the program`, () => {
      assert.match(camel(key), /^[a-zA-Z]+$/);
      if (row.default !== undefined) assert.notEqual(row.value.parse(row.default), undefined);
    });
});

describe("the check of a configuration", () => {
  const settingsOn = (folder: string): ReturnType<typeof parseDaemonConfig> =>
    parseDaemonConfig(
      JSON.stringify({
        ...LEAST,
        "payload-dir": join(folder, "payload"),
        "trust-root-file": join(folder, "root.json"),
        "hook.pre-swap": `exec:${join(folder, "hook")}`,
        "on-update": "none",
      }),
    );

  test("tells at once of each file and folder that is not there, or not as it should be", async () => {
    await using folder = await temporaryFolder();
    const settings = settingsOn(folder.path);
    const named = async (...parts: readonly string[]): Promise<void> =>
      await assert.rejects(checkFiles("x.json", settings), (error: Error) => {
        assert.equal(codeOf(error), "CONFIG_INVALID");
        for (const part of parts) assert.ok(error.message.includes(part), error.message);
        return true;
      });
    await named("trust-root-file is", "hook.pre-swap is", "payload-dir is", "ENOENT");
    await writeFile(join(folder.path, "root.json"), "{}");
    await writeFile(join(folder.path, "payload"), "");
    await named("which holds no root", "hook.pre-swap is", "payload-dir is");
  });

  test("warns of a payload in memory, and of one that has no room", async () => {
    await using folder = await temporaryFolder(MEMORY);
    await using world = await openWorld();
    await mkdir(join(folder.path, "payload"));
    await copyFile(world.root, join(folder.path, "root.json"));
    await writeFile(join(folder.path, "hook"), "");
    const settings = settingsOn(folder.path);
    const said = await checkFiles("x.json", { ...settings, payloadReserve: 2 ** 60 });
    assert.equal(said.length, 2);
    assert.match(said.join(), /payload-dir is .*in memory.*payload-dir is .*payload-reserve/);
  });
});

describe("the file of the configuration", () => {
  const uid = process.getuid?.() ?? 0;
  const refusedFile = (path: string, part: string): Promise<void> =>
    assert.rejects(readConfigFile(path, uid), (error: { code?: string; message: string }) => {
      assert.equal(error.code, "CONFIG_INVALID");
      assert.ok(error.message.includes(path) && error.message.includes(part), error.message);
      return true;
    });

  test("is read when nobody else can write it, and else refused by its name", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "edgesync.json");
    await refusedFile(path, "cannot be read");
    // No program is named, and yet another could put its own repository there.
    await writeFile(path, JSON.stringify({ ...LEAST, "on-update": "none" }), { mode: 0o644 });
    assert.equal((await readConfigFile(path, uid)).channel?.app, "detector");
    await chmod(path, 0o664);
    await refusedFile(path, "written by others");
    await chmod(path, 0o644);
    await writeFile(path, '{"channel": 1}');
    await refusedFile(path, "channel is");
  });

  test("lies where nobody else could put another one, by whatever path it is named", async () => {
    await using folder = await temporaryFolder();
    const at = (path: string): string => join(folder.path, path);
    for (const name of ["open", "shut"]) await mkdir(at(name));
    const config = JSON.stringify({ ...LEAST, "on-update": "none" });
    for (const path of ["open/edgesync.json", "edgesync.json"])
      await writeFile(at(path), config, { mode: 0o644 });
    await symlink("../edgesync.json", at("open/link.json"));
    await symlink("../edgesync.json", at("shut/link.json"));
    await chmod(at("open"), 0o777);
    await refusedFile(at("open/edgesync.json"), "can be written by others");
    await refusedFile(at("open/link.json"), "can be written by others");
    assert.equal((await readConfigFile(at("shut/link.json"), uid)).onUpdate.kind, "none");
    await refusedFile(at("shut"), "not a file");
    execFileSync("mkfifo", ["-m", "644", at("pipe")]);
    await refusedFile(at("pipe"), "not a file");
    await writeFile(at("edgesync.json"), " ".repeat(CONFIG_LIMIT + 1));
    await refusedFile(at("edgesync.json"), "bytes");
  });

  test("belongs to root or the daemon's user, also when it names no program", async (context) => {
    if (uid !== 0) return context.diagnostic("only root can give files away");
    await using folder = await temporaryFolder();
    const path = join(folder.path, "edgesync.json");
    await writeFile(path, JSON.stringify({ ...LEAST, "on-update": "none" }), { mode: 0o644 });
    await chown(path, 1000, 1000);
    await refusedFile(path, "does not belong");
    await chown(folder.path, 1000, 1000);
    assert.equal((await readConfigFile(path, 1000)).onUpdate.kind, "none");
    await refusedFile(path, "does not belong");
  });
});
