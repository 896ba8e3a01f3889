/**
 * TUF metadata as the publisher writes it: plain data as it stands in the files, new versions that are never changed in place.
 *
 * What is read is checked by the client's own parser and signatures by the client's own rules (src/trust): a publisher accepts, and
 * writes, nothing that sites would refuse.
 */
import { hash } from "node:crypto";
import { EdgeSyncError } from "#core/errors.ts";
import { canonicalForm } from "#core/trust/canonical.ts";
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp } from "#core/trust/metadata.ts";
import type { Envelope } from "#core/trust/metadata.ts";
import { verifySignatures } from "#core/trust/signature.ts";
import type { SigningKey } from "./keys.ts";
import type { Key } from "./public-keys.ts";

const SPECIFICATION = "1.0.34";
/** Milliseconds. */
export const DAY_MS = 86_400_000;

/**
 * How long a signature holds, in milliseconds. Short where the key is at hand whenever something is published; long where a person has
 * to fetch the key, because then the next signature takes a person too.
 */
export const LIFETIME_MS = {
  /** The root key is offline; a year lets its holders meet once in it. */
  root: 365 * DAY_MS,
  /** Changes only when a role is added. */
  targets: 365 * DAY_MS,
  /** Of an app or a channel: a quarter, so that one that nobody cares for any more is noticed. */
  role: 90 * DAY_MS,
  /** Signed with every publication, by the same machine as the timestamp. */
  snapshot: 90 * DAY_MS,
  /** How long a site can be kept from seeing something newer without noticing. */
  timestamp: 14 * DAY_MS,
} as const;

export type Kind = keyof typeof LIFETIME_MS;

export const TOP_ROLES = ["root", "targets", "snapshot", "timestamp"] as const;
export type TopRole = (typeof TOP_ROLES)[number];

export function isTopRole(name: string): name is TopRole {
  return (TOP_ROLES as readonly string[]).includes(name);
}

/** Who signs for a role. */
export interface RoleKeys {
  readonly keyids: readonly string[];
  readonly threshold: number;
}

export type KeyTable = Readonly<Record<string, Key>>;

interface Common {
  readonly spec_version: string;
  readonly version: number;
  /** In the form of {@link isoSeconds}. */
  readonly expires: string;
}

export interface Root extends Common {
  readonly _type: "root";
  readonly consistent_snapshot: boolean;
  readonly keys: KeyTable;
  readonly roles: Readonly<Record<TopRole, RoleKeys>>;
}

export interface MetaFile {
  readonly version: number;
  readonly length: number;
  readonly hashes: { readonly sha256: string };
}

export interface TargetFile {
  readonly length: number;
  readonly hashes: { readonly sha256: string };
  readonly custom?: {
    /** Grows with every release of an app; tells which came last. */
    readonly order?: number;
    /** Of a channel: since when it has been paused, in the form of {@link isoSeconds}. */
    readonly paused?: string;
  };
}

export interface DelegatedRole extends RoleKeys {
  readonly name: string;
  readonly paths: readonly string[];
  readonly terminating: boolean;
}

export interface Delegations {
  readonly keys: KeyTable;
  readonly roles: readonly DelegatedRole[];
}

export interface Targets extends Common {
  readonly _type: "targets";
  /** By path. */
  readonly targets: Readonly<Record<string, TargetFile>>;
  readonly delegations?: Delegations;
}

export interface Snapshot extends Common {
  readonly _type: "snapshot";
  /** By file name, such as `targets.json`. */
  readonly meta: Readonly<Record<string, MetaFile>>;
  /** When this was signed: it tells how long ago the one before was replaced. */
  readonly "x-edgesync-issued"?: string;
}

export interface Timestamp extends Common {
  readonly _type: "timestamp";
  readonly meta: { readonly "snapshot.json": MetaFile };
  /** See `core/news.ts`. */
  readonly "x-edgesync-news"?: string;
  /** When this was signed: a lower bound of the time for sites without a clock that they can trust. */
  readonly "x-edgesync-issued": string;
}

export type Signed = Root | Targets | Snapshot | Timestamp;

export interface Signature {
  readonly keyid: string;
  /** Hexadecimal. */
  readonly sig: string;
}

/** A file: what is signed, and by whom. */
export interface Metadata<T extends Signed> {
  readonly signed: T;
  readonly signatures: readonly Signature[];
}

/** `now` and the lifetime, in the form of the specification: seconds, in UTC. */
export function expiryOf(kind: Kind, now: number): string {
  return isoSeconds(now + LIFETIME_MS[kind]);
}

