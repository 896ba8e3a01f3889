/** Publishers that are killed between two renames: before the first one, before the second one, and so on. */
import assert from "node:assert/strict";
import { cp, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { verifyRepository } from "../../publisher/verify.ts";
import { edgesync, makePublisher, never, prose } from "./world.ts";
import type { Ran } from "./world.ts";

const HOOK = new URL("kill-at-rename.ts", import.meta.url).href;

export function killed(args: readonly string[], at: string): Promise<Ran> {
  return edgesync(args, { env: { KILL_AT: at }, node: ["--import", HOOK] });
}

/** Two releases and a channel: what a client sees of them. */
export async function seen(
  repository: string,
): Promise<{ good: boolean; releases: number; channels: number }> {
  const root = await readFile(join(repository, "metadata", "1.root.json"));
  const found = await verifyRepository(repository, root, Date.now(), never);
  return { good: found.problems.length === 0, releases: found.releases, channels: found.channels };
}

/** Each is made of a repository with releases 1 to 3, of which `stable` points to 2. */
export const CHANGES = {
  "channel rollout": ["web/stable", "3", "--percent", "5"],
  "channel downgrade": ["web/stable", "1"],
  "release remove": ["web", "1"],
  "delta build": ["web", "3", "--from", "1"],
} as const;

/** Kills it before each of its renames: what was published must be whole, and the next one complete. */
export async function killAtEachStep(name: keyof typeof CHANGES): Promise<void> {
  await using publisher = await makePublisher();
  const { folder } = publisher;
  const text = prose(70_000, 1);
  for (const version of ["1", "2", "3"])
    await publisher.add(version, { file: `${version}${text}${version}` }, undefined, 0);
  await publisher.set("2");
  let at = 1;
  for (let finished = false; !finished; at++) {
    const copy = join(folder, `copy-${at}`);
    await cp(publisher.repository, copy, { recursive: true });
    const command = [...name.split(" "), ...CHANGES[name], "--repository", copy];
    const ran = await killed([...command, "--keys", publisher.keys], `${at} before`);
    finished = ran.signal === null;
    assert.equal(ran.status, finished ? 0 : null, ran.stderr);
    assert.ok((await seen(copy)).good, `at ${at}`);
    if (finished) break;
    const again = await edgesync([...command, "--keys", publisher.keys]);
    assert.equal(again.status, 0, again.stderr);
    assert.ok((await seen(copy)).good);
    assert.deepEqual((await readdir(copy)).toSorted(), ["blobs", "metadata", "targets"]);
  }
  assert.ok(at >= 4, `${at}`);
}
