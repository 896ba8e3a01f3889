import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { diskError } from "../../publisher/files.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { run } from "./shell.ts";
import { edgesync, listFiles, makePublisher, makeTree } from "./world.ts";
import type { Publisher } from "./world.ts";

const execute = promisify(execFile);

function here({ repository, keys }: Publisher): readonly string[] {
  return ["--repository", repository, "--keys", keys];
}

const RELEASE = ["--app", "web", "--version", "9", "--platform", "linux-x64"];

describe("a path that is not what a command expects", () => {
  test("is refused by init and sync where a folder is expected", async () => {
    await using publisher = await makePublisher();
    const { folder, repository } = publisher;
    const file = join(folder, "file");
    await writeFile(file, "mine");
    for (const line of [
      ["init", file, "--keys", join(folder, "new-keys")],
      ["init", join(folder, "new"), "--keys", file],
      ["init", join(file, "below"), "--keys", join(folder, "new-keys")],
      ["sync", file, "--repository", repository],
    ])
      await assert.rejects(run(line), { code: "USAGE", message: /file.*expected/ });
    assert.equal(await readFile(file, "utf8"), "mine");
    assert.deepEqual((await readdir(folder)).toSorted(), ["file", "keys", "repository"]);
  });

  test("is refused by export before anything is signed", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    await publisher.set("1");
    const { folder, repository } = publisher;
    const before = await readFile(join(repository, "metadata", "timestamp.json"));
    for (const output of [join(folder, "nope", "x.tar"), folder])
      await assert.rejects(
        run(["export", "web", "--platform", "linux-x64", "--output", output, ...here(publisher)]),
        { code: "USAGE", message: /--output/ },
      );
    assert.deepEqual(await readFile(join(repository, "metadata", "timestamp.json")), before);
  });

  test("is refused by release add where the tree should be", async () => {
    await using publisher = await makePublisher();
    const file = join(publisher.folder, "file");
    await writeFile(file, "no tree");
    for (const tree of [join(publisher.folder, "nope"), file, join(file, "below")])
      await assert.rejects(run(["release", "add", tree, ...RELEASE, ...here(publisher)]), {
        code: "TREE_INVALID",
        message: /expected a folder/,
      });
  });

  test("is told by every common error of the file system, and none is an internal one", () => {
    for (const code of ["ENOENT", "ENOTDIR", "EEXIST", "EISDIR", "ENAMETOOLONG", "ELOOP"]) {
      const error = diskError(Object.assign(new Error(code), { code }), "some/path");
      assert.ok(error instanceof EdgeSyncError);
      assert.equal(error.code, "DISK_FAILED");
      assert.match(error.message, /^some\/path /);
    }
  });
});

describe("verify of a repository in which something is no file", () => {
  async function problemsOf(publisher: Publisher): Promise<readonly string[]> {
    const { json } = await run(["verify", publisher.repository]);
    const { problems } = json as { problems: readonly { code: string }[] };
    return problems.map(({ code }) => code);
  }

  for (const kind of ["folder", "FIFO"] as const) {
    const replace = async (path: string): Promise<void> => {
      await rm(path);
      await (kind === "folder" ? mkdir(path) : execute("mkfifo", [path]));
    };

    test(`reports a ${kind} in the place of a blob, and the rest`, async () => {
      await using publisher = await makePublisher();
      const { repository } = publisher;
      await publisher.add("1", { one: "x".repeat(40_000), two: "y".repeat(90_000) });
      await publisher.set("1");
      const blobs = (await listFiles(repository)).filter((path) => path.startsWith("blobs/"));
      for (const blob of blobs) await replace(join(repository, blob));
      const codes = await problemsOf(publisher);
      assert.ok(codes.length >= blobs.length);
      assert.ok(codes.every((code) => code === "REPOSITORY_INVALID"));
    });

    test(`reports a ${kind} in the place of metadata, and keys beside it`, async () => {
      await using publisher = await makePublisher();
      const { repository, keys } = publisher;
      await replace(join(repository, "metadata", "1.snapshot.json"));
      await copyFile(join(keys, "root.pem"), join(repository, "left.pem"));
      assert.deepEqual(await problemsOf(publisher), ["REPOSITORY_UNSAFE", "REPOSITORY_INVALID"]);
      await replace(join(repository, "metadata", "1.root.json"));
      await assert.rejects(run(["verify", repository]), { code: "REPOSITORY_INVALID" });
    });
  }
});