export function isoSeconds(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

function common(version: number, kind: Kind, now: number): Common {
  return { spec_version: SPECIFICATION, version, expires: expiryOf(kind, now) };
}

/** The first root. */
export function makeRoot(keys: KeyTable, roles: Root["roles"], now: number): Root {
  return { _type: "root", ...common(1, "root", now), consistent_snapshot: true, keys, roles };
}

/** The next version, with the same keys and roles unless others are given. */
export function nextRoot(
  before: Root,
  change: Partial<Pick<Root, "keys" | "roles">>,
  now: number,
): Root {
  return { ...before, ...common(before.version + 1, "root", now), ...change };
}

export function makeTargets(version: number, kind: "targets" | "role", now: number): Targets {
  return { _type: "targets", ...common(version, kind, now), targets: {} };
}

export interface TargetsChange {
  /** Added, or in the place of those of the same path. */
  readonly targets?: Readonly<Record<string, TargetFile>>;
  /** Paths that are no longer listed. */
  readonly remove?: readonly string[];
  readonly delegations?: Delegations;
}

/** The next version, with what is changed in it. */
export function nextTargets(
  before: Targets,
  { targets = {}, remove = [], delegations }: TargetsChange,
  kind: "targets" | "role",
  now: number,
): Targets {
  const listed = { ...before.targets, ...targets };
  for (const path of remove) delete listed[path];
  return {
    ...before,
    ...common(before.version + 1, kind, now),
    targets: listed,
    ...(delegations !== undefined && { delegations }),
  };
}

/** Delegations with one more role. */
export function withRole(
  before: Delegations | undefined,
  role: DelegatedRole,
  keys: KeyTable,
): Delegations {
  return {
    keys: { ...before?.keys, ...keys },
    roles: [...(before?.roles ?? []), role],
  };
}

export function roleNamed(targets: Targets, name: string): DelegatedRole | undefined {
  return targets.delegations?.roles.find((role) => role.name === name);
}

export function targetFile(bytes: Uint8Array, custom: TargetFile["custom"]): TargetFile {
  return { ...sizeAndHash(bytes), ...(custom !== undefined && { custom }) };
}

/** @param meta by file name */
export function makeSnapshot(version: number, meta: Snapshot["meta"], now: number): Snapshot {
  return {
    _type: "snapshot",
    ...common(version, "snapshot", now),
    meta,
    "x-edgesync-issued": isoSeconds(now),
  };
}

export function makeTimestamp(
  version: number,
  snapshot: MetaFile,
  now: number,
  news?: string,
): Timestamp {
  return {
    _type: "timestamp",
    ...common(version, "timestamp", now),
    meta: { "snapshot.json": snapshot },
    ...(news !== undefined && { "x-edgesync-news": news }),
    "x-edgesync-issued": isoSeconds(now),
  };
}

/** What a parent lists of a file. */
export function metaFile(version: number, bytes: Uint8Array): MetaFile {
  return { version, ...sizeAndHash(bytes) };
}

function sizeAndHash(bytes: Uint8Array): Pick<MetaFile, "length" | "hashes"> {
  return { length: bytes.length, hashes: { sha256: hash("sha256", bytes) } };
}

/** What signatures are made over. */
export function canonicalBytes(signed: Signed): Buffer {
  return canonicalForm(signed, 0);
}

/** Signs with every key that is given, once each. */
export async function sign<T extends Signed>(
  signed: T,
  keys: readonly SigningKey[],
): Promise<Metadata<T>> {
  const data = canonicalBytes(signed);
  const signatures = new Map<string, Signature>();
  // One after the other: an external command may ask a person for something.
  for (const key of keys)
    if (!signatures.has(key.id))
      signatures.set(key.id, { keyid: key.id, sig: await key.sign(data) });
  return { signed, signatures: [...signatures.values()] };
}

export function toBytes({ signed, signatures }: Metadata<Signed>): Buffer {
  return Buffer.from(`${JSON.stringify({ signatures, signed })}\n`);
}

export function readRoot(bytes: Uint8Array): Metadata<Root> {
  parseRoot(bytes);
  return plain(bytes);
}

const PARSERS = {
  root: parseRoot,
  timestamp: parseTimestamp,
  snapshot: parseSnapshot,
} as const satisfies Partial<Record<TopRole, (bytes: Uint8Array) => Envelope<unknown>>>;

/** The form of a role's file, its signatures not yet looked at. */
export function parse(role: string, bytes: Uint8Array): Envelope<unknown> {
  return role === "root" || role === "timestamp" || role === "snapshot"
    ? PARSERS[role](bytes)
    : parseTargets(bytes, role);
}

/**
 * Reads a file that a role has signed.
 *
 * @param keys of the delegator
 * @param signers whom the delegator names for the role
 * @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED
 */
export function readSigned<T extends Signed>(
  role: string,
  bytes: Uint8Array,
  keys: KeyTable,
  signers: RoleKeys,
): Metadata<T> {
  verifySignatures(parse(role, bytes), { keys: new Map(Object.entries(keys)) }, signers, role);
  return plain(bytes);
}

/** Whether a file that was read is signed as a delegator wants it. */
export function isSignedFor(
  role: string,
  bytes: Uint8Array,
  keys: KeyTable,
  signers: RoleKeys,
): boolean {
  try {
    readSigned(role, bytes, keys, signers);
    return true;
  } catch (error) {
    if (error instanceof EdgeSyncError && error.code === "METADATA_UNTRUSTED") return false;
    throw error;
  }
}

/** What a parser has accepted, as it stands in the file, with whatever else is in it. */
function plain<T extends Signed>(bytes: Uint8Array): Metadata<T> {
  return JSON.parse(Buffer.from(bytes).toString());
}
