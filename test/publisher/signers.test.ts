import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { generateKeyPairSync, sign, verify } from "node:crypto";
import { chmod, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { openKeyring } from "../../publisher/keys.ts";
import type { SigningKey } from "../../publisher/keys.ts";
import { keyObject } from "../../publisher/public-keys.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openSites } from "./clients.ts";
import { run } from "./shell.ts";
import { edgesync, makePublisher } from "./world.ts";

const execute = promisify(execFile);
const DATA = Buffer.from("what is signed");

interface Signing {
  readonly folder: string;
  /** A signer of this command, which runs in the folder of the keys. */
  open(command: readonly string[], timeoutSeconds?: number): Promise<SigningKey>;
}

/** A folder with a key that only `openssl` reads, as if it were a card. */
async function openFolder(folder: string): Promise<Signing> {
  await mkdir(folder, { recursive: true });
  const generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  await execute("openssl", [...generate, "-out", join(folder, "card.secret")]);
  const open = ["pkey", "-in", join(folder, "card.secret"), "-pubout"];
  const { stdout } = await execute("openssl", open);
  return {
    folder,
    async open(command, timeoutSeconds) {
      const description = { public: stdout, command, timeoutSeconds };
      await writeFile(join(folder, "card.signer.json"), JSON.stringify(description));
      const { keys, closed } = await openKeyring(folder, undefined).load();
      assert.deepEqual(closed, []);
      const [key] = keys;
      assert.ok(key);
      return key;
    },
  };
}

const DIGEST = ["openssl", "dgst", "-sha256", "-sign"];
const OPENSSL = [...DIGEST, "card.secret"];

/** A command that is a few words of JavaScript. */
function script(text: string): readonly string[] {
  return [process.execPath, "-e", text];
}

const SIGN = `
  const { sign } = require("node:crypto");
  const key = require("node:fs").readFileSync("card.secret");
  const data = require("node:fs").readFileSync(0);
`;

async function check(key: SigningKey): Promise<void> {
  const signature = Buffer.from(await key.sign(DATA), "hex");
  assert.ok(verify("sha256", DATA, keyObject(key.key), signature));
}

describe("a key that a command signs with", () => {
  test("is taken as DER, as base64, and as the two numbers that cards give", async () => {
    await using temporary = await temporaryFolder();
    const signing = await openFolder(temporary.path);
    await check(await signing.open(OPENSSL));
    await check(await signing.open(["sh", "-c", `${OPENSSL.join(" ")} | base64`]));
    const pair = `${SIGN} process.stdout.write(sign("sha256", data, { key, dsaEncoding: "ieee-p1363" })`;
    // Several, since some of the numbers begin with zeros or with a one.
    for (let count = 0; count < 4; count++) await check(await signing.open(script(`${pair});`)));
    await check(await signing.open(script(`${pair}.toString("base64"));`)));
  });

  test("may be an Ed25519 key, whose signature is 64 bytes", async () => {
    await using temporary = await temporaryFolder();
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const at = (name: string): string => join(temporary.path, name);
    await writeFile(at("card.secret"), privateKey.export({ type: "pkcs8", format: "pem" }));
    await writeFile(at("card.pub"), publicKey.export({ type: "spki", format: "pem" }));
    const command = script(`${SIGN} console.log(sign(null, data, key).toString("base64"));`);
    // The public key may be a file beside it.
    await writeFile(at("card.signer.json"), JSON.stringify({ public: "card.pub", command }));
    const [key] = (await openKeyring(temporary.path, undefined).load()).keys;
    assert.equal(await key?.sign(DATA), sign(null, DATA, privateKey).toString("hex"));
  });

  test("that hangs, lies, talks nonsense or fails is told from one that signs", async () => {
    await using temporary = await temporaryFolder();
    const signing = await openFolder(temporary.path);
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
    await writeFile(
      join(temporary.path, "other.secret"),
      other.export({ type: "pkcs8", format: "pem" }),
    );
    const lie = [...DIGEST, "other.secret"];
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [lie, /not one of its public key/],
      [["echo", "hello"], /6 bytes that are no signature/],
      [["true"], /0 bytes that are no signature/],
      [["sh", "-c", "head -c 100000 /dev/zero"], /more than/],
      [
        ["sh", "-c", "echo first; echo the card is locked >&2; exit 3"],
        /ends with 3: the card is locked$/,
      ],
      [["sh", "-c", "kill -9 $$"], /ends with SIGKILL/],
      [["./no-such-program"], /cannot be started/],
    ];
    for (const [command, message] of cases) {
      const key = await signing.open(command);
      await assert.rejects(key.sign(DATA), { code: "SIGNER_FAILED", message });
    }
    // The shell's child goes on holding the pipe; it is not waited for.
    const key = await signing.open(["sh", "-c", "sleep 30 & sleep 30"], 1);
    const started = performance.now();
    await assert.rejects(key.sign(DATA), { code: "SIGNER_FAILED", message: /within 1 s/ });
    assert.ok(performance.now() - started < 10_000);
  });

  test("is not waited for when the person gives up", async () => {
    await using temporary = await temporaryFolder();
    const signing = await openFolder(temporary.path);
    await signing.open(["sleep", "30"]);
    const stop = new AbortController();
    const keyring = openKeyring(temporary.path, undefined, { signal: stop.signal });
    const [key] = (await keyring.load()).keys;
    const reason = new Error("stopped");
    const signature = key?.sign(DATA);
    stop.abort(reason);
    await assert.rejects(signature ?? Promise.resolve(), reason);
  });

  test("shows people what it says", async () => {
    await using temporary = await temporaryFolder();
    const signing = await openFolder(temporary.path);
    await signing.open(["sh", "-c", `echo touch the key >&2; ${OPENSSL.join(" ")}`]);
    let said = "";
    const tell = (text: string): void => void (said += text);
    const [key] = (await openKeyring(temporary.path, undefined, { tell }).load()).keys;
    await key?.sign(DATA);
    assert.equal(said, "touch the key\n");
  });

  test("is not described by just anything", async () => {
    await using temporary = await temporaryFolder();
    const path = join(temporary.path, "card.signer.json");
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey;
    for (const description of [
      "no json",
      "{}",
      JSON.stringify({ public: "nowhere.pub", command: ["true"] }),
      JSON.stringify({ public: "x", command: [] }),
      JSON.stringify({ public: rsa.export({ type: "spki", format: "pem" }), command: ["true"] }),
    ]) {
      await writeFile(path, description);
      const { keys, closed } = await openKeyring(temporary.path, undefined).load();
      assert.equal(keys.length, 0);
      assert.equal(closed[0]?.problem.code, "KEY_INVALID", description);
    }
  });

  test("signs for a role from the beginning, or takes it over, and sites follow", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    await publisher.add("1", { file: "one" });
    await publisher.add("2", { file: "two" });
    await publisher.set("1");
    await using sites = await openSites(repository, join(folder, "oracle"));
    assert.equal(await sites.look(), "1");
    const signing = await openFolder(keys);
    await signing.open(OPENSSL);
    const here = ["--repository", repository, "--keys", keys];
    for (const role of ["timestamp", "channel.web.stable"])
      await run(["key", "rotate", role, "--with", "card", ...here]);
    for (const role of ["timestamp", "channel.web.stable"]) await rm(join(keys, `${role}.pem`));
    await publisher.set("2");
    assert.equal(await sites.look(), "2");
    const { json } = await run(["key", "list", ...here]);
    assert.ok(Array.isArray(json["keys"]));
    assert.deepEqual(
      json["keys"].filter(({ name }) => name === "card").map(({ role, type }) => [role, type]),
      [
        ["timestamp", "ecdsa"],
        ["channel.web.stable", "ecdsa"],
      ],
    );
    // As a process, which keeps its secrets to itself.
    await signing.open(["sh", "-c", `env | grep EDGESYNC_ >&2 && exit 9; ${OPENSSL.join(" ")}`]);
    const env = { EDGESYNC_PASSPHRASE: "secret", EDGESYNC_KEY_OTHER: "a key" };
    const signed = await edgesync(["refresh", repository, "--keys", keys], { env });
    assert.equal(signed.status, 0, signed.stderr);
    await signing.open(["false"]);
    const ran = await edgesync(["channel", "set", "web/stable", "2", ...here]);
    assert.equal(ran.status, 69);
    assert.match(ran.stderr, /^edgesync: SIGNER_FAILED: .*card\.signer\.json ends with 1\. /);
    assert.equal(await sites.look(), "2");
  });
});

