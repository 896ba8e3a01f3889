import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createPrivateKey } from "node:crypto";
import { copyFile, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { initRepository } from "../../publisher/init.ts";
import { openKeyring, variableOf } from "../../publisher/keys.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openSites } from "./clients.ts";
import { run } from "./shell.ts";
import { edgesync, makePublisher } from "./world.ts";
import type { Publisher } from "./world.ts";

const execute = promisify(execFile);

async function makeFull(): Promise<Publisher> {
  const publisher = await makePublisher();
  await publisher.add("1", { file: "one" });
  await publisher.add("2", { file: "two" });
  await publisher.set("1");
  return publisher;
}

function here({ repository, keys }: Publisher): readonly string[] {
  return ["--repository", repository, "--keys", keys];
}

describe("edgesync key create", () => {
  test("makes a private file and one to give away, of either type", async () => {
    await using folder = await temporaryFolder();
    const keys = ["--keys", folder.path];
    for (const [name, type] of [
      ["alice", "ed25519"],
      ["bob", "ecdsa"],
    ] as const) {
      const args = ["key", "create", name, ...(type === "ecdsa" ? ["--type", type] : []), ...keys];
      const { json } = await run(args);
      assert.equal((await stat(join(folder.path, `${name}.pem`))).mode & 0o777, 0o600);
      assert.match(await readFile(join(folder.path, `${name}.pub`), "utf8"), /^-----BEGIN PUBLIC/);
      const found = (await openKeyring(folder.path, undefined).load()).keys;
      assert.equal(found.find((key) => key.name === name)?.id, json["id"]);
      assert.equal(json["type"], type);
    }
    await assert.rejects(run(["key", "create", "alice", ...keys]), { code: "KEY_INVALID" });
    await assert.rejects(run(["key", "create", "../x", ...keys]), { code: "USAGE" });
    await assert.rejects(run(["key", "create", "x", "--type", "rsa", ...keys]), { code: "USAGE" });
  });

  test("encrypts with PBES2, which OpenSSL opens, and opens what OpenSSL has made", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    await run(["key", "create", "alice", "--keys", folder.path], { passphrase: "open sesame" });
    const parsed = await execute("openssl", ["asn1parse", "-in", at("alice.pem")]);
    assert.match(parsed.stdout, /:PBES2[\s\S]*:PBKDF2[\s\S]*:aes-256-cbc/);
    const plain = ["pkcs8", "-in", at("alice.pem"), "-passin", "pass:open sesame"];
    const { stdout } = await execute("openssl", plain);
    assert.equal(createPrivateKey(stdout).asymmetricKeyType, "ed25519");
    const generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const encrypted = ["-aes-256-cbc", "-pass", "pass:open sesame", "-out", at("bob.pem")];
    await execute("openssl", [...generate, ...encrypted]);
    const { keys, closed } = await openKeyring(folder.path, "open sesame").load();
    assert.deepEqual(
      keys.map(({ name, key }) => [name, key.keytype]),
      [
        ["alice", "ed25519"],
        ["bob", "ecdsa"],
      ],
    );
    assert.deepEqual(closed, []);
    const others = await openKeyring(folder.path, "wrong").load();
    assert.deepEqual([others.keys.length, others.closed.length], [0, 2]);
    // Which key it is can be seen all the same.
    assert.equal(others.closed[0]?.public?.id, keys[0]?.id);
  });
});

describe("edgesync key list", () => {
  test("tells who signs for what, where the keys are, and until when it holds", async () => {
    await using publisher = await makeFull();
    const { keys } = publisher;
    await rename(join(keys, "app.web.pem"), join(keys, "builder.pem"));
    await rm(join(keys, "root.pem"));
    await run(["key", "create", "spare", "--keys", keys]);
    await execute("openssl", ["genpkey", "-algorithm", "X25519", "-out", join(keys, "other.pem")]);
    const { lines, json } = await run(["key", "list", ...here(publisher)]);
    assert.ok(Array.isArray(json["keys"]));
    const listed = json["keys"].map(({ role, name, type, where, expires }) => [
      role,
      name,
      type,
      where?.replace(`${keys}/`, "") ?? null,
      /^\d{4}-\d\d-\d\dT/.test(expires),
    ]);
    assert.deepEqual(listed, [
      ["root", "root", "ed25519", null, true],
      ["targets", "targets", "ed25519", "targets.pem", true],
      ["snapshot", "snapshot", "ed25519", "snapshot.pem", true],
      ["timestamp", "timestamp", "ed25519", "timestamp.pem", true],
      ["app.web", "app.web", "ed25519", "builder.pem", true],
      ["channel.web.stable", "channel.web.stable", "ed25519", "channel.web.stable.pem", true],
      [null, "spare", "ed25519", "spare.pem", false],
    ]);
    assert.match(lines.join("\n"), /^ROLE +KEY +NAME +TYPE +SIGNED UNTIL +WHERE\nroot /);
    assert.match(lines.join("\n"), /not here\n/);
    assert.match(lines.at(-1) ?? "", /other\.pem is a key of another kind/);
  });
});

