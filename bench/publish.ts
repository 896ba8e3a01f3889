/** What it takes to add a release, beside what others take to pack the same folder. */
import { execFileSync, spawn } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "../test/support/temporary.ts";
import { round } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

const BIN = join(import.meta.dirname, "..", "bin", "edgesync.ts");

/** Files and bytes of each. */
const TREES = [
  { name: "small", files: 5_000, bytes: 2_048 },
  { name: "large", files: 40, bytes: 2 * 1024 * 1024 },
] as const;
const CHANGED = 25;

interface Cost {
  readonly seconds: number;
  /** Processors in use, on average. */
  readonly processors: number;
  /** MiB. */
  readonly rss: number;
  readonly output: string;
}

/** Half of each file is text, half of it does not compress; every 25th is another in each version. */
async function makeTree(
  folder: string,
  { files, bytes }: (typeof TREES)[number],
  version: number,
): Promise<void> {
  const half = bytes / 2;
  const text = await readFile(join(import.meta.dirname, "..", "package-lock.json"));
  for (let index = 0; index < files; index++) {
    const place = join(folder, `d${index % 100}`);
    await mkdir(place, { recursive: true });
    const mark = `${index} ${index % CHANGED === 0 ? version : 0}\n`;
    const lines = Buffer.alloc(half);
    for (let at = 0; at < half; at += text.length)
      text.copy(lines, at, (index * 997) % text.length);
    const key = Buffer.alloc(16, index % 251);
    const noise = createCipheriv("aes-128-ctr", key, Buffer.alloc(16, index >> 8)).update(
      Buffer.alloc(half - mark.length),
    );
    await writeFile(join(place, `f${index}`), Buffer.concat([Buffer.from(mark), lines, noise]));
  }
}

/** Runs a command to its end. Memory is the largest of what was seen, and of the first process only. */
async function costOf(command: readonly string[], cwd: string): Promise<Cost> {
  const [program = "", ...args] = command;
  const begun = performance.now();
  const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const closed = once(child, "close");
  let rss = 0;
  let ticks = 0;
  while (child.exitCode === null && child.signalCode === null) {
    try {
      const status = await readFile(`/proc/${child.pid}/status`, "utf8");
      rss = Math.max(rss, Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024);
      const stat = await readFile(`/proc/${child.pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      ticks = Number(fields[11]) + Number(fields[12]);
    } catch {
      // It has ended meanwhile.
    }
    await Promise.race([closed, sleep(20)]);
  }
  await closed;
  if (child.exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${child.exitCode}`);
  const seconds = (performance.now() - begun) / 1000;
  return { seconds, processors: ticks / 100 / seconds, rss, output };
}

export async function* publish(): AsyncGenerator<Measurement> {
  const zstd = has("zstd");
  for (const tree of TREES) {
    await using folder = await temporaryFolder();
    for (const version of [1, 2]) await makeTree(join(folder.path, `v${version}`), tree, version);
    const edgesync = (...args: readonly string[]): Promise<Cost> =>
      costOf([process.execPath, BIN, ...args, "--json"], folder.path);
    await edgesync("init");
    const name = ["--app", "web", "--platform", "linux-x64", "--level", "19"];
    const first = await edgesync("release", "add", "v1", "--version", "1", ...name);
    const second = await edgesync("release", "add", "v2", "--version", "2", ...name);
    const peer = zstd
      ? await costOf(["sh", "-c", "tar cf - v1 | zstd -19 -T0 -q | wc -c"], folder.path)
      : undefined;
    const added = JSON.parse(first.output) as { fullBytes: number };
    const update = JSON.parse(second.output) as { updates: readonly { bytes: number }[] };
    const subject = `release-add-${tree.name}`;
    const against = peer === undefined ? null : "tar-zstd-19";
    const row = (metric: string, value: number, unit: string, other?: number): Measurement => ({
      subject,
      metric,
      value: round(value),
      unit,
      peer: other === undefined ? null : against,
      ratio: other === undefined ? null : round(value / other),
    });
    if (peer !== undefined) {
      const rows = { subject: `tar-zstd-19-${tree.name}`, peer: null, ratio: null };
      yield { ...rows, metric: "wall", value: round(peer.seconds), unit: "s" };
      yield { ...rows, metric: "full", value: Number(peer.output), unit: "bytes" };
    }
    yield row("wall", first.seconds, "s", peer?.seconds);
    yield row(
      "full",
      added.fullBytes,
      "bytes",
      peer === undefined ? undefined : Number(peer.output),
    );
    yield row("processors", first.processors, "processors");
    yield row("rss-peak", first.rss, "MiB");
    yield row("wall-with-deltas", second.seconds, "s");
    yield row("update", update.updates[0]?.bytes ?? 0, "bytes");
  }
}

function has(program: string): boolean {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
