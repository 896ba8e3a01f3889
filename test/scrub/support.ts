/** A site whose disk forgets. */
import {
  chmodSync,
  closeSync,
  cpSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  writeSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { committed, openSite } from "../update/support/site.ts";
import type { Site, SiteOptions } from "../update/support/site.ts";
import { changed, noise } from "../update/support/world.ts";
import type { Files, World } from "../update/support/world.ts";

export const SIZE = 300_000;
const MODEL = noise(21, SIZE);

/** A tree with something of everything, and equal files. */
export function files(version: string): Files {
  return {
    health: "good",
    version,
    "bin/run": { executable: `#!/bin/sh\necho ${version}\n` },
    "data/model.bin": changed(MODEL, 1_000, version),
    "data/deep/text": "unchanged\n".repeat(9_000),
    "data/deep/same": "unchanged\n".repeat(9_000),
    latest: { link: "data/model.bin" },
  };
}

/** Passes follow each other at once; the rate is no limit. */
export const SCRUB = { scrubInterval: 60, scrubRate: 1e10, pollInterval: 40 };

let count = 0;

/** Installs what the channel names, and ends. */
export async function installed(world: World, version: string): Promise<string> {
  const payload = join(world.folder, `site-${count++}`);
  await using site = await openSite({ payload, url: world.origin.url, root: world.root });
  await site.until(version, committed(version));
  await site.looked();
  return payload;
}

export function scrubbing(
  world: World,
  payload: string,
  more: Partial<SiteOptions> = {},
): Promise<Site> {
  const { url } = world.origin;
  const settings = { ...SCRUB, ...more.settings };
  return openSite({ payload, url, root: world.root, ...more, settings });
}

export function bankOf(payload: string): string {
  return join(payload, readlinkSync(join(payload, "current")));
}

/** Changes a byte of the file itself, as a disk does, also where it has several names. */
export function flip(path: string, at: number): void {
  const byte = (readFileSync(path)[at] ?? 0) ^ 1;
  chmodSync(path, 0o644);
  const file = openSync(path, "r+");
  writeSync(file, Buffer.of(byte), 0, 1, at);
  closeSync(file);
  chmodSync(path, 0o444);
}

/** A bank as it is now, to be put beside others later. */
export async function keepBank(payload: string): Promise<() => void> {
  const bank = bankOf(payload);
  const kept = `${payload}-kept`;
  await rm(kept, { recursive: true, force: true });
  const options = { recursive: true, verbatimSymlinks: true };
  cpSync(bank, kept, options);
  cpSync(`${bank}.json`, `${kept}.json`);
  return () => {
    cpSync(kept, bank, options);
    cpSync(`${kept}.json`, `${bank}.json`);
  };
}

export function scraps(payload: string): readonly string[] {
  return readdirSync(join(payload, "partial"));
}
