/** Where a sealed set lies on the payload volume. Known also to pods that keep none, so that what an earlier one left is removed. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { codeOf } from "#core/errors.ts";
import { payloadNames, settingsOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import type { Log } from "#core/telemetry.ts";
import { nodeDisk } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import type { SecretsDeps } from "./agent.ts";
import { mountedKey } from "./key-source.ts";
import { required } from "./login.ts";
import type { Offline } from "./offline.ts";
import type { VaultOptions } from "./vault.ts";

export interface OfflinePlace {
  readonly volume: string;
  readonly folder: string;
  readonly path: string;
  /** All of it, durably, in place of what is there. */
  write(disk: Disk, bytes: Uint8Array): Promise<void>;
  /** Absent is fine. */
  remove(disk: Disk): Promise<void>;
}

/** Beside the banks of the first payload; undefined for a pod without one. A shared claim may hold those of other workloads too. */
export function offlinePlace(settings: Settings): OfflinePlace | undefined {
  const [first] = payloadNames(settings);
  const volume = first === undefined ? undefined : settingsOf(settings, first).payloadDir;
  if (volume === undefined) return undefined;
  const owner = JSON.stringify([settings.podNamespace ?? "", settings.workload ?? ""]);
  const name = createHash("sha256").update(owner).digest("hex").slice(0, 32);
  const folder = join(volume, "offline");
  const path = join(folder, `${name}.jwe`);
  // Of its own for each pod: those of one workload may share the volume, and one must not put in place what another is writing.
  const partial = `${path}.${settings.podUid ?? "daemon"}`;
  return {
    volume,
    folder,
    path,
    async write(disk, bytes) {
      await disk.makeDirectory(folder, 0o700);
      await disk.syncDirectory(volume);
      // What an interrupted attempt left behind.
      await disk.remove(partial);
      {
        await using file = await disk.create(partial, 0o600);
        await file.write(bytes);
        await file.sync();
      }
      await disk.rename(partial, path);
      await disk.syncDirectory(folder);
    },
    async remove(disk) {
      const ours = (await disk.list(folder)).filter((item) => item.name.startsWith(`${name}.jwe`));
      for (const item of ours) await disk.remove(join(folder, item.name));
      if (ours.length > 0) await disk.syncDirectory(folder);
    },
  };
}

/**
 * What keeps the sealed set; undefined where none is wanted.
 *
 * @throws EdgeSyncError CONFIG_INVALID when a setting is missing
 */
export async function offlineFor(
  { settings, clock, log, metrics, floor = () => undefined }: SecretsDeps,
  { address, namespace }: VaultOptions,
  changed: () => void,
): Promise<Offline | undefined> {
  const { offlineSecrets: maxAgeMs, podNamespace, workload, vaultRole, secrets } = settings;
  if (maxAgeMs === "never") return undefined;
  const place = required(offlinePlace(settings), "payload-dir");
  const key = mountedKey(required(settings.offlineKeyDir, "offline-key-dir"), "key");
  // A set of another workload, service account, Vault or declaration is not used.
  const identity = JSON.stringify([podNamespace, workload, address, namespace, vaultRole, secrets]);
  const { openOffline } = await import("./offline.ts");
  const disk = nodeDisk;
  return openOffline({ disk, place, key, identity, maxAgeMs, floor, clock, log, metrics, changed });
}

/** Removes what was sealed while the pod still wanted it. */
export async function forgetOffline(settings: Settings, log: Log): Promise<void> {
  if (settings.offlineSecrets !== "never" && settings.secrets.length > 0) return;
  try {
    await offlinePlace(settings)?.remove(nodeDisk);
  } catch (err) {
    log.warn({ err, code: codeOf(err) }, "a sealed set of secrets could not be removed");
  }
}
