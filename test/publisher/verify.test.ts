import assert from "node:assert/strict";
import { appendFile, copyFile, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { refusePrivateKeys } from "../../publisher/private-keys.ts";
import { renew } from "../../publisher/publish.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { openRepository } from "../../publisher/repository.ts";
import { verifyRepository } from "../../publisher/verify.ts";
import { edgesync, listFiles, makePublisher, never, prose } from "./world.ts";
import type { Publisher } from "./world.ts";

const DAY_MS = 86_400_000;

async function codes(
  publisher: Publisher,
  now: number = Date.now(),
  root?: Uint8Array,
): Promise<readonly string[]> {
  const { repository } = publisher;
  const pinned = root ?? (await readFile(join(repository, "metadata", "1.root.json")));
  const { problems } = await verifyRepository(repository, pinned, now, never);
  return [...new Set(problems.map((problem) => problem.code))];
}

async function makeFull(): Promise<Publisher> {
  const publisher = await makePublisher();
  const big = prose(250_000, 1);
  await publisher.add("1", { big, small: "one", other: "same" });
  await publisher.add("2", { big: `${big} more`, small: "two", other: "same" });
  await publisher.set("2");
  return publisher;
}

describe("edgesync verify", () => {
  test("finds nothing wrong with what the publisher made", async () => {
    await using publisher = await makeFull();
    assert.deepEqual(await codes(publisher), []);
  });

  test("finds every single file that was tampered with", async () => {
    await using publisher = await makeFull();
    const { repository } = publisher;
    const old = /(^|\/)([1-9]\.snapshot|[12]\.(app\.web|targets))\.json$/;
    for (const name of await listFiles(repository)) {
      const path = join(repository, name);
      const good = await readFile(path);
      const bad = Buffer.from(good);
      bad[bad.length >> 1] = (bad[bad.length >> 1] ?? 0) ^ 1;
      await writeFile(path, bad);
      const found = await codes(publisher);
      // Metadata that newer versions have replaced is not read any more.
      if (!old.test(name)) {
        const expected = name.startsWith("metadata/") ? /^METADATA_/ : /^DIGEST_MISMATCH$/;
        assert.ok(
          found.some((code) => expected.test(code)),
          `${name}: ${found.join(", ")}`,
        );
      }
      await rm(path);
      if (!name.startsWith("metadata/")) assert.notDeepEqual(await codes(publisher), [], name);
      await writeFile(path, good);
    }
    assert.deepEqual(await codes(publisher), []);
  });

  test("ends with the status of what it found, and names it", async () => {
    await using publisher = await makeFull();
    const { repository } = publisher;
    const blob = (await listFiles(repository)).find((name) => name.startsWith("blobs/")) ?? "";
    await appendFile(join(repository, blob), "x");
    const ran = await edgesync(["verify", repository]);
    assert.equal(ran.status, 65);
    assert.match(ran.stdout, /^DIGEST_MISMATCH: releases\/web\//);
  });

  test("refuses another trust root", async () => {
    await using publisher = await makeFull();
    await using other = await makePublisher();
    const root = await readFile(join(other.repository, "metadata", "1.root.json"));
    assert.deepEqual(await codes(publisher, Date.now(), root), ["METADATA_UNTRUSTED"]);
  });

  test("finds signatures that have expired, which the next publication cures", async () => {
    await using publisher = await makeFull();
    const { repository, keys } = publisher;
    const later = Date.now() + 15 * DAY_MS;
    assert.deepEqual(await codes(publisher, later), ["METADATA_EXPIRED"]);
    {
      await using open = await openRepository(repository, later);
      assert.deepEqual(await renew(open, openKeyring(keys, undefined), later), [
        "timestamp",
        "snapshot",
      ]);
    }
    assert.deepEqual(await codes(publisher, later), []);
    const muchLater = Date.now() + 360 * DAY_MS;
    {
      await using open = await openRepository(repository, muchLater);
      const renewed = await renew(open, openKeyring(keys, undefined), muchLater);
      assert.deepEqual(renewed.toSorted(), [
        "app.web",
        "channel.web.stable",
        "root",
        "snapshot",
        "targets",
        "timestamp",
      ]);
    }
    assert.deepEqual(await codes(publisher, muchLater + 10 * DAY_MS), []);
  });
});

describe("a private key in what is served", () => {
  test("is found by verify and keeps serve from starting, wherever it is", async () => {
    await using publisher = await makePublisher();
    const { repository, keys, folder } = publisher;
    const places = [
      "key.pem",
      ".hidden",
      "metadata/x.json",
      "targets/y",
      "blobs/sha256/not-a-digest",
    ];
    for (const place of places) {
      const path = join(repository, place);
      await publisher.add("1", { file: "one" });
      await copyFile(join(keys, "timestamp.pem"), path);
      assert.deepEqual(await codes(publisher), ["REPOSITORY_UNSAFE"], place);
      await assert.rejects(refusePrivateKeys(repository, never), {
        code: "REPOSITORY_UNSAFE",
        message: new RegExp(place),
      });
      await rm(path);
    }
    await writeFile(
      join(folder, "long"),
      Buffer.concat([Buffer.alloc(262_130, "x\n"), await readFile(join(keys, "root.pem"))]),
    );
    await symlink(join(folder, "long"), join(repository, "link"));
    const ran = await edgesync(["serve", repository, "--port", "0"]);
    assert.equal(ran.status, 77);
    assert.match(ran.stderr, /^edgesync: REPOSITORY_UNSAFE: .*link/);
  });

  test("is found behind a symlink to its folder, also where symlinks go in a circle", async () => {
    await using publisher = await makePublisher();
    const { repository, keys } = publisher;
    await symlink(".", join(repository, "circle"));
    await symlink("nowhere", join(repository, "dangling"));
    await symlink("itself", join(repository, "itself"));
    await refusePrivateKeys(repository, never);
    await symlink(keys, join(repository, "metadata", "more"));
    assert.deepEqual(await codes(publisher), ["REPOSITORY_UNSAFE"]);
    await assert.rejects(refusePrivateKeys(repository, never), {
      code: "REPOSITORY_UNSAFE",
      message: /metadata\/more\/root\.pem/,
    });
  });

  test("is not seen in a program that only knows how such a file begins", async () => {
    await using publisher = await makePublisher();
    await writeFile(
      join(publisher.repository, "targets.txt"),
      "-----BEGIN PRIVATE KEY-----\0-----END",
    );
    await refusePrivateKeys(publisher.repository, never);
  });
});
