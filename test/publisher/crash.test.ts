import assert from "node:assert/strict";
import { cp, readFile, readdir, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { setChannel } from "../../publisher/channel.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { openRepository } from "../../publisher/repository.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { killAtEachStep, killed, seen } from "./kills.ts";
import { edgesync, makePublisher, makeTree, prose } from "./world.ts";

describe("a publisher that is killed", () => {
  test("at any step of release add leaves what was published, and the next one completes", async () => {
    await using publisher = await makePublisher();
    const { folder } = publisher;
    const text = prose(150_000, 1);
    await publisher.add("1", { file: text, small: "one" });
    await publisher.set("1");
    const tree = await makeTree(join(folder, "next"), { file: `${text}!`, small: "two" });
    let at = 1;
    // Between one rename and the next nothing changes: after one is before the next.
    for (; at < 100; at++) {
      const copy = join(folder, `copy-${at}`);
      const keys = join(folder, `keys-${at}`);
      await cp(publisher.repository, copy, { recursive: true });
      await cp(publisher.keys, keys, { recursive: true });
      const options = [
        "--repository",
        copy,
        "--keys",
        keys,
        "--app",
        "web",
        "--platform",
        "linux-x64",
      ];
      const add = ["release", "add", tree, "--version", "2", ...options];
      const ran = await killed(add, `${at} before`);
      if (ran.signal === null) break;
      assert.equal(ran.signal, "SIGKILL");
      const { good, releases } = await seen(copy);
      assert.ok(good && (releases === 1 || releases === 2), `at ${at}`);
      const again = await edgesync(add);
      assert.equal(again.status, 0, again.stderr);
      assert.deepEqual(await seen(copy), { good: true, releases: 2, channels: 1 });
      assert.deepEqual((await readdir(copy)).toSorted(), ["blobs", "metadata", "targets"]);
    }
    // Two blobs, two packs, manifest, role, snapshot, timestamp.
    assert.ok(at >= 9, `${at}`);
  });

  test("in init can be finished by running it again", async () => {
    await using folder = await temporaryFolder();
    for (let at = 1; at <= 5; at++) {
      const [repository, keys] = [join(folder.path, `r${at}`), join(folder.path, `k${at}`)];
      const init = ["init", repository, "--keys", keys];
      const ran = await killed(init, `${at} after`);
      assert.equal(ran.signal, "SIGKILL");
      const again = await edgesync(init);
      assert.equal(again.status, 0, again.stderr);
      assert.deepEqual(await seen(repository), { good: true, releases: 0, channels: 0 });
      assert.equal((await edgesync(init)).status, 66);
    }
  });

  test("while it makes the first release of an app leaves a key that the next one takes", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    const tree = await makeTree(join(folder, "tree"), { file: "x" });
    const options = [
      "--repository",
      repository,
      "--keys",
      keys,
      "--app",
      "web",
      "--platform",
      "linux-x64",
    ];
    const add = ["release", "add", tree, "--version", "1", ...options];
    assert.equal((await killed(add, "1 before")).signal, "SIGKILL");
    const key = await readFile(join(keys, "app.web.pem"));
    assert.equal((await edgesync(add)).status, 0);
    assert.deepEqual(await readFile(join(keys, "app.web.pem")), key);
    assert.deepEqual(await seen(repository), { good: true, releases: 1, channels: 0 });
  });
});

describe("any other change that is killed", () => {
  // The other ones are in the system test.
  test("at any step of release remove leaves what was published, and the next one completes", () =>
    killAtEachStep("release remove"));
});

describe("the lock", () => {
  test("keeps a second publisher out, and names the first", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository, keys } = publisher;
    const set = ["channel", "set", "web/stable", "1", "--repository", repository, "--keys", keys];
    {
      await using held = await openRepository(repository, Date.now() - 90_000);
      assert.ok(held);
      const ran = await edgesync(set);
      assert.equal(ran.status, 75);
      assert.match(
        ran.stderr,
        /^edgesync: REPOSITORY_LOCKED: .*\.lock is held by process \d+ (of \S+ )?on \S+ for 9\d s\./,
      );
      assert.ok(ran.stderr.includes(`process ${process.pid} `) && ran.stderr.includes(hostname()));
    }
    assert.equal((await edgesync(set)).status, 0);
  });

  test("of another machine is respected, that of a dead process here is taken over", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository, keys } = publisher;
    const lock = join(repository, ".lock");
    const owner = { id: "x", pid: process.pid, host: "elsewhere", since: Date.now() };
    const set = async (): Promise<unknown> => {
      await using open = await openRepository(repository, Date.now());
      const reference = { app: "web", channel: "stable", version: "1" };
      return await setChannel(open, openKeyring(keys, undefined), reference, Date.now());
    };
    await writeFile(lock, JSON.stringify(owner));
    await assert.rejects(set(), { code: "REPOSITORY_LOCKED", message: /elsewhere/ });
    await writeFile(lock, "not a lock of ours");
    await assert.rejects(set(), { code: "REPOSITORY_LOCKED" });
    // The same number as a process that lives, but another start: the machine was started anew since.
    await writeFile(lock, JSON.stringify({ ...owner, host: hostname(), process: "boot/1" }));
    await set();
    assert.deepEqual(
      (await readdir(repository)).filter((name) => name.startsWith(".")),
      [],
    );
  });
});
