/** edgesync itself as the command that people run, and the floor under it: a copy with SHA-256, and the same command with next to nothing to do. */
import { createHash } from "node:crypto";
import { readdir, lstat, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bundle, bundleOne } from "../../scripts/bundle.ts";
import { readImage } from "../../scripts/image.ts";
import { sha256Of } from "./cache.ts";
import type { Files, Peer } from "./peers.ts";
import { runAll } from "./process.ts";
import type { Command } from "./process.ts";

const FEW_SECONDS = 60;

export interface Ours {
  readonly peer: Peer;
  /** Copies the new file in pieces and hashes it on the way: what no decoder can be faster than. */
  copy(files: Files): Command;
  /** Applies a delta of a few bytes: what the command takes before it comes to the file, which a sidecar has behind it once. */
  start(): Command;
}

/** Bundles the programs into `folder`; they run with the flags of the image. */
export async function buildOurs(folder: string, signal: AbortSignal): Promise<Ours> {
  await bundle(folder);
  await bundleOne("bench/programs/copy.ts", join(folder, "bench-copy.mjs"));
  const { entryPoint, env } = await readImage(folder);
  const [program = process.execPath, ...args] = entryPoint;
  const flags = args.slice(0, -1);
  const edgesync = (...more: readonly string[]): Command => ({
    program,
    args: [...args, ...more],
    env,
  });
  const copy = (...more: readonly string[]): Command => ({
    program,
    args: [...flags, join(folder, "bench-copy.mjs"), ...more],
    env,
  });
  const make = ({ old, target, delta }: Files): Command =>
    edgesync("delta", "make", old, target, "-o", delta);
  const apply = ({ old, delta, out }: Files): Command =>
    edgesync("delta", "apply", old, delta, "-o", out);
  const [old, target, delta, out] = ["old", "new", "delta", "out"].map((name) =>
    join(folder, `few-bytes.${name}`),
  ) as [string, string, string, string];
  const few: Files = { old, target, delta, out };
  await writeFile(old, "the old one");
  await writeFile(target, "the new one");
  await runAll([make(few)], false, FEW_SECONDS, signal);
  return {
    peer: {
      name: "edgesync",
      about: "edgesync delta",
      programs: [program],
      make: (files) => [make(files)],
      apply: (files) => [apply(files)],
    },
    copy: ({ target, out }) => copy(target, out),
    start: () => apply(few),
  };
}

/** The digest of a file, or of a folder's paths, modes and contents. */
export async function digestOf(path: string): Promise<string> {
  if (!(await lstat(path)).isDirectory()) return await sha256Of(path);
  const hash = createHash("sha256");
  const names = await readdir(path, { recursive: true });
  for (const name of names.sort()) {
    const file = join(path, name);
    const found = await lstat(file);
    if (found.isDirectory()) continue;
    const content = found.isSymbolicLink() ? await readlink(file) : await sha256Of(file);
    hash.update(`${name}\0${found.mode & 0o111 ? "x" : "-"}\0${content}\n`);
  }
  return hash.digest("hex");
}
