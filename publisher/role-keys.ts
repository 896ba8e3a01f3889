/** Changes of who signs for a role, as data. */
import { EdgeSyncError } from "#core/errors.ts";
import { TOP_ROLES, nextTargets, roleNamed } from "./metadata.ts";
import type { DelegatedRole, KeyTable, RoleKeys, Root, Targets, TopRole } from "./metadata.ts";
import { labelOf, nameOf } from "./public-keys.ts";
import type { PublicKey } from "./public-keys.ts";

export interface RoleEdit {
  readonly add: readonly PublicKey[];
  /** Names of keys, or beginnings of their ids. */
  readonly remove: readonly string[];
  /** As it was when not given. */
  readonly threshold: number | undefined;
}

/** @throws EdgeSyncError USAGE when it names no key of the role, or the role could not be signed any more */
export function editRole(name: string, before: RoleKeys, keys: KeyTable, edit: RoleEdit): RoleKeys {
  const removed = new Set(edit.remove.map((reference) => findKey(name, before, keys, reference)));
  const added = edit.add.map(({ id }) => id);
  const keyids = [...new Set([...before.keyids.filter((id) => !removed.has(id)), ...added])];
  const threshold = edit.threshold ?? before.threshold;
  if (threshold > keyids.length)
    throw new EdgeSyncError(
      "USAGE",
      `role ${name} would need the signatures of ${threshold} of ${keyids.length} keys`,
    );
  return { keyids, threshold };
}

/** The id of a role's key. @throws EdgeSyncError USAGE when none, or more than one, is meant */
export function findKey(name: string, role: RoleKeys, keys: KeyTable, reference: string): string {
  const named = role.keyids.filter((id) => nameOf(keys[id]) === reference);
  const found =
    named.length > 0
      ? named
      : role.keyids.filter((id) => reference.length >= 6 && id.startsWith(reference));
  const [id] = found;
  if (id === undefined || found.length > 1)
    throw new EdgeSyncError(
      "USAGE",
      `${JSON.stringify(reference)} is not one key of role ${name}; expected a name or the first letters of an id of ${describeKeys(role, keys)}`,
    );
  return id;
}

export function describeKeys({ keyids }: RoleKeys, keys: KeyTable): string {
  return keyids.map((id) => labelOf(id, keys[id])).join(", ");
}

/** The keys and roles of the next root. */
export function editRoot(
  { keys, roles }: Pick<Root, "keys" | "roles">,
  edits: ReadonlyMap<TopRole, RoleEdit>,
): Pick<Root, "keys" | "roles"> {
  const edited = { ...roles };
  for (const [name, edit] of edits) edited[name] = editRole(name, roles[name], keys, edit);
  const added = [...edits.values()].flatMap((edit) => edit.add);
  return { keys: tableOf(keys, added, Object.values(edited)), roles: edited };
}

/** A role that the top-level targets delegate to. @throws EdgeSyncError USAGE */
export function requireRole(targets: Targets, name: string): DelegatedRole {
  const role = roleNamed(targets, name);
  if (role !== undefined) return role;
  const known = targets.delegations?.roles.map((item) => item.name) ?? [];
  throw new EdgeSyncError(
    "USAGE",
    `the repository has no role ${JSON.stringify(name)}; expected ${[...TOP_ROLES, ...known].join(", ")}`,
  );
}

/** The next version of the top-level targets, with other keys for a role that it delegates to. */
export function editDelegation(
  before: Targets,
  name: string,
  edit: RoleEdit,
  now: number,
): Targets {
  const role = requireRole(before, name);
  const keys = tableOf(before.delegations?.keys ?? {}, edit.add, []);
  const edited = { ...role, ...editRole(name, role, keys, edit) };
  const roles = (before.delegations?.roles ?? []).map((item) =>
    item.name === name ? edited : item,
  );
  return nextTargets(
    before,
    { delegations: { keys: tableOf(keys, [], roles), roles } },
    "targets",
    now,
  );
}

/** Only keys that a role names; all of them when no role is given. */
function tableOf(
  before: KeyTable,
  added: readonly PublicKey[],
  roles: readonly RoleKeys[],
): KeyTable {
  const used = new Set(roles.flatMap((role) => role.keyids));
  const all = { ...Object.fromEntries(added.map(({ id, key }) => [id, key])), ...before };
  return Object.fromEntries(
    Object.entries(all).filter(([id]) => roles.length === 0 || used.has(id)),
  );
}
