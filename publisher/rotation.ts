/** Publishing a change of keys, so that sites can follow at every moment and a publisher that dies loses nothing. */
import { EdgeSyncError } from "#core/errors.ts";
import { canonicalForm } from "#core/trust/canonical.ts";
import { refuseIncomplete, signCeremony } from "./ceremony.ts";
import { findKeys, keyNamed, requireKeys } from "./keys.ts";
import type { KeySet, Keyring, SigningKey } from "./keys.ts";
import { isSignedFor, isTopRole, nextRoot, nextTargets, sign, toBytes } from "./metadata.ts";
import type { KeyTable, Metadata, RoleKeys, Root, Signed, Targets } from "./metadata.ts";
import { signAnew, writeListed } from "./publish.ts";
import type { KeyType, PublicKey } from "./public-keys.ts";
import { completeNext, prepareNext } from "./pending.ts";
import { write } from "./repository.ts";
import type { Repository } from "./repository.ts";
import { describeKeys, editDelegation, editRoot, findKey, requireRole } from "./role-keys.ts";
import type { RoleEdit } from "./role-keys.ts";
import { checkRoot } from "./state.ts";

type OnlineRole = "targets" | "snapshot" | "timestamp";

/**
 * Publishes a root that has its signatures, and signs anew what the keys of the new root have not signed.
 *
 * What is signed anew is signed by the old keys too, as far as they are here: then the new timestamp is good for sites with the
 * old root and for sites with the new one, and there is no moment at which a site is refused. When an old key is lost, there is
 * one, between the new timestamp and the new root.
 *
 * @returns the roles that were signed anew
 * @throws EdgeSyncError METADATA_UNTRUSTED when it does not follow the repository's root, KEY_INVALID when a key is not here
 */
export async function publishRoot(
  repository: Repository,
  set: KeySet,
  next: Metadata<Root>,
  now: number,
): Promise<readonly string[]> {
  const before = repository.root.signed;
  const bytes = toBytes(next);
  const after = checkRoot(before, bytes).signed;
  const isGood = (role: OnlineRole): boolean =>
    isSignedFor(role, toBytes(repository[role]), after.keys, after.roles[role]);
  const stale = new Set(
    (["targets", "snapshot", "timestamp"] as const).filter((role) => !isGood(role)),
  );
  const rootName = `${after.version}.root.json`;
  if (stale.size === 0) {
    await write(repository, `metadata/${rootName}`, bytes);
    return [];
  }
  const signersOf = (role: OnlineRole): readonly SigningKey[] => [
    ...requireKeys(set, role, after.roles[role]),
    ...(findKeys(set, before.roles[role]) ?? []),
  ];
  const changed = new Map<string, Metadata<Targets>>();
  if (stale.has("targets")) {
    const targets = nextTargets(repository.targets.signed, {}, "targets", now);
    changed.set("targets", await sign(targets, signersOf("targets")));
  }
  const signers = { snapshot: signersOf("snapshot"), timestamp: signersOf("timestamp") };
  const base = isWithdrawn("timestamp", before, after) || isWithdrawn("snapshot", before, after);
  const timestamp = await writeListed(
    base ? withUsableVersions(repository) : repository,
    signers,
    changed,
    now,
  );
  await prepareNext(repository, bytes, timestamp);
  await completeNext(repository);
  return [...changed.keys(), "snapshot", "timestamp"];
}

function isWithdrawn(role: OnlineRole, before: Root, after: Root): boolean {
  return before.roles[role].keyids.some((id) => !after.roles[role].keyids.includes(id));
}

/**
 * Somebody with a stolen key may have used up the numbers for versions. Sites forget the versions that they have seen when a
 * key of these roles is withdrawn (specification 1.0.34, 5.3.11), so that counting can begin anew.
 */
function withUsableVersions(repository: Repository): Repository {
  const usable = <T extends Signed>(file: Metadata<T>): Metadata<T> =>
    file.signed.version < 2 ** 52 ? file : { ...file, signed: { ...file.signed, version: 0 } };
  return {
    ...repository,
    snapshot: usable(repository.snapshot),
    timestamp: usable(repository.timestamp),
  };
}

export interface Rotation {
  readonly role: string;
  /** Which of the role's keys goes; needed when it has more than one. */
  readonly replace: string | undefined;
  /** The key that comes; a new one is made when `undefined`. */
  readonly key: PublicKey | undefined;
  /** Of the key that is made. */
  readonly type: KeyType;
}

