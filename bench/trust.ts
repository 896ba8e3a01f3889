import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { bundleOne } from "../scripts/bundle.ts";
import { readImage } from "../scripts/image.ts";
import { temporaryFolder } from "../test/support/temporary.ts";
import { makeWorld, sha256 } from "../test/trust/world.ts";
import { median, round } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

export type Client = "edgesync" | "tuf-js";

/** What it took to verify one delegated role. */
export interface Cost {
  readonly ms: number;
  /** Of all threads; unlike `ms` it does not depend on what else the machine does. */
  readonly cpuMs: number;
  /** Peak, beyond what there was before. */
  readonly rssMiB: number;
}

/** What an app's role holds that nobody ever removes a release from. */
const LARGE = 10_000;
/** What the peer can do in the time that a bench may take: its cost grows with the square. */
const SMALL = 2_000;
const ROUNDS = 7;

/** Verifies a delegated role of many targets, in processes with the image's flags: ours at both sizes, tuf-js at the smaller one. */
export async function* trust(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  const program = await buildVerifier(folder.path);
  const repositories = new Map<number, string>();
  for (const size of [SMALL, LARGE]) {
    const path = join(folder.path, String(size));
    await writeRepository(path, size);
    repositories.set(size, path);
  }
  const subjects = [
    ["tuf-js", SMALL],
    ["edgesync", SMALL],
    ["edgesync", LARGE],
  ] as const;
  const costs = subjects.map((): Cost[] => []);
  for (let round = 0; round < ROUNDS; round++)
    for (const [index, [client, size]] of subjects.entries())
      costs[index]?.push(await program.verify(client, repositories.get(size) ?? "", size));
  for (const [metric, unit] of [
    ["ms", "ms"],
    ["cpuMs", "ms"],
    ["rssMiB", "MiB"],
  ] as const) {
    const [theirs = Number.NaN, ...ours] = costs.map((list) =>
      median(list.map((cost) => cost[metric])),
    );
    const name = { ms: "verify", cpuMs: "verify-cpu", rssMiB: "verify-rss" }[metric];
    yield {
      subject: "tuf-js",
      metric: `${name}-${SMALL}`,
      value: round(theirs),
      unit,
      peer: null,
      ratio: null,
    };
    for (const [index, size] of [SMALL, LARGE].entries()) {
      const value = ours[index] ?? Number.NaN;
      const comparable = size === SMALL;
      yield {
        subject: "edgesync",
        metric: `${name}-${size}`,
        value: round(value),
        unit,
        peer: comparable ? "tuf-js" : null,
        ratio: comparable ? round(value / theirs) : null,
      };
    }
  }
}

const ROOT = join(import.meta.dirname, "..");

export interface Verifier {
  /** @param size of the repository's role */
  verify(client: Client, repository: string, size: number): Promise<Cost>;
}

/** @param folder for the program */
export async function buildVerifier(folder: string): Promise<Verifier> {
  const program = join(folder, "verify-role.mjs");
  const flags = (await readImage(folder)).entryPoint.slice(1, -1);
  await bundleOne("bench/programs/verify-role.ts", program);
  return {
    async verify(client, repository, size) {
      const args = [...flags, program, client, repository, pathOf(size - 1)];
      const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT });
      return JSON.parse(stdout) as Cost;
    },
  };
}

function pathOf(index: number): string {
  return `releases/web/1.${index}.0/linux-x64.json`;
}

/** Writes a repository whose role `app.web` lists so many releases, as our publisher does. */
export async function writeRepository(folder: string, size: number): Promise<void> {
  const world = makeWorld(Date.now(), "2099-01-01T00:00:00Z");
  const targets = Object.fromEntries(
    Array.from({ length: size }, (_, order) => {
      const hashes = { sha256: sha256(Buffer.from(String(order))) };
      return [pathOf(order), { length: 10_000 + order, hashes, custom: { order } }];
    }),
  );
  world.publish({}, { app: (signed) => ({ ...signed, targets }) });
  await mkdir(join(folder, "metadata"), { recursive: true });
  for (const [name, bytes] of world.files)
    if (name.startsWith("metadata/")) await writeFile(join(folder, name), bytes);
}
