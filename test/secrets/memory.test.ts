import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, readdir, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import * as fc from "../support/property.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { isSwappable, mountOf, swapAreas } from "#core/swap.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openMemory } from "../../sidecar/secrets/memory.ts";
import type { MemorySystem } from "../../sidecar/secrets/memory.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog, startSidecar, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";

const MEMORY = "/dev/shm";
const HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
const PARTITION = "/dev/nvme0n1p3                          partition\t8388604\t\t0\t\t-2\n";
const ZRAM = "/dev/zram0                              partition\t2097148\t\t0\t\t100\n";

function mountinfo(options: string, type = "tmpfs"): string {
  return [
    "21 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw",
    `612 598 0:98 / /var/run/edgesync/secrets rw,relatime shared:7 master:2 - ${type} tmpfs ${options}`,
    "613 598 0:99 / /var/run/edgesync/secrets-of-others rw - tmpfs tmpfs rw,noswap",
    "",
  ].join("\n");
}

/** A system with these files, and a folder that is in memory. */
function system(files: Readonly<Record<string, string>>, type = 0x01021994): MemorySystem {
  return {
    type: () => Promise.resolve(type),
    realpath: () => Promise.resolve("/var/run/edgesync/secrets"),
    read: (path) => {
      const text = files[path];
      const error = Object.assign(new Error(path), { code: text === "" ? "EACCES" : "ENOENT" });
      return text === undefined || text === "" ? Promise.reject(error) : Promise.resolve(text);
    },
  };
}

function open(files: Readonly<Record<string, string>>, require: "nothing" | "noswap" = "nothing") {
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const log = recordedLog();
  const folder = "/run/edgesync/secrets";
  const memory = openMemory({ folder, require, log, metrics, system: system(files) });
  return { memory, log, registry };
}

const SWAPS = "/proc/swaps";
const MOUNTS = "/proc/self/mountinfo";
const SWAPPING = { [SWAPS]: HEADING + PARTITION, [MOUNTS]: mountinfo("rw,size=8192k") };

describe("memory for secrets on a node that swaps", () => {
  test("is told once, with its reason and a metric, and is written to all the same", async () => {
    const { memory, log, registry } = open(SWAPPING);
    await memory.check();
    await memory.check();
    assert.equal(memory.status()?.reason, "swap_on");
    assert.match(await registry.metrics(), /^edgesync_sidecar_secrets_swappable 1$/m);
    assert.equal(log.lines.filter((line) => line.startsWith("warn")).length, 1);
  });

  test("is refused under require: noswap, and the ways out are named", async () => {
    const { memory } = open(SWAPPING, "noswap");
    await assert.rejects(memory.check(), { code: "SECRET_STORAGE_SWAPS" });
    assert.equal(memory.status()?.reason, "swap_on");
  });

  for (const [what, files] of Object.entries({
    "is mounted with noswap": { ...SWAPPING, [MOUNTS]: mountinfo("rw,size=8192k,noswap,inode64") },
    "is a ramfs": { ...SWAPPING, [MOUNTS]: mountinfo("rw", "ramfs") },
    "has no swap": { ...SWAPPING, [SWAPS]: HEADING },
    "has a kernel without swap": { [MOUNTS]: mountinfo("rw") },
    "swaps to compressed memory": { ...SWAPPING, [SWAPS]: HEADING + ZRAM },
    "swaps to compressed memory that has no disk": {
      ...SWAPPING,
      [SWAPS]: HEADING + ZRAM,
      "/sys/block/zram0/backing_dev": "none\n",
    },
  }))
    test(`is good enough for require: noswap where it ${what}`, async () => {
      const { memory, registry } = open(files, "noswap");
      await memory.check();
      assert.equal(memory.status(), undefined);
      assert.match(await registry.metrics(), /^edgesync_sidecar_secrets_swappable 0$/m);
    });

  for (const [what, reason, files] of [
    [
      "compressed memory that writes to a disk",
      "swap_on",
      {
        ...SWAPPING,
        [SWAPS]: HEADING + ZRAM,
        "/sys/block/zram0/backing_dev": "/dev/mmcblk0p4\n",
      },
    ],
    [
      "compressed memory beside a disk",
      "swap_on",
      { ...SWAPPING, [SWAPS]: HEADING + ZRAM + PARTITION },
    ],
    ["nobody can see what", "swap_unknown", { ...SWAPPING, [SWAPS]: "" }],
  ] as const)
    test(`is not, where it swaps to ${what}`, async () => {
      const { memory } = open(files, "noswap");
      await assert.rejects(memory.check(), { code: "SECRET_STORAGE_SWAPS" });
      assert.equal(memory.status()?.reason, reason);
    });

  test("is found when swap is turned on later, and good again when it is off", async () => {
    const files: Record<string, string> = { ...SWAPPING, [SWAPS]: HEADING };
    const { memory, log } = open(files);
    await memory.check();
    files[SWAPS] = HEADING + PARTITION;
    await memory.check();
    files[SWAPS] = HEADING;
    await memory.check();
    assert.equal(memory.status(), undefined);
    files[SWAPS] = HEADING + PARTITION;
    await memory.check();
    assert.equal(log.lines.length, 2, "each time that it came about");
  });
});

