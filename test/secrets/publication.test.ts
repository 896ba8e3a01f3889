import assert from "node:assert/strict";
import * as promises from "node:fs/promises";
import { mkdir, readFile, readdir, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openPublication } from "../../sidecar/secrets/publication.ts";
import type { FileSystem, SecretFile } from "../../sidecar/secrets/publication.ts";
import { temporaryFolder } from "../support/temporary.ts";

const MEMORY = "/dev/shm";

function pair(value: string): readonly SecretFile[] {
  return ["user", "password"].map((name) => ({
    name,
    bytes: Buffer.from(`${name} ${value}`),
    mode: 0o440,
  }));
}

/** The set as a reader finds it: through one look at `..data`. */
async function read(folder: string): Promise<Readonly<Record<string, string>>> {
  const version = join(folder, "set", await readlink(join(folder, "set", "..data")));
  const names = await readdir(version);
  const files = names.map(async (name) => [name, await readFile(join(version, name), "utf8")]);
  return Object.fromEntries(await Promise.all(files)) as Readonly<Record<string, string>>;
}

async function permissions(path: string): Promise<string> {
  return ((await stat(path)).mode & 0o7777).toString(8);
}

describe("a published set", () => {
  test("is reached by one link for each file, through the version that holds", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const publication = await openPublication(folder.path);
    assert.equal(await publication.publish(pair("1")), true);
    const set = join(folder.path, "set");
    assert.equal(await readFile(join(set, "user"), "utf8"), "user 1");
    assert.equal(await readlink(join(set, "password")), "..data/password");
    assert.deepEqual(await read(folder.path), { user: "user 1", password: "password 1" });
  });

  test("has the modes that were asked for, whatever the umask is", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const before = process.umask(0o077);
    try {
      const publication = await openPublication(folder.path);
      await publication.publish(pair("1"));
    } finally {
      process.umask(before);
    }
    const set = join(folder.path, "set");
    assert.equal(await permissions(set), "755");
    assert.equal(await permissions(join(set, "..data", "user")), "440");
    assert.equal(await permissions(join(set, await readlink(join(set, "..data")))), "755");
  });

  test("stays as it is when the same is published again, also by the next process", async () => {
    await using folder = await temporaryFolder(MEMORY);
    await (await openPublication(folder.path)).publish(pair("1"));
    const next = await openPublication(folder.path);
    assert.equal(next.wasPublished, true);
    assert.equal(await next.publish(pair("1")), false);
    assert.equal(await next.publish(pair("2")), true);
  });

  test("loses the links of files that are no longer in it", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const publication = await openPublication(folder.path);
    await publication.publish(pair("1"));
    await publication.publish(pair("1").slice(0, 1));
    const names = await readdir(join(folder.path, "set"));
    assert.ok(names.includes("user") && !names.includes("password"));
  });

  test("keeps the version before for its readers, until it is tidied", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const publication = await openPublication(folder.path);
    const versions = async (): Promise<readonly string[]> =>
      (await readdir(join(folder.path, "set"))).filter((name) => /^\.\.\d/.test(name));
    await publication.publish(pair("1"));
    await publication.publish(pair("2"));
    assert.equal((await versions()).length, 2);
    await publication.publish(pair("3"));
    assert.equal((await versions()).length, 2, "never more than two");
    await publication.tidy();
    assert.deepEqual(await versions(), [await readlink(join(folder.path, "set", "..data"))]);
  });

  test("is freed of what a killed process left unfinished", async () => {
    await using folder = await temporaryFolder(MEMORY);
    await (await openPublication(folder.path)).publish(pair("1"));
    const set = join(folder.path, "set");
    await mkdir(join(set, "..7"));
    await writeFile(join(set, "..7", "user"), "half");
    await symlink("..7", join(set, "..data_next"));
    const publication = await openPublication(folder.path);
    assert.deepEqual((await readdir(set)).toSorted(), ["..1", "..data", "password", "user"]);
    await publication.publish(pair("2"));
    assert.deepEqual(await read(folder.path), { user: "user 2", password: "password 2" });
  });

  test("never shows a reader one file of one version and one of another", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const publication = await openPublication(folder.path);
    await publication.publish(pair("0"));
    const state = { writing: true, reads: 0 };
    const reader = (async () => {
      while (state.writing) {
        // A slow reader may find the version of two swaps ago gone, and looks again.
        const found = await read(folder.path).catch(() => undefined);
        if (found === undefined) continue;
        const { user, password } = found;
        assert.equal(user?.replace("user ", ""), password?.replace("password ", ""));
        state.reads++;
      }
    })();
    for (let round = 1; round <= 200; round++) {
      await publication.publish(pair(String(round)));
      await publication.publish([...pair(String(round)), { ...pair("")[0], ...extra(round) }]);
    }
    state.writing = false;
    await reader;
    assert.ok(state.reads > 10);
  });
});

function extra(round: number): SecretFile {
  return { name: "extra", bytes: Buffer.alloc(round), mode: 0o444 };
}

describe("a volume without room", () => {
  for (const [reason, code] of [
    ["ENOSPC", "DISK_FULL"],
    ["EDQUOT", "DISK_FULL"],
    ["EIO", "DISK_FAILED"],
  ] as const)
    test(`leaves the old set untouched, whichever step meets ${reason}`, async () => {
      for (let step = 0; ; step++) {
        await using folder = await temporaryFolder(MEMORY);
        await (await openPublication(folder.path)).publish(pair("old"));
        const faulty = failingAt(step, reason);
        const publication = await openPublication(folder.path, faulty.fs);
        faulty.arm();
        const files = [...pair("new"), extra(10)];
        const failed = await publication.publish(files).then(
          () => undefined,
          (error: unknown) => error,
        );
        if (!faulty.hasFired()) {
          assert.ok(step > 5, "every writing step was tried");
          return;
        }
        // One failure alone can come when all is done: removing a link that nobody needs.
        const isSwapped = (await read(folder.path))["user"] === "user new";
        if (!isSwapped)
          assert.deepEqual(await read(folder.path), { user: "user old", password: "password old" });
        assert.equal((failed as { code?: string }).code, code);
        const names = (await readdir(join(folder.path, "set"))).filter((n) => /^\.\.\d/.test(n));
        assert.ok(names.length <= 2);
        // With room again, the next attempt succeeds.
        const healed = await openPublication(folder.path);
        await healed.publish(files);
        assert.equal((await read(folder.path))["user"], "user new");
      }
    });
});

/** The real file system, whose `step`-th call that needs room fails. */
function failingAt(step: number, reason: string) {
  let left = Number.POSITIVE_INFINITY;
  const fail = (): void => {
    if (left-- === 0) throw Object.assign(new Error(reason), { code: reason });
  };
  const fs: FileSystem = {
    ...promises,
    mkdir: ((...args: Parameters<typeof promises.mkdir>) => {
      fail();
      return promises.mkdir(...args);
    }) as typeof promises.mkdir,
    async chmod(...args) {
      fail();
      return promises.chmod(...args);
    },
    async symlink(...args) {
      fail();
      return promises.symlink(...args);
    },
    async rename(...args) {
      fail();
      return promises.rename(...args);
    },
    async open(...args) {
      fail();
      const file = await promises.open(...args);
      const write = file.writeFile.bind(file);
      file.writeFile = async (...data) => {
        await file.write(Buffer.from("half"), 0, 4, 0);
        fail();
        return write(...data);
      };
      return file;
    },
  };
  return {
    fs,
    arm() {
      left = step;
    },
    hasFired: () => left < 0,
  };
}
