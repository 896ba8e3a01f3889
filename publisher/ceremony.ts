/**
 * A root on its way to its signatures. Its file is carried to those who hold the keys, wherever they are: it has the root before, so
 * that they see what changes and who has to sign, and nothing in it is secret. Each signs a copy; the copies are merged again.
 */
import { isDeepStrictEqual } from "node:util";
import { EdgeSyncError } from "#core/errors.ts";
import type { KeySet } from "./keys.ts";
import { TOP_ROLES, canonicalBytes, isSignedFor, readRoot, toBytes } from "./metadata.ts";
import type { KeyTable, Metadata, RoleKeys, Root, Signature } from "./metadata.ts";
import { labelOf, nameOf } from "./public-keys.ts";
import { describeKeys } from "./role-keys.ts";

export interface Ceremony {
  /** What sites have now; `undefined` when this is the first one. */
  readonly previous: Metadata<Root> | undefined;
  readonly next: Metadata<Root>;
}

export function formatCeremony({ previous, next }: Ceremony): Buffer {
  return Buffer.from(`${JSON.stringify({ ceremony: 1, previous, next }, undefined, 2)}\n`);
}

/** @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED */
export function parseCeremony(bytes: Uint8Array, where: string): Ceremony {
  let json: { readonly ceremony?: unknown; readonly previous?: unknown; readonly next?: unknown };
  try {
    json = JSON.parse(Buffer.from(bytes).toString());
  } catch (cause) {
    throw new EdgeSyncError("METADATA_INVALID", `${where} is not JSON`, { cause });
  }
  if (json?.ceremony !== 1 || json.next === undefined)
    throw new EdgeSyncError("METADATA_INVALID", `${where} is not a file of root prepare`);
  const read = (root: unknown): Metadata<Root> => readRoot(Buffer.from(JSON.stringify(root)));
  const previous = json.previous === undefined ? undefined : read(json.previous);
  const next = read(json.next);
  if (previous !== undefined && !meets(previous, previous.signed))
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `${where}: the root before is not signed by its own keys`,
    );
  if (next.signed.version !== (previous?.signed.version ?? 0) + 1)
    throw new EdgeSyncError(
      "METADATA_INVALID",
      `${where}: root ${next.signed.version} does not follow the root before`,
    );
  return { previous, next };
}

function meets(file: Metadata<Root>, { keys, roles }: Root): boolean {
  return isSignedFor("root", toBytes(file), keys, roles.root);
}

/** Signs with every key here that counts. @throws EdgeSyncError KEY_INVALID when there is none, SIGNER_FAILED */
export async function signCeremony(ceremony: Ceremony, set: KeySet): Promise<Ceremony> {
  const { previous, next } = ceremony;
  const wanted = new Set([
    ...next.signed.roles.root.keyids,
    ...(previous?.signed.roles.root.keyids ?? []),
  ]);
  const keys = set.keys.filter(({ id }) => wanted.has(id));
  if (keys.length === 0) {
    const closed = set.closed.map(({ problem }) => `; ${problem.message}`).join("");
    throw new EdgeSyncError(
      "KEY_INVALID",
      `none of the keys whose signatures root ${next.signed.version} needs is in ${set.folder}${closed}`,
    );
  }
  const data = canonicalBytes(next.signed);
  let signed = ceremony;
  for (const key of keys)
    signed = withSignatures(signed, [{ keyid: key.id, sig: await key.sign(data) }]);
  return signed;
}

/**
 * Takes the signatures from a copy that somebody has signed.
 *
 * @throws EdgeSyncError METADATA_UNTRUSTED when it is a copy of something else, or a signature in it is not one
 */
export function mergeCeremony(ceremony: Ceremony, copy: Ceremony): Ceremony {
  if (!isDeepStrictEqual(ceremony.next.signed, copy.next.signed))
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      "the copy is of another root; what was signed is not what was prepared",
    );
  const merged = withSignatures(ceremony, copy.next.signatures);
  const good = new Set(needsOf(merged).flatMap((need) => need.signed));
  const bad = copy.next.signatures.find(({ keyid }) => !good.has(keyid));
  if (bad !== undefined)
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `the signature of key ${bad.keyid.slice(0, 12)} is not one of a key that has to sign this root`,
    );
  return merged;
}

function withSignatures(ceremony: Ceremony, added: readonly Signature[]): Ceremony {
  const { signed, signatures } = ceremony.next;
  const all = new Map([...signatures, ...added].map((item) => [item.keyid, item]));
  return { ...ceremony, next: { signed, signatures: [...all.values()] } };
}

/** What one of the two roots asks of the holders of its keys. */
export interface Need {
  /** Version of the root whose keys are meant. */
  readonly version: number;
  readonly threshold: number;
  /** Ids of those who have signed. */
  readonly signed: readonly string[];
  /** Ids of those who have not. */
  readonly waiting: readonly string[];
  /** How many signatures are missing. */
  readonly missing: number;
}

/** A new root counts when enough holders of its own keys, and of those of the root before, have signed it. */
export function needsOf({ previous, next }: Ceremony): readonly Need[] {
  const bytes = toBytes(next);
  const roots = previous === undefined ? [next] : [previous, next];
  return roots.map(({ signed: { version, keys, roles } }) => {
    const { keyids, threshold } = roles.root;
    const has = (id: string): boolean =>
      isSignedFor("root", bytes, keys, { keyids: [id], threshold: 1 });
    const signed = keyids.filter(has);
    const waiting = keyids.filter((id) => !signed.includes(id));
    return {
      version,
      threshold,
      signed,
      waiting,
      missing: Math.max(0, threshold - signed.length),
    };
  });
}