/** The id of the key that a rotation withdraws. @throws EdgeSyncError USAGE */
export function replacedKey(
  name: string,
  role: RoleKeys,
  keys: KeyTable,
  reference: string | undefined,
): string {
  if (reference !== undefined) return findKey(name, role, keys, reference);
  const [only, ...others] = role.keyids;
  if (only === undefined || others.length > 0)
    throw new EdgeSyncError(
      "USAGE",
      `role ${name} has ${role.keyids.length} keys (${describeKeys(role, keys)}); say which one is to be replaced`,
    );
  return only;
}

/**
 * The key for a role's next turn. Its name has the version that brings it, so that a publisher that died before it was published is
 * followed by one that takes the same key.
 */
export async function keyForRotation(
  keyring: Keyring,
  role: string,
  version: number,
  type: KeyType,
): Promise<PublicKey> {
  const name = `${role}.${version}`;
  return keyNamed(await keyring.load(), name) ?? (await keyring.create(name, type));
}

/**
 * Replaces one key of a role, with the keys that are here.
 *
 * @returns the new key, and what was signed anew
 * @throws EdgeSyncError USAGE, KEY_INVALID
 */
export async function rotateKey(
  repository: Repository,
  keyring: Keyring,
  { role: name, replace, key: given, type }: Rotation,
  now: number,
): Promise<{ readonly key: PublicKey; readonly signed: readonly string[] }> {
  const root = repository.root.signed;
  const targets = repository.targets.signed;
  const set = await keyring.load();
  const done = keyNamed(set, `${name}.${root.version}`);
  // It was this change that somebody who died had made.
  if (repository.resumed && isTopRole(name) && done !== undefined)
    if (root.roles[name].keyids.includes(done.id)) return { key: done, signed: [] };
  // Before a key is made: whether those are here who have to agree.
  const make = async (
    delegator: "root" | "targets",
    role: RoleKeys,
    keys: KeyTable,
    version: number,
  ): Promise<{ key: PublicKey; edit: RoleEdit; set: KeySet }> => {
    const old = replacedKey(name, role, keys, replace);
    if (delegator === "root" && findKeys(set, root.roles.root) === undefined)
      throw new EdgeSyncError(
        "KEY_INVALID",
        `not enough of root's keys are in ${set.folder}; begin a ceremony with root prepare --rotate ${name}`,
      );
    requireKeys(set, delegator, root.roles[delegator]);
    const key = given ?? (await keyForRotation(keyring, name, version, type));
    const edit = { add: [key], remove: [old], threshold: undefined };
    return { key, edit, set: await keyring.load() };
  };
  if (isTopRole(name)) {
    const made = await make("root", root.roles[name], root.keys, root.version + 1);
    const next = nextRoot(root, editRoot(root, new Map([[name, made.edit]])), now);
    const unsigned = { previous: repository.root, next: { signed: next, signatures: [] } };
    const ceremony = await signCeremony(unsigned, made.set);
    refuseIncomplete(ceremony);
    const signed = await publishRoot(repository, made.set, ceremony.next, now);
    return { key: made.key, signed: ["root", ...signed] };
  }
  const role = requireRole(targets, name);
  const keys = targets.delegations?.keys ?? {};
  const made = await make("targets", role, keys, targets.version + 1);
  return {
    key: made.key,
    signed: await changeRole(repository, made.set, name, made.edit, now),
  };
}

/** Whether two roots say the same, whoever has signed them. */
export function isSameRoot(a: Root, b: Root): boolean {
  return canonicalForm(a, 0).equals(canonicalForm(b, 0));
}

/**
 * Changes who signs for an app or a channel. One step for clients: they see the new keys together with what those have signed.
 *
 * @throws EdgeSyncError USAGE, KEY_INVALID
 */
export async function changeRole(
  repository: Repository,
  set: KeySet,
  name: string,
  edit: RoleEdit,
  now: number,
): Promise<readonly string[]> {
  const { roles } = repository.root.signed;
  const signers = {
    snapshot: requireKeys(set, "snapshot", roles.snapshot),
    timestamp: requireKeys(set, "timestamp", roles.timestamp),
  };
  const targetsKeys = requireKeys(set, "targets", roles.targets);
  const targets = editDelegation(repository.targets.signed, name, edit, now);
  const role = requireRole(targets, name);
  const file = repository.roles.get(name);
  const changed = new Map<string, Metadata<Targets>>();
  if (
    file !== undefined &&
    !isSignedFor(name, toBytes(file), targets.delegations?.keys ?? {}, role)
  ) {
    const keys = requireKeys(set, name, role);
    changed.set(name, await sign(nextTargets(file.signed, {}, "role", now), keys));
  }
  changed.set("targets", await sign(targets, targetsKeys));
  const renewed = await signAnew(repository, set, signers, changed, now);
  return [...changed.keys(), ...renewed];
}
