/** Which keys there are, and what they are for. */
import { join } from "node:path";
import { readIfExists } from "./files.ts";
import type { ClosedKey, KeySet } from "./keys.ts";
import { TOP_ROLES } from "./metadata.ts";
import type { KeyTable, RoleKeys } from "./metadata.ts";
import { nameOf } from "./public-keys.ts";
import { loadState } from "./state.ts";

export interface ListedKey {
  /** `null` when it signs for none. */
  readonly role: string | null;
  readonly id: string;
  readonly name: string | null;
  readonly type: string;
  /** `null` when it is not here. */
  readonly where: string | null;
  /** Until when what the role has signed holds. */
  readonly expires: string | null;
}

/**
 * @param path of a repository; where there is none, only the keys themselves are listed
 * @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED
 */
export async function listKeys(
  path: string,
  set: KeySet,
): Promise<{ readonly keys: readonly ListedKey[]; readonly closed: readonly ClosedKey[] }> {
  const whereOf = (id: string): string | null =>
    set.keys.find((key) => key.id === id)?.where ??
    set.closed.find((key) => key.public?.id === id)?.where ??
    null;
  const listed: ListedKey[] = [];
  const add = (role: string, { keyids }: RoleKeys, keys: KeyTable, expires: string): void => {
    for (const id of keyids)
      listed.push({
        role,
        id,
        name: nameOf(keys[id]) ?? null,
        type: keys[id]?.keytype ?? "unknown",
        where: whereOf(id),
        expires,
      });
  };
  if ((await readIfExists(join(path, "metadata", "timestamp.json"))) !== undefined) {
    const state = await loadState(path);
    const { keys, roles } = state.root.signed;
    for (const name of TOP_ROLES) add(name, roles[name], keys, state[name].signed.expires);
    const { delegations } = state.targets.signed;
    for (const role of delegations?.roles ?? [])
      add(
        role.name,
        role,
        delegations?.keys ?? {},
        state.roles.get(role.name)?.signed.expires ?? "",
      );
  }
  const unused = set.keys
    .filter(({ id }) => !listed.some((item) => item.id === id))
    .map(({ id, name, key, where }) => ({
      role: null,
      id,
      name,
      type: key.keytype,
      where,
      expires: null,
    }));
  return { keys: [...listed, ...unused], closed: set.closed };
}