describe("a key", () => {
  test("is found by what it is, under any name", async () => {
    await using publisher = await makeFull();
    const { keys, repository } = publisher;
    for (const [index, role] of ["app.web", "snapshot", "timestamp"].entries())
      await rename(join(keys, `${role}.pem`), join(keys, `key-${index}.pem`));
    await publisher.add("3", { file: "three" });
    // And under a name that is another's it is no other.
    await copyFile(join(keys, "key-0.pem"), join(keys, "snapshot.pem"));
    await publisher.set("3");
    assert.equal((await edgesync(["verify", repository])).status, 0);
  });

  test("may come from the environment, for a role that exists and for a new one", async () => {
    await using publisher = await makeFull();
    const { keys, repository } = publisher;
    const env: Record<string, string> = {};
    for (const role of ["channel.web.stable", "snapshot", "timestamp"]) {
      env[variableOf(role)] = await readFile(join(keys, `${role}.pem`), "utf8");
      await rm(join(keys, `${role}.pem`));
    }
    await run(["key", "create", "beta", "--keys", join(publisher.folder, "beta")]);
    const beta = await readFile(join(publisher.folder, "beta", "beta.pem"), "utf8");
    env[variableOf("channel.web.beta")] = beta;
    assert.ok("EDGESYNC_KEY_CHANNEL_WEB_BETA" in env);
    for (const channel of ["web/stable", "web/beta"]) {
      const ran = await edgesync(["channel", "set", channel, "2", ...here(publisher)], { env });
      assert.equal(ran.status, 0, ran.stderr);
    }
    await assert.rejects(stat(join(keys, "channel.web.beta.pem")), { code: "ENOENT" });
    const { json } = await run(["key", "list", ...here(publisher)], { environment: env });
    assert.ok(Array.isArray(json["keys"]));
    const where = json["keys"].find(({ role }) => role === "timestamp").where;
    assert.equal(where, "EDGESYNC_KEY_TIMESTAMP");
    assert.equal((await edgesync(["verify", repository])).status, 0);
  });

  test("that is missing is named, with what could not be opened", async () => {
    await using publisher = await makeFull();
    const { keys } = publisher;
    await writeFile(join(keys, "timestamp.pem"), "not a key");
    await assert.rejects(publisher.set("2"), {
      code: "KEY_INVALID",
      message: /role timestamp needs 1 of its 1 keys, and 0 .*timestamp\.pem is not a private key/,
    });
  });
});

describe("a repository", () => {
  test("may have ECDSA keys all through, and sites of both makes follow", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    await run(["init", at("repository"), "--keys", at("keys"), "--type", "ecdsa"]);
    const options = ["--repository", at("repository"), "--keys", at("keys")];
    const keyring = openKeyring(at("keys"), undefined);
    for (const role of ["app.web", "channel.web.stable"]) await keyring.create(role, "ecdsa");
    const tree = join(folder.path, "tree");
    await execute("mkdir", ["-p", tree]);
    await writeFile(join(tree, "file"), "one");
    const name = ["--app", "web", "--version", "1", "--platform", "linux-x64"];
    await run(["release", "add", tree, ...name, ...options]);
    await run(["channel", "set", "web/stable", "1", ...options]);
    await using sites = await openSites(at("repository"), at("oracle"));
    assert.equal(await sites.look(), "1");
  });

  test("that init has begun twice at once is made once", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    const keyring = openKeyring(at("keys"), undefined);
    await initRepository(at("repository"), keyring, Date.now());
    await assert.rejects(initRepository(at("repository"), keyring, Date.now()), {
      code: "REPOSITORY_INVALID",
    });
  });
});

describe("a channel that two people have to sign", () => {
  test("is published with both keys, and with no single one", async () => {
    await using publisher = await makeFull();
    const { repository, keys, folder } = publisher;
    await using sites = await openSites(repository, join(folder, "oracle"));
    assert.equal(await sites.look(), "1");
    const role = "channel.web.stable";
    await run(["key", "create", "alice", "--keys", keys]);
    await run(["key", "create", "bob", "--keys", keys, "--type", "ecdsa"]);
    const people = ["--add", "alice", "--add", join(keys, "bob.pub"), "--remove", role];
    await run(["role", "change", role, ...people, "--threshold", "2", ...here(publisher)]);
    assert.equal(await sites.look(), "1");
    const shown = await run(["role", "show", role, "--repository", repository]);
    assert.match(shown.lines[0] ?? "", /^channel\.web\.stable: 2 of 2: alice \(.*\), bob \(/);
    await publisher.set("2");
    assert.equal(await sites.look(), "2");
    await rename(join(keys, "bob.pem"), join(folder, "bob.pem"));
    await assert.rejects(publisher.set("2"), {
      code: "KEY_INVALID",
      message: /channel\.web\.stable needs 2 of its 2 keys, and 1 /,
    });
    await rename(join(folder, "bob.pem"), join(keys, "bob.pem"));
    // One of several is rotated when it is named.
    const rotate = ["key", "rotate", role, ...here(publisher)];
    await assert.rejects(run(rotate), { code: "USAGE", message: /alice .*bob/ });
    await run([...rotate, "--replace", "bob"]);
    assert.equal(await sites.look(), "2");
    await assert.rejects(run(["role", "change", role, ...here(publisher)]), { code: "USAGE" });
    await assert.rejects(run(["role", "change", role, "--threshold", "3", ...here(publisher)]), {
      code: "USAGE",
    });
  });
});
