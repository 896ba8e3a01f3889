import assert from "node:assert/strict";
import { readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { blobPath } from "#core/release.ts";
import { findChannel, listReleases, readRelease } from "../../publisher/catalog.ts";
import { releasesOf, rollOut } from "../../publisher/channel-change.ts";
import { changeChannel } from "../../publisher/channel.ts";
import { findGarbage, removeGarbage } from "../../publisher/gc.ts";
import type { Garbage } from "../../publisher/gc.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { removeReleases } from "../../publisher/release-remove.ts";
import { openRepository, viewRepository } from "../../publisher/repository.ts";
import { sitePlan } from "../../publisher/site-plan.ts";
import type { View } from "../../publisher/repository.ts";
import { orderedFiles } from "../../publisher/sync.ts";
import { verifyRepository } from "../../publisher/verify.ts";
import { edgesync, listFiles, makePublisher, never, prose } from "./world.ts";
import type { Publisher } from "./world.ts";

const HOUR_MS = 3_600_000;
const HOOK = new URL("kill-at-rename.ts", import.meta.url).href;
const reference = { app: "web", channel: "stable" };

async function collect(path: string, now: number, graceMs: number): Promise<Garbage> {
  await using repository = await openRepository(path, now);
  const garbage = await findGarbage(repository, now, graceMs, never);
  await removeGarbage(path, garbage.files, never);
  return garbage;
}

async function problems(path: string, now: number): Promise<readonly unknown[]> {
  const root = await readFile(join(path, "metadata", "1.root.json"));
  return (await verifyRepository(path, root, now, never)).problems;
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

/** Every request that a site with any listed release would make for the channel's release. */
async function refuseUnreachable(view: View): Promise<void> {
  const channel = await findChannel(view, reference);
  const listed = listReleases(view, { app: "web" });
  const to = listed.find(({ version }) => version === channel?.document.releases[0]?.version);
  if (to === undefined) return;
  const release = await readRelease(view, to, never);
  for (const from of [undefined, ...listed]) {
    const old = from && (await readRelease(view, from, never));
    const { fetches } = sitePlan(release, old);
    for (const fetch of fetches) {
      const { sha256 } = fetch.fetch === "blob" ? fetch.blob : fetch.pack;
      assert.ok(
        await exists(join(view.path, blobPath(sha256))),
        `${from?.version} needs ${sha256}`,
      );
    }
  }
}

type Step =
  | { readonly do: "add" | "set" | "rollout" | "remove"; readonly which: number }
  | { readonly do: "gc"; readonly graceHours: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom("add", "set", "rollout", "remove" as const),
    which: fc.nat({ max: 5 }),
  }),
  fc.record({ do: fc.constant("gc" as const), graceHours: fc.constantFrom(0, 3, 24) }),
);

