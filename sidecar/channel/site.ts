/**
 * Who this site is, for its number in roll-outs: the annotation `site` or the cluster's default, else the node's name, else a name of
 * its own that is made once and lies on the payload volume, so that a site without either keeps its number as long as its payload.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Settings } from "#core/settings.ts";
import { siteName } from "#core/values.ts";
import { readSmallFile, replaceFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

/** Bytes; more than any name. */
const LIMIT = 4096;

/**
 * @param root of the payload volume
 * @throws EdgeSyncError DISK_FULL, DISK_FAILED
 */
export async function siteOf(
  { site, nodeName }: Pick<Settings, "site" | "nodeName">,
  root: string,
  disk: Disk,
): Promise<string> {
  const told = site ?? nodeName;
  if (told !== undefined) return told;
  const path = join(root, "site");
  const bytes = await readSmallFile(disk, path, LIMIT);
  const saved = siteName.parse(
    Buffer.from(bytes ?? [])
      .toString()
      .trim(),
  );
  if (saved !== undefined) return saved;
  const made = randomUUID();
  // Before it is used: a number that a power cut takes back would let the site go twice, or not at all.
  await replaceFile(disk, path, Buffer.from(`${made}\n`));
  return made;
}
