/** The root of trust: specification 1.0.34, 5.2 and 5.3. */
import { EdgeSyncError } from "../errors.ts";
import { forget } from "./floor.ts";
import { LIMITS, parseRoot } from "./metadata.ts";
import type { Root } from "./metadata.ts";
import { verifySignatures } from "./signature.ts";
import { loadStored } from "./stored.ts";
import type { MetadataStore, TrustDeps } from "./trusted.ts";

/** Stored name of the pin that the stored root descends from; without `.json`, so that no role can have it. */
const PIN = "pinned-root";

/** New roots accepted in one cycle (5.3.3); as in the reference implementations. */
const MAX_ROOTS = 256;

/** 5.2: the trusted root. A pin that the operator has changed takes the place of what was learnt from the one before. */
export async function loadRoot({ store, initialRoot }: TrustDeps): Promise<Root> {
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

/**
 * 5.3, but for the expiry of the last root (5.3.10).
 *
 * @throws EdgeSyncError ORIGIN_UNAVAILABLE when there are more new roots than one cycle takes: the next goes on where this one ends
 */
export async function updateRoot(start: Root, deps: TrustDeps, signal: AbortSignal): Promise<Root> {
  let root = start;
  for (let count = 0; count < MAX_ROOTS; count++) {
    // 5.3.2, 5.3.3: version N+1; when there is none, N is the newest.
    const name = `${root.version + 1}.root.json`;
    const bytes = await deps.source.metadata(name, LIMITS.root, signal);
    if (bytes === undefined) return root;
    root = await follow(root, bytes, name, deps);
  }
  throw new EdgeSyncError(
    "ORIGIN_UNAVAILABLE",
    `the repository has more than ${MAX_ROOTS - 1} new roots, which is more than one look takes; the next one goes on from version ${root.version}`,
  );
}

async function follow(root: Root, bytes: Uint8Array, name: string, deps: TrustDeps): Promise<Root> {
  const file = parseRoot(bytes);
  const next = file.signed;
  // 5.3.4: signed by a threshold of the trusted root's keys, and by one of its own.
  verifySignatures(file, root, root.roles.root, name);
  verifySignatures(file, next, next.roles.root, name);
  // 5.3.5: rollback; a version may not be skipped either.
  if (next.version !== root.version + 1)
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `${name} says that it is version ${next.version}`,
    );
  // 5.3.11 for each step, and before the root is stored, so that a crash cannot leave it undone: after a fast-forward attack with a
  // stolen key, what was signed with that key must not count, neither versions nor times.
  if (isWithdrawn("timestamp", root, next) || isWithdrawn("snapshot", root, next)) {
    await deps.store.remove("timestamp.json");
    await deps.store.remove("snapshot.json");
  }
  if (isWithdrawn("timestamp", root, next)) await forget(deps);
  // 5.3.7, 5.3.8: trusted from here on. Its expiry does not matter if another follows (5.3.6).
  await deps.store.save("root.json", bytes);
  return next;
}

function isWithdrawn(role: "timestamp" | "snapshot", before: Root, after: Root): boolean {
  const kept = new Set(after.roles[role].keyids);
  return before.roles[role].keyids.some((id) => !kept.has(id));
}
