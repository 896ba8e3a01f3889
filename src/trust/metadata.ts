/**
 * TUF metadata as data: parsing, with every bound checked before work is spent, and signatures.
 *
 * The four kinds are read with schemas of our own, in time linear in their size: the models of the reference implementation in
 * JavaScript copy an object for each entry, which lets a file of a few megabytes hold a processor for a minute before its signature is
 * looked at.
 */
import { createHash } from "node:crypto";
import * as s from "valibot";
import { isObject, object, readEnvelope } from "./envelope.ts";
import type { Envelope } from "./envelope.ts";

export type { Envelope } from "./envelope.ts";

/** Bytes; a longer file is not parsed. The defaults of python-tuf and tuf-js. */
export const LIMITS = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 2_000_000,
  targets: 5_000_000,
} as const;

export interface Key {
  readonly keytype: string;
  readonly scheme: string;
  readonly keyval: { readonly public?: string | undefined };
}

export interface Role {
  readonly keyids: readonly string[];
  readonly threshold: number;
}

/** Who may sign for what: the part of root and targets that delegates. */
export interface Keys {
  readonly keys: ReadonlyMap<string, Key>;
}

interface Common {
  readonly version: number;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

export type TopLevelRole = "root" | "timestamp" | "snapshot" | "targets";

export interface Root extends Common, Keys {
  readonly roles: Readonly<Record<TopLevelRole, Role>>;
  readonly consistentSnapshot: boolean;
}

/** What a parent says about a file. */
export interface FileInfo {
  readonly length?: number | undefined;
  readonly hashes?: Readonly<Record<string, string>> | undefined;
}

export interface MetaFile extends FileInfo {
  readonly version: number;
}

export interface Timestamp extends Common {
  readonly snapshot: MetaFile;
  /** Milliseconds since the epoch, from the signed custom field `x-edgesync-issued`. */
  readonly issued: number | undefined;
}

export interface Snapshot extends Common {
  /** By file name, such as `targets.json`. */
  readonly meta: ReadonlyMap<string, MetaFile>;
}

export interface TargetFile {
  readonly length: number;
  readonly hashes: Readonly<Record<string, string>>;
  /** Whatever the publisher has added: signed, and not read here. */
  readonly custom?: unknown;
}

export interface Delegation extends Role {
  readonly name: string;
  readonly terminating: boolean;
  readonly paths?: readonly string[] | undefined;
  readonly pathHashPrefixes?: readonly string[] | undefined;
}

/** TAP 15: 2^bits bins, each responsible for the paths whose hash begins with its number. */
export interface Bins extends Role {
  readonly bits: number;
  readonly prefix: string;
}

export interface Delegations extends Keys {
  readonly roles: readonly Delegation[];
  readonly bins: Bins | undefined;
}

export interface Targets extends Common {
  readonly targets: ReadonlyMap<string, TargetFile>;
  readonly delegations: Delegations | undefined;
}

const version = s.pipe(s.number(), s.safeInteger(), s.minValue(1));
const length = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
// Read with object and not strictObject all through: the specification wants unknown fields to be kept and ignored.
const common = {
  // Major version 1; the reference implementations accept two or three numbers.
  spec_version: s.pipe(s.string(), s.regex(/^1\.\d{1,9}(\.\d{1,9})?$/)),
  version,
  expires: s.pipe(
    s.string(),
    s.isoTimestamp(),
    s.transform((text) => Date.parse(text)),
    s.safeInteger(),
  ),
};
const keyids = s.pipe(
  s.array(s.string()),
  s.maxLength(1024),
  s.check((ids) => new Set(ids).size === ids.length, "a key id is listed twice"),
);
const role = s.object({ keyids, threshold: s.pipe(s.number(), s.safeInteger(), s.minValue(1)) });
const keys = s.pipe(
  s.record(
    s.string(),
    s.object({
      keytype: s.string(),
      scheme: s.string(),
      keyval: s.object({ public: s.optional(s.string()) }),
    }),
  ),
  s.transform(toMap),
);
const hashes = s.record(s.string(), s.string());
const metaFile = s.object({ version, length: s.optional(length), hashes: s.optional(hashes) });

const root = s.pipe(
  s.object({
    _type: s.literal("root"),
    ...common,
    consistent_snapshot: s.boolean(),
    keys,
    roles: s.object({ root: role, timestamp: role, snapshot: role, targets: role }),
  }),
  s.transform(({ version, expires, keys, roles, consistent_snapshot }): Root => ({
    version,
    expires,
    keys,
    roles,
    consistentSnapshot: consistent_snapshot,
  })),
);

const timestamp = s.pipe(
  s.object({
    _type: s.literal("timestamp"),
    ...common,
    // 4.6: this MUST only include a description of snapshot.json.
    meta: s.strictObject({ "snapshot.json": metaFile }),
    "x-edgesync-issued": s.optional(s.unknown()),
  }),
  s.transform(({ version, expires, meta, "x-edgesync-issued": issued }): Timestamp => ({
    version,
    expires,
    snapshot: meta["snapshot.json"],
    // A field of ours that another publisher may use otherwise: what is not a time is no time.
    issued:
      typeof issued === "string" && s.is(common.expires, issued) ? Date.parse(issued) : undefined,
  })),
);

const snapshot = s.pipe(
  s.object({ _type: s.literal("snapshot"), ...common, meta: s.record(s.string(), metaFile) }),
  s.transform(({ version, expires, meta }): Snapshot => ({ version, expires, meta: toMap(meta) })),
);

const TOP_LEVEL: ReadonlySet<string> = new Set(["root", "timestamp", "snapshot", "targets"]);
// The length keeps the file name of a role, percent-encoded, under 255 bytes.
const roleName = s.pipe(
  s.string(),
  s.minLength(1),
  s.check(
    (name) => !TOP_LEVEL.has(name) && name.isWellFormed() && encodeURIComponent(name).length <= 200,
  ),
);
const delegation = s.pipe(
  s.object({
    ...role.entries,
    name: roleName,
    terminating: s.boolean(),
    paths: s.optional(s.array(s.string())),
    path_hash_prefixes: s.optional(s.array(s.string())),
  }),
  s.check(
    (item) => (item.paths === undefined) !== (item.path_hash_prefixes === undefined),
    "exactly one of paths and path_hash_prefixes",
  ),
  s.transform(({ path_hash_prefixes, ...rest }): Delegation => ({
    ...rest,
    pathHashPrefixes: path_hash_prefixes,
  })),
);
const bins = s.pipe(
  s.object({
    ...role.entries,
    bit_length: s.pipe(s.number(), s.integer(), s.minValue(1), s.maxValue(32)),
    name_prefix: roleName,
  }),
  s.transform(({ bit_length, name_prefix, ...rest }): Bins => ({
    ...rest,
    bits: bit_length,
    prefix: name_prefix,
  })),
);
const delegations = s.pipe(
  s.object({
    keys,
    roles: s.optional(
      s.pipe(
        s.array(delegation),
        s.check(
          (list) => new Set(list.map((item) => item.name)).size === list.length,
          "a role is listed twice",
        ),
      ),
    ),
    succinct_roles: s.optional(bins),
  }),
  s.check(
    (value) => (value.roles === undefined) !== (value.succinct_roles === undefined),
    "exactly one of roles and succinct_roles",
  ),
  s.transform(({ keys, roles = [], succinct_roles }): Delegations => ({
    keys,
    roles,
    bins: succinct_roles,
  })),
);

const targets = s.pipe(
  s.object({
    _type: s.literal("targets"),
    ...common,
    targets: s.pipe(
      object,
      s.transform((items) => new Map(Object.entries(items))),
      s.guard(isListing, "a target without a length and hashes"),
    ),
    delegations: s.optional(delegations),
  }),
  s.transform(({ version, expires, targets, delegations }): Targets => ({
    version,
    expires,
    targets,
    delegations,
  })),
);

function isListing(items: ReadonlyMap<string, unknown>): items is ReadonlyMap<string, TargetFile> {
  return items.values().every(isTargetFile);
}

function isTargetFile(item: unknown): item is TargetFile {
  if (!isObject(item) || !s.is(length, item["length"])) return false;
  const hashes = item["hashes"];
  return isObject(hashes) && Object.values(hashes).every((hex) => typeof hex === "string");
}

function toMap<T>(record: Readonly<Record<string, T>>): ReadonlyMap<string, T> {
  return new Map(Object.entries(record));
}

/** @throws EdgeSyncError METADATA_INVALID */
export function parseRoot(bytes: Uint8Array): Envelope<Root> {
  return readEnvelope(root, bytes, LIMITS.root, "root");
}

/** @throws EdgeSyncError METADATA_INVALID */
export function parseTimestamp(bytes: Uint8Array): Envelope<Timestamp> {
  return readEnvelope(timestamp, bytes, LIMITS.timestamp, "timestamp");
}

/** @throws EdgeSyncError METADATA_INVALID */
export function parseSnapshot(bytes: Uint8Array): Envelope<Snapshot> {
  return readEnvelope(snapshot, bytes, LIMITS.snapshot, "snapshot");
}

/**
 * @param name of the role, for messages
 * @throws EdgeSyncError METADATA_INVALID
 */
export function parseTargets(bytes: Uint8Array, name: string): Envelope<Targets> {
  return readEnvelope(targets, bytes, LIMITS.targets, name);
}

/** Whether bytes are what a parent says of them: the length and every hash whose algorithm is known. */
export function matches(bytes: Uint8Array, info: FileInfo): boolean {
  if (info.length !== undefined && bytes.length !== info.length) return false;
  if (info.hashes === undefined) return true;
  const known = Object.entries(info.hashes).filter(
    ([name]) => name === "sha256" || name === "sha512",
  );
  // Hashes that all are of unknown kinds would prove nothing.
  if (known.length === 0) return false;
  return known.every(([name, hex]) => createHash(name).update(bytes).digest("hex") === hex);
}
