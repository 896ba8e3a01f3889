import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { chmod, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { describe, test } from "node:test";
import { CODEC } from "#core/delta/codec-names.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import { matchHere } from "#core/delta/match.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { makePlan } from "#core/plan.ts";
import { formatManifest } from "#core/manifest.ts";
import type { Entry, Release } from "#core/release.ts";
import { collect, inMemory } from "../support/delta.ts";
import { handMadeRelease } from "../support/release.ts";
import type { HandMadeContent } from "../support/release.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { beginBank, verifyBank } from "../../sidecar/payload/bank.ts";
import type { Setback } from "../../sidecar/payload/bank.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import type { OldFiles } from "../../sidecar/payload/make-file.ts";
import { openStore } from "../../sidecar/payload/store.ts";
import type { Store } from "../../sidecar/payload/store.ts";

const signal = new AbortController().signal;
const digest = (bytes: Uint8Array | string): string =>
  createHash("sha256").update(bytes).digest("hex");

type Delta = HandMadeContent["deltas"][number];

/** A release by hand, with its blobs: what no publisher would make has to be tested too. */
function handMade(
  files: Readonly<Record<string, { text: string; mode?: number; blob?: Buffer; delta?: Delta }>>,
): {
  readonly release: Release;
  readonly blobs: Map<string, Buffer>;
} {
  const blobs = new Map<string, Buffer>();
  const contents = new Map<string, HandMadeContent>();
  const entries: Entry[] = [{ type: "directory", path: "dir", mode: 0o755 }];
  for (const [name, { text, mode = 0o644, blob, delta }] of Object.entries(files)) {
    const full = blob ?? zstdCompressSync(text);
    blobs.set(digest(full), full);
    const sha256 = digest(text);
    entries.push({ type: "file", path: `dir/${name}`, mode, sha256 });
    contents.set(sha256, {
      sha256,
      size: Buffer.byteLength(text),
      full: { sha256: digest(full), size: full.length, encoding: "zstd" },
      deltas: delta === undefined ? [] : [delta],
    });
  }
  return { release: handMadeRelease(entries, [...contents.values()]), blobs };
}

interface Bench extends AsyncDisposable {
  readonly store: Store;
  readonly folder: string;
}

async function openBench(disk: Disk = nodeDisk): Promise<Bench> {
  const folder = await temporaryFolder();
  const store = await openStore(folder.path, disk);
  return { store, folder: folder.path, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

/** Builds what can be built, and says what could not. */
async function build(
  { store }: Bench,
  { release, blobs }: ReturnType<typeof handMade>,
  old: OldFiles & Pick<ReadonlySet<string>, "has"> = new Map(),
  id = "bank",
): Promise<Setback> {
  const plan = makePlan({
    release,
    installed: null,
    available: old,
    foreign: new Set(),
    damaged: new Set(),
    codecs: new Set(["edgesync-1"]),
    rejected: new Set(),
    fallback: { kind: "always" },
    first: false,
  });
  await using building = await beginBank(store, id, release, signal);
  const read = async function* ({ sha256 }: { readonly sha256: string }) {
    yield blobs.get(sha256) ?? Buffer.alloc(0);
  };
  const setback = await building.add(plan, old, read, signal);
  if (setback.damaged.length + setback.rejected.length === 0) {
    const manifest = join(store.partial, "manifest");
    await writeFile(manifest, [...formatManifest(release)].join(""));
    await building.complete(manifest);
  }
  return setback;
}

const CREW = {
  run: <T>(work: () => Promise<T>): Promise<T> => work(),
  search: matchHere,
  memory: openSharedMemory(),
  advance: (): void => undefined,
};

const fine: Setback = { damaged: [], rejected: [] };

describe("a bank", () => {
  test("is built with modes that nobody can write and everybody can read", async () => {
    await using bench = await openBench();
    const made = handMade({ a: { text: "one", mode: 0o600 }, b: { text: "two", mode: 0o700 } });
    assert.deepEqual(await build(bench, made), fine);
    const mode = (name: string): number =>
      statSync(join(bench.folder, "banks/bank", name)).mode & 0o777;
    assert.deepEqual([mode("dir"), mode("dir/a"), mode("dir/b")], [0o755, 0o444, 0o555]);
    assert.equal(
      await verifyBank(nodeDisk, bench.store.bankPath("bank"), made.release, signal),
      true,
    );
    assert.equal((await bench.store.manifest("bank", signal))?.tree, made.release.tree);
  });

  test("holds equal files once, and twice when only one of them is executable", async () => {
    await using bench = await openBench();
    const made = handMade({
      a: { text: "same" },
      b: { text: "same" },
      c: { text: "same", mode: 0o755 },
      d: { text: "", mode: 0o755 },
    });
    assert.deepEqual(await build(bench, made), fine);
    const inode = (name: string): number =>
      statSync(join(bench.folder, "banks/bank/dir", name)).ino;
    assert.equal(inode("a"), inode("b"));
    assert.notEqual(inode("a"), inode("c"));
    assert.equal(readFileSync(join(bench.folder, "banks/bank/dir/c"), "utf8"), "same");
  });

  for (const [how, disk, shared] of [
    ["links", nodeDisk, true],
    ["copies, where links are not allowed,", { ...nodeDisk, link: async () => false }, false],
  ] as const)
    test(`${how} what the old bank has, and tells what is damaged there`, async () => {
      await using bench = await openBench(disk);
      const old = new Map();
      for (const name of ["kept", "broken", "longer", "gone"]) {
        const path = join(bench.folder, name);
        await writeFile(path, name === "broken" ? "brokem" : name === "longer" ? "longer!" : name);
        await chmod(path, 0o444);
        old.set(digest(name), { path, foreign: false });
      }
      await rm(join(bench.folder, "gone"));
      const made = handMade({
        broken: { text: "broken" },
        gone: { text: "gone" },
        kept: { text: "kept" },
        longer: { text: "longer" },
      });
      const setback = await build(bench, made, old);
      const expected = ["broken", "gone", "longer"].map((name) => digest(name)).toSorted();
      assert.deepEqual(setback.damaged.toSorted(), expected);
      for (const sha256 of setback.damaged) old.delete(sha256);
      assert.deepEqual(await build(bench, made, old, "again"), fine);
      const kept = statSync(join(bench.folder, "banks/again/dir/kept"));
      assert.equal(kept.ino === statSync(join(bench.folder, "kept")).ino, shared);
      assert.deepEqual(readdirSync(join(bench.folder, "banks")).toSorted(), [
        "again",
        "again.json",
      ]);
    });

  test("has the modes and kinds that its release says, whatever became of those of the old bank", async () => {
    await using bench = await openBench();
    const old = new Map<string, { readonly path: string; readonly foreign: boolean }>();
    const at = (name: string): string => join(bench.folder, name);
    const texts = { plain: "now executable", program: "no longer executable", link: "link" };
    for (const [name, text] of Object.entries(texts)) {
      await writeFile(at(name), text);
      old.set(digest(text), { path: at(name), foreign: false });
    }
    await chmod(at("plain"), 0o755);
    await chmod(at("program"), 0o444);
    // A symlink whose own size is that of the content, to a file with that content.
    await rename(at("link"), at("real"));
    await symlink("real", at("link"));
    const made = handMade({
      link: { text: texts.link },
      plain: { text: texts.plain },
      program: { text: texts.program, mode: 0o755 },
    });
    const setback = await build(bench, made, old);
    assert.deepEqual(setback, { damaged: [digest(texts.link)], rejected: [] });
    old.delete(digest(texts.link));
    assert.deepEqual(await build(bench, made, old, "again"), fine);
    const path = bench.store.bankPath("again");
    assert.equal(await verifyBank(nodeDisk, path, made.release, signal), true);
  });

  test("goes on from nothing that an interrupted attempt left, whatever it looks like", async () => {
    await using bench = await openBench();
    const made = handMade({ a: { text: "one" }, b: { text: "two" } });
    const left = join(bench.folder, "banks/bank.building-0/dir");
    await mkdir(left, { recursive: true });
    await writeFile(join(left, "a"), "onf");
    await chmod(join(left, "a"), 0o444);
    assert.deepEqual(await build(bench, made), fine);
    const path = bench.store.bankPath("bank");
    assert.equal(await verifyBank(nodeDisk, path, made.release, signal), true);
    assert.equal(readFileSync(join(left, "a"), "utf8"), "onf");
    await bench.store.sweep(["bank"]);
    assert.deepEqual(readdirSync(join(bench.folder, "banks")).toSorted(), ["bank", "bank.json"]);
  });

  test("that could not even be begun leaves nothing behind", async () => {
    const full = async (): Promise<never> => {
      throw new EdgeSyncError("DISK_FULL", "no room");
    };
    const disk = {
      ...nodeDisk,
      makeDirectory: (path: string, mode: number) =>
        path.endsWith("/dir") ? full() : nodeDisk.makeDirectory(path, mode),
    };
    await using bench = await openBench(disk);
    await assert.rejects(build(bench, handMade({ a: { text: "one" } })), { code: "DISK_FULL" });
    assert.deepEqual(readdirSync(join(bench.folder, "banks")), []);
  });

  test("is not built from a delta that gives another file, or is none", async () => {
    for (const blob of [Buffer.from("this is no delta"), Buffer.alloc(0)]) {
      await using bench = await openBench();
      const path = join(bench.folder, "old");
      await writeFile(path, "old text");
      const old = new Map([[digest("old text"), { path, foreign: false }]]);
      const delta = {
        base: digest("old text"),
        codec: "edgesync-1",
        sha256: digest(blob),
        size: 1,
      };
      const made = handMade({ a: { text: "new text".repeat(100), delta } });
      made.blobs.set(delta.sha256, blob);
      const setback = await build(bench, made, old);
      assert.deepEqual(setback, { damaged: [], rejected: [delta.sha256] });
    }
  });

  test("is not built from a delta whose base is damaged", async () => {
    await using bench = await openBench();
    const path = join(bench.folder, "old");
    await writeFile(path, "other text");
    const old = new Map([[digest("old text"), { path, foreign: false }]]);
    const delta = {
      base: digest("old text"),
      codec: "edgesync-1",
      sha256: digest("d"),
      size: 1,
    };
    const made = handMade({ a: { text: "new text".repeat(100), delta } });
    const setback = await build(bench, made, old);
    assert.deepEqual(setback, { damaged: [digest("old text")], rejected: [] });
  });

  describe("from a delta that is good", () => {
    const text = { old: "a".repeat(9_000) + "b".repeat(9_000), new: "a".repeat(9_000) + "c" };

    /** A bench, a file at `path` that is said to be the old one, and what is to be built from it. */
    async function prepare(bench: Bench, content: string) {
      const path = join(bench.folder, "old");
      await writeFile(path, content);
      const base = digest(text.old);
      const [from, to] = [inMemory(Buffer.from(text.old)), inMemory(Buffer.from(text.new))];
      const blob = await collect(encodeDelta(from, to, CREW, signal));
      const delta = { base, codec: CODEC, sha256: digest(blob), size: blob.length };
      const made = handMade({ a: { text: text.new, blob: Buffer.alloc(999), delta } });
      made.blobs.set(delta.sha256, blob);
      return { path, base, made, old: new Map([[base, { path, foreign: false }]]) };
    }

    test("does not ask for more of the base than it copies", async () => {
      await using bench = await openBench();
      const { made, old } = await prepare(bench, `${text.old.slice(0, -1)}?`);
      assert.deepEqual(await build(bench, made, old), fine);
      assert.equal(readFileSync(join(bench.folder, "banks/bank/dir/a"), "utf8"), text.new);
    });

    test("is the base's fault when the base is another, or cannot be read", async () => {
      await using bench = await openBench();
      const { base, made, old } = await prepare(bench, `?${text.old.slice(1)}`);
      assert.deepEqual(await build(bench, made, old), { damaged: [base], rejected: [] });

      const unreadable: Disk = {
        ...nodeDisk,
        async openRead(path) {
          const file = await nodeDisk.openRead(path);
          if (basename(path) !== "old" || file === undefined) return file;
          const fail = async (): Promise<never> => {
            throw new EdgeSyncError("DISK_FAILED", "EIO");
          };
          return {
            size: file.size,
            read: fail,
            readInto: fail,
            [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
          };
        },
      };
      await using bad = await openBench(unreadable);
      const again = await prepare(bad, text.old);
      const setback = await build(bad, again.made, again.old);
      assert.deepEqual(setback, { damaged: [base], rejected: [] });
    });

    test("is nobody's fault when the new file cannot be written", async () => {
      const worn: Disk = {
        ...nodeDisk,
        create: async () => {
          throw new EdgeSyncError("DISK_FAILED", "EIO");
        },
      };
      await using bench = await openBench(worn);
      const { made, old } = await prepare(bench, text.old);
      await assert.rejects(build(bench, made, old), { code: "DISK_FAILED" });
    });
  });

  for (const [what, blob] of [
    ["another file", zstdCompressSync("something else")],
    ["a file of the same size", zstdCompressSync("wrong")],
    ["much more than is signed", zstdCompressSync(Buffer.alloc(50_000_000))],
    ["nothing that can be decompressed", Buffer.from("garbage")],
  ] as const)
    test(`is not built from a full blob that gives ${what}, and leaves nothing behind`, async () => {
      await using bench = await openBench();
      const made = handMade({ a: { text: "right", blob } });
      await assert.rejects(build(bench, made), { code: "DIGEST_MISMATCH" });
      assert.deepEqual(readdirSync(join(bench.folder, "banks")), []);
    });

  for (const [what, spoil] of [
    ["a byte is another", (bank: string) => writeFile(join(bank, "dir/a"), "onf")],
    ["a file is missing", (bank: string) => rm(join(bank, "dir/a"))],
    ["a file was added", (bank: string) => writeFile(join(bank, "dir/c"), "")],
    ["a mode is another", (bank: string) => chmod(join(bank, "dir/a"), 0o755)],
    [
      "a file became a link",
      async (bank: string) => {
        await rm(join(bank, "dir/a"));
        await symlink("b", join(bank, "dir/a"));
      },
    ],
    ["a directory was added", (bank: string) => mkdir(join(bank, "more"))],
  ] as const)
    test(`is found out when ${what}`, async () => {
      await using bench = await openBench();
      const made = handMade({ a: { text: "one" }, b: { text: "two" } });
      await build(bench, made);
      const bank = bench.store.bankPath("bank");
      await chmod(join(bank, "dir/a"), 0o644);
      assert.equal(await verifyBank(nodeDisk, bank, made.release, signal), true);
      await spoil(bank);
      assert.equal(await verifyBank(nodeDisk, bank, made.release, signal), false);
    });
});

describe("the payload volume", () => {
  test("is swept of leftovers and old banks, and keeps what is named and what is served", async () => {
    await using bench = await openBench();
    const made = handMade({ a: { text: "one" } });
    for (const id of ["old", "kept", "served"]) await build(bench, made, new Map(), id);
    const banks = join(bench.folder, "banks");
    for (const name of ["x.building-0", "y.removing-12"]) await mkdir(join(banks, name));
    await writeFile(join(banks, "gone.json.new"), "");
    await bench.store.activate("served");
    assert.deepEqual((await bench.store.banks()).toSorted(), ["kept", "old", "served"]);
    await bench.store.sweep(["kept"]);
    const left = ["kept", "kept.json", "served", "served.json"];
    assert.deepEqual(readdirSync(banks).toSorted(), left);
  });

  test("gives each attempt at a bank a folder of its own, whatever was left of the one before", async () => {
    await using bench = await openBench();
    const folders = [await bench.store.beginBank("x"), await bench.store.beginBank("x")];
    assert.deepEqual(
      folders.map((folder) => basename(folder)),
      ["x.building-0", "x.building-1"],
    );
  });

  test("serves nothing through a link that leads elsewhere, nowhere, or to what is not complete", async () => {
    await using bench = await openBench();
    await mkdir(join(bench.folder, "banks/a.building-0"));
    for (const target of ["/etc", "banks/none", "banks/../banks", "banks/a.building-0"]) {
      await rm(join(bench.folder, "current"), { force: true });
      await symlink(target, join(bench.folder, "current"));
      assert.equal(await bench.store.current(), undefined, target);
    }
  });

  test("swaps in spite of what an interrupted swap left", async () => {
    await using bench = await openBench();
    await build(bench, handMade({ a: { text: "one" } }), new Map(), "new");
    await symlink("banks/old", join(bench.folder, "current.new"));
    await bench.store.activate("new");
    assert.equal(await bench.store.current(), "new");
  });
});
