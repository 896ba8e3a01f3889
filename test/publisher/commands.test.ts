import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/temporary.ts";
import { edgesync, makePublisher, makeTree, prose } from "./world.ts";

describe("edgesync init", () => {
  test("makes a repository, and apart from it keys that only their owner can read", async () => {
    await using folder = await temporaryFolder();
    const [repository, keys] = [join(folder.path, "repository"), join(folder.path, "keys")];
    const made = await edgesync(["init", repository, "--keys", keys, "--json"]);
    assert.equal(made.status, 0, made.stderr);
    assert.deepEqual(JSON.parse(made.stdout), {
      repository,
      keys,
      root: join(repository, "metadata", "1.root.json"),
    });
    assert.deepEqual(await readdir(repository), ["metadata"]);
    for (const role of ["root", "targets", "snapshot", "timestamp"]) {
      assert.equal((await stat(join(keys, `${role}.pem`))).mode & 0o777, 0o600);
      assert.match(
        await readFile(join(keys, `${role}.pem`), "utf8"),
        /^-----BEGIN PRIVATE KEY-----/,
      );
    }
    assert.equal((await edgesync(["verify", repository])).status, 0);
  });

  test("overwrites nothing", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    const again = await edgesync(["init", repository, "--keys", join(folder, "other")]);
    assert.equal(again.status, 66);
    assert.match(again.stderr, /^edgesync: REPOSITORY_INVALID: .*metadata/);
    const keysExist = await edgesync(["init", join(folder, "new"), "--keys", keys]);
    assert.equal(keysExist.status, 77);
    assert.match(keysExist.stderr, /^edgesync: KEY_INVALID: /);
  });

  test("refuses keys inside the repository, also by way of a symlink", async () => {
    await using folder = await temporaryFolder();
    const repository = join(folder.path, "repository");
    await makeTree(folder.path, { alias: { link: "repository" } });
    for (const keys of [repository, join(repository, "keys"), join(folder.path, "alias", "keys")]) {
      await makeTree(repository, {});
      const ran = await edgesync(["init", repository, "--keys", keys]);
      assert.equal(ran.status, 77);
      assert.match(ran.stderr, /^edgesync: REPOSITORY_UNSAFE: /);
    }
  });

  test("encrypts the keys with a passphrase, without which nothing is signed", async () => {
    await using folder = await temporaryFolder();
    const [repository, keys] = [join(folder.path, "repository"), join(folder.path, "keys")];
    const file = join(folder.path, "passphrase");
    await writeFile(file, "open sesame\n");
    const env = { EDGESYNC_PASSPHRASE: "open sesame" };
    assert.equal((await edgesync(["init", repository, "--keys", keys], { env })).status, 0);
    assert.match(
      await readFile(join(keys, "root.pem"), "utf8"),
      /^-----BEGIN ENCRYPTED PRIVATE KEY/,
    );
    const refresh = ["refresh", repository, "--keys", keys];
    assert.equal((await edgesync([...refresh, "--passphrase-file", file])).status, 0);
    for (const passphrase of ["", "wrong"]) {
      const ran = await edgesync(refresh, { env: { EDGESYNC_PASSPHRASE: passphrase } });
      assert.equal(ran.status, 77);
      assert.match(ran.stderr, /^edgesync: KEY_INVALID: .*passphrase/);
    }
  });

  test("makes no keys when the variable for the passphrase is empty", async () => {
    await using folder = await temporaryFolder();
    const [repository, keys] = [join(folder.path, "repository"), join(folder.path, "keys")];
    const env = { EDGESYNC_PASSPHRASE: "" };
    const ran = await edgesync(["init", repository, "--keys", keys], { env });
    assert.equal(ran.status, 77);
    assert.match(ran.stderr, /^edgesync: KEY_INVALID: EDGESYNC_PASSPHRASE is empty/);
    assert.deepEqual(await readdir(folder.path), []);
  });

  test("makes no keys when the passphrase file holds none", async () => {
    await using folder = await temporaryFolder();
    const [repository, keys] = [join(folder.path, "repository"), join(folder.path, "keys")];
    const file = join(folder.path, "passphrase");
    await writeFile(file, "\n");
    const ran = await edgesync(["init", repository, "--keys", keys, "--passphrase-file", file]);
    assert.equal(ran.status, 77);
    assert.match(ran.stderr, /^edgesync: KEY_INVALID: .*passphrase/);
    assert.deepEqual(await readdir(folder.path), ["passphrase"]);
  });
});