describe("gc", () => {
  test("removes nothing that any site needs, in any history", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 14 }), async (steps) => {
        let now = Date.parse("2026-03-01T00:00:00Z");
        await using publisher = await makePublisher(now);
        const { repository } = publisher;
        /** What each snapshot leads to, and when the next one took its place. */
        let snapshots: { files: readonly string[]; replaced: number }[] = [];
        await publisher.add("0", { big: prose(70_000, 1), small: "0" }, now);
        let added = 1;
        for (const item of [...steps, { do: "gc" as const, graceHours: 0 }]) {
          now += HOUR_MS;
          const view = await viewRepository(repository);
          if (item.do === "gc") {
            const graceMs = item.graceHours * HOUR_MS;
            await collect(repository, now, graceMs);
            assert.deepEqual(await problems(repository, now), []);
            await refuseUnreachable(view);
            snapshots = snapshots.filter(({ replaced }) => now - replaced < graceMs);
            for (const { files } of snapshots)
              for (const path of files) assert.ok(await exists(join(repository, path)), path);
            assert.deepEqual((await collect(repository, now, graceMs)).files, []);
            continue;
          }
          const files = (await orderedFiles(view, undefined, never)).map(({ path }) => path);
          if (await change(publisher, item, String(added), now))
            snapshots.push({ files, replaced: now });
          if (item.do === "add") added++;
        }
        const { signed } = (await viewRepository(repository)).snapshot;
        const left = await readdir(join(repository, "metadata"));
        assert.deepEqual(
          left.filter((name) => name.endsWith(".snapshot.json")),
          [`${signed.version}.snapshot.json`],
        );
        assert.ok(left.includes("1.root.json"));
      }),
      { numRuns: 8 },
    );
  });

  /** @returns whether something was published */
  async function change(
    publisher: Publisher,
    item: Exclude<Step, { do: "gc" }>,
    next: string,
    now: number,
  ): Promise<boolean> {
    if (item.do === "add") {
      await publisher.add(next, { big: `${prose(70_000, 1)}${next}`, small: next }, now);
      return true;
    }
    const { repository, keys } = publisher;
    const keyring = openKeyring(keys, undefined);
    await using open = await openRepository(repository, now);
    const listed = listReleases(open, { app: "web" });
    const version = listed[item.which % listed.length]?.version ?? "";
    try {
      if (item.do === "remove") {
        const wanted = { app: "web", versions: [version], platform: undefined };
        await removeReleases(open, keyring, wanted, now);
      } else if (item.do === "rollout")
        await changeChannel(
          open,
          keyring,
          reference,
          (before) =>
            rollOut(
              before,
              releasesOf(before, { version, platforms: [] }),
              {},
              { percent: 10 },
              now,
            ),
          now,
        );
      else {
        await open[Symbol.asyncDispose]();
        await publisher.set(version, now);
      }
      return true;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : "";
      assert.match(
        code,
        /^(RELEASE_IN_USE|RELEASE_DOWNGRADE|USAGE|RELEASE_NOT_FOUND)$/,
        String(error),
      );
      return false;
    }
  }

  test("says what it would remove, removes that, and leaves what is somebody else's", async () => {
    await using publisher = await makePublisher();
    const { repository } = publisher;
    await publisher.add("1", { file: "one" });
    await publisher.add("2", { file: "two" });
    await publisher.set("2");
    const keys = ["--keys", publisher.keys, "--repository", repository];
    const removed = await edgesync(["release", "remove", "web", "1", ...keys, "--json"]);
    assert.deepEqual(JSON.parse(removed.stdout), {
      removed: [{ app: "web", version: "1", platform: "linux-x64" }],
    });
    const left = "blobs/sha256/left-behind";
    await writeFile(join(repository, left), "x");
    // Of a publisher that died: nothing ever led to it.
    await writeFile(join(repository, blobPath("0".repeat(64))), "x");
    const run = async (...args: readonly string[]): Promise<{ removed: { path: string }[] }> =>
      JSON.parse((await edgesync(["gc", repository, "--json", ...args])).stdout);
    assert.deepEqual(
      (await run()).removed.map(({ path }) => path),
      [blobPath("0".repeat(64))],
    );
    const before = await listFiles(repository);
    const dry = await run("--grace", "0s", "--dry-run");
    assert.deepEqual(await listFiles(repository), before);
    const real = await run("--grace", "0s");
    assert.deepEqual(real.removed, dry.removed);
    assert.ok(dry.removed.some(({ path }) => path.startsWith("blobs/")));
    assert.deepEqual(
      await listFiles(repository),
      before.filter((path) => !real.removed.some((file) => file.path === path)),
    );
    assert.ok(await exists(join(repository, left)));
    await rm(join(repository, left));
    assert.deepEqual(await problems(repository, Date.now()), []);
  });

  test("can be killed at every removal", async () => {
    await using publisher = await makePublisher();
    const { repository } = publisher;
    for (const version of ["1", "2"]) {
      await publisher.add(version, { file: version });
      await publisher.set(version);
    }
    let kills = 0;
    const args = ["gc", repository, "--grace", "0s"];
    const options = { env: { KILL_AT: "1 after rm" }, node: ["--import", HOOK] };
    while ((await edgesync(args, options)).signal === "SIGKILL") {
      kills++;
      assert.deepEqual(await problems(repository, Date.now()), []);
    }
    assert.ok(kills >= 6, `${kills}`);
    assert.equal((await edgesync(args)).status, 0);
    assert.deepEqual((await readdir(repository)).toSorted(), ["blobs", "metadata", "targets"]);
  });
});
