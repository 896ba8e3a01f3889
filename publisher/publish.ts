/** Signing and publishing: the one way in which what clients see changes. */
import { Metadata, Root } from "@tufjs/models";
import type { MetaFile, Targets } from "@tufjs/models";
import { EdgeSyncError } from "#core/errors.ts";
import type { Keyring, SigningKey } from "./keys.ts";
import {
  LIFETIME_MS,
  expiryOf,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  metaFile,
  nextTargets,
  signed,
  targetFile,
  toBytes,
} from "./metadata.ts";
import type { Kind } from "./metadata.ts";
import { targetLocation, write } from "./repository.ts";
import type { Repository } from "./repository.ts";

/** The keys that a publication needs, found before any work is done. */
export interface Signers {
  readonly role: SigningKey;
  readonly snapshot: SigningKey;
  readonly timestamp: SigningKey;
  /** Needed when the role is new. */
  readonly targets: SigningKey | undefined;
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
  const delegation = repository.targets.signed.delegations?.roles?.[role];
  const [snapshot, timestamp] = await Promise.all([
    loadTop(repository, keyring, "snapshot"),
    loadTop(repository, keyring, "timestamp"),
  ]);
  if (delegation !== undefined) {
    const key = await keyring.load(role);
    refuseOther(key, role, delegation);
    return { role: key, snapshot, timestamp, targets: undefined };
  }
  const targets = await loadTop(repository, keyring, "targets");
  // A key without its role is left behind by a publisher that died in between.
  const key = (await keyring.find(role)) ?? (await keyring.create(role));
  return { role: key, snapshot, timestamp, targets };
}

async function loadTop(
  repository: Repository,
  keyring: Keyring,
  role: "root" | "targets" | "snapshot" | "timestamp",
): Promise<SigningKey> {
  const key = await keyring.load(role);
  refuseOther(key, role, repository.root.signed.roles[role]);
  return key;
}

interface Signing {
  readonly keyIDs: readonly string[];
  readonly threshold: number;
}

function refuseOther(key: SigningKey, role: string, signing: Signing | undefined): void {
  if (signing === undefined || !canSign(key, signing))
    throw new EdgeSyncError(
      "KEY_INVALID",
      `the key of role ${role} is not the one that the repository names, or is not enough alone`,
    );
}

function canSign(key: SigningKey, signing: Signing): boolean {
  return signing.threshold === 1 && signing.keyIDs.includes(key.id);
}

export interface NewTarget {
  readonly path: string;
  readonly bytes: Uint8Array;
  /** See `targetFile`. */
  readonly order?: number;
}

export interface RoleChange {
  readonly role: string;
  /** What the role may sign for, when it is new. */
  readonly paths: readonly string[];
  readonly targets: readonly NewTarget[];
}

/** Publishes targets of one role. Blobs that they name must be in place. */
export async function publish(
  repository: Repository,
  keyring: Keyring,
  signers: Signers,
  change: RoleChange,
  now: number,
): Promise<void> {
  for (const { path, bytes } of change.targets) {
    const { hashes } = targetFile(path, bytes);
    await write(repository, targetLocation(path, hashes["sha256"] ?? ""), bytes);
  }
  const files = change.targets.map(({ path, bytes, order }) => targetFile(path, bytes, order));
  const before = repository.roles.get(change.role)?.signed;
  const first = before ?? makeTargets(0, "role", now);
  const changed = new Map([
    [
      change.role,
      signed(new Metadata(nextTargets(first, { targets: files }, "role", now)), signers.role),
    ],
  ]);
  if (before === undefined && signers.targets !== undefined) {
    const delegation = { name: change.role, paths: change.paths, key: signers.role.public };
    const next = nextTargets(repository.targets.signed, { delegation }, "targets", now);
    changed.set("targets", signed(new Metadata(next), signers.targets));
  }
  await signAnew(repository, keyring, signers, changed, now);
}

/** Signs anew what is in the last part of its life, as far as the keys are here. */
export async function renew(
  repository: Repository,
  keyring: Keyring,
  now: number,
): Promise<readonly string[]> {
  const signers = {
    snapshot: await loadTop(repository, keyring, "snapshot"),
    timestamp: await loadTop(repository, keyring, "timestamp"),
  };
  return await signAnew(repository, keyring, signers, new Map(), now);
}

async function signAnew(
  repository: Repository,
  keyring: Keyring,
  signers: Pick<Signers, "snapshot" | "timestamp">,
  changed: Map<string, Metadata<Targets>>,
  now: number,
): Promise<readonly string[]> {
  const renewed = ["timestamp", "snapshot"];
  if (await renewRoot(repository, keyring, now)) renewed.push("root");
  for (const [name, file] of [["targets", repository.targets] as const, ...repository.roles]) {
    if (changed.has(name)) continue;
    const kind = name === "targets" ? "targets" : "role";
    const key = isAging(kind, file.signed.expires, now) ? await keyring.find(name) : undefined;
    const signing = signingOf(repository, name);
    if (key === undefined || signing === undefined || !canSign(key, signing)) continue;
    changed.set(name, signed(new Metadata(nextTargets(file.signed, {}, kind, now)), key));
    renewed.push(name);
  }
  const meta: Record<string, MetaFile> = { ...repository.snapshot.signed.meta };
  // Delegated roles before the one that delegates to them, as clients would find them.
  const order = [...changed].toSorted(
    ([a], [b]) => Number(a === "targets") - Number(b === "targets"),
  );
  for (const [name, file] of order) {
    const bytes = toBytes(file);
    await write(repository, `metadata/${file.signed.version}.${name}.json`, bytes);
    meta[`${name}.json`] = metaFile(file.signed.version, bytes);
  }
  const snapshot = makeSnapshot(repository.snapshot.signed.version + 1, meta, now);
  const snapshotBytes = toBytes(signed(new Metadata(snapshot), signers.snapshot));
  await write(repository, `metadata/${snapshot.version}.snapshot.json`, snapshotBytes);
  const timestamp = makeTimestamp(
    repository.timestamp.signed.version + 1,
    metaFile(snapshot.version, snapshotBytes),
    now,
  );
  // The step that counts: before it nothing has changed for clients, after it everything has.
  await write(
    repository,
    "metadata/timestamp.json",
    toBytes(signed(new Metadata(timestamp), signers.timestamp)),
  );
  return renewed;
}

function signingOf(repository: Repository, role: string): Signing | undefined {
  if (role === "targets") return repository.root.signed.roles["targets"];
  return repository.targets.signed.delegations?.roles?.[role];
}

/** The last third of its life. */
function isAging(kind: Kind, expires: string, now: number): boolean {
  return Date.parse(expires) - now < LIFETIME_MS[kind] / 3;
}

async function renewRoot(repository: Repository, keyring: Keyring, now: number): Promise<boolean> {
  const before = repository.root.signed;
  const key = isAging("root", before.expires, now) ? await keyring.find("root") : undefined;
  const signing = before.roles["root"];
  if (key === undefined || signing === undefined || !canSign(key, signing)) return false;
  const root = Root.fromJSON({
    ...before.toJSON(),
    version: before.version + 1,
    expires: expiryOf("root", now),
  });
  const bytes = toBytes(signed(new Metadata(root), key));
  await write(repository, `metadata/${root.version}.root.json`, bytes);
  return true;
}
