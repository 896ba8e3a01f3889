/**
 * A site on file systems of its own, each a page larger than the one before: until the kernel says that it is full, and on when there is room.
 * Started in a mount namespace, with a folder to mount over.
 */
import { spawnSync } from "node:child_process";
import { cpSync } from "node:fs";
import process from "node:process";
import { checkRecovered, checkVolume } from "../update/support/invariants.ts";
import { errnoOf, nodeDisk } from "../../sidecar/disk/durable.ts";
import { application, committed, openSite } from "../update/support/site.ts";

export interface FullDiskOptions {
  readonly payload: string;
  readonly url: string;
  readonly root: string;
  /** A volume to begin with; none for a first installation. */
  readonly content: string | undefined;
  /** The version that is committed in the end, and the one that is there before. */
  readonly version: string;
  readonly old: string | undefined;
  readonly blocked: string | undefined;
  /** Sizes of the file systems, in KiB. */
  readonly sizes: readonly number[];
}

export interface FullDiskResult {
  readonly size: number;
  /** Whether the disk was full, and said so. */
  readonly full: boolean;
}

const options = JSON.parse(process.argv[2] ?? "") as FullDiskOptions;
const { payload, content, sizes, version, old, blocked } = options;

function run(program: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
}

// Told that there is room, it goes on until the kernel says that there is none.
const disk = { ...nodeDisk, freeBytes: async () => 2 ** 50 };
const settings = { pollInterval: 5, trialDuration: 10, trialTimeout: 10_000 };

/** Whether what is there before has its place. */
function fits(folder: string): boolean {
  try {
    cpSync(folder, payload, { recursive: true, verbatimSymlinks: true });
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOSPC") return false;
    throw error;
  }
}

for (const size of sizes) {
  run("mount", "-t", "tmpfs", "-o", `size=${size}k`, "none", payload);
  if (content !== undefined && !fits(content)) {
    run("umount", payload);
    continue;
  }
  let full = false;
  {
    const app = application(payload);
    const recovered = async (): Promise<void> => {
      const served = await checkRecovered(payload);
      if ((served === undefined) !== (old === undefined))
        throw new Error(`${served} is served, and ${old} was there`);
    };
    const { url, root } = options;
    await using site = await openSite({
      payload,
      url,
      root,
      settings,
      disk,
      application: app,
      ...(content === undefined ? {} : { recovered }),
    });
    await site.until("the end or a full disk", (status) => {
      if (site.agent.installed() && app.running() === undefined) app.crash();
      full ||= status.error?.code === "DISK_FULL";
      const ended = committed(version)(status) && status.blocked?.version === blocked;
      return full || (ended && status.error === null);
    });
    if (full) {
      const { phase, release } = site.agent.status();
      const runs = release?.version;
      // What was swapped before the disk was full may be on trial; nothing else has taken the place of the old release.
      if (runs !== old && phase !== "trial" && runs !== version)
        throw new Error(`${runs} is served in ${phase}, ${old} was there`);
      run("mount", "-o", "remount,size=64m", "none", payload);
      await site.until(
        "the end",
        (status) =>
          committed(version)(status) &&
          status.blocked?.version === blocked &&
          status.error === null,
      );
    }
  }
  await checkVolume(payload);
  run("umount", payload);
  process.stdout.write(`${JSON.stringify({ size, full } satisfies FullDiskResult)}\n`);
}
