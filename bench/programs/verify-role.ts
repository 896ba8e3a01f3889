/**
 * Verifies one delegated role of a repository in a folder, by the client that is named: `<edgesync | tuf-js> <folder> <path of a target>`.
 * Prints what it took beyond what the top-level roles had taken.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { refresh } from "../../src/trust/refresh.ts";
import { findTarget } from "../../src/trust/target.ts";

const [client, folder = "", path = ""] = process.argv.slice(2);

function read(name: string): Buffer | undefined {
  try {
    return readFileSync(join(folder, name));
  } catch {
    return undefined;
  }
}

async function edgesync(): Promise<() => Promise<unknown>> {
  const stored = new Map<string, Uint8Array>();
  const deps = {
    source: {
      metadata: (name: string) => Promise.resolve(read(`metadata/${name}`)),
      target: () => Promise.resolve(undefined),
    },
    store: {
      load: (name: string) => Promise.resolve(stored.get(name)),
      save: (name: string, bytes: Uint8Array) => Promise.resolve(void stored.set(name, bytes)),
      remove: (name: string) => Promise.resolve(void stored.delete(name)),
    },
    initialRoot: read("metadata/1.root.json") ?? Buffer.alloc(0),
    now: Date.now(),
  };
  const never = new AbortController().signal;
  const trusted = await refresh(deps, never);
  return () => findTarget(trusted, path, deps, never);
}

interface TufJs {
  readonly Updater: new (options: object) => {
    refresh(): Promise<void>;
    getTargetInfo(path: string): Promise<unknown>;
  };
}

async function tufJs(): Promise<() => Promise<unknown>> {
  // Not bundled, as the client of nobody's image; found from where the bench is run.
  const require = createRequire(join(process.cwd(), "package.json"));
  const { Updater } = require("tuf-js") as TufJs;
  const { DownloadHTTPError } = require("tuf-js/dist/error.js") as {
    readonly DownloadHTTPError: new (message: string, status: number) => Error;
  };
  const metadataDir = join(folder, `client-${process.pid}`);
  mkdirSync(metadataDir);
  writeFileSync(join(metadataDir, "root.json"), read("metadata/1.root.json") ?? "");
  const fetcher = {
    downloadBytes(url: string): Promise<Buffer> {
      const bytes = read(decodeURIComponent(url.replace(/^memory:\/*/, "")));
      if (bytes === undefined) throw new DownloadHTTPError("no such file", 404);
      return Promise.resolve(bytes);
    },
  };
  const updater = new Updater({ metadataDir, metadataBaseUrl: "memory://metadata", fetcher });
  await updater.refresh();
  return () => updater.getTargetInfo(path);
}

function memory(field: "VmRSS" | "VmHWM"): number {
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(
    readFileSync("/proc/self/status", "utf8"),
  )?.[1];
  return Number(kib) / 1024;
}

const verify = await (client === "tuf-js" ? tufJs() : edgesync());
// The high-water mark is to be that of what follows (proc_pid_clear_refs(5)).
writeFileSync("/proc/self/clear_refs", "5");
const before = { rss: memory("VmRSS"), cpu: process.cpuUsage(), at: performance.now() };
if ((await verify()) === undefined) throw new Error(`${path} is not found`);
const ms = performance.now() - before.at;
const { user, system } = process.cpuUsage(before.cpu);
const rssMiB = memory("VmHWM") - before.rss;
process.stdout.write(JSON.stringify({ ms, cpuMs: (user + system) / 1000, rssMiB }));
