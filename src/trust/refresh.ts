/**
 * The client workflow of The Update Framework, specification 1.0.34, section 5: from a pinned root to the newest metadata of a
 * repository that nobody has to trust. Numbers in comments are the specification's.
 *
 * What is stored has been verified, and is verified again when it is loaded: a stored file that is torn, tampered with or signed by
 * keys that have since been withdrawn counts as absent and is fetched again.
 */
import { EdgeSyncError } from "../errors.ts";
import {
  LIMITS,
  matches,
  parseRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
} from "./metadata.ts";
import { verifySignatures } from "./signature.ts";
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

export interface MetadataSource {
  /**
   * Bytes of `metadata/<name>`; `undefined` when there is no such file. The name is safe in a URL and as a file name.
   *
   * @param limit bytes; a longer file is RESPONSE_TOO_LARGE
   */
  metadata(name: string, limit: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Bytes of `targets/<path>`, in the same way. */
  target(path: string, limit: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
}

/** Holds verified bytes. Each `save` and `remove` is atomic and durable when it resolves. Names are safe as file names: `root.json`, `timestamp.json`, … and `pinned-root`. */
export interface MetadataStore {
  load(name: string): Promise<Uint8Array | undefined>;
  save(name: string, bytes: Uint8Array): Promise<void>;
  remove(name: string): Promise<void>;
}

export interface TrustDeps {
  readonly source: MetadataSource;
  readonly store: MetadataStore;
  /** The pinned root, as the operator gave it. */
  readonly initialRoot: Uint8Array;
  /** Milliseconds since the epoch; fixed for the cycle (5.1). */
  readonly now: number;
}

/** Metadata that has been verified in one cycle. */
export interface TrustedSet {
  readonly root: Root;
  readonly timestamp: Timestamp;
  readonly snapshot: Snapshot;
  readonly targets: Targets;
  /** When each loaded role expires, in milliseconds since the epoch; delegated roles appear once they were needed. */
  expiries(): ReadonlyMap<string, number>;
  /** Delegated roles loaded in this cycle, by delegator and role. */
  readonly delegated: Map<string, { readonly name: string; readonly targets: Targets }>;
}

/** Stored name of the pin that the stored root descends from; without `.json`, so that no role can have it. */
const PIN = "pinned-root";

/** New roots accepted in one cycle (5.3.3); as in the reference implementations. */
const MAX_ROOTS = 256;

/**
 * @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED or METADATA_EXPIRED, and whatever source and store throw. What was
 * verified before the failure is stored, and the next cycle begins there.
 */
export async function refresh(deps: TrustDeps, signal: AbortSignal): Promise<TrustedSet> {
  const root = await updateRoot(await loadRoot(deps), deps, signal);
  const timestamp = await updateTimestamp(root, deps, signal);
  const snapshot = await updateSnapshot(root, timestamp, deps, signal);
  const targets = await updateTargets(
    "targets",
    root,
    root.roles.targets,
    { root, snapshot },
    deps,
    signal,
  );
  const delegated: TrustedSet["delegated"] = new Map();
  return {
    root,
    timestamp,
    snapshot,
    targets,
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

/** 5.2: the trusted root. A pin that the operator has changed takes the place of what was learnt from the one before. */
async function loadRoot({ store, initialRoot }: TrustDeps): Promise<Root> {
  const pinned = parseRoot(initialRoot);
  verifySignatures(pinned, pinned.signed, pinned.signed.roles.root, "the pinned root");
  const pin = await store.load(PIN);
  if (pin === undefined || Buffer.compare(pin, initialRoot) !== 0)
    await pinRoot(initialRoot, store);
  const stored = await loadStored("root.json", store, (bytes) => {
    const file = parseRoot(bytes);
    verifySignatures(file, file.signed, file.signed.roles.root, "root");
    return file.signed;
  });
  if (stored !== undefined && stored.version >= pinned.signed.version) return stored;
  await store.save("root.json", initialRoot);
  return pinned.signed;
}

/** Makes a root the one that everything is to descend from. Nothing is checked yet. */
export async function pinRoot(root: Uint8Array, store: MetadataStore): Promise<void> {
  // In this order, so that a crash at any point leaves no root that belongs to another pin.
  await store.remove("root.json");
  await store.save(PIN, root);
  await store.save("root.json", root);
}

/** The root that was pinned last. */
export async function pinnedRoot(store: MetadataStore): Promise<Uint8Array | undefined> {
  return await store.load(PIN);
}

/** What is stored under a name, `undefined` when it is absent or does not pass `read`. */
async function loadStored<T>(
  name: string,
  store: MetadataStore,
  read: (bytes: Uint8Array) => T,
): Promise<T | undefined> {
  const bytes = await store.load(name);
  if (bytes === undefined) return undefined;
  try {
    return read(bytes);
  } catch (error) {
    // Whatever is wrong with it, it will be fetched again.
    if (error instanceof EdgeSyncError) return undefined;
    throw error;
  }
}

/** 5.3 */
async function updateRoot(start: Root, deps: TrustDeps, signal: AbortSignal): Promise<Root> {
  let root = start;
  for (let count = 0; count < MAX_ROOTS; count++) {
    // 5.3.2, 5.3.3: version N+1; when there is none, N is the newest.
    const bytes = await deps.source.metadata(`${root.version + 1}.root.json`, LIMITS.root, signal);
    if (bytes === undefined) break;
    const file = parseRoot(bytes);
    const next = file.signed;
    // 5.3.4: signed by a threshold of the trusted root's keys, and by one of its own.
    verifySignatures(file, root, root.roles.root, `${root.version + 1}.root.json`);
    verifySignatures(file, next, next.roles.root, `${root.version + 1}.root.json`);
    // 5.3.5: rollback; a version may not be skipped either.
    if (next.version !== root.version + 1)
      throw new EdgeSyncError(
        "METADATA_UNTRUSTED",
        `${root.version + 1}.root.json says that it is version ${next.version}`,
      );
    // 5.3.11 for each step, and before the root is stored, so that a crash cannot leave it undone: after a fast-forward attack with a
    // stolen key, the versions signed with that key must not count.
    if (isWithdrawn("timestamp", root, next) || isWithdrawn("snapshot", root, next)) {
      await deps.store.remove("timestamp.json");
      await deps.store.remove("snapshot.json");
    }
    // 5.3.7, 5.3.8: trusted from here on. Its expiry does not matter if another follows (5.3.6).
    await deps.store.save("root.json", bytes);
    root = next;
  }
  // 5.3.10
  refuseExpired("root", root.expires, deps.now);
  return root;
}

function isWithdrawn(role: "timestamp" | "snapshot", before: Root, after: Root): boolean {
  const kept = new Set(after.roles[role].keyids);
  return before.roles[role].keyids.some((id) => !kept.has(id));
}

function refuseExpired(name: string, expires: number, now: number): void {
  if (now >= expires)
    throw new EdgeSyncError(
      "METADATA_EXPIRED",
      `${name} expired at ${new Date(expires).toISOString()}`,
    );
}

/** 5.4 */
async function updateTimestamp(
  root: Root,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Timestamp> {
  const read = (bytes: Uint8Array): Timestamp => {
    const file = parseTimestamp(bytes);
    // 5.4.2
    verifySignatures(file, root, root.roles.timestamp, "timestamp");
    return file.signed;
  };
  // Also an expired one is good for telling a rollback.
  const stored = await loadStored("timestamp.json", deps.store, read);
  // 5.4.1
  const bytes = await fetchMetadata("timestamp.json", LIMITS.timestamp, deps, signal);
  const timestamp = read(bytes);
  if (stored !== undefined) {
    // 5.4.3.1; an equal version is what is already trusted.
    refuseOlder("timestamp", timestamp.version, stored.version);
    if (timestamp.version === stored.version) {
      refuseExpired("timestamp", stored.expires, deps.now);
      return stored;
    }
    // 5.4.3.2
    refuseOlder("snapshot", timestamp.snapshot.version, stored.snapshot.version);
  }
  // 5.4.4
  refuseExpired("timestamp", timestamp.expires, deps.now);
  // 5.4.5
  await deps.store.save("timestamp.json", bytes);
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
  root: Root,
  { snapshot: meta }: Timestamp,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Snapshot> {
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
    refuseExpired("snapshot", stored.snapshot.expires, deps.now);
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
  refuseExpired("snapshot", snapshot.expires, deps.now);
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
  { root, snapshot }: Pick<TrustedSet, "root" | "snapshot">,
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
  let targets = await loadStored(storedAs, deps.store, read);
  let fetched: Uint8Array | undefined;
  if (targets === undefined) {
    // 5.6.1
    fetched = await fetchMetadata(name, limitOf(meta, LIMITS.targets), deps, signal);
    targets = read(fetched);
  }
  // 5.6.5
  refuseExpired(role, targets.expires, deps.now);
  // 5.6.6
  if (fetched !== undefined) await deps.store.save(storedAs, fetched);
  return targets;
}