describe("the storage of secrets", () => {
  const at = (folder: string) =>
    openMemory({
      folder,
      require: "nothing",
      log: recordedLog(),
      metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
    });

  test("is refused on a disk", async () => {
    await using folder = await temporaryFolder(tmpdir());
    // A machine whose temporary folder is in memory has no disk to show; its root is none either way.
    const disk = (await statfs(folder.path)).type === 0x01021994 ? "/proc" : folder.path;
    await assert.rejects(at(disk).check(), { code: "SECRET_STORAGE_UNSAFE" });
  });

  test("is refused when it does not exist", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const absent = at(join(folder.path, "absent"));
    await assert.rejects(absent.check(), { code: "SECRET_STORAGE_UNSAFE" });
  });

  test("is found in this machine's own words", async () => {
    await using folder = await temporaryFolder(MEMORY);
    await at(folder.path).check();
    const mount = mountOf(await readFile(MOUNTS, "utf8"), folder.path);
    assert.equal(mount?.type, "tmpfs");
    assert.equal(mount.point, MEMORY);
  });

  test("has the option that the kernel was given", async (t) => {
    await using folder = await temporaryFolder(tmpdir());
    const run = promisify(execFile);
    const point = join(folder.path, "a b");
    await run("mkdir", [point]);
    try {
      await run("mount", ["-t", "tmpfs", "-o", "noswap,size=1m", "edgesync-test", point]);
    } catch {
      t.diagnostic("not tried: it takes root, and Linux 6.4 or later");
      return;
    }
    try {
      const mount = mountOf(await readFile(MOUNTS, "utf8"), join(point, "deep"));
      assert.equal(mount?.point, point);
      assert.equal(isSwappable(mount), false);
    } finally {
      await run("umount", [point]);
    }
  });
});

describe("an agent on a node that swaps", () => {
  test("publishes and says why that is not well, or, under require: noswap, writes nothing", async () => {
    await using world = await openWorld({ embedded: true });
    const secrets = { db: { request: `${world.names.broker}/creds/app` } };
    {
      await using sidecar = await startSidecar(world, { secrets, system: system(SWAPPING) });
      await until(() => sidecar.agent.published(), "published");
      assert.equal(sidecar.agent.status().storage?.reason, "swap_on");
    }
    await using folder = await temporaryFolder(MEMORY);
    const environment = { EDGESYNC_REQUIRE: "noswap" };
    const strict = { secrets, environment, folder: folder.path, system: system(SWAPPING) };
    const attempt = async (): Promise<void> => {
      await using _ = await startSidecar(world, strict);
    };
    await assert.rejects(attempt(), { code: "SECRET_STORAGE_SWAPS" });
    assert.deepEqual(await readdir(join(folder.path, "volume")), []);
  });

  test("takes nothing away that was published before swap was turned on, and adds nothing", async () => {
    await using world = await openWorld({ embedded: true });
    const path = `${world.names.kv}/data/web/swap`;
    const write = (value: string) => world.configure("POST", path, { data: { value } });
    await write("1");
    const files: Record<string, string> = { ...SWAPPING, [SWAPS]: HEADING };
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: path, format: "raw:value" } },
      environment: { EDGESYNC_REQUIRE: "noswap" },
      refreshInterval: "1s",
      random: () => 0,
      system: system(files),
    });
    await until(() => sidecar.agent.published(), "published");
    files[SWAPS] = HEADING + PARTITION;
    await write("2");
    await until(() => sidecar.agent.status().code === "SECRET_STORAGE_SWAPS", "the refusal");
    assert.equal(await sidecar.file("db"), "1");
    files[SWAPS] = HEADING;
    await until(async () => (await sidecar.file("db")) === "2", "the change");
  });
});

describe("what Linux says of its mounts", () => {
  const name = fc.string({
    unit: fc.constantFrom("a", "b", "-", " ", "\\", "\t", "ü"),
    minLength: 1,
  });
  const escaped = (path: string): string =>
    path.replaceAll(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);

  test("gives the innermost mount of a folder, and the last of those at one place", () => {
    fc.assert(
      fc.property(
        fc.array(name, { minLength: 1, maxLength: 4 }),
        fc.array(fc.tuple(fc.nat(6), fc.boolean(), fc.constantFrom("tmpfs", "ext4", "ramfs")), {
          maxLength: 8,
        }),
        fc.array(fc.constantFrom("shared:1", "master:2", "propagate_from:3"), { maxLength: 3 }),
        (names, mounts, fields) => {
          const folder = `/${names.join("/")}`;
          const pointAt = (depth: number): string =>
            depth > names.length ? `${folder}-other` : `/${names.slice(0, depth).join("/")}`;
          const text = mounts.map(([depth, noswap, type], index) =>
            [
              `${index} 1 0:1 / ${escaped(pointAt(depth))} rw`,
              ...fields,
              `- ${type} none rw${noswap ? ",noswap" : ""}`,
            ].join(" "),
          );
          const on = mounts.filter(([depth]) => depth <= names.length);
          const deepest = Math.max(...on.map(([depth]) => depth));
          const expected = on.findLast(([depth]) => depth === deepest);
          const found = mountOf(`${text.join("\n")}\n`, folder);
          assert.equal(found?.type, expected?.[2]);
          if (found !== undefined && expected !== undefined)
            assert.equal(isSwappable(found), expected[2] !== "ramfs" && !expected[1]);
        },
      ),
    );
  });

  test("and of its swap is read for any names, and nothing makes it fail", () => {
    fc.assert(
      fc.property(fc.array(name), (names) => {
        const rows = names.map((area) => `/${escaped(area)}   file\t\t1\t\t0\t\t-2\n`);
        assert.deepEqual(
          swapAreas(HEADING + rows.join("")),
          names.map((area) => `/${area}`),
        );
      }),
    );
    fc.assert(
      fc.property(fc.string(), (text) => {
        swapAreas(text);
        mountOf(text, "/run/edgesync");
      }),
    );
  });
});
