import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/temporary.ts";
import { helpOf, optionRows, parseArguments } from "../../publisher/command.ts";
import { COMMANDS } from "../../publisher/commands.ts";
import { run } from "./shell.ts";
import { edgesync, makePublisher, makeTree, prose } from "./world.ts";
import type { Ran } from "./world.ts";

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
      ["init", ""],
      ["verify", ""],
      ["sync", "out", "--repository", ""],
      ["release", "add", "", "--app", "web", "--version", "1", "--platform", "linux-x64"],
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

describe("the table of commands", () => {
  for (const command of COMMANDS)
    test(`shows how ${command.name} is used, with examples that it takes`, () => {
      const help = helpOf(command);
      assert.ok(help.startsWith(`edgesync ${command.name}`));
      for (const { name } of optionRows(command)) assert.ok(help.includes(`--${name} `), name);
      for (const example of [command.example, ...(command.examples ?? [])]) {
        const [, line = ""] = /edgesync ([^|>)]*)/.exec(example) ?? [];
        const words = line.trim().split(" ");
        assert.equal(words.slice(0, command.name.split(" ").length).join(" "), command.name);
        const parsed = parseArguments(command, words.slice(command.name.split(" ").length));
        assert.equal(parsed.help, false);
      }
    });
});

describe("channels, followed through their life", () => {
  test("roll out, stop, go on, are promoted and go back; each step can be read as JSON", async () => {
    await using publisher = await makePublisher();
    for (const version of ["1", "2", "3"]) await publisher.add(version, { file: version });
    const { repository, keys } = publisher;
    const run = async (...args: readonly string[]): Promise<Ran & { json: ChannelJson }> => {
      const where = ["--repository", repository, "--keys", keys, "--json"];
      const ran = await edgesync(["channel", ...args, ...where]);
      return { ...ran, json: ran.stdout === "" ? {} : JSON.parse(ran.stdout) };
    };
    const versions = ({ json }: { json: ChannelJson }): unknown =>
      json.releases?.map(({ version }) => version);
    assert.deepEqual(versions(await run("set", "web/edge", "2")), ["2"]);
    assert.equal((await run("set", "web/edge", "1")).status, 77);
    const started = await run("rollout", "web/edge", "3", "--duration", "1d", "--percent", "0.5");
    assert.deepEqual(
      [started.json.rollout?.duration, started.json.rollout?.percent, started.json.complete],
      [86_400, 0.5, false],
    );
    assert.deepEqual(started.json.rollout?.from, [{ platform: "linux-x64", version: "2" }]);
    assert.equal((await run("pause", "web/edge")).json.rollout?.paused, true);
    assert.equal((await run("promote", "web/edge", "web/stable")).status, 64);
    assert.equal((await run("resume", "web/edge")).json.rollout?.paused, false);
    const promoted = await run("promote", "web/edge", "web/stable", "--minimum", "1");
    assert.deepEqual([versions(promoted), promoted.json.minimum], [["3"], "1"]);
    assert.equal((await run("downgrade", "web/stable", "2")).json.downgrade, true);
    for (const [args, named] of [
      [["rollout", "web/edge", "--percent", "101"], /--percent must be a number from 0 to 100/],
      [["rollout", "web/edge", "--start", "tomorrow"], /--start must be now, a time in UTC/],
      [["rollout", "web/edge", "--duration", "soon"], /--duration must be whole seconds/],
      [["set", "web", "1"], /"web" is not a channel; expected <app>\/<channel>/],
      [["set", "web/edge", "9"], /no release web 9; expected one of 3, 2, 1/],
      [
        ["set", "web/edge", "3", "--platform", "arm"],
        /--platform is "arm"; sites call it linux-arm/,
      ],
    ] as const) {
      const ran = await run(...args);
      assert.ok(ran.status === 64 || ran.status === 66, ran.stderr);
      assert.match(ran.stderr, named);
    }
    const shown = await edgesync(["channel", "show", "web/none", "--repository", repository]);
    assert.match(shown.stderr, /expected one of web\/edge, web\/stable/);
    const diff = await edgesync(["release", "diff", "web", "1", "3", "--repository", repository]);
    assert.match(
      diff.stdout,
      /^~ file {2}1 -> 1 bytes {2}\(content\)\n0 added, 0 removed, 1 changed/,
    );
    const where = ["--repository", repository, "--keys", keys];
    const used = await edgesync(["release", "remove", "web", "1", "2", ...where]);
    assert.equal(used.status, 65);
    assert.match(used.stderr, /^edgesync: RELEASE_IN_USE: web [12] is named by web\//);
    assert.equal((await edgesync(["verify", repository])).status, 0);
  });
});

interface ChannelJson {
  readonly releases?: readonly { readonly version: string }[];
  readonly rollout?: {
    readonly duration: number;
    readonly percent: number;
    readonly paused: boolean;
    readonly from: unknown;
  };
  readonly complete?: boolean;
  readonly minimum?: string;
  readonly downgrade?: boolean;
}

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

describe("a folder in the working folder", () => {
  test("may have a name of one letter", { timeout: 60_000 }, async () => {
    await using folder = await temporaryFolder();
    const ran = await edgesync(["init", "r", "--keys", "k"], { cwd: folder.path });
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual((await readdir(folder.path)).toSorted(), ["k", "r"]);
  });
});

describe("a release", () => {
  test("is never made of the private keys or of the repository, nor of a folder around them", async () => {
    await using publisher = await makePublisher();
    const { folder, repository, keys } = publisher;
    await makeTree(folder, { way: { link: "keys" } });
    const name = ["--app", "web", "--version", "1", "--platform", "linux-x64"];
    const where = ["--repository", repository, "--keys", keys];
    for (const tree of [
      keys,
      folder,
      join(folder, "way"),
      repository,
      join(repository, "metadata"),
    ])
      await assert.rejects(run(["release", "add", tree, ...name, ...where]), {
        code: "TREE_INVALID",
      });
    assert.deepEqual((await run(["release", "list", "--repository", repository])).json, {
      releases: [],
    });
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
    assert.match(ran.stderr, /"relaese add" is not a command; perhaps release add is meant/);
  });
});
