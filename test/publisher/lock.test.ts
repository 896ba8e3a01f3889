import assert from "node:assert/strict";
import { readFile, readdir, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { lockRepository } from "../../publisher/lock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { edgesync, makePublisher, never } from "./world.ts";

describe("the lock of a repository", () => {
  test("can be waited for", async () => {
    await using folder = await temporaryFolder();
    const first = await lockRepository(folder.path, Date.now());
    const second = lockRepository(folder.path, Date.now(), { ms: 60_000, signal: never });
    let got = false;
    const waiting = second.then((lock) => {
      got = true;
      return lock;
    });
    await assert.rejects(lockRepository(folder.path, Date.now(), { ms: 150, signal: never }), {
      code: "REPOSITORY_LOCKED",
      message: /still after waiting/,
    });
    assert.equal(got, false);
    await first[Symbol.asyncDispose]();
    await using lock = await waiting;
    assert.ok(lock);
  });

  test("stops waiting when the command is stopped", async () => {
    await using folder = await temporaryFolder();
    await using first = await lockRepository(folder.path, Date.now());
    assert.ok(first);
    const stop = new AbortController();
    const reason = new Error("stop");
    const waiting = lockRepository(folder.path, Date.now(), { ms: 60_000, signal: stop.signal });
    stop.abort(reason);
    await assert.rejects(waiting, reason);
    assert.deepEqual(await readdir(folder.path), [".lock"]);
  });

  test("says whose it is, and what to do about one whose owner cannot be asked", async () => {
    await using folder = await temporaryFolder();
    const owner = { id: "x", pid: 7, host: "elsewhere", user: "ann", since: Date.now() - 90_000 };
    await writeFile(join(folder.path, ".lock"), JSON.stringify(owner));
    await assert.rejects(lockRepository(folder.path, Date.now()), {
      code: "REPOSITORY_LOCKED",
      message: /process 7 of ann on elsewhere for 9\d s; .*remove the file/,
    });
  });

  test("clears away what dead publishers left beside it, and nothing that may be in use", async () => {
    await using folder = await temporaryFolder();
    const now = Date.now();
    const owner = { id: "x", pid: process.pid, host: hostname(), since: now };
    const leave = async (digit: string, text: string): Promise<string> => {
      const name = `.lock.${digit.repeat(8)}-0000-4000-8000-000000000000`;
      await writeFile(join(folder.path, name), text);
      return name;
    };
    await leave("1", JSON.stringify({ ...owner, process: "boot/1" }));
    await leave("2", JSON.stringify({ ...owner, host: "elsewhere", since: now - 100 * 3_600_000 }));
    const torn = await leave("3", "");
    const old = new Date(now - 100 * 3_600_000);
    await utimes(join(folder.path, torn), old, old);
    const kept = [
      await leave("4", JSON.stringify(owner)),
      await leave("5", JSON.stringify({ ...owner, host: "elsewhere" })),
      await leave("6", ""),
    ];
    await using lock = await lockRepository(folder.path, now);
    assert.ok(lock);
    assert.deepEqual((await readdir(folder.path)).toSorted(), [".lock", ...kept]);
  });

  test("keeps publishers apart that begin at once: with --wait each has its turn", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository, keys } = publisher;
    const where = ["--repository", repository, "--keys", keys, "--json"];
    const ran = await Promise.all(
      ["a", "b", "c"].map((name) =>
        edgesync(["channel", "set", `web/${name}`, "1", ...where, "--wait", "2m"]),
      ),
    );
    for (const { status, stderr } of ran) assert.equal(status, 0, stderr);
    const listed = await edgesync(["channel", "list", "--repository", repository, "--json"]);
    const { channels } = JSON.parse(listed.stdout);
    assert.deepEqual(
      channels.map(({ channel }: { channel: string }) => channel),
      ["a", "b", "c"],
    );
    assert.equal((await edgesync(["verify", repository])).status, 0);
    const snapshots = (await readdir(join(repository, "metadata"))).filter((name) =>
      name.endsWith(".snapshot.json"),
    );
    assert.equal(snapshots.length, 5);
    assert.ok((await readFile(join(repository, "metadata", "5.snapshot.json"))).length > 0);
  });
});
