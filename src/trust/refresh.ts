/**
 * The client workflow of The Update Framework, specification 1.0.34, section 5: from a pinned root to the newest metadata of a
 * repository that nobody has to trust. Numbers in comments are the specification's.
 */
import { EdgeSyncError } from "../errors.ts";
import { judge, learn, refuseStale } from "./floor.ts";
import { LIMITS, matches, parseSnapshot, parseTargets, parseTimestamp } from "./metadata.ts";
import type {
  Envelope,
  Keys,
  MetaFile,
  Role,
  Root,
  Snapshot,
  Targets,
  Timestamp,
} from "./metadata.ts";
import { loadRoot, updateRoot } from "./root.ts";
import { verifySignatures } from "./signature.ts";
import { loadReplaceable, loadStored } from "./stored.ts";
import type { TrustedTime } from "./time.ts";
import type { TrustDeps, TrustedSet } from "./trusted.ts";

export type {
  MetadataSource,
  MetadataStore,
  TimeMemory,
  Timing,
  TrustDeps,
  TrustedSet,
} from "./trusted.ts";

/**
 * @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED or METADATA_EXPIRED, and whatever source and store throw. What was
 * verified before the failure is stored, and the next cycle begins there.
 */
export async function refresh(deps: TrustDeps, signal: AbortSignal): Promise<TrustedSet> {
  const root = await updateRoot(await loadRoot(deps), deps, signal);
  // Also an expired one is good for telling a rollback.
  const stored = await loadStored("timestamp.json", deps.store, (bytes) =>
    readTimestamp(bytes, root),
  );
  const time = await judge(root, stored, deps);
  // 5.3.10
  refuseStale("root", "root", root.expires, time, deps);
  const timestamp = await updateTimestamp({ root, stored, time }, deps, signal);
  const snapshot = await updateSnapshot({ root, timestamp, time }, deps, signal);
  const targets = await updateTargets(
    "targets",
    root,
    root.roles.targets,
    { root, snapshot, time },
    deps,
    signal,
  );
  const delegated: TrustedSet["delegated"] = new Map();
  return {
    root,
    timestamp,
    snapshot,
    targets,
    time,
    delegated,
    expiries: () =>
      new Map([
        ["root", root.expires],
        ["timestamp", timestamp.expires],
        ["snapshot", snapshot.expires],
        ["targets", targets.expires],
        ...[...delegated.values()].map(({ name, targets }) => [name, targets.expires] as const),
      ]),
  };
}

function readTimestamp(bytes: Uint8Array, root: Root): Timestamp {
  const file = parseTimestamp(bytes);
  // 5.4.2
  verifySignatures(file, root, root.roles.timestamp, "timestamp");
  return file.signed;
}

interface Known {
  readonly root: Root;
  readonly stored: Timestamp | undefined;
  readonly time: TrustedTime;
}

/** 5.4 */
async function updateTimestamp(
  { root, stored, time }: Known,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Timestamp> {
  // 5.4.1
  const bytes = await fetchMetadata("timestamp.json", LIMITS.timestamp, deps, signal);
  const timestamp = readTimestamp(bytes, root);
  if (stored !== undefined) {
    // 5.4.3.1; an equal version is what is already trusted.
    refuseOlder("timestamp", timestamp.version, stored.version);
    if (timestamp.version === stored.version) {
      refuseStale("timestamp", "timestamp", stored.expires, time, deps);
      await learn(root, stored, deps);
      return stored;
    }
    // 5.4.3.2
    refuseOlder("snapshot", timestamp.snapshot.version, stored.snapshot.version);
  }
  // 5.4.4
  refuseStale("timestamp", "timestamp", timestamp.expires, time, deps);
  // 5.4.5
  await deps.store.save("timestamp.json", bytes);
  await learn(root, timestamp, deps);
  return timestamp;
}

function refuseOlder(name: string, version: number, known: number): void {
  if (version < known)
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `${name} goes back from version ${known} to ${version}`,
    );
}

async function fetchMetadata(
  name: string,
  limit: number,
  { source }: TrustDeps,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const bytes = await source.metadata(name, limit, signal);
  if (bytes === undefined)
    throw new EdgeSyncError("METADATA_INVALID", `the repository has no metadata/${name}`);
  return bytes;
}