describe("edgesync init", () => {
  test("takes keys that exist, behind a command and in the environment, and makes the others", async () => {
    await using temporary = await temporaryFolder();
    const at = (name: string): string => join(temporary.path, name);
    const signing = await openFolder(at("keys"));
    await signing.open(OPENSSL);
    await run(["key", "create", "root", "--keys", at("elsewhere"), "--type", "ecdsa"]);
    const environment = {
      EDGESYNC_KEY_ROOT: await readFile(join(at("elsewhere"), "root.pem"), "utf8"),
    };
    const here = ["--keys", at("keys")];
    const card = ["--key", "timestamp=card", "--key", `snapshot=${at("keys/card.signer.json")}`];
    await run(["init", at("repository"), ...here, ...card], { environment });
    const repository = ["--repository", at("repository")];
    const { json } = await run(["key", "list", ...repository, ...here], { environment });
    assert.ok(Array.isArray(json["keys"]));
    assert.deepEqual(
      json["keys"].map(({ role, name, type }) => [role, name, type]),
      [
        ["root", "root", "ecdsa"],
        ["targets", "targets", "ed25519"],
        ["snapshot", "card", "ecdsa"],
        ["timestamp", "card", "ecdsa"],
      ],
    );
    assert.deepEqual((await readdir(at("keys"))).toSorted(), [
      "card.secret",
      "card.signer.json",
      "targets.pem",
      "targets.pub",
    ]);
    assert.equal((await edgesync(["verify", at("repository")])).status, 0);
  });
});

describe("a folder of keys", () => {
  test("holds the names of programs that it starts itself", async () => {
    await using temporary = await temporaryFolder();
    const signing = await openFolder(temporary.path);
    const program = join(temporary.path, "sign.sh");
    await writeFile(program, `#!/bin/sh\nexec ${OPENSSL.join(" ")}\n`);
    await chmod(program, 0o755);
    await check(await signing.open(["./sign.sh"]));
    assert.match((await readFile(program)).toString(), /openssl/);
  });
});
