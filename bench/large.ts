/** A payload of 1 GiB and its update, published by the real command and served by it. */
import { execFile } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { startNode } from "../test/support/process.ts";

const BIN = join(import.meta.dirname, "..", "bin", "edgesync.ts");
const RUN = ["--disable-warning=ExperimentalWarning", BIN];
const run = promisify(execFile);

const MIB = 1 << 20;
const FILES = 4;
const MIB_OF_EACH = 256;
/** Bytes between two changed places. */
const STRIDE = 64 * 1024;

export const FILE_NAMES: readonly string[] = Array.from(
  { length: FILES },
  (_, n) => `model-${n}.bin`,
);

export interface LargeRelease extends AsyncDisposable {
  readonly url: string;
  readonly root: string;
  /** Where the files of a version lie. */
  folder(version: number): string;
  /** Adds a version and points the channel at it. */
  publish(version: number): Promise<void>;
}

/** Bytes that do not compress; each version differs from the first in a few bytes of every stretch. */
async function makeTree(folder: string, version: number): Promise<void> {
  await mkdir(folder);
  for (const [index, name] of FILE_NAMES.entries()) {
    const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, index), Buffer.alloc(16));
    await using file = await open(join(folder, name), "w");
    for (let mib = 0; mib < MIB_OF_EACH; mib++) {
      const bytes = cipher.update(Buffer.alloc(MIB));
      if (version > 1)
        for (let at = 0; at < MIB; at += STRIDE) bytes.write(`${version} ${mib} ${at}`, at + 100);
      await file.writeFile(bytes);
    }
  }
}

export async function openLargeRelease(folder: string): Promise<LargeRelease> {
  const edgesync = (...args: readonly string[]): Promise<unknown> =>
    run(process.execPath, [...RUN, ...args, "--json"], { cwd: folder, maxBuffer: 16 * MIB });
  await edgesync("init");
  const server = startNode([...RUN, "serve", join(folder, "repository"), "--port", "0"]);
  const url = await addressOf(() => server.output());
  return {
    url,
    root: join(folder, "repository", "metadata", "1.root.json"),
    folder: (version) => join(folder, `v${version}`),
    async publish(version) {
      const tree = join(folder, `v${version}`);
      await makeTree(tree, version);
      const name = ["--app", "web", "--version", `${version}`, "--platform", "linux-x64"];
      await edgesync("release", "add", tree, ...name, "--level", "1");
      await edgesync("channel", "set", "web/stable", `${version}`);
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function addressOf(output: () => string): Promise<string> {
  for (let turn = 0; turn < 3_000; turn++) {
    const url = /at (https?:\/\/127\.0\.0\.1:\d+)/.exec(output())?.[1];
    if (url !== undefined) return url;
    await sleep(10);
  }
  throw new Error(`edgesync serve does not come up: ${output()}`);
}