/** 5.5 */
async function updateSnapshot(
  { root, timestamp, time }: Pick<TrustedSet, "root" | "timestamp" | "time">,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Snapshot> {
  const meta = timestamp.snapshot;
  const read = (bytes: Uint8Array): Snapshot => {
    const file = parseSnapshot(bytes);
    // 5.5.3
    verifySignatures(file, root, root.roles.snapshot, "snapshot");
    return file.signed;
  };
  const stored = await loadStored("snapshot.json", deps.store, (bytes) => ({
    snapshot: read(bytes),
    current: matches(bytes, meta),
  }));
  if (stored?.current === true && stored.snapshot.version === meta.version) {
    refuseStale("snapshot", "snapshot", stored.snapshot.expires, time, deps);
    return stored.snapshot;
  }
  // 5.5.1
  const name = fileName("snapshot", meta, root);
  const bytes = await fetchMetadata(name, limitOf(meta, LIMITS.snapshot), deps, signal);
  // 5.5.2
  refuseOther(name, bytes, meta);
  const snapshot = read(bytes);
  // 5.5.4
  refuseOtherVersion(name, snapshot.version, meta.version);
  // 5.5.5: no role goes back, and none that was ever listed may vanish.
  for (const [file, { version }] of stored?.snapshot.meta ?? []) {
    const now = snapshot.meta.get(file);
    if (now === undefined)
      throw new EdgeSyncError("METADATA_UNTRUSTED", `snapshot does not list ${file} any more`);
    refuseOlder(file, now.version, version);
  }
  // 5.5.6
  refuseStale("snapshot", "snapshot", snapshot.expires, time, deps);
  // 5.5.7
  await deps.store.save("snapshot.json", bytes);
  return snapshot;
}

function limitOf(meta: MetaFile, cap: number): number {
  return Math.min(meta.length ?? cap, cap);
}

function fileName(role: string, meta: MetaFile, root: Root): string {
  const encoded = `${encodeURIComponent(role)}.json`;
  return root.consistentSnapshot ? `${meta.version}.${encoded}` : encoded;
}

function refuseOther(name: string, bytes: Uint8Array, meta: MetaFile): void {
  if (!matches(bytes, meta))
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `${name} does not have the length and hashes that its parent lists`,
    );
}

function refuseOtherVersion(name: string, version: number, listed: number): void {
  if (version !== listed)
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `${name} says that it is version ${version}, its parent lists ${listed}`,
    );
}

/**
 * 5.6 for `targets` and for each delegated role.
 *
 * @param delegator whose keys sign the role: root for `targets`, else the delegations of a targets role
 * @throws EdgeSyncError as {@link refresh}
 */
export async function updateTargets(
  role: string,
  delegator: Keys,
  signers: Role,
  { root, snapshot, time }: Pick<TrustedSet, "root" | "snapshot" | "time">,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Targets> {
  const meta = snapshot.meta.get(`${role}.json`);
  if (meta === undefined)
    throw new EdgeSyncError("METADATA_UNTRUSTED", `snapshot does not list ${role}.json`);
  const name = fileName(role, meta, root);
  const read = (bytes: Uint8Array): Targets => {
    // 5.6.2
    refuseOther(name, bytes, meta);
    const file: Envelope<Targets> = parseTargets(bytes, role);
    // 5.6.3
    verifySignatures(file, delegator, signers, role);
    // 5.6.4
    refuseOtherVersion(name, file.signed.version, meta.version);
    return file.signed;
  };
  const storedAs = `${encodeURIComponent(role)}.json`;
  let targets = await loadReplaceable(storedAs, deps.store, read);
  let fetched: Uint8Array | undefined;
  if (targets === undefined) {
    // 5.6.1
    fetched = await fetchMetadata(name, limitOf(meta, LIMITS.targets), deps, signal);
    targets = read(fetched);
  }
  // 5.6.5
  refuseStale(role, "targets", targets.expires, time, deps);
  // 5.6.6
  if (fetched !== undefined) await deps.store.save(storedAs, fetched);
  return targets;
}
