/**
 * What a secrets agent must know to go on after the sidecar was restarted: its token, its leases and the data of the secrets,
 * beside the published set in memory. So a pod has one credential for its whole life.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { isSecretData, parseExactJson } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import { ensureDirectory, guarded } from "./publication.ts";
import type { SavedRotation } from "./rotation.ts";
import type { KeptSecretId } from "./secret-id.ts";

/** A grant, and when it ends by the wall clock: the next process can only estimate what is left of it. */
export interface SavedLease {
  readonly durationMs: number;
  readonly renewable: boolean;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export interface SavedToken {
  readonly token: string;
  readonly accessor: string;
  /** Counts the logins of this pod. */
  readonly generation: number;
  readonly lease?: SavedLease | undefined;
}

export interface SavedSecret {
  /** The request's text form. */
  readonly request: string;
  readonly data: SecretData;
  readonly leaseId?: string | undefined;
  readonly lease?: SavedLease | undefined;
  /** Of the token that it was issued to. */
  readonly generation: number;
}

/** A lease that has been followed by another; `revokeAt` is set once its successor is published. */
export interface SavedRetired {
  readonly leaseId: string;
  readonly generation: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly revokeAt?: number | undefined;
}

export interface SavedState {
  /** Which server and role this is about: for another one it is worthless, and must not be sent there. */
  readonly identity: string;
  readonly token?: SavedToken | undefined;
  /** A token before the present one, kept while leases depend on it. */
  readonly former?: SavedToken | undefined;
  readonly secrets: readonly SavedSecret[];
  readonly retired: readonly SavedRetired[];
  /** What the application was told of. */
  readonly rotation?: SavedRotation | undefined;
  /** Of AppRole, where it came wrapped. */
  readonly secretId?: KeptSecretId | undefined;
}

export interface StateStore {
  /** `undefined` when there is none, or none that this version can use. */
  load(): Promise<SavedState | undefined>;
  /** @throws EdgeSyncError DISK_FULL or DISK_FAILED, with the state as it was */
  save(state: SavedState): Promise<void>;
  remove(): Promise<void>;
}

const VERSION = 1;

const lease = v.object({ durationMs: v.number(), renewable: v.boolean(), expiresAt: v.number() });
const token = v.object({
  token: v.string(),
  accessor: v.string(),
  generation: v.number(),
  lease: v.optional(lease),
});
const stateFile = v.object({
  version: v.literal(VERSION),
  identity: v.string(),
  token: v.optional(token),
  former: v.optional(token),
  secrets: v.array(
    v.object({
      request: v.string(),
      data: v.custom<SecretData>(isSecretData),
      leaseId: v.optional(v.string()),
      lease: v.optional(lease),
      generation: v.number(),
    }),
  ),
  secretId: v.optional(v.object({ wrapping: v.string(), secretId: v.string() })),
  rotation: v.optional(v.object({ told: v.optional(v.string()), telling: v.boolean() })),
  retired: v.array(
    v.object({
      leaseId: v.string(),
      generation: v.number(),
      expiresAt: v.number(),
      revokeAt: v.optional(v.number()),
    }),
  ),
});

/** `folder` is the memory volume, which the publication has examined. */
export async function openStateStore(folder: string): Promise<StateStore> {
  const directory = join(folder, "state");
  const path = join(directory, "state.json");
  const partial = `${path}.partial`;
  await guarded(folder, () => ensureDirectory(directory, 0o700));
  return {
    async load() {
      try {
        return v.parse(stateFile, parseExactJson(await readFile(path, "utf8")));
      } catch {
        // Absent, or of another version: the credentials in it end by themselves. No cause is kept, it would quote them.
        return undefined;
      }
    },
    save: (state) =>
      guarded(folder, async () => {
        // A left-over of another mode would keep it; half a file would take room that the set needs.
        await rm(partial, { force: true });
        await using cleanup = new AsyncDisposableStack();
        cleanup.defer(() => rm(partial, { force: true }));
        const text = JSON.stringify({ version: VERSION, ...state });
        await writeFile(partial, text, { mode: 0o600, flag: "wx" });
        await rename(partial, path);
      }),
    remove: () => guarded(folder, () => rm(path, { force: true })),
  };
}
