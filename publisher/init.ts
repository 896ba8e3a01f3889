/**
 * A new repository, and apart from it a folder of keys. In two steps: the first root is made, and once it has its signatures
 * (at once, when all keys are here) everything else.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { refuseIncomplete, signCeremony } from "./ceremony.ts";
import { makeFolder, place, readIfExists, refuseNoFolder, spool } from "./files.ts";
import { keyNamed, refuseKeysInside, requireKeys } from "./keys.ts";
import type { KeySet, Keyring } from "./keys.ts";
import { LOCK_NAME, lockRepository } from "./lock.ts";
import {
  TOP_ROLES,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  metaFile,
  sign,
  toBytes,
} from "./metadata.ts";
import type { Metadata, RoleKeys, Root, TopRole } from "./metadata.ts";
import type { KeyType, PublicKey } from "./public-keys.ts";
import { closeWork, openWork, write } from "./repository.ts";
import { checkRoot } from "./state.ts";

/** Exists from before the first key is made until the repository is complete, so that an `init` that died can be finished. */
const MARKER = ".initializing";

/** Who signs, where it is not one new key for each role. */
export interface Plan {
  readonly keys: Readonly<Partial<Record<TopRole, readonly PublicKey[]>>>;
  readonly thresholds: Readonly<Partial<Record<TopRole, number>>>;
  /** Of the keys that are made. */
  readonly type: KeyType;
}

const DEFAULT_PLAN: Plan = { keys: {}, thresholds: {}, type: "ed25519" };

/**
 * A repository of which every key is here.
 *
 * @returns the trust root, which is what sites are given
 * @throws EdgeSyncError REPOSITORY_INVALID or KEY_INVALID when there is anything that would be overwritten
 */
export async function initRepository(path: string, keyring: Keyring, now: number): Promise<string> {
  const next = await beginRepository(path, keyring, DEFAULT_PLAN, now);
  if (next === undefined) return rootPath(path);
  const set = await keyring.load();
  const signed = await signCeremony({ previous: undefined, next }, set);
  return await completeRepository(path, set, signed.next, now);
}

export function rootPath(path: string): string {
  return join(path, "metadata", "1.root.json");
}

/**
 * Makes the folder, the keys that are not given, and the first root, which is not signed yet and not in the folder.
 *
 * @returns `undefined` when the repository was complete but for the last step, which is done now
 * @throws EdgeSyncError as {@link initRepository}, and USAGE when a role could not be signed
 */
export async function beginRepository(
  path: string,
  keyring: Keyring,
  plan: Plan,
  now: number,
): Promise<Metadata<Root> | undefined> {
  for (const role of TOP_ROLES) {
    const given = plan.keys[role];
    const count = given === undefined ? 1 : idsOf(given).length;
    refuseThreshold(role, count, plan.thresholds[role] ?? 1);
  }
  await refuseNoFolder(path, "a folder for the repository, which may be new");
  await refuseKeysInside(path, keyring.folder);
  await makeFolder(path);
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await lockRepository(path, now));
  const resumed = await isUnfinished(path);
  if (resumed && (await isComplete(path))) {
    // It may have been used since: nothing is written anew.
    await rm(join(path, MARKER));
    return undefined;
  }
  const temporary = await openWork(path);
  cleanup.defer(() => closeWork(path));
  const made = TOP_ROLES.filter((role) => plan.keys[role] === undefined);
  if (!resumed) {
    for (const role of made)
      if ((await readIfExists(join(keyring.folder, `${role}.pem`))) !== undefined)
        throw new EdgeSyncError(
          "KEY_INVALID",
          `${join(keyring.folder, `${role}.pem`)} exists; a repository has keys of its own`,
        );
    await place((await spool(temporary(), [])).path, join(path, MARKER));
  }
  const set = await keyring.load();
  const keys = new Map<string, PublicKey>();
  const roles: Partial<Record<TopRole, RoleKeys>> = {};
  for (const role of TOP_ROLES) {
    const chosen = plan.keys[role] ?? [
      keyNamed(set, role) ?? (await keyring.create(role, plan.type)),
    ];
    for (const key of chosen) keys.set(key.id, key);
    roles[role] = { keyids: idsOf(chosen), threshold: plan.thresholds[role] ?? 1 };
  }
  const table = Object.fromEntries([...keys].map(([id, { key }]) => [id, key]));
  // The loop has filled every one.
  return { signed: makeRoot(table, roles as Root["roles"], now), signatures: [] };
}

function idsOf(keys: readonly PublicKey[]): readonly string[] {
  return [...new Set(keys.map(({ id }) => id))];
}

/** Before anything is made: what is left of a refused `init` would be in the way of the next one. */
function refuseThreshold(role: TopRole, keys: number, threshold: number): void {
  if (threshold > keys)
    throw new EdgeSyncError(
      "USAGE",
      `role ${role} would need the signatures of ${threshold} of ${keys} keys; expected --key for each of them`,
    );
}

/**
 * Writes the files of a repository that {@link beginRepository} has begun, or does nothing when it is complete.
 *
 * @param root the first one, signed
 * @returns the trust root, which is what sites are given
 * @throws EdgeSyncError SIGNATURES_MISSING, KEY_INVALID, REPOSITORY_INVALID
 */
export async function completeRepository(
  path: string,
  set: KeySet,
  root: Metadata<Root>,
  now: number,
): Promise<string> {
  refuseIncomplete({ previous: undefined, next: root });
  const bytes = toBytes(root);
  const { roles } = checkRoot(undefined, bytes).signed;
  await using cleanup = new AsyncDisposableStack();
  if (!(await isBegun(path)))
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${path} is not a repository that init has begun`,
    );
  cleanup.use(await lockRepository(path, now));
  if (!(await isComplete(path))) {
    const signersOf = (role: Exclude<TopRole, "root">) => requireKeys(set, role, roles[role]);
    const signers = {
      targets: signersOf("targets"),
      snapshot: signersOf("snapshot"),
      timestamp: signersOf("timestamp"),
    };
    const repository = { path, temporary: await openWork(path) };
    cleanup.defer(() => closeWork(path));
    await write(repository, "metadata/1.root.json", bytes);
    const targets = toBytes(await sign(makeTargets(1, "targets", now), signers.targets));
    await write(repository, "metadata/1.targets.json", targets);
    const list = makeSnapshot(1, { "targets.json": metaFile(1, targets) }, now);
    const snapshot = toBytes(await sign(list, signers.snapshot));
    await write(repository, "metadata/1.snapshot.json", snapshot);
    const timestamp = makeTimestamp(1, metaFile(1, snapshot), now);
    const last = toBytes(await sign(timestamp, signers.timestamp));
    await write(repository, "metadata/timestamp.json", last);
  }
  await rm(join(path, MARKER));
  return rootPath(path);
}

/** Whether {@link beginRepository} was here and {@link completeRepository} was not, or died. */
export async function isBegun(path: string): Promise<boolean> {
  return (await readIfExists(join(path, MARKER))) !== undefined;
}

async function isComplete(path: string): Promise<boolean> {
  return (await readIfExists(join(path, "metadata", "timestamp.json"))) !== undefined;
}

/** @throws EdgeSyncError REPOSITORY_INVALID when the folder holds something else */
async function isUnfinished(path: string): Promise<boolean> {
  const names = (await readdir(path)).filter((name) => !name.startsWith(LOCK_NAME));
  if (names.includes(MARKER)) return true;
  const found = names.find((name) => name !== ".work");
  if (found !== undefined)
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} is not empty: it holds ${found}`);
  return false;
}
