/** Volumes as folders. Containers are processes here, without a mount namespace, so a mount path is replaced by the folder it stands for. */
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { V1Container, V1Pod, V1Volume, V1VolumeProjection } from "@kubernetes/client-node";
import type { Node } from "./node.ts";

/** Folder of each volume by its name. */
export type Volumes = ReadonlyMap<string, string>;

export async function makeVolumes(pod: V1Pod, node: Node): Promise<Volumes> {
  const folders = new Map<string, string>();
  for (const volume of pod.spec?.volumes ?? []) {
    const parent = volume.emptyDir?.medium === "Memory" ? node.memory : node.disk;
    const folder = join(parent, "volumes", volume.name);
    await mkdir(folder, { recursive: true });
    await fill(folder, volume, node);
    folders.set(volume.name, folder);
  }
  return folders;
}

async function fill(folder: string, volume: V1Volume, node: Node): Promise<void> {
  if (volume.configMap !== undefined)
    return publish(folder, configMap(node, volume.configMap.name, volume.configMap.optional));
  if (volume.projected === undefined) return;
  const files: Record<string, string> = {};
  for (const source of volume.projected.sources ?? [])
    Object.assign(files, await project(source, node));
  await publish(folder, files);
}

async function project(
  source: V1VolumeProjection,
  node: Node,
): Promise<Readonly<Record<string, string>>> {
  if (source.serviceAccountToken !== undefined) {
    const { audience, expirationSeconds = 3600, path } = source.serviceAccountToken;
    return { [path]: await node.token(audience, expirationSeconds) };
  }
  return configMap(node, source.configMap?.name, source.configMap?.optional);
}

function configMap(node: Node, name = "", optional = false): Readonly<Record<string, string>> {
  const data = node.configMaps.get(name);
  if (data === undefined && !optional)
    throw new Error(`the pod mounts ConfigMap ${name}, which does not exist`);
  return data ?? {};
}

/** Writes files as the kubelet's AtomicWriter does: links through `..data` to a versioned folder. */
async function publish(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  const version = "..first";
  await mkdir(join(folder, version), { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, version, name), text, { mode: 0o644 });
    await symlink(join("..data", name), join(folder, name));
  }
  await symlink(version, join(folder, "..data"));
}

/** Makes the sub-folders that a container's mounts name, as the kubelet does just before it starts the container. */
export async function makeSubPaths(container: V1Container, volumes: Volumes): Promise<void> {
  for (const mount of container.volumeMounts ?? []) {
    const folder = volumes.get(mount.name);
    if (folder === undefined)
      throw new Error(`${container.name} mounts ${mount.name}, which is not a volume of the pod`);
    if (mount.subPath !== undefined) await mkdir(join(folder, mount.subPath), { recursive: true });
  }
}

/** A text of the container's command or environment with every mount path replaced by its folder. */
export function mapPaths(text: string, container: V1Container, volumes: Volumes): string {
  const mounts = (container.volumeMounts ?? []).toSorted(
    (a, b) => b.mountPath.length - a.mountPath.length,
  );
  const folders = new Map(
    mounts.map((mount) => [
      mount.mountPath,
      join(volumes.get(mount.name) ?? "", mount.subPath ?? ""),
    ]),
  );
  if (folders.size === 0) return text;
  // One pass over the longest paths first, so that a folder put in is never taken for a mount path itself.
  const paths = [...folders.keys()].map((path) =>
    path.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`),
  );
  const pattern = new RegExp(String.raw`(?<![\w./-])(${paths.join("|")})(?=[/:,"'\s]|$)`, "g");
  return text.replaceAll(pattern, (path) => folders.get(path) ?? path);
}
