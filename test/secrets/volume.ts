/** A Secret or ConfigMap as the kubelet shows it in a folder: one for each version, and a link that is moved. */
import { mkdir, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** @param version name of the version's folder, which begins with two dots */
export async function showVersion(
  folder: string,
  version: string,
  keys: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  await mkdir(join(folder, version), { recursive: true });
  for (const [key, value] of Object.entries(keys))
    await writeFile(join(folder, version, key), value);
  const before = await readlink(join(folder, "..data")).catch(() => undefined);
  await symlink(version, join(folder, "..data_tmp"));
  await rename(join(folder, "..data_tmp"), join(folder, "..data"));
  if (before !== undefined) await rm(join(folder, before), { recursive: true });
}
