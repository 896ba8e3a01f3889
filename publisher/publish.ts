/** Signing and publishing: the one way in which what clients see changes. */
import { hash } from "node:crypto";
import { findKeys, keyNamed, requireKeys } from "./keys.ts";
import type { KeySet, Keyring, SigningKey } from "./keys.ts";
import {
  LIFETIME_MS,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  metaFile,
  nextRoot,
  nextTargets,
  parse,
  roleNamed,
  sign,
  targetFile,
  toBytes,
  withRole,
} from "./metadata.ts";
import type { Kind, MetaFile, Metadata, RoleKeys, TargetFile, Targets } from "./metadata.ts";
import { newsOf } from "./news.ts";
import { targetLocation, write } from "./repository.ts";
import type { Repository } from "./repository.ts";

/** The keys that a publication needs, found before any work is done. */
export interface Signers {
  readonly role: readonly SigningKey[];
  readonly snapshot: readonly SigningKey[];
  readonly timestamp: readonly SigningKey[];
  /** Needed when the role is new. */
  readonly targets: readonly SigningKey[] | undefined;
}

/**
 * @param role a delegated role; its key is made when neither the role nor the key exists
 * @throws EdgeSyncError KEY_INVALID
 */
export async function findSigners(
  repository: Repository,
  keyring: Keyring,
  role: string,
): Promise<Signers> {
  const { roles } = repository.root.signed;
  const set = await keyring.load();
  const snapshot = requireKeys(set, "snapshot", roles.snapshot);
  const timestamp = requireKeys(set, "timestamp", roles.timestamp);
  const delegation = roleNamed(repository.targets.signed, role);
  if (delegation !== undefined)
    return { role: requireKeys(set, role, delegation), snapshot, timestamp, targets: undefined };
  const targets = requireKeys(set, "targets", roles.targets);
  // A key without its role was put there for it, or is left behind by a publisher that died in between.
  const key = keyNamed(set, role) ?? (await keyring.create(role));
  return { role: [key], snapshot, timestamp, targets };
}

export interface NewTarget {
  readonly path: string;
  readonly bytes: Uint8Array;
  /** See `TargetFile`. */
  readonly custom?: TargetFile["custom"];
}

export interface RoleChange {
  readonly role: string;
  /** What the role may sign for, when it is new. */
  readonly paths: readonly string[];
  readonly targets: readonly NewTarget[];
  /** Paths that are no longer listed. */
  readonly remove?: readonly string[];
}

/** Publishes targets of one role. Blobs that they name must be in place. */
export async function publish(
  repository: Repository,
  keyring: Keyring,
  signers: Signers,
  { role, paths, targets, remove }: RoleChange,
  now: number,
): Promise<void> {
  for (const { path, bytes } of targets)
    await write(repository, targetLocation(path, hash("sha256", bytes)), bytes);
  const listed = Object.fromEntries(
    targets.map(({ path, bytes, custom }) => [path, targetFile(bytes, custom)]),
  );
  const before = repository.roles.get(role)?.signed;
  const first = before ?? makeTargets(0, "role", now);
  const change = { targets: listed, ...(remove !== undefined && { remove }) };
  const changed = new Map([
    [role, await sign(nextTargets(first, change, "role", now), signers.role)],
  ]);
  if (before === undefined && signers.targets !== undefined) {
    const top = repository.targets.signed;
    const keys = Object.fromEntries(signers.role.map(({ id, key }) => [id, key]));
    const delegation = {
      name: role,
      keyids: Object.keys(keys),
      threshold: signers.role.length,
      paths,
      // No later role may answer for the paths of this one.
      terminating: true,
    };
    const delegations = withRole(top.delegations, delegation, keys);
    const next = nextTargets(top, { delegations }, "targets", now);
    changed.set("targets", await sign(next, signers.targets));
  }
  await signAnew(repository, await keyring.load(), signers, changed, now, targets);
}

/** Signs anew what is in the last part of its life, as far as the keys are here. */
export async function renew(
  repository: Repository,
  keyring: Keyring,
  now: number,
): Promise<readonly string[]> {
  const set = await keyring.load();
  const { roles } = repository.root.signed;
  const signers = {
    snapshot: requireKeys(set, "snapshot", roles.snapshot),
    timestamp: requireKeys(set, "timestamp", roles.timestamp),
  };
  return await signAnew(repository, set, signers, new Map(), now);
}

