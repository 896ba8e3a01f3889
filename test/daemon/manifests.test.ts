import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { parseDocument } from "yaml";
import { parseDaemonConfig } from "#core/daemon-config.ts";
import { settingsOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { temporaryFolder } from "../support/temporary.ts";

const SYSTEMD = new URL("../../manifests/systemd/", import.meta.url);
const COMPOSE = new URL("../../manifests/compose/", import.meta.url);
const ANALYZE = "/usr/bin/systemd-analyze";

/** A directive may be there more than once. */
type Unit = ReadonlyMap<string, readonly string[]>;

/** `Section.Directive` with its values, as systemd.syntax(7) has it. */
function parseUnit(text: string): Unit {
  const unit = new Map<string, readonly string[]>();
  let section = "";
  for (const line of text.replaceAll("\\\n", " ").split("\n")) {
    if (line.trim() === "" || /^[#;]/.test(line)) continue;
    const header = /^\[(Unit|Service|Install)\]$/.exec(line)?.[1];
    const directive = /^([A-Z][A-Za-z0-9]*)=(.*)$/.exec(line);
    assert.ok(header !== undefined || directive !== null, `not a line of a unit: ${line}`);
    if (header !== undefined) section = header;
    if (directive === null) continue;
    const [, name = "", value = ""] = directive;
    const key = `${section}.${name}`;
    unit.set(key, [...(unit.get(key) ?? []), value]);
  }
  return unit;
}

async function unitOf(name: string): Promise<Unit> {
  return parseUnit(await readFile(new URL(name, SYSTEMD), "utf8"));
}

function words(unit: Unit, key: string): readonly string[] {
  return (unit.get(key) ?? []).flatMap((value) => value.split(" "));
}

async function configOf(folder: URL): Promise<Settings> {
  return parseDaemonConfig(await readFile(new URL("edgesync.json", folder), "utf8"));
}

describe("the systemd units", async () => {
  const agent = await unitOf("edgesync.service");
  const application = await unitOf("detector.service");
  const settings = await configOf(SYSTEMD);

  test("run the agent as nobody special, who can write its own folders and nothing else", () => {
    assert.deepEqual(agent.get("Service.User"), ["edgesync"]);
    for (const [key, value] of [
      ["CapabilityBoundingSet", ""],
      ["AmbientCapabilities", ""],
      ["NoNewPrivileges", "yes"],
      ["ProtectSystem", "strict"],
      ["ProtectHome", "yes"],
      ["PrivateTmp", "yes"],
      ["PrivateDevices", "yes"],
      ["ProtectKernelModules", "yes"],
      ["ProtectKernelTunables", "yes"],
      ["ProtectControlGroups", "yes"],
      ["RestrictSUIDSGID", "yes"],
      ["RestrictNamespaces", "yes"],
      ["LockPersonality", "yes"],
      ["SystemCallArchitectures", "native"],
      ["UMask", "0022"],
    ] as const)
      assert.deepEqual(agent.get(`Service.${key}`), [value], key);
    assert.ok(!agent.has("Service.ReadWritePaths"));
    assert.ok(!agent.has("Service.MemoryDenyWriteExecute"), "Node compiles while it runs");
  });

  test("keep payloads on disk and credentials in memory, in folders that the configuration names", () => {
    const state = words(agent, "Service.StateDirectory").map((name) => `/var/lib/${name}`);
    assert.ok(state.includes(settingsOf(settings, "main").payloadDir ?? ""));
    const runtime = words(agent, "Service.RuntimeDirectory").map((name) => `/run/${name}`);
    assert.ok(runtime.includes("/run/edgesync/secrets"));
    assert.deepEqual(agent.get("Service.RuntimeDirectoryPreserve"), ["restart"]);
  });

  test("start the agent again whatever happens, but not with a configuration that it has refused", () => {
    assert.deepEqual(agent.get("Service.Restart"), ["always"]);
    assert.ok(words(agent, "Service.RestartPreventExitStatus").includes("78"));
    assert.deepEqual(words(agent, "Service.ExecStart").slice(-3), [
      "agent",
      "--config",
      "/etc/edgesync/edgesync.json",
    ]);
  });

  test("let the application start when the gate is open, however long that takes", () => {
    assert.deepEqual(application.get("Unit.After"), ["edgesync.service"]);
    const gate = ["status", "--wait", "--config", "/etc/edgesync/edgesync.json"];
    assert.deepEqual(words(application, "Service.ExecStartPre").slice(-4), gate);
    assert.deepEqual(application.get("Service.TimeoutStartSec"), ["infinity"]);
    assert.ok(
      !application.has("Unit.Requires"),
      "a restart of the agent is none of the application",
    );
    assert.ok(!application.has("Unit.BindsTo") && !application.has("Unit.PartOf"));
    const [program] = words(application, "Service.ExecStart");
    assert.ok(program?.startsWith(`${settingsOf(settings, "main").payloadDir}/current/`));
    assert.ok(words(application, "Service.SupplementaryGroups").includes("edgesync"));
  });

  test("restart what the configuration and the polkit rule name, and nothing else", async () => {
    assert.deepEqual(settings.onUpdate, {
      kind: "command",
      argv: ["systemctl", "restart", "detector.service"],
    });
    const rule = await readFile(new URL("50-edgesync.rules", SYSTEMD), "utf8");
    for (const part of [
      'user === "edgesync"',
      '"unit") === "detector.service"',
      '"verb") === "restart"',
    ])
      assert.ok(rule.includes(part), part);
    assert.equal(rule.match(/Result\.YES/g)?.length, 1);
  });

  if (existsSync(ANALYZE))
    test("are what systemd understands", async () => {
      await using folder = await temporaryFolder();
      const files = ["edgesync.service", "detector.service"];
      for (const name of files) {
        const text = await readFile(new URL(name, SYSTEMD), "utf8");
        // What is installed elsewhere is not here.
        const here = text.replaceAll("/usr/bin/node", process.execPath);
        const started = here.replaceAll("/var/lib/edgesync/main/current/bin/detector", "/bin/true");
        await writeFile(join(folder.path, name), started);
      }
      const paths = files.map((name) => join(folder.path, name));
      const env = { ...process.env, SYSTEMD_UNIT_PATH: `${folder.path}:` };
      const run = promisify(execFile);
      const verified = await run(ANALYZE, ["verify", "--man=no", ...paths], { env });
      assert.equal(ours(verified.stderr), "");
      const security = ["security", "--offline=yes", "--threshold=20"];
      const judged = await run(ANALYZE, [...security, paths[0] ?? ""], { env });
      assert.match(judged.stdout, /Overall exposure level for edgesync\.service: [01]\.\d OK/);
    });
});

/** What is said of our units; the units of the machine itself are none of ours. */
function ours(text: string): string {
  return text
    .split("\n")
    .filter((line) => /edgesync|detector/.test(line))
    .join("\n");
}

describe("the Compose file", async () => {
  const document = parseDocument(await readFile(new URL("compose.yaml", COMPOSE), "utf8"), {
    strict: true,
    uniqueKeys: true,
  });
  const file = document.toJS() as {
    services: Record<"edgesync" | "detector", Service>;
    volumes: Record<string, { driver_opts: Record<string, string> }>;
  };
  const { edgesync, detector } = file.services;
  const settings = await configOf(COMPOSE);

  interface Service {
    readonly command: readonly string[];
    readonly user: string;
    readonly read_only?: boolean;
    readonly cap_drop?: readonly string[];
    readonly security_opt?: readonly string[];
    readonly restart: string;
    readonly volumes: readonly string[];
    readonly healthcheck?: { readonly test: readonly string[]; readonly start_period: string };
    readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
    readonly network_mode?: string;
    readonly pid?: string;
  }

  test("is YAML", () => {
    assert.deepEqual(document.errors, []);
    assert.deepEqual(document.warnings, []);
  });

  test("starts the application when the gate is open, and does not give up on a site that is cut off", () => {
    assert.deepEqual(detector.depends_on, { edgesync: { condition: "service_healthy" } });
    assert.deepEqual(edgesync.healthcheck?.test.slice(-4), ["status", "--wait", "--timeout", "4s"]);
    assert.equal(edgesync.healthcheck.start_period, "8760h");
    assert.equal(detector.restart, "always");
  });

  test("gives the agent no right that it does not need", () => {
    assert.equal(edgesync.read_only, true);
    assert.deepEqual(edgesync.cap_drop, ["ALL"]);
    assert.deepEqual(edgesync.security_opt, ["no-new-privileges:true"]);
    assert.notEqual(edgesync.user.split(":")[0], "0");
    assert.ok(!JSON.stringify(file).includes("docker.sock"));
  });

  test("shares the payload read-only, and credentials in memory only", () => {
    const mount = (service: Service, target: string): readonly string[] =>
      service.volumes.map((one) => one.split(":")).find(([, path]) => path === target) ?? [];
    const [source] = mount(edgesync, "/var/lib/edgesync");
    assert.ok(settingsOf(settings, "main").payloadDir?.startsWith("/var/lib/edgesync/"));
    assert.deepEqual(mount(detector, "/payloads"), [source, "/payloads", "ro"]);
    assert.ok(detector.command[0]?.startsWith("/payloads/main/current/"));
    assert.deepEqual(mount(detector, "/run/secrets/edgesync"), [
      "secrets",
      "/run/secrets/edgesync",
      "ro",
    ]);
    assert.equal(mount(edgesync, "/run/edgesync/secrets")[0], "secrets");
    assert.equal(file.volumes["secrets"]?.driver_opts["type"], "tmpfs");
    assert.match(file.volumes["secrets"].driver_opts["o"] ?? "", /size=8m,uid=65532/);
  });

  test("lets the agent see the process that it signals, as the user that may", () => {
    assert.equal(settings.onUpdate.kind, "signal");
    assert.equal(detector.pid, "service:edgesync");
    assert.equal(detector.network_mode, "service:edgesync");
    assert.equal(detector.user, edgesync.user);
  });

  test("mounts the configuration that the agent is told of, and what that names", () => {
    const config = edgesync.command.at(-1) ?? "";
    for (const path of [config, settings.trustRootFile ?? ""])
      assert.ok(
        edgesync.volumes.some((one) => one.endsWith(`:${path}:ro`)),
        path,
      );
  });
});
