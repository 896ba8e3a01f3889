/** TUF metadata as the publisher writes it: new versions of signed files, never changed in place. */
import { createHash } from "node:crypto";
import {
  MetaFile,
  Metadata,
  MetadataKind,
  Root,
  Snapshot,
  TargetFile,
  Targets,
  Timestamp,
} from "@tufjs/models";
import { EdgeSyncError } from "#core/errors.ts";
import type { Key } from "@tufjs/models";
import type { SigningKey } from "./keys.ts";

const SPECIFICATION = "1.0.34";
const DAY_MS = 86_400_000;

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

/** `now` and the lifetime, in the form of the specification: seconds, in UTC. */
export function expiryOf(kind: Kind, now: number): string {
  return isoSeconds(now + LIFETIME_MS[kind]);
}

export function isoSeconds(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

export const TOP_ROLES = ["root", "targets", "snapshot", "timestamp"] as const;

export function makeRoot(
  keys: Readonly<Record<(typeof TOP_ROLES)[number], SigningKey>>,
  now: number,
): Metadata<Root> {
  const root = new Root({
    version: 1,
    specVersion: SPECIFICATION,
    expires: expiryOf("root", now),
    consistentSnapshot: true,
  });
  for (const role of TOP_ROLES) root.addKey(keys[role].public, role);
  return signed(new Metadata(root), keys.root);
}

export function makeTargets(version: number, kind: "targets" | "role", now: number): Targets {
  return new Targets({
    version,
    specVersion: SPECIFICATION,
    expires: expiryOf(kind, now),
    targets: {},
  });
}

export interface DelegatedRole {
  readonly name: string;
  readonly paths: readonly string[];
  readonly key: Key;
}

/** The next version, with more targets or one more delegation. */
export function nextTargets(
  before: Targets,
  change: { readonly targets?: readonly TargetFile[]; readonly delegation?: DelegatedRole },
  kind: "targets" | "role",
  now: number,
): Targets {
  const next = Targets.fromJSON({
    ...before.toJSON(),
    spec_version: SPECIFICATION,
    version: before.version + 1,
    expires: expiryOf(kind, now),
    ...(change.delegation !== undefined && { delegations: delegate(before, change.delegation) }),
  });
  for (const target of change.targets ?? []) next.addTarget(target);
  return next;
}

function delegate(before: Targets, { name, paths, key }: DelegatedRole): JsonObject {
  const { keys = {}, roles = {} } = before.delegations ?? {};
  return {
    keys: Object.fromEntries(
      [...Object.values(keys), key].map((item) => [item.keyID, item.toJSON()]),
    ),
    roles: [
      ...Object.values(roles).map((role) => role.toJSON()),
      // Terminating: no later role may answer for the paths of this one.
      { name, keyids: [key.keyID], threshold: 1, paths: [...paths], terminating: true },
    ],
  };
}

/** @param order grows with every release of an app; tells which came last */
export function targetFile(path: string, bytes: Uint8Array, order?: number): TargetFile {
  return new TargetFile({
    path,
    length: bytes.length,
    hashes: { sha256: createHash("sha256").update(bytes).digest("hex") },
    ...(order !== undefined && { unrecognizedFields: { custom: { order } } }),
  });
}

export function makeSnapshot(
  version: number,
  meta: Readonly<Record<string, MetaFile>>,
  now: number,
): Snapshot {
  return new Snapshot({
    version,
    specVersion: SPECIFICATION,
    expires: expiryOf("snapshot", now),
    meta: { ...meta },
  });
}

export function makeTimestamp(version: number, snapshot: MetaFile, now: number): Timestamp {
  return new Timestamp({
    version,
    specVersion: SPECIFICATION,
    expires: expiryOf("timestamp", now),
    snapshotMeta: snapshot,
    // When this was signed: a lower bound of the time for sites without a clock that they can trust.
    unrecognizedFields: { "x-edgesync-issued": isoSeconds(now) },
  });
}

/** What a parent lists of a file. */
export function metaFile(version: number, bytes: Uint8Array): MetaFile {
  return new MetaFile({
    version,
    length: bytes.length,
    hashes: { sha256: createHash("sha256").update(bytes).digest("hex") },
  });
}

export function signed<T extends Root | Targets | Snapshot | Timestamp>(
  file: Metadata<T>,
  key: SigningKey,
): Metadata<T> {
  file.sign((bytes) => key.sign(bytes));
  return file;
}

export function toBytes(file: Metadata<Root | Targets | Snapshot | Timestamp>): Buffer {
  return Buffer.from(`${JSON.stringify(file.toJSON(), undefined, 1)}\n`);
}

/** @throws EdgeSyncError METADATA_INVALID */
function read<T>(bytes: Uint8Array, name: string, from: (json: JsonObject) => T): T {
  try {
    return from(JSON.parse(Buffer.from(bytes).toString()));
  } catch (cause) {
    throw new EdgeSyncError("METADATA_INVALID", `metadata/${name} cannot be read`, { cause });
  }
}

type JsonObject = Parameters<typeof Targets.fromJSON>[0];

export function readRoot(bytes: Uint8Array, name: string): Metadata<Root> {
  return read(bytes, name, (json) => Metadata.fromJSON(MetadataKind.Root, json));
}

export function readTargets(bytes: Uint8Array, name: string): Metadata<Targets> {
  return read(bytes, name, (json) => Metadata.fromJSON(MetadataKind.Targets, json));
}

export function readSnapshot(bytes: Uint8Array, name: string): Metadata<Snapshot> {
  return read(bytes, name, (json) => Metadata.fromJSON(MetadataKind.Snapshot, json));
}

export function readTimestamp(bytes: Uint8Array, name: string): Metadata<Timestamp> {
  return read(bytes, name, (json) => Metadata.fromJSON(MetadataKind.Timestamp, json));
}
