/** The whole life of a sidecar's secrets in a process of its own; then everything that it has written or shown is searched for them. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { run } from "../publisher/shell.ts";
import { openAppRepository } from "../support/app-repository.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment, savedState } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";

const BIN = new URL("../../bin/edgesync.ts", import.meta.url).pathname;

/** Characters that JSON, URLs and shells write in another way are in each. */
function canary(name: string): string {
  return `${name}"${randomBytes(9).toString("hex")}/+ é`;
}

/** The ways in which a text may stand in a file or a log. */
function formsOf(secret: string): readonly string[] {
  const bytes = Buffer.from(secret);
  const shifted = [0, 1, 2].flatMap((shift) => {
    const padded = Buffer.concat([Buffer.alloc(shift), bytes]);
    // Whole groups of three bytes that are all of the secret: what is around it does not change them.
    const inner = padded.subarray(shift === 0 ? 0 : 3, padded.length - (padded.length % 3));
    return [inner.toString("base64"), inner.toString("base64url")];
  });
  const json = JSON.stringify(secret).slice(1, -1);
  return [
    secret,
    ...shifted,
    bytes.toString("hex"),
    bytes.toString("hex").toUpperCase(),
    encodeURIComponent(secret),
    json,
    JSON.stringify(json).slice(1, -1),
  ];
}

/** Which of the secrets stand in what is shown, in whatever form. */
function leaks(shown: ReadonlyMap<string, string>, secrets: readonly string[]): readonly string[] {
  return [...shown].flatMap(([where, text]) =>
    secrets.flatMap((secret) =>
      formsOf(secret).some((form) => text.includes(form)) ? [`${where}: ${secret}`] : [],
    ),
  );
}

async function contentsOf(folder: string): Promise<readonly (readonly [string, string])[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async (entry) => {
        const path = join(entry.parentPath, entry.name);
        return [path, await readFile(path, "utf8")] as const;
      }),
  );
}

