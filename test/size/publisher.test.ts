import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, cp, mkdir, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openLanes } from "#core/lanes.ts";
import { addRelease } from "../../publisher/release.ts";
import { openRepository } from "../../publisher/repository.ts";
import { scanTree } from "../../publisher/tree.ts";
import { mapWide, progressLine, progressLines, silent } from "../../publisher/work.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { edgesync, listFiles, makePublisher, makeTree, never, prose } from "../publisher/world.ts";
import { temporaryFolder } from "../support/temporary.ts";

const run = openLanes(2);

describe("a tree", () => {
  const refused: readonly (readonly [string, (folder: string) => Promise<unknown>])[] = [
    ["a FIFO", async (folder) => edgesyncMkfifo(join(folder, "pipe"))],
    [
      "a socket",
      async (folder) => {
        const server = createServer().listen(join(folder, "socket"));
        await once(server, "listening");
        server.unref();
      },
    ],
    [
      "a setuid file",
      async (folder) => {
        await writeFile(join(folder, "su"), "");
        await chmod(join(folder, "su"), 0o4755);
      },
    ],
    ["a link out of it", (folder) => symlink("../outside", join(folder, "link"))],
    ["an absolute link", (folder) => symlink("/etc/passwd", join(folder, "link"))],
    [
      "a link that climbs after a name",
      async (folder) => {
        await mkdir(join(folder, "d"));
        await symlink("d/../../x", join(folder, "link"));
      },
    ],
    ["a name with a control character", (folder) => writeFile(join(folder, "a\u001Bb"), "")],
    ["a name with a back-slash", (folder) => writeFile(join(folder, "a\\b"), "")],
    [
      "a name that is not UTF-8",
      (folder) => writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.of(0xff)]), ""),
    ],
    [
      "names that differ only by case",
      async (folder) => {
        await writeFile(join(folder, "Read.me"), "");
        await writeFile(join(folder, "read.ME"), "");
      },
    ],
    [
      "names that differ only by Unicode form",
      async (folder) => {
        await writeFile(join(folder, "\u00E9"), "");
        await writeFile(join(folder, "e\u0301"), "");
      },
    ],
  ];
  for (const [what, make] of refused)
    test(`is refused with ${what}`, async () => {
      await using folder = await temporaryFolder();
      await make(folder.path);
      await assert.rejects(scanTree(folder.path, run, silent, never), { code: "TREE_INVALID" });
    });

  test("keeps modes, links inside of it and empty directories", async () => {
    await using folder = await temporaryFolder();
    await makeTree(folder.path, {
      "bin/run": { mode: 0o755, text: "x" },
      www: { link: "bin/run" },
    });
    await mkdir(join(folder.path, "empty"));
    const { entries } = await scanTree(folder.path, run, silent, never);
    assert.deepEqual(
      entries.map(({ type, path }) => `${type} ${path}`),
      ["directory bin", "file bin/run", "directory empty", "symlink www"],
    );
    assert.equal(entries[1]?.type === "file" && entries[1].mode, 0o755);
  });
});

async function edgesyncMkfifo(path: string): Promise<void> {
  const { spawnSync } = await import("node:child_process");
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
}

const files = {
  "small/a": "a small file\n",
  "small/b": "another small file\n".repeat(40),
  text: prose(300_000, 1),
  large: Buffer.from(prose(1_500_000, 2)),
};

