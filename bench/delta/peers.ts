/** The tools that edgesync is measured beside, with the options under which each is at its best and still applies anything. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { exists } from "./cache.ts";
import type { Command } from "./process.ts";

export interface Files {
  readonly old: string;
  readonly target: string;
  readonly delta: string;
  readonly out: string;
}

export interface Peer {
  readonly name: string;
  /** As it stands in the table. */
  readonly about: string;
  /** Names of programs in PATH, or paths. */
  readonly programs: readonly string[];
  make(files: Files): readonly Command[];
  apply(files: Files): readonly Command[];
}

/** bsdiff, xdelta3, zstd and xz as Debian has them. HDiffPatch is no package: its programs are named by HDIFFZ and HPATCHZ. */
export function peersFor(env: Readonly<Record<string, string | undefined>>): readonly Peer[] {
  const { HDIFFZ: hdiffz, HPATCHZ: hpatchz } = env;
  return [
    {
      name: "bsdiff",
      about: "bsdiff",
      programs: ["bsdiff", "bspatch"],
      make: ({ old, target, delta }) => [{ program: "bsdiff", args: [old, target, delta] }],
      apply: ({ old, delta, out }) => [{ program: "bspatch", args: [old, out, delta] }],
    },
    {
      name: "xdelta3",
      about: "xdelta3 -9",
      programs: ["xdelta3"],
      // Its default window of the old file is 64 MiB: what is further away would not be found. Without -A it stores the files' names.
      make: ({ old, target, delta }) => [
        {
          program: "xdelta3",
          args: ["-e", "-9", "-f", "-A", "-B", "536870912", "-s", old, target, delta],
        },
      ],
      apply: ({ old, delta, out }) => [
        { program: "xdelta3", args: ["-d", "-f", "-B", "536870912", "-s", old, delta, out] },
      ],
    },
    {
      name: "zstd",
      about: "zstd -19 --long=31 --patch-from",
      programs: ["zstd"],
      make: ({ old, target, delta }) => [
        {
          program: "zstd",
          args: ["-q", "-f", "-19", "--long=31", `--patch-from=${old}`, target, "-o", delta],
        },
      ],
      apply: ({ old, delta, out }) => [
        {
          program: "zstd",
          args: ["-q", "-f", "-d", "--long=31", `--patch-from=${old}`, delta, "-o", out],
        },
      ],
    },
    ...(hdiffz === undefined || hpatchz === undefined ? [] : hdiffPatch(hdiffz, hpatchz)),
    {
      name: "full",
      about: "no delta: zstd -19 --long=27 of the new file",
      programs: ["zstd"],
      make: ({ target, delta }) => [
        { program: "zstd", args: ["-q", "-f", "-19", "--long=27", target, "-o", delta] },
      ],
      apply: ({ delta, out }) => [
        { program: "zstd", args: ["-q", "-f", "-d", "--long=27", delta, "-o", out] },
      ],
    },
  ];
}

function hdiffPatch(hdiffz: string, hpatchz: string): readonly Peer[] {
  const make = (files: Files, delta: string, options: readonly string[]): Command => ({
    program: hdiffz,
    args: ["-m-1", "-SD-64k", "-f", "-d", "-p-1", ...options, files.old, files.target, delta],
  });
  const apply = (files: Files, delta: string): Command => ({
    program: hpatchz,
    args: ["-s-256k", "-f", files.old, delta, files.out],
  });
  return [
    {
      name: "hdiff",
      about: "HDiffPatch -m-1 -SD-64k with zstd -22",
      programs: [hdiffz, hpatchz],
      make: (files) => [make(files, files.delta, ["-c-zstd-22-24"])],
      apply: (files) => [apply(files, files.delta)],
    },
    {
      name: "hdiff-xz",
      about: "HDiffPatch -m-1 -SD-64k uncompressed, then xz -9e",
      programs: [hdiffz, hpatchz, "xz"],
      make: (files) => [
        make(files, `${files.delta}.plain`, []),
        {
          program: "sh",
          args: ["-c", 'xz -9e -c "$0" > "$1"', `${files.delta}.plain`, files.delta],
        },
      ],
      apply: (files) => [
        {
          program: "sh",
          args: ["-c", 'xz -d -c "$0" > "$1"', files.delta, `${files.delta}.plain`],
        },
        apply(files, `${files.delta}.plain`),
      ],
    },
  ];
}

/** Names the exact programs: a digest over all of them, or `undefined` when one is not there. */
export async function identityOf(peer: Peer, path: string): Promise<string | undefined> {
  const hash = createHash("sha256");
  for (const program of peer.programs) {
    const file = await find(program, path);
    if (file === undefined) return undefined;
    hash.update(await readFile(file));
  }
  return hash.digest("hex");
}

async function find(program: string, path: string): Promise<string | undefined> {
  const candidates = program.includes("/")
    ? [program]
    : path.split(delimiter).map((folder) => join(folder, program));
  for (const candidate of candidates) if (await exists(candidate)) return candidate;
  return undefined;
}
