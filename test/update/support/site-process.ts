/** A site in a process of its own, so that it can be killed for good, or see a file system that nobody else sees. */
import { spawnSync } from "node:child_process";
import { cpSync } from "node:fs";
import process from "node:process";
import { checkVolume } from "./invariants.ts";
import { faultyDisk } from "./faulty-disk.ts";
import { committed, openSite } from "./site.ts";

export interface ProcessOptions {
  readonly payload: string;
  readonly url: string;
  readonly root: string;
  /** The version to wait for. */
  readonly version: string;
  /** The release that must be blocked in the end. */
  readonly blocked?: string | undefined;
  /** The process kills itself before it does this for the `nth` time, or before what comes next. */
  readonly kill?: {
    readonly operation: string;
    readonly path: string;
    readonly nth: number;
    readonly after?: boolean;
  };
  /** Whether the release is to be found sound, or made so, before the end. */
  readonly scrubbed?: boolean;
  /** Whether it says at its end which errors it has told of. */
  readonly tells?: boolean;
  /** The payload is put on a file system that is too small, which grows when the site has said so. */
  readonly small?: { readonly content: string; readonly size: string };
}

const options = JSON.parse(process.argv[2] ?? "") as ProcessOptions;
const { kill, small, payload } = options;

function mount(...args: readonly string[]): void {
  const { status, stderr } = spawnSync("mount", [...args, "none", payload], { encoding: "utf8" });
  if (status !== 0) throw new Error(`mount: ${stderr}`);
}

if (small !== undefined) {
  mount("-t", "tmpfs", "-o", `size=${small.size}`);
  cpSync(small.content, payload, { recursive: true, verbatimSymlinks: true });
}
let seen = 0;
await using faulty = faultyDisk((operation, path) => {
  if (kill === undefined) return;
  if (seen === kill.nth) process.kill(process.pid, "SIGKILL");
  if (kill.operation !== operation || !new RegExp(kill.path).test(path)) return;
  seen += 1;
  if (seen === kill.nth && kill.after !== true) process.kill(process.pid, "SIGKILL");
});
// Told that there is room, it goes on until the kernel says that there is none.
const disk = { ...faulty.disk, freeBytes: async () => 2 ** 50 };
const settings = {
  // A scrub works in the pauses between two looks.
  pollInterval: options.scrubbed === true ? 40 : 5,
  trialDuration: 10,
  trialTimeout: 10_000,
  scrubInterval: options.scrubbed === true ? 60 : 0,
  scrubRate: 1e10,
};
await using site = await openSite({ ...options, settings, disk });
// The main container starts when the gate is open, from whatever `current` names then.
if (site.agent.installed()) site.application.crash();
if (small !== undefined) {
  const full = await site.until("a full disk", (status) => status.error?.code === "DISK_FULL");
  await checkVolume(payload);
  process.stdout.write(`${JSON.stringify(full)}\n`);
  mount("-o", "remount,size=64m");
}
const status = await site.until(
  "the end",
  (now) =>
    committed(options.version)(now) &&
    now.blocked?.version === options.blocked &&
    now.lastLook !== null &&
    (options.scrubbed !== true || typeof now.scrub?.lastPass === "string") &&
    now.error === null,
);
process.stdout.write(`${JSON.stringify(status)}\n`);
const told = site.log.flatMap(({ fields }) => (fields.code === undefined ? [] : [fields.code]));
if (options.tells === true) process.stdout.write(`${JSON.stringify(told)}\n`);