describe("adding a release", () => {
  test("gives the same bytes whatever the number of processors and threads", async () => {
    const found: string[] = [];
    for (const threads of ["1", "7"]) {
      await using folder = await temporaryFolder();
      const tree = await makeTree(join(folder.path, "tree"), files);
      const cwd = { cwd: folder.path, env: { UV_THREADPOOL_SIZE: threads } };
      assert.equal((await edgesync(["init"], cwd)).status, 0);
      const add = ["release", "add", tree, "--app", "web", "--platform", "linux-x64"];
      const one = await edgesync([...add, "--version", "1"], cwd);
      assert.equal(one.status, 0, one.stderr);
      await writeFile(join(tree, "text"), `${files.text}.`);
      assert.equal((await edgesync([...add, "--version", "2"], cwd)).status, 0);
      const repository = join(folder.path, "repository");
      const names = (await listFiles(repository)).filter((path) => !path.startsWith("metadata/"));
      found.push(names.toSorted().join("\n"));
    }
    assert.equal(found[0], found[1]);
  });

  test("goes on after an interruption with what it had made", async () => {
    await using publisher = await makePublisher();
    const tree = await makeTree(join(publisher.folder, "tree"), files);
    const keyring = openKeyring(publisher.keys, undefined);
    const wanted = { folder: tree, app: "web", version: "1", platform: "linux-x64", deltas: 3 };
    const stop = new AbortController();
    {
      await using repository = await openRepository(publisher.repository, Date.now());
      const stopping = {
        ...silent,
        advance(_: number, label: string) {
          // Everything has been read once by then, and the small files are compressed.
          if (label === "large" && existsSync(join(publisher.repository, ".unfinished/journal")))
            stop.abort(new Error("enough"));
        },
      };
      await assert.rejects(
        addRelease(repository, keyring, wanted, Date.now(), stopping, stop.signal),
        /enough/,
      );
    }
    const journal = join(publisher.repository, ".unfinished/journal");
    const made = (await readFile(journal, "utf8")).trim().split("\n").length;
    assert.ok(made >= 2, `${made} blobs were made`);
    await cp(publisher.repository, join(publisher.folder, "copy"), { recursive: true });
    await using repository = await openRepository(publisher.repository, Date.now());
    const { document } = await addRelease(repository, keyring, wanted, Date.now(), silent, never);
    assert.ok(!existsSync(journal));
    await using fresh = await makePublisher();
    const other = await fresh.add("1", files);
    assert.deepEqual(document.manifest, other.document.manifest);
    // What does not read back is made again.
    const small = join(publisher.folder, "copy/.unfinished/small");
    await writeFile(small, Buffer.alloc((await readFile(small)).length));
    await using copy = await openRepository(join(publisher.folder, "copy"), Date.now());
    const again = await addRelease(copy, keyring, wanted, Date.now(), silent, never);
    assert.deepEqual(again.document.manifest, document.manifest);
  });

  test("uses packs again, until too much of them is not needed any more", async () => {
    await using publisher = await makePublisher();
    const numbered = (from: number, count: number): Record<string, string> =>
      Object.fromEntries(
        Array.from({ length: count }, (_, index) => [
          `f${from + index}`,
          prose(2_000, from + index),
        ]),
      );
    const one = await publisher.add("1", numbered(0, 400));
    const two = await publisher.add("2", numbered(10, 400));
    const three = await publisher.add("3", numbered(200, 400));
    const whole = ({ release }: typeof one): readonly string[] =>
      release.packs.filter(({ from }) => from === null).map(({ sha256 }) => sha256);
    assert.equal(whole(one).length, 1);
    assert.deepEqual(whole(two)[0], whole(one)[0], "most of it is needed");
    assert.equal(whole(two).length, 2);
    assert.ok(!whole(three).includes(whole(one)[0] ?? ""), "half of it is not");
  });

  test("has a manifest whose delta is as small as the change", async () => {
    await using publisher = await makePublisher();
    const many = (version: string): Record<string, string> =>
      Object.fromEntries(
        Array.from({ length: 600 }, (_, index) => [
          `f${index}`,
          `file ${index * 7919}${index === 300 ? version : ""}`,
        ]),
      );
    await publisher.add("1", many("1"));
    const { document } = await publisher.add("2", many("2"));
    const [delta] = document.manifest.deltas;
    assert.ok(document.manifest.full.size > 15_000);
    assert.ok(delta !== undefined && delta.size < 1_500, `${delta?.size}`);
    assert.deepEqual(await readdir(publisher.repository), ["blobs", "metadata", "targets"]);
    await rm(publisher.folder, { recursive: true, force: true });
  });
});

describe("progress", () => {
  test("tells bytes, rate, time left and the file on a terminal, and now and then in a log", () => {
    let now = 0;
    const lines: string[] = [];
    const log: string[] = [];
    const shown = [
      progressLine(
        (text) => void lines.push(text),
        () => now,
      ),
      progressLines(
        (text) => void log.push(text),
        () => now,
      ),
    ];
    for (const progress of shown) {
      progress.begin("compressing");
      progress.expect(100 * 2 ** 20);
    }
    for (let second = 1; second <= 40; second++) {
      now = second * 1000;
      for (const progress of shown) progress.advance(2 ** 20, `folder/file-${second}`);
    }
    assert.match(
      lines.at(-1) ?? "",
      /compressing {2}40 % {2}40\.0 of 100\.0 MiB {2}1\.0 MiB\/s {2}60 s left {2}folder\/file-40$/,
    );
    assert.equal(log.length, 2);
    assert.match(log[1] ?? "", /^edgesync: compressing {2}30 % .* left\n$/);
  });
});

describe("work that is done side by side", () => {
  test("keeps its order, never exceeds its width, and ends with the first error", async () => {
    let busy = 0;
    let most = 0;
    const work = async (item: number): Promise<number> => {
      busy += 1;
      most = Math.max(most, busy);
      await Promise.resolve();
      busy -= 1;
      if (item === 50) throw new Error("fifty");
      return item * 2;
    };
    const items = Array.from({ length: 40 }, (_, index) => index);
    assert.deepEqual(
      await mapWide(items, 3, work),
      items.map((item) => item * 2),
    );
    assert.equal(most, 3);
    await assert.rejects(mapWide([...items, 50, 60, 70], 3, work), /fifty/);
  });
});