describe("edgesync release add and channel set", () => {
  test("publish a folder, then its successor with a delta, then point a channel at it", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    const text = prose(300_000, 1);
    await makeTree(join(folder, "one"), {
      "bin/app": { mode: 0o755, text },
      run: { link: "bin/app" },
    });
    await makeTree(join(folder, "two"), {
      "bin/app": { mode: 0o755, text: `${text}more` },
      note: "new",
    });
    const common = ["--repository", repository, "--keys", keys, "--json"];
    const release = ["--app", "web", "--platform", "linux-x64", ...common];
    const add = (name: string, version: string): ReturnType<typeof edgesync> =>
      edgesync(["release", "add", join(folder, name), "--version", version, ...release]);

    const first = await add("one", "1");
    assert.equal(first.status, 0, first.stderr);
    assert.equal(first.stderr, "");
    const second = await add("two", "2");
    const { updates, fullBytes } = JSON.parse(second.stdout);
    assert.equal(updates[0].from, "1");
    assert.ok(updates[0].bytes < fullBytes / 10, second.stdout);

    const again = await add("two", "2");
    assert.equal(JSON.parse(again.stdout).isNew, false);
    const other = await add("one", "2");
    assert.equal(other.status, 65);
    assert.match(other.stderr, /^edgesync: RELEASE_INVALID: .*2\/linux-x64/);

    for (const sequence of [1, 2]) {
      const set = await edgesync(["channel", "set", "web/stable", "2", ...common]);
      assert.deepEqual(JSON.parse(set.stdout), {
        schema: 1,
        app: "web",
        channel: "stable",
        sequence,
        releases: [{ platform: "linux-x64", version: "2" }],
      });
    }
    const missing = await edgesync(["channel", "set", "web/stable", "3", ...common]);
    assert.equal(missing.status, 66);
    assert.match(missing.stderr, /^edgesync: RELEASE_NOT_FOUND: /);
    const verified = await edgesync(["verify", repository, "--json"]);
    const { good, channels, releases } = JSON.parse(verified.stdout);
    assert.deepEqual({ good, channels, releases }, { good: true, channels: 1, releases: 2 });
  });

  test("name everything that a release cannot carry, at once", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    const tree = await makeTree(join(folder, "bad"), {
      "a/Same": "",
      "a/same": "",
      "caf\u00e9": "",
      "cafe\u0301": "",
      out: { link: "../../etc/passwd" },
      absolute: { link: "/etc/passwd" },
      devious: { link: "a/../../x" },
      "line\nfeed": "",
      "back\\slash": "",
      fine: "",
      inside: { link: "a/Same" },
    });
    await writeFile(join(tree, "root"), "");
    await chmod(join(tree, "root"), 0o4755);
    await promisify(execFile)("mkfifo", [join(tree, "pipe")]);
    const options = ["--repository", repository, "--keys", keys, "--app", "web", "--version", "1"];
    const ran = await edgesync(["release", "add", tree, ...options, "--platform", "linux-x64"]);
    assert.equal(ran.status, 65);
    assert.match(ran.stderr, /^edgesync: TREE_INVALID: [^\n]*\n$/);
    for (const name of [
      "a/Same",
      "caf\u00e9",
      "out",
      "absolute",
      "devious",
      "line",
      "back",
      "root",
      "pipe",
    ])
      assert.ok(ran.stderr.includes(name), `${name} in ${ran.stderr}`);
    for (const name of ["fine", "inside"]) assert.ok(!ran.stderr.includes(name));
    assert.deepEqual(await readdir(join(repository, "metadata")).then((names) => names.length), 4);
  });

  test("refuse another key than the one that the repository names", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository, keys, folder } = publisher;
    await using other = await makePublisher();
    await other.add("1", { file: "one" });
    const tree = await makeTree(join(folder, "two"), { file: "two" });
    const add = [
      "release",
      "add",
      tree,
      "--repository",
      repository,
      "--app",
      "web",
      "--version",
      "2",
    ];
    const wrong = await edgesync([...add, "--platform", "linux-x64", "--keys", other.keys]);
    assert.equal(wrong.status, 77);
    assert.match(wrong.stderr, /^edgesync: KEY_INVALID: /);
    await rm(join(keys, "app.web.pem"));
    const none = await edgesync([...add, "--platform", "linux-x64", "--keys", keys]);
    assert.match(none.stderr, /^edgesync: KEY_INVALID: .*app\.web/);
  });
});

