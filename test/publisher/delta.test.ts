import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmod,
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { X86_64 } from "#core/delta/elf.ts";
import { makeElf } from "../support/elf.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { edgesync } from "./world.ts";

const FUNCTIONS = Array.from({ length: 300 }, (_, index) => index + 50);
const elf = (from: number): Buffer =>
  makeElf({ machine: X86_64, base: 0, functions: FUNCTIONS.slice(from) });
const text = (lines: number): string =>
  Array.from({ length: lines }, (_, index) => `line ${index} ${(index * 7919) % 1000}\n`).join("");

describe("edgesync delta", () => {
  test("makes, describes and applies a delta between two files", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string): string => join(folder.path, name);
    await writeFile(path("old"), elf(0));
    await writeFile(path("new"), elf(7));
    const made = await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    assert.equal(made.status, 0, made.stderr);
    const info = await edgesync(["delta", "info", path("delta"), "--json"]);
    const { segments, newBytes } = JSON.parse(info.stdout) as {
      segments: readonly { readonly codec: string }[];
      newBytes: number;
    };
    assert.deepEqual([segments[0]?.codec, newBytes], ["placed", elf(7).length]);
    const applied = await edgesync([
      "delta",
      "apply",
      path("old"),
      path("delta"),
      "-o",
      path("out"),
    ]);
    assert.equal(applied.status, 0, applied.stderr);
    assert.deepEqual(await readFile(path("out")), elf(7));
  });

  test("does the same with folders, as one solid delta", async () => {
    await using folder = await temporaryFolder();
    const path = (...names: string[]): string => join(folder.path, ...names);
    for (const [name, from, lines] of [
      ["old", 0, 5000],
      ["new", 9, 5100],
    ] as const) {
      await mkdir(path(name, "bin", "empty"), { recursive: true });
      await writeFile(path(name, "bin", "tool"), elf(from));
      await chmod(path(name, "bin", "tool"), 0o755);
      await writeFile(path(name, "text"), text(lines));
      await symlink("../text", path(name, "bin", "link"));
    }
    await writeFile(path("new", "copy"), text(5000));
    const made = await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    assert.equal(made.status, 0, made.stderr);
    assert.ok((await lstat(path("delta"))).size < 8000);
    const applied = await edgesync([
      "delta",
      "apply",
      path("old"),
      path("delta"),
      "-o",
      path("out"),
    ]);
    assert.equal(applied.status, 0, applied.stderr);
    assert.deepEqual(
      (await readdir(path("out"), { recursive: true })).toSorted(),
      (await readdir(path("new"), { recursive: true })).toSorted(),
    );
    assert.deepEqual(await readFile(path("out", "bin", "tool")), elf(9));
    assert.equal((await lstat(path("out", "bin", "tool"))).mode & 0o111, 0o111);
    assert.equal(await readFile(path("out", "copy"), "utf8"), text(5000));
    assert.equal(await readlink(path("out", "bin", "link")), "../text");
  });

  test("leaves nothing behind when the old file is another, or the delta is damaged", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string): string => join(folder.path, name);
    await writeFile(path("old"), text(2000));
    await writeFile(path("new"), text(2100));
    await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    await writeFile(path("other"), text(2000).replace("line 7 ", "Line 7 "));
    const other = await edgesync([
      "delta",
      "apply",
      path("other"),
      path("delta"),
      "-o",
      path("out"),
    ]);
    assert.match(other.stderr, /^edgesync: DIGEST_MISMATCH: /);
    const bytes = await readFile(path("delta"));
    for (const at of [0, 90, bytes.length - 3]) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 0x55;
      await writeFile(path("damaged"), damaged);
      const ran = await edgesync([
        "delta",
        "apply",
        path("old"),
        path("damaged"),
        "-o",
        path("out"),
      ]);
      assert.match(ran.stderr, /^edgesync: (DELTA_INVALID|DIGEST_MISMATCH): /);
    }
    assert.deepEqual((await readdir(folder.path)).toSorted(), [
      "damaged",
      "delta",
      "new",
      "old",
      "other",
    ]);
  });

  test("refuses paths that cannot be meant, and never replaces what it reads", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string): string => join(folder.path, name);
    await writeFile(path("old"), text(200));
    await writeFile(path("new"), text(210));
    await mkdir(path("tree"));
    await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    const before = await readFile(path("delta"));
    for (const [command, from, to, out] of [
      ["make", "old", "new", "old"],
      ["make", "old", "new", "new"],
      ["make", "missing", "new", "out"],
      ["make", "tree", "new", "out"],
      ["apply", "old", "delta", "old"],
      ["apply", "old", "delta", "delta"],
      ["apply", "old", "tree", "out"],
      ["apply", "tree", "delta", "out"],
    ] as const) {
      const ran = await edgesync(["delta", command, path(from), path(to), "-o", path(out)]);
      assert.match(ran.stderr, /^edgesync: USAGE: /, `${command} ${from} ${to} ${out}`);
    }
    assert.equal(await readFile(path("old"), "utf8"), text(200));
    assert.equal(await readFile(path("new"), "utf8"), text(210));
    assert.deepEqual(await readFile(path("delta")), before);
  });

  test("writes to no place that is none for a file, and replaces nothing that is none", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string): string => join(folder.path, name);
    await writeFile(path("old"), text(200));
    await writeFile(path("new"), text(210));
    await mkdir(path("tree"));
    execFileSync("mkfifo", [path("pipe")]);
    await symlink("elsewhere", path("link"));
    await writeFile(path("elsewhere"), "mine");
    await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    const there = (await readdir(folder.path)).toSorted();
    for (const out of ["pipe", "link", "tree", "tree/", "fresh/", "old/below", "nope/below"])
      for (const [command, second] of [
        ["make", "new"],
        ["apply", "delta"],
      ] as const) {
        const ran = await edgesync(["delta", command, path("old"), path(second), "-o", path(out)]);
        assert.match(ran.stderr, /^edgesync: USAGE: --output: .*expected/, `${command} ${out}`);
      }
    assert.ok((await lstat(path("pipe"))).isFIFO());
    assert.equal(await readlink(path("link")), "elsewhere");
    assert.deepEqual((await readdir(folder.path)).toSorted(), there);
  });

  test("touches nothing that stands beside its output", async () => {
    await using folder = await temporaryFolder();
    const path = (...names: string[]): string => join(folder.path, ...names);
    // Names that a download of the same thing would have.
    await writeFile(path("new.partial"), text(200));
    await writeFile(path("new"), text(210));
    for (const [name, lines] of [
      ["tree.partial", 200],
      ["other", 210],
    ] as const) {
      await mkdir(path(name));
      await writeFile(path(name, "file"), text(lines));
    }
    await mkdir(path("delta.partial"));
    for (const [old, next, delta, out] of [
      ["new.partial", "new", "delta", "new"],
      ["tree.partial", "other", "folder-delta", "tree/"],
    ] as const) {
      const made = await edgesync(["delta", "make", path(old), path(next), "-o", path(delta)]);
      assert.equal(made.status, 0, made.stderr);
      const applied = await edgesync(["delta", "apply", path(old), path(delta), "-o", path(out)]);
      assert.equal(applied.status, 0, applied.stderr);
    }
    assert.equal(await readFile(path("new.partial"), "utf8"), text(200));
    assert.equal(await readFile(path("new"), "utf8"), text(210));
    assert.equal(await readFile(path("tree.partial", "file"), "utf8"), text(200));
    assert.equal(await readFile(path("tree", "file"), "utf8"), text(210));
    assert.deepEqual((await readdir(folder.path)).toSorted(), [
      "delta",
      "delta.partial",
      "folder-delta",
      "new",
      "new.partial",
      "other",
      "tree",
      "tree.partial",
    ]);
  });

  test("takes links to folders for links, and not for what they lead to", async () => {
    await using folder = await temporaryFolder();
    const path = (...names: string[]): string => join(folder.path, ...names);
    for (const [name, lines] of [
      ["old", 200],
      ["new", 210],
    ] as const) {
      await mkdir(path(name, "lib"), { recursive: true });
      await writeFile(path(name, "lib", "file"), text(lines));
      await symlink("lib", path(name, "lib64"));
      await symlink("..", path(name, "lib", "up"));
    }
    await symlink(folder.path, path("old", "out"));
    const made = await edgesync(["delta", "make", path("old"), path("new"), "-o", path("delta")]);
    assert.equal(made.status, 0, made.stderr);
    const ran = await edgesync(["delta", "apply", path("old"), path("delta"), "-o", path("made")]);
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual((await readdir(path("made"))).toSorted(), ["lib", "lib64"]);
    assert.equal(await readlink(path("made", "lib64")), "lib");
    assert.equal(await readlink(path("made", "lib", "up")), "..");
    assert.equal(await readFile(path("made", "lib", "file"), "utf8"), text(210));
  });

  test("makes no delta to a folder that applying it would not make", async () => {
    await using folder = await temporaryFolder();
    const path = (...names: string[]): string => join(folder.path, ...names);
    for (const name of ["old", "new"]) await mkdir(path(name, "below"), { recursive: true });
    // Nothing is made of what the old one has.
    await symlink("/etc/hostname", path("old", "link"));
    const make = ["delta", "make", path("old"), path("new"), "-o", path("delta")];
    for (const target of ["/etc/hostname", "../../file", "below/../file", Buffer.from([0xff])]) {
      await symlink(target, path("new", "below", "link"));
      const ran = await edgesync(make);
      assert.match(ran.stderr, /^edgesync: TREE_INVALID: below\/link is a symlink/, String(target));
      await rm(path("new", "below", "link"));
    }
    const name = Buffer.concat([Buffer.from(path("new/")), Buffer.from([0xff])]);
    await writeFile(name, "of a name that is no text");
    const named = await edgesync(make);
    assert.match(named.stderr, /^edgesync: TREE_INVALID: "\uFFFD" is no usable path/);
    await rm(name);
    await symlink("..", path("new", "below", "link"));
    const made = await edgesync(make);
    assert.equal(made.status, 0, made.stderr);
    const ran = await edgesync(["delta", "apply", path("old"), path("delta"), "-o", path("out")]);
    assert.equal(ran.status, 0, ran.stderr);
    assert.equal(await readlink(path("out", "below", "link")), "..");
  });
});
