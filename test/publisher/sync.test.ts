import assert from "node:assert/strict";
import { appendFile, cp, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { verifyRepository } from "../../publisher/verify.ts";
import { runTufClient } from "../../sidecar/channel/tuf-client.ts";
import { openOrigin } from "../support/origin.ts";
import { edgesync, listFiles, makePublisher, makeTree, never, prose } from "./world.ts";
import type { Publisher } from "./world.ts";

const HOOK = new URL("kill-at-rename.ts", import.meta.url).href;

async function problems(path: string): Promise<readonly unknown[]> {
  const root = await readFile(join(path, "metadata", "1.root.json"));
  return (await verifyRepository(path, root, Date.now(), never)).problems;
}

async function sync(
  { repository, folder }: Publisher,
  ...args: readonly string[]
): Promise<Record<string, unknown>> {
  const to = join(folder, "copy");
  const ran = await edgesync(["sync", to, "--repository", repository, "--json", ...args]);
  assert.equal(ran.status, 0, ran.stderr);
  return JSON.parse(ran.stdout);
}

/** What is served of a repository, by path. */
async function served(folder: string): Promise<readonly string[]> {
  return (await listFiles(folder)).filter((path) => !path.startsWith("."));
}

describe("sync", () => {
  test("copies what readers need and nothing else, and only once", async () => {
    await using publisher = await makePublisher();
    const { repository, folder, keys } = publisher;
    await publisher.add("1", { file: prose(80_000, 1) });
    await publisher.set("1");
    await writeFile(join(repository, "notes.txt"), "mine");
    await cp(join(keys, "root.pem"), join(repository, "metadata", "root.pem"));
    await mkdir(join(repository, ".work"));
    await writeFile(join(repository, ".work", "0"), "unfinished");
    const first = await sync(publisher);
    const copy = join(folder, "copy");
    const files = await listFiles(copy);
    assert.equal(first["copied"], files.length);
    assert.deepEqual(await problems(copy), []);
    assert.ok(files.every((path) => /^(blobs|targets|metadata)\/.*[^m]$/.test(path)));
    assert.equal((await sync(publisher))["copied"], 0);
    const before = await stat(join(copy, "metadata", "1.root.json"));
    await publisher.set("1");
    // The channel's document and role, snapshot, timestamp.
    assert.equal((await sync(publisher))["copied"], 4);
    assert.equal((await stat(join(copy, "metadata", "1.root.json"))).mtimeMs, before.mtimeMs);
    assert.deepEqual(await problems(copy), []);
  });

  test("leaves a good repository at every step, also when it is killed there and keys have changed", async () => {
    await using publisher = await makePublisher();
    const { repository, folder, keys } = publisher;
    const text = prose(80_000, 1);
    await publisher.add("1", { file: text, small: "1" });
    await publisher.set("1");
    await sync(publisher);
    const copy = join(folder, "copy");
    await publisher.add("2", { file: `${text}!`, small: "2" });
    await publisher.set("2");
    const where = ["--repository", repository, "--keys", keys];
    const rotated = await edgesync(["key", "rotate", "timestamp", ...where]);
    assert.equal(rotated.status, 0, rotated.stderr);
    await using origin = await openOrigin(copy);
    const store = join(folder, "store");
    await mkdir(store);
    const said: string[] = [];
    /** A site that looks at every step, with the sidecar's own store and walk. */
    const client = async (...args: readonly string[]): Promise<number> =>
      await runTufClient(
        ["--metadata-dir", store, ...args],
        { now: Date.now(), say: (line) => said.push(line) },
        never,
      );
    assert.equal(await client("init", join(repository, "metadata", "1.root.json")), 0);
    const target = "channels/web/stable.json";
    const look = ["--metadata-url", `${origin.url}/metadata`];
    const targets = ["--target-base-url", `${origin.url}/targets`, "--target-dir", folder];
    const fetch = [...look, ...targets, "--target-name", target, "download"];
    assert.equal(await client(...fetch), 0, said.join());
    const args = ["sync", copy, "--repository", repository];
    const options = { env: { KILL_AT: "1 after" }, node: ["--import", HOOK] };
    let kills = 0;
    while ((await edgesync(args, options)).signal === "SIGKILL") {
      kills++;
      assert.deepEqual(await problems(copy), [], `at ${kills}`);
      assert.equal(await client(...fetch), 0, said.join());
    }
    assert.ok(kills >= 10, `${kills}`);
    assert.equal((await edgesync(args)).status, 0);
    assert.deepEqual(await problems(copy), []);
    assert.deepEqual((await readdir(copy)).toSorted(), ["blobs", "metadata", "targets"]);
  });

  test("prints the safe order, whole or step by step", async () => {
    await using publisher = await makePublisher();
    const { repository } = publisher;
    await publisher.add("1", { file: "one" });
    await publisher.set("1");
    const list = async (...args: readonly string[]): Promise<readonly string[]> => {
      const ran = await edgesync(["sync", "--list", "--repository", repository, ...args]);
      assert.equal(ran.status, 0, ran.stderr);
      return ran.stdout.split("\n").slice(0, -1);
    };
    const all = await list();
    const steps = ["blobs", "targets", "metadata", "timestamp"];
    assert.deepEqual(all, (await Promise.all(steps.map((step) => list("--step", step)))).flat());
    assert.equal(all.at(-1), "metadata/timestamp.json");
    const kinds = all.map((path) => path.split("/")[0]);
    assert.deepEqual([...new Set(kinds)], ["blobs", "targets", "metadata"]);
    const at = (name: string): number => all.findIndex((path) => path.endsWith(name));
    assert.ok(
      at(".app.web.json") < at(".targets.json") && at(".targets.json") < at(".snapshot.json"),
    );
    for (const args of [["--step", "keys"], ["folder"]]) {
      const ran = await edgesync(["sync", "--list", "--repository", repository, ...args]);
      assert.equal(ran.status, 64);
    }
  });

  test("deletes only when asked, last, and what has been missing for long enough", async () => {
    await using publisher = await makePublisher();
    const { repository, folder, keys } = publisher;
    for (const version of ["1", "2"]) await publisher.add(version, { file: version });
    await publisher.set("2");
    await sync(publisher);
    const copy = join(folder, "copy");
    const where = ["--repository", repository, "--keys", keys];
    await edgesync(["release", "remove", "web", "1", ...where]);
    await edgesync(["gc", repository, "--grace", "0s"]);
    const before = await served(copy);
    await sync(publisher);
    await sync(publisher, "--delete");
    const kept = await served(copy);
    assert.ok(before.every((path) => kept.includes(path)));
    await writeFile(join(copy, "index.html"), "mine");
    const last = await sync(publisher, "--delete", "--grace", "0s");
    assert.ok(Array.isArray(last["deleted"]) && last["deleted"].length > 0);
    assert.deepEqual(await served(copy), [...(await served(repository)), "index.html"].toSorted());
    assert.deepEqual(await problems(copy), []);
  });

  test("refuses a folder that is another repository, is newer, or lies inside", async () => {
    await using publisher = await makePublisher();
    await using other = await makePublisher();
    const { repository, folder } = publisher;
    await publisher.add("1", { file: "one" });
    const run = async (to: string, from = repository): Promise<string> =>
      (await edgesync(["sync", to, "--repository", from])).stderr.split(":")[1]?.trim() ?? "";
    assert.equal(await run(other.repository), "REPOSITORY_INVALID");
    assert.equal(await run(join(repository, "copy")), "REPOSITORY_UNSAFE");
    assert.equal(await run(folder), "REPOSITORY_UNSAFE");
    const old = join(folder, "old");
    await cp(repository, old, { recursive: true });
    await publisher.set("1");
    const copy = join(other.folder, "copy");
    assert.equal(await run(copy), "");
    assert.equal(await run(copy, old), "REPOSITORY_INVALID");
  });

  test("does not spread a blob that is damaged", async () => {
    await using publisher = await makePublisher();
    const { repository, folder } = publisher;
    await publisher.add("1", { file: prose(80_000, 1) });
    await makeTree(join(folder, "copy"), {});
    const blobs = (await listFiles(repository)).filter((path) => path.startsWith("blobs/"));
    const [blob = ""] = blobs.filter((path) => path.length > 0).toReversed();
    const good = await readFile(join(repository, blob));
    await rm(join(repository, blob));
    await writeFile(
      join(repository, blob),
      good.map((byte) => byte ^ 1),
    );
    const to = ["sync", join(folder, "copy"), "--repository", repository];
    const ran = await edgesync(to);
    assert.notEqual(ran.status, 0);
    assert.deepEqual(
      (await served(join(folder, "copy"))).filter((path) => path.startsWith("metadata/")),
      [],
    );
    await writeFile(join(repository, blob), good);
    await appendFile(join(repository, "metadata", "timestamp.json"), "");
    assert.equal((await edgesync(to)).status, 0);
  });
});