describe("what is secret", () => {
  test("is nowhere but in memory, through the whole life of a sidecar", async () => {
    await using world = await openWorld({ embedded: true });
    await using folder = await temporaryFolder(MEMORY);
    await using repository = await openAppRepository();
    const at = (...names: string[]): string => join(folder.path, ...names);
    const control = world.embedded?.control;
    assert.ok(control !== undefined);
    const [first, second, sealed] = ["kv", "rotated", "sealed"].map(canary);
    assert.ok(first !== undefined && second !== undefined && sealed !== undefined);
    const kv = `${world.names.kv}/data/web/canary`;
    await world.configure("POST", kv, { data: { value: first } });

    // A release with a file that is sealed to the site, and the keys of both kinds as the kubelet mounts them.
    for (const name of ["payload", "seal", "site", "tmp"]) await mkdir(at(name));
    const sealKey = randomBytes(32).toString("base64");
    await writeFile(at("seal", "key"), sealKey);
    await run(["secret", "keygen", "site", "--folder", folder.path]);
    const siteKey = await readFile(at("site.jwk"), "utf8");
    await writeFile(at("site", "key"), siteKey);
    await writeFile(at("db.json"), JSON.stringify({ value: sealed }));
    const seal = ["secret", "seal", "--key", at("site.pub.jwk"), "--in", at("db.json")];
    await run([...seal, "-o", at("db.jwe")]);
    await repository.publish("1", { "db.jwe": await readFile(at("db.jwe"), "utf8") });
    await writeFile(at("ca.crt"), world.ca ?? "");

    const port = await freePort();
    const { EDGESYNC_VAULT_TLS_DIR: _, ...prepared } = await prepareEnvironment(
      world,
      folder.path,
      {
        refreshInterval: "1s",
        secrets: {
          kv: { request: kv, format: "raw:value" },
          db: { request: `${world.names.broker}/creds/app`, format: "json" },
          sealed: { request: "sealed:db.jwe", format: "raw:value" },
        },
      },
    );
    const env = {
      ...prepared,
      EDGESYNC_VAULT_CA_FILE: at("ca.crt"),
      EDGESYNC_POD_NAME: "web",
      EDGESYNC_POD_NAMESPACE: "shop",
      EDGESYNC_POD_UID: "8d8e5c1f",
      EDGESYNC_NODE_NAME: "box",
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: repository.url,
      EDGESYNC_TRUST_ROOT_FILE: repository.root,
      EDGESYNC_PAYLOAD_DIR: at("payload"),
      EDGESYNC_ON_UPDATE: "none",
      EDGESYNC_HEALTH: "none",
      EDGESYNC_LOG_LEVEL: "debug",
      EDGESYNC_OFFLINE_SECRETS: "24h",
      EDGESYNC_OFFLINE_KEY_DIR: at("seal"),
      EDGESYNC_SEALED_KEY_DIR: at("site"),
      EDGESYNC_CONTROL_PORT: String(await freePort()),
      EDGESYNC_PORT: String(port),
      TMPDIR: at("tmp"),
    };
    const shown = new Map<string, string>();
    const secrets = [first, second, sealed, sealKey, (JSON.parse(siteKey) as { d: string }).d];
    secrets.push(await readFile(at("token"), "utf8"));
    const get = (path: string): Promise<string> =>
      fetch(`http://127.0.0.1:${port}${path}`).then(
        (response) => response.text(),
        () => "",
      );
    const published = (name: string): Promise<string> =>
      readFile(at("volume", "set", name), "utf8").catch(() => "");
    // As something that nobody expected: what is then written must hold nothing either.
    const crash = `data:text/javascript,${encodeURIComponent(
      'process.on("SIGUSR2", () => { throw new Error("an accident of the test"); });',
    )}`;
    const start = (): Program => startNode(["--import", crash, BIN, "agent"], env);
    const look = async (life: string, program: Program): Promise<void> => {
      for (const path of ["/metrics", "/status", "/ready", "/startup"])
        shown.set(`${life} ${path}`, await get(path));
      for (const file of ["environ", "cmdline"])
        shown.set(`${life} ${file}`, await readFile(`/proc/${program.pid}/${file}`, "utf8"));
    };
    const until = async (reached: () => Promise<boolean>, what: string, program: Program) =>
      await eventually(
        async () => ((await reached()) ? true : undefined),
        () => `${what}\n${program.output().slice(-3_000)}`,
        30_000,
      );

    {
      await using program = start();
      const isWhole = async (): Promise<boolean> =>
        (await get("/startup")) !== "" &&
        (await published("kv")) === first &&
        (await published("sealed")) === sealed;
      await until(isWhole, "the first set", program);
      const { token, secrets: saved } = await savedState(folder.path);
      secrets.push(token.token, token.accessor);
      for (const { data } of saved) if ("password" in data) secrets.push(data.password);
      await world.configure("POST", kv, { data: { value: second } });
      await until(async () => (await published("kv")) === second, "the rotation", program);
      const seen = program.output().length;
      control.faults(
        { path: /web\/canary$/, status: 500, body: JSON.stringify({ errors: [second] }) },
        { path: /renew|creds/, status: 403, body: second },
      );
      await until(
        () => Promise.resolve(program.output().slice(seen).includes("VAULT_UNAVAILABLE")),
        "an error of Vault's that quotes a secret",
        program,
      );
      process.kill(program.pid, "SIGUSR2");
      await until(
        () => Promise.resolve(program.output().includes("uncaught exception")),
        "the accident",
        program,
      );
      await until(
        async () => (await readdir(at("payload", "offline"))).length > 0,
        "the sealed set",
        program,
      );
      await look("first", program);
      assert.equal(await program.end("SIGTERM"), 0);
      shown.set("first log", program.output());
    }
    control.faults();
    control.seal(true);
    await rm(at("volume"), { recursive: true });
    await mkdir(at("volume"));
    {
      await using program = start();
      await until(async () => (await published("db")) !== "", "the start offline", program);
      await look("second", program);
      assert.match(shown.get("second /status") ?? "", /"offline":true/);
      await program.end("SIGTERM");
      shown.set("second log", program.output());
    }
    for (const name of ["payload", "tmp"])
      for (const [path, text] of await contentsOf(at(name))) shown.set(path, text);
    // The login's token and the keys are files of volumes that Kubernetes mounts, which are not written.
    assert.deepEqual(leaks(shown, secrets), []);
    assert.ok(shown.size > 12, [...shown.keys()].join("\n"));

    // The search itself finds what it should, in each form.
    for (const form of formsOf(second))
      assert.equal(leaks(new Map([["a log", `x${form}x`]]), [second]).length, 1, form);
  });
});