describe("a private key where it must not be", () => {
  test("is refused in the tree of a release, whatever it is called there", async () => {
    await using publisher = await makePublisher();
    const { folder, keys } = publisher;
    const tree = await makeTree(join(folder, "build"), { "app.js": "1" });
    await mkdir(join(tree, "etc"));
    await copyFile(join(keys, "root.pem"), join(tree, "etc", "settings"));
    await assert.rejects(run(["release", "add", tree, ...RELEASE, ...here(publisher)]), {
      code: "TREE_INVALID",
      message: /etc\/settings/,
    });
    await rm(join(tree, "etc", "settings"));
    await run(["release", "add", tree, ...RELEASE, ...here(publisher)]);
  });

  test("is refused in the folder of a first sync", async () => {
    await using publisher = await makePublisher();
    const { keys, repository } = publisher;
    const before = await readdir(keys);
    await assert.rejects(run(["sync", keys, "--repository", repository]), {
      code: "REPOSITORY_UNSAFE",
      message: /root\.pem/,
    });
    assert.deepEqual(await readdir(keys), before);
  });

  test("is found under the name of a blob that it is not", async () => {
    await using publisher = await makePublisher();
    const { repository, keys } = publisher;
    const name = `blobs/sha256/${"0".repeat(64)}`;
    await mkdir(join(repository, "blobs", "sha256"), { recursive: true });
    await copyFile(join(keys, "root.pem"), join(repository, name));
    const ran = await edgesync(["verify", repository]);
    assert.equal(ran.status, 77);
    assert.match(ran.stdout, new RegExp(name));
  });
});

describe("init with a threshold that its keys do not reach", () => {
  test("makes nothing, so that it can be run again", async () => {
    await using publisher = await makePublisher();
    const { folder } = publisher;
    const line = ["init", join(folder, "new"), "--keys", join(folder, "new-keys")];
    await assert.rejects(run([...line, "--threshold", "timestamp=2"]), { code: "USAGE" });
    assert.deepEqual((await readdir(folder)).toSorted(), ["keys", "repository"]);
    await run(line);
  });
});

describe("what a command is told", () => {
  test("may name the repository as an argument or as the option, and not two of them", async () => {
    await using publisher = await makePublisher();
    const { repository, keys } = publisher;
    const lines = [["verify"], ["gc"], ["refresh", "--keys", keys]];
    for (const line of lines) {
      await run([...line, "--repository", repository]);
      await run([...line, repository, "--repository", `${repository}/`]);
    }
    for (const line of [...lines, ["serve"]])
      await assert.rejects(run([...line, repository, "--repository", keys]), { code: "USAGE" });
  });

  test("is refused where a channel is promoted to itself, or an app does not exist", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository } = publisher;
    await assert.rejects(
      run(["channel", "promote", "web/stable", "web/stable", ...here(publisher)]),
      { code: "USAGE" },
    );
    for (const group of ["release", "channel"]) {
      await assert.rejects(run([group, "list", "nope", "--repository", repository]), {
        code: "RELEASE_NOT_FOUND",
        message: /nope.*web/,
      });
      await run([group, "list", "web", "--repository", repository]);
    }
  });

  test("is answered with the commands of its group when a word is missing", async () => {
    const ran = await edgesync(["release"]);
    assert.equal(ran.status, 64);
    assert.match(ran.stderr, /release add, release list/);
    assert.doesNotMatch(ran.stderr, /channel list/);
  });
});