export function isComplete(ceremony: Ceremony): boolean {
  return needsOf(ceremony).every(({ missing }) => missing === 0);
}

/** @throws EdgeSyncError SIGNATURES_MISSING */
export function refuseIncomplete(ceremony: Ceremony): void {
  const open = describeMissing(ceremony);
  if (open.length > 0)
    throw new EdgeSyncError(
      "SIGNATURES_MISSING",
      `root ${ceremony.next.signed.version} has to be signed by ${open.join("; and by ")}`,
    );
}

function describeMissing(ceremony: Ceremony): readonly string[] {
  const keys = allKeys(ceremony);
  return needsOf(ceremony)
    .filter(({ missing }) => missing > 0)
    .map(
      ({ version, missing, waiting }) =>
        `${missing} more of those whom root ${version} names: ${waiting.map((id) => labelOf(id, keys[id])).join(", ")}`,
    );
}

function allKeys({ previous, next }: Ceremony): KeyTable {
  return { ...previous?.signed.keys, ...next.signed.keys };
}

/** For people: what the root says, what is new in it, and how far its signatures are. */
export function describeCeremony(ceremony: Ceremony): readonly string[] {
  const { previous, next } = ceremony;
  const missing = describeMissing(ceremony);
  const changes =
    previous === undefined ? ["the first root"] : describeChanges(previous.signed, next.signed);
  return [
    ...describeRoot(next.signed),
    ...changes.map((change) => `change     ${change}`),
    describeSigners(ceremony),
    ...missing.map((text) => `missing    ${text}`),
    ...(missing.length === 0 ? ["complete   it can be published"] : []),
  ];
}

function describeSigners(ceremony: Ceremony): string {
  const keys = allKeys(ceremony);
  const signed = [...new Set(needsOf(ceremony).flatMap((need) => need.signed))];
  return `signed by  ${signed.map((id) => labelOf(id, keys[id])).join(", ") || "nobody"}`;
}

/** For people: a root that is published. */
export function describePublished(next: Metadata<Root>): readonly string[] {
  return [...describeRoot(next.signed), describeSigners({ previous: undefined, next })];
}

function describeRoot({ version, expires, keys, roles }: Root): readonly string[] {
  return [
    `root       version ${version}, expires ${expires}`,
    ...TOP_ROLES.map((name) => {
      const { threshold, keyids } = roles[name];
      return `${name.padEnd(9)}  ${threshold} of ${keyids.length}: ${describeKeys(roles[name], keys)}`;
    }),
  ];
}

/** What a root changes, in words; "nothing but the expiry" has one too. */
export function describeChanges(before: Root, after: Root): readonly string[] {
  const changes = TOP_ROLES.flatMap((name) => {
    const [old, now] = [before.roles[name], after.roles[name]];
    const less = (from: RoleKeys, other: RoleKeys): RoleKeys => ({
      ...from,
      keyids: from.keyids.filter((id) => !other.keyids.includes(id)),
    });
    const [added, removed] = [less(now, old), less(old, now)];
    return [
      ...(added.keyids.length > 0 ? [`${name} adds ${describeKeys(added, after.keys)}`] : []),
      ...(removed.keyids.length > 0
        ? [`${name} removes ${describeKeys(removed, before.keys)}`]
        : []),
      ...(old.threshold === now.threshold
        ? []
        : [`${name} needs ${now.threshold} signatures instead of ${old.threshold}`]),
    ];
  });
  return changes.length > 0 ? changes : [`only the expiry, which was ${before.expires}`];
}

/** For programs: the same as {@link describeCeremony}. */
export function ceremonyJson(ceremony: Ceremony): Readonly<Record<string, unknown>> {
  const { previous, next } = ceremony;
  const keys = allKeys(ceremony);
  return {
    ...rootJson(next.signed),
    previous: previous?.signed.version ?? null,
    changes: previous === undefined ? [] : describeChanges(previous.signed, next.signed),
    needs: needsOf(ceremony).map((need) => ({
      ...need,
      signed: need.signed.map((id) => keyJson(id, keys)),
      waiting: need.waiting.map((id) => keyJson(id, keys)),
    })),
    complete: isComplete(ceremony),
  };
}

/** For programs: a root that is published. */
export function publishedJson(next: Metadata<Root>): Record<string, unknown> {
  const [need] = needsOf({ previous: undefined, next });
  const { keys } = next.signed;
  return { ...rootJson(next.signed), signed: need?.signed.map((id) => keyJson(id, keys)) };
}

function rootJson({ version, expires, keys, roles }: Root): Record<string, unknown> {
  return {
    version,
    expires,
    roles: Object.fromEntries(TOP_ROLES.map((name) => [name, roleJson(roles[name], keys)])),
  };
}

export function roleJson({ threshold, keyids }: RoleKeys, keys: KeyTable): object {
  return { threshold, keys: keyids.map((id) => keyJson(id, keys)) };
}

function keyJson(id: string, keys: KeyTable): object {
  return { id, name: nameOf(keys[id]) ?? null, type: keys[id]?.keytype ?? null };
}
