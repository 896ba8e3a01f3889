import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, symlinkSync } from "node:fs";
import {
  chmod,
  mkdir,
  open as openFile,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import {
  FILE_HOLD_MS,
  HOLDS_LIMIT,
  HOLD_LIMIT_MS,
  formatHolds,
  parseHoldRequest,
  parseHolds,
  readHoldFile,
} from "#core/hold.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Hold } from "#core/hold.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { openHolds } from "../../sidecar/application/hold.ts";
import type { HoldBook, HoldDeps } from "../../sidecar/application/hold.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";

const forever = new AbortController().signal;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const NOW = Date.parse("2026-11-22T12:00:00Z");

function open(clock: ManualClock, more: Partial<HoldDeps> = {}): HoldBook {
  return openHolds({
    clock,
    log: quiet,
    volume: undefined,
    folder: undefined,
    pod: "p-1",
    ...more,
  });
}

async function owners(book: HoldBook): Promise<readonly string[]> {
  return (await book.list(forever)).map(({ owner }) => owner).toSorted();
}

describe("a request for a hold", () => {
  test("has a whole number of seconds, at most a day, and perhaps a reason", () => {
    assert.deepEqual(parseHoldRequest({ seconds: 60, reason: " a\nb\u0007 " }), {
      forMs: 60_000,
      reason: "a b",
    });
    assert.equal(parseHoldRequest({ seconds: 86_400 })?.forMs, HOLD_LIMIT_MS);
    for (const bad of [
      {},
      { seconds: 0 },
      { seconds: 86_401 },
      { seconds: 1.5 },
      { seconds: "60" },
    ])
      assert.equal(parseHoldRequest(bad), undefined);
    for (const bad of [null, [], { seconds: 1, for: 2 }, { seconds: 1, reason: 7 }])
      assert.equal(parseHoldRequest(bad), undefined);
  });
});

describe("holds over the control port", () => {
  test("end by themselves, and may be taken anew", async () => {
    const clock = manualClock(NOW);
    const book = open(clock);
    await book.put("backup", { forMs: 60_000, reason: "nightly" });
    await clock.advance(50_000);
    await book.put("backup", { forMs: 60_000, reason: "nightly" });
    await clock.advance(59_999);
    const [hold] = await book.list(forever);
    assert.deepEqual(hold, {
      owner: "backup",
      since: NOW,
      until: NOW + 110_000,
      reason: "nightly",
    });
    await clock.advance(1);
    assert.deepEqual(await book.list(forever), []);
  });

  test("are as long as was asked whatever the clock does", async () => {
    const clock = manualClock(NOW);
    const book = open(clock);
    await book.put("backup", { forMs: 60_000, reason: undefined });
    clock.setWall(0);
    await clock.advance(59_999);
    assert.deepEqual(await owners(book), ["backup"]);
    await clock.advance(1);
    assert.deepEqual(await owners(book), []);
  });

  test("are released by their owner", async () => {
    const book = open(manualClock(NOW));
    await book.put("a", { forMs: 60_000, reason: undefined });
    await book.put("b", { forMs: 60_000, reason: undefined });
    assert.equal((await book.remove("a")).released, true);
    assert.equal((await book.remove("a")).released, false);
    assert.deepEqual(await owners(book), ["b"]);
  });

  test("are bounded in number, and the operator has a place all the same", async () => {
    await using folder = await temporaryFolder();
    const deps = { volume: folder.path };
    const book = open(manualClock(NOW), deps);
    const request = { forMs: 60_000, reason: undefined };
    for (let index = 0; index < HOLDS_LIMIT - 1; index++)
      assert.ok(await book.put(`o${index}`, request));
    assert.equal(await book.put("more", request), undefined);
    assert.ok(await book.put("o0", { forMs: 90_000, reason: undefined }));
    assert.ok(await book.put("operator", request));
    assert.equal(await book.put("more", request), undefined);
    assert.equal((await owners(open(manualClock(NOW), deps))).length, HOLDS_LIMIT);
  });

  test("say whether a restart forgets them, which is told once, until the disk takes them again", async () => {
    await using folder = await temporaryFolder();
    let isFull = true;
    const disk: Disk = {
      ...nodeDisk,
      async create(path, mode) {
        if (isFull) throw new EdgeSyncError("DISK_FULL", "full");
        return await nodeDisk.create(path, mode);
      },
    };
    const warned: unknown[] = [];
    const log = { ...quiet, warn: (_: unknown, text: unknown) => void warned.push(text) };
    const clock = manualClock(NOW);
    const book = open(clock, { volume: folder.path, disk, log });
    const request = { forMs: 3_600_000, reason: undefined };
    for (let turn = 0; turn < 3; turn++) {
      assert.equal((await book.put("till", request))?.saved, false);
      await clock.advance(1_000);
    }
    assert.deepEqual(await owners(book), ["till"], "it counts all the same");
    assert.equal(warned.length, 1);
    isFull = false;
    assert.equal((await book.put("till", request))?.saved, true);
    assert.deepEqual(await owners(open(clock, { volume: folder.path })), ["till"]);
    isFull = true;
    assert.deepEqual(await book.remove("till"), { released: true, saved: false });
    assert.equal(warned.length, 2);
  });

  test("outlive a restart of the sidecar, by what is left of them", async () => {
    await using folder = await temporaryFolder();
    const volume = folder.path;
    const before = manualClock(NOW);
    const book = open(before, { volume });
    await book.put("short", { forMs: 10_000, reason: undefined });
    await book.put("long", { forMs: 100_000, reason: undefined });
    const after = manualClock(NOW + 20_000);
    const restarted = open(after, { volume });
    assert.deepEqual(await owners(restarted), ["long"]);
    await after.advance(80_000);
    assert.deepEqual(await owners(restarted), []);
    // A clock that was set back does not make a hold longer than it was when it was saved.
    const behind = manualClock(NOW - 9_000_000);
    const wrong = open(behind, { volume });
    assert.deepEqual(await owners(wrong), ["long"]);
    await behind.advance(100_000);
    assert.deepEqual(await owners(wrong), []);
  });

  test("of a pod that is gone hold nothing", async () => {
    await using folder = await temporaryFolder();
    const book = open(manualClock(NOW), { volume: folder.path });
    await book.put("backup", { forMs: 60_000, reason: undefined });
    const other = open(manualClock(NOW), { volume: folder.path, pod: "p-2" });
    assert.deepEqual(await owners(other), []);
  });

  test("count also when the disk does not take them, or what it holds is no list", async () => {
    await using folder = await temporaryFolder();
    const gone = open(manualClock(NOW), { volume: join(folder.path, "missing") });
    await gone.put("backup", { forMs: 60_000, reason: undefined });
    assert.deepEqual(await owners(gone), ["backup"]);
    await writeFile(join(folder.path, "holds.json"), '{"holds":');
    const book = open(manualClock(NOW), { volume: folder.path });
    assert.deepEqual(await owners(book), []);
    await book.put("backup", { forMs: 60_000, reason: undefined });
    assert.match(await readFile(join(folder.path, "holds.json"), "utf8"), /"owner":"backup"/);
  });

  test("are saved and read back by any clock without becoming longer", () => {
    const hold: fc.Arbitrary<Hold> = fc.record({
      owner: fc.stringMatching(/^[a-z0-9]{1,8}$/),
      since: fc.integer({ min: 0, max: 4e12 }),
      until: fc.integer({ min: 0, max: 4e12 }),
    });
    const time = fc.integer({ min: 0, max: 4e12 });
    fc.assert(
      fc.property(fc.array(hold, { maxLength: 4 }), time, time, (holds, savedAt, now) => {
        for (const { owner, leftMs } of parseHolds(formatHolds(holds, "p", savedAt), "p", now)) {
          const most = holds.filter((one) => one.owner === owner).map((one) => one.until - savedAt);
          assert.ok(leftMs > 0 && leftMs <= HOLD_LIMIT_MS && leftMs <= Math.max(...most));
        }
      }),
    );
  });
});

describe("a hold that is taken anew", () => {
  interface Watched {
    readonly deps: Pick<HoldDeps, "disk" | "log">;
    readonly count: { syncs: number; lines: number };
  }

  function watched(): Watched {
    const count = { syncs: 0, lines: 0 };
    const disk: Disk = {
      ...nodeDisk,
      async create(path, mode) {
        count.syncs += 1;
        return await nodeDisk.create(path, mode);
      },
    };
    return { deps: { disk, log: { ...quiet, info: () => (count.lines += 1) } }, count };
  }

  test("costs a write and a line the first time, and a write when what is saved is too early", async () => {
    await using folder = await temporaryFolder();
    const clock = manualClock(NOW);
    const { deps, count } = watched();
    const book = open(clock, { volume: folder.path, ...deps });
    for (let second = 0; second < 300; second++) {
      await book.put("till", { forMs: 3_600_000, reason: undefined });
      await clock.advance(1_000);
    }
    assert.deepEqual(count, { syncs: 1, lines: 1 });
    await clock.advance(2_000);
    await book.put("till", { forMs: 3_600_000, reason: undefined });
    assert.deepEqual(count, { syncs: 2, lines: 1 });
    // One that is made shorter must not be long again after a restart.
    await book.put("till", { forMs: 60_000, reason: undefined });
    assert.deepEqual(count, { syncs: 3, lines: 1 });
    await book.put("other", { forMs: 60_000, reason: undefined });
    await book.remove("other");
    await book.put("other", { forMs: 60_000, reason: undefined });
    assert.deepEqual(count, { syncs: 6, lines: 4 });
  });

  test("outlives a restart at any moment, however short it is asked for", async () => {
    await using folder = await temporaryFolder();
    const clock = manualClock(NOW);
    const { deps, count } = watched();
    const book = open(clock, { volume: folder.path, ...deps });
    for (let turn = 0; turn < 40; turn++) {
      await book.put("till", { forMs: 60_000, reason: undefined });
      await clock.advance(9_999);
      assert.deepEqual(await owners(open(clock, { volume: folder.path })), ["till"]);
    }
    assert.ok(count.syncs <= 15, `${count.syncs} writes in 400 s`);
  });
});

describe("what a hold file asks for", () => {
  const read = (text: string, writtenAt = NOW) => readHoldFile("backup", text, writtenAt, NOW);

  test("is an hour from when it was written, when it is empty or cannot be read", () => {
    for (const text of ["", "  ", "{", "[]", "7", '{"until":"soon"}', '{"seconds":"1"}'])
      assert.equal(read(text).forMs, FILE_HOLD_MS);
    assert.equal(read("", NOW - FILE_HOLD_MS).forMs, 0);
  });

  test("is a time, or seconds from when it was written, at most a day", () => {
    assert.equal(read('{"until":"2026-11-22T12:30:00Z"}').forMs, 1_800_000);
    assert.equal(read('{"until":"2026-11-22T11:30:00Z"}').forMs, 0);
    assert.equal(read('{"seconds":90}', NOW - 30_000).forMs, 60_000);
    assert.equal(read('{"until":"2099-01-01T00:00:00Z"}').forMs, HOLD_LIMIT_MS);
    assert.equal(read("", NOW + 1e12).forMs, HOLD_LIMIT_MS);
  });

  test("is told when it is not taken as it is written", () => {
    for (const [text, named] of [
      ["{", /JSON/],
      ["[]", /object/],
      ['{"until":"soon"}', /until/],
      ['{"seconds":"1"}', /seconds/],
      ['{"owner":"../x"}', /owner/],
      ['{"untill":"2026-11-22T12:30:00Z"}', /untill .*until/],
      ['{"until":"2099-01-01T00:00:00Z"}', /day/],
    ] as const)
      assert.match(read(text).problem ?? "", named, text);
    for (const text of ["", " ", "{}", '{"seconds":60}', '{"until":"2026-11-22T12:30:00Z"}'])
      assert.equal(read(text).problem, undefined, text);
  });

  test("may name its owner and a reason", () => {
    assert.deepEqual(read('{"owner":"till-4","seconds":60,"reason":"inventory"}'), {
      owner: "till-4",
      forMs: 60_000,
      reason: "inventory",
    });
    assert.equal(read('{"owner":"../x","seconds":60}').owner, "backup");
  });
});

/** Has all threads that read files wait for a pipe that nobody writes, until the end of the scope: what a server that is gone does. */
function stuckThreads(folder: string): AsyncDisposable {
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  const threads = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
  const reading = Array.from({ length: threads }, () => openFile(pipe, "r"));
  return {
    async [Symbol.asyncDispose]() {
      const writing = openSync(pipe, "r+");
      for (const file of await Promise.all(reading)) await file.close();
      closeSync(writing);
    },
  };
}

describe("holds as files", () => {
  async function withFiles(
    act: (folder: string, book: HoldBook, clock: ManualClock) => Promise<void>,
  ): Promise<void> {
    await using folder = await temporaryFolder();
    const clock = manualClock(Date.now());
    await act(folder.path, open(clock, { folder: folder.path }), clock);
  }

  test("hold while they are there, beside the others", async () => {
    await withFiles(async (folder, book) => {
      await book.put("api", { forMs: 60_000, reason: undefined });
      await writeFile(join(folder, "batch.hold"), '{"seconds":600,"reason":"a batch"}');
      await writeFile(join(folder, "empty.hold"), "");
      await writeFile(join(folder, "notes.txt"), "");
      assert.deepEqual(await owners(book), ["api", "batch", "empty"]);
      assert.deepEqual(
        book
          .known()
          .map(({ owner }) => owner)
          .toSorted(),
        ["api", "batch", "empty"],
      );
      await rm(join(folder, "batch.hold"));
      assert.deepEqual(await owners(book), ["api", "empty"]);
    });
  });

  test("end by monotonic time, a day after they were first seen at the latest", async () => {
    await withFiles(async (folder, book, clock) => {
      await writeFile(join(folder, "far.hold"), '{"until":"2099-01-01T00:00:00Z"}');
      assert.deepEqual(await owners(book), ["far"]);
      clock.setWall(0);
      await clock.advance(HOLD_LIMIT_MS - 1);
      assert.deepEqual(await owners(book), ["far"]);
      await clock.advance(1);
      assert.deepEqual(await owners(book), []);
      assert.deepEqual(await owners(book), [], "and do not begin anew");
    });
  });

  test("hold anew when they are written anew", async () => {
    await withFiles(async (folder, book, clock) => {
      const path = join(folder, "batch.hold");
      await writeFile(path, "");
      assert.deepEqual(await owners(book), ["batch"]);
      await clock.advance(FILE_HOLD_MS + 60_000);
      assert.deepEqual(await owners(book), []);
      await utimes(path, clock.now() / 1000, clock.now() / 1000);
      assert.deepEqual(await owners(book), ["batch"]);
    });
  });

  test("are files: a link, a pipe or a folder is not opened, and nothing waits for one", async () => {
    await withFiles(async (folder, book) => {
      await writeFile(join(folder, "secret.txt"), '{"seconds":60,"reason":"hunter2"}');
      await symlink(join(folder, "secret.txt"), join(folder, "link.hold"));
      execFileSync("mkfifo", [join(folder, "pipe.hold")]);
      await mkdir(join(folder, "folder.hold"));
      await writeFile(join(folder, "-bad.hold"), "");
      assert.deepEqual(await owners(book), []);
      assert.deepEqual(
        book.problems().map(({ file }) => file),
        ["-bad.hold", "folder.hold", "link.hold", "pipe.hold"],
      );
    });
  });

  test("are bounded in number and size", async () => {
    await withFiles(async (folder, book) => {
      for (let index = 0; index < HOLDS_LIMIT + 5; index++)
        await writeFile(join(folder, `${index}.hold`), " ".repeat(100_000));
      assert.equal((await book.list(forever)).length, HOLDS_LIMIT);
      assert.match(book.problems()[0]?.problem ?? "", /do not hold: at most 32/);
    });
  });

  test("that are wrong are told once while they are, and not when they are being written", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "till.hold");
    const clock = manualClock(Date.now());
    const warned: unknown[] = [];
    const log = { ...quiet, warn: (_: unknown, text: unknown) => void warned.push(text) };
    const book = open(clock, { folder: folder.path, log });
    await writeFile(path, '{"seco');
    assert.deepEqual(await owners(book), ["till"]);
    assert.deepEqual(book.problems(), []);
    await writeFile(path, '{"seconds": "long"}');
    for (let look = 0; look < 3; look++) assert.deepEqual(await owners(book), ["till"]);
    assert.deepEqual(
      book.problems().map(({ file }) => file),
      ["till.hold"],
    );
    assert.equal(warned.length, 1);
    await clock.advance(FILE_HOLD_MS + 60_000);
    assert.deepEqual(await owners(book), []);
    assert.equal(book.problems().length, 1, "who looks why it does not hold any more finds out");
    await rm(path);
    assert.deepEqual(await owners(book), []);
    assert.deepEqual(book.problems(), []);
  });

  test("that may not be read hold for an hour from when they were written, and that is said once", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "till.hold");
    await writeFile(path, '{"seconds":60}', { mode: 0o200 });
    await symlink(path, join(folder.path, "link.hold"));
    await chmod(folder.path, 0o755);
    const clock = manualClock(Date.now());
    const warned: unknown[] = [];
    const log = { ...quiet, warn: (_: unknown, text: unknown) => void warned.push(text) };
    const book = open(clock, { folder: folder.path, log });
    // Root may read anything.
    const isRoot = process.getuid?.() === 0;
    if (isRoot) process.seteuid?.(65_534);
    try {
      assert.deepEqual(await owners(book), ["till"]);
      await clock.advance(FILE_HOLD_MS - 60_000);
      assert.deepEqual(await owners(book), ["till"]);
      await clock.advance(60_000);
      assert.deepEqual(await owners(book), []);
      assert.deepEqual(await owners(book), [], "and do not begin anew");
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
    assert.equal(warned.length, 2, "one for each file");
  });

  test("on a volume that hangs hold on, and that is said once", async () => {
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "till.hold"), "");
    const clock = manualClock(Date.now());
    const warned: unknown[] = [];
    const log = { ...quiet, warn: (_: unknown, text: unknown) => void warned.push(text) };
    const book = open(clock, { folder: folder.path, log });
    assert.deepEqual(await owners(book), ["till"]);
    // The threads that would read it are all waiting for something else.
    {
      await using _ = stuckThreads(folder.path);
      for (let look = 0; look < 2; look++) {
        const listed = owners(book);
        await clock.advance(5_000);
        assert.deepEqual(await listed, ["till"]);
      }
      assert.equal(warned.length, 1);
    }
    assert.deepEqual(await owners(book), ["till"]);
  });

  test("among very many files are looked for up to a limit, and that is said once", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const warned: unknown[] = [];
    const log = { ...quiet, warn: (_: unknown, text: unknown) => void warned.push(text) };
    const book = open(manualClock(Date.now()), { folder: folder.path, log });
    for (let index = 0; index < 5_000; index++) symlinkSync("x", join(folder.path, `${index}.txt`));
    for (let look = 0; look < 2; look++) assert.deepEqual(await owners(book), []);
    assert.equal(warned.length, 1);
  });

  test("on a volume that is gone hold nothing", async () => {
    await using folder = await temporaryFolder();
    const book = open(manualClock(NOW), { folder: join(folder.path, "missing") });
    assert.deepEqual(await owners(book), []);
  });
});