/**
 * Publishes new versions of roles, with a snapshot and a timestamp of them, and renews what is in the last part of its life.
 *
 * @param changed signed files of `targets` and of delegated roles
 * @returns what was signed beyond that
 */
export async function signAnew(
  repository: Repository,
  set: KeySet,
  signers: Pick<Signers, "snapshot" | "timestamp">,
  changed: Map<string, Metadata<Targets>>,
  now: number,
  targets: readonly NewTarget[] = [],
): Promise<readonly string[]> {
  const renewed = ["timestamp", "snapshot"];
  if (await renewRoot(repository, set, now)) renewed.push("root");
  for (const [name, file] of [["targets", repository.targets] as const, ...repository.roles]) {
    if (changed.has(name)) continue;
    const kind = name === "targets" ? "targets" : "role";
    const signing = signingOf(repository, name);
    if (signing === undefined || !isAging(kind, file.signed.expires, now)) continue;
    const keys = findKeys(set, signing);
    if (keys === undefined) continue;
    changed.set(name, await sign(nextTargets(file.signed, {}, kind, now), keys));
    renewed.push(name);
  }
  const timestamp = await writeListed(repository, signers, changed, now, targets);
  // The step that counts: before it nothing has changed for clients, after it everything has.
  await write(repository, "metadata/timestamp.json", timestamp);
  return renewed;
}

/**
 * Writes new versions of roles and a snapshot of them, which nothing refers to yet.
 *
 * @returns the timestamp that would
 */
export async function writeListed(
  repository: Repository,
  signers: Pick<Signers, "snapshot" | "timestamp">,
  changed: ReadonlyMap<string, Metadata<Targets>>,
  now: number,
  targets: readonly NewTarget[] = [],
): Promise<Buffer> {
  const meta: Record<string, MetaFile> = { ...repository.snapshot.signed.meta };
  const files = new Map<string, Uint8Array>();
  // Delegated roles before the one that delegates to them, as clients would find them.
  const order = [...changed].toSorted(
    ([a], [b]) => Number(a === "targets") - Number(b === "targets"),
  );
  for (const [name, file] of order) {
    const bytes = readable(name, file);
    await write(repository, `metadata/${file.signed.version}.${name}.json`, bytes);
    meta[`${name}.json`] = metaFile(file.signed.version, bytes);
    files.set(`metadata/${file.signed.version}.${name}.json`, bytes);
  }
  const version = repository.snapshot.signed.version + 1;
  const snapshot = readable(
    "snapshot",
    await sign(makeSnapshot(version, meta, now), signers.snapshot),
  );
  await write(repository, `metadata/${version}.snapshot.json`, snapshot);
  for (const { path, bytes } of targets)
    files.set(targetLocation(path, hash("sha256", bytes)), bytes);
  const timestamp = makeTimestamp(
    repository.timestamp.signed.version + 1,
    metaFile(version, snapshot),
    now,
    newsOf(repository, {
      files: new Map([[`metadata/${version}.snapshot.json`, snapshot], ...files]),
      meta,
      changed,
    }),
  );
  return readable("timestamp", await sign(timestamp, signers.timestamp));
}

/** The bytes of a file. @throws EdgeSyncError METADATA_INVALID when clients would refuse them, such as for their size */
function readable(role: string, file: Parameters<typeof toBytes>[0]): Buffer {
  const bytes = toBytes(file);
  parse(role, bytes);
  return bytes;
}

function signingOf(repository: Repository, role: string): RoleKeys | undefined {
  if (role === "targets") return repository.root.signed.roles.targets;
  return roleNamed(repository.targets.signed, role);
}

/** The last third of its life. */
function isAging(kind: Kind, expires: string, now: number): boolean {
  return Date.parse(expires) - now < LIFETIME_MS[kind] / 3;
}

async function renewRoot(repository: Repository, set: KeySet, now: number): Promise<boolean> {
  const before = repository.root.signed;
  const keys = isAging("root", before.expires, now) ? findKeys(set, before.roles.root) : undefined;
  if (keys === undefined) return false;
  const root = await sign(nextRoot(before, {}, now), keys);
  await write(repository, `metadata/${root.signed.version}.root.json`, readable("root", root));
  return true;
}