describe("the command line", () => {
  test("answers what it does not know with one line and status 64", async () => {
    for (const args of [
      ["frobnicate"],
      ["release"],
      ["init", "a", "b", "--keys", "k"],
      ["release", "add", "--app", "web", "--version", "1", "--platform", "linux-x64"],
      ["release", "add", ".", "--version", "1", "--platform", "linux-x64"],
      ["channel", "set", "web/stable"],
      ["verify", "a", "--nope"],
      ["serve", "a", "--port", "http"],
      ["channel", "set", "web", "1", "--keys", "k", "--repository", "r"],
      [
        "release",
        "add",
        ".",
        "--repository",
        "r",
        "--keys",
        "k",
        "--app",
        "9",
        "--version",
        "1",
        "--platform",
        "linux-x64",
      ],
    ]) {
      const ran = await edgesync(args);
      const expected = args[0] === "serve" ? 66 : 64;
      assert.equal(ran.status, expected, `${args.join(" ")}: ${ran.stderr}`);
      assert.match(ran.stderr, /^edgesync: [A-Z_]+: [^\n]+\n$/);
      assert.equal(ran.stdout, "");
    }
  });

  test("explains itself", async () => {
    const overview = await edgesync(["--help"]);
    assert.equal(overview.status, 0);
    for (const name of ["init", "release add", "channel set", "refresh", "serve", "verify"]) {
      assert.ok(overview.stdout.includes(`  ${name} `));
      const help = await edgesync([...name.split(" "), "--help"]);
      assert.equal(help.status, 0);
      assert.match(help.stdout, /\nExamples?:\n  edgesync /);
    }
    assert.match((await edgesync(["--version"])).stdout, /^\d+\.\d+\.\d+\n$/);
  });
});

describe("a first try", () => {
  test("needs no options for the folders: they lie side by side where one stands", async () => {
    await using folder = await temporaryFolder();
    await makeTree(join(folder.path, "site"), { "index.html": "hello" });
    const here = { cwd: folder.path };
    const name = ["--app", "web", "--version", "1.0.0", "--platform", "linux-x64"];
    for (const args of [
      ["init"],
      ["release", "add", ...name, "site"],
      ["channel", "set", "web/stable", "1.0.0"],
      ["verify"],
    ]) {
      const ran = await edgesync(args, here);
      assert.equal(ran.status, 0, ran.stderr);
    }
    assert.deepEqual((await readdir(folder.path)).toSorted(), ["keys", "repository", "site"]);
  });
});

describe("the help", () => {
  test("of a group of commands is that of each of them", async () => {
    const ran = await edgesync(["release", "--help"]);
    assert.equal(ran.status, 0);
    assert.match(ran.stdout, /edgesync release add/);
  });

  test("of a word that is no command names those that are", async () => {
    const ran = await edgesync(["relaese", "add"]);
    assert.equal(ran.status, 64);
    assert.match(ran.stderr, /"relaese add" is not a command; expected init, release add, /);
  });
});
