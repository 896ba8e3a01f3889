/** From a target path to its verified bytes: specification 1.0.34, 5.6.7 and 5.7. */
import { EdgeSyncError } from "../errors.ts";
import { matches } from "./metadata.ts";
import type { Delegation, Keys, TargetFile, Targets } from "./metadata.ts";
import { rolesFor } from "./paths.ts";
import { updateTargets } from "./refresh.ts";
import type { TrustDeps, TrustedSet } from "./refresh.ts";

/** Roles looked into for one path; as in tuf-js. */
const MAX_ROLES = 32;

/**
 * @param limit bytes that the caller can take
 * @throws EdgeSyncError RELEASE_NOT_FOUND when no role lists the path, RESPONSE_TOO_LARGE, DIGEST_MISMATCH, ORIGIN_UNAVAILABLE when
 * the repository lacks what it lists, and as `refresh` for delegated roles
 */
export async function fetchTarget(
  trusted: TrustedSet,
  path: string,
  limit: number,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const file = await findTarget(trusted, path, deps, signal);
  if (file === undefined)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `the repository has no target ${path}`);
  return await fetchFound(trusted, path, file, limit, deps, signal);
}

/**
 * The bytes of a target that `findTarget` has found.
 *
 * @throws EdgeSyncError as `fetchTarget`
 */
export async function fetchFound(
  trusted: TrustedSet,
  path: string,
  file: TargetFile,
  limit: number,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (file.length > limit)
    throw new EdgeSyncError(
      "RESPONSE_TOO_LARGE",
      `${path} has ${file.length} bytes, allowed are ${limit}`,
    );
  // 5.7.3
  const from = trusted.root.consistentSnapshot ? consistentPath(path, file) : path;
  const bytes = await deps.source.target(from, file.length, signal);
  if (bytes === undefined)
    throw new EdgeSyncError(
      "ORIGIN_UNAVAILABLE",
      `the repository lists target ${path} but does not have it`,
    );
  if (!matches(bytes, file))
    throw new EdgeSyncError(
      "DIGEST_MISMATCH",
      `target ${path} does not have its signed length and hash`,
    );
  return bytes;
}

/** `<directory>/<hash>.<name>` (6.2). */
function consistentPath(path: string, file: TargetFile): string {
  const hash = file.hashes["sha256"] ?? file.hashes["sha512"];
  if (hash === undefined || !/^[0-9a-f]+$/.test(hash))
    throw new EdgeSyncError("METADATA_INVALID", `target ${path} has no hash of a known kind`);
  const slash = path.lastIndexOf("/") + 1;
  return `${path.slice(0, slash)}${hash}.${path.slice(slash)}`;
}

interface Visit {
  readonly parent: string;
  readonly role: Delegation;
  readonly delegator: Keys;
}

/** What is listed for a path by the most trusted role: a pre-order search, depth first, that looks into each role once (5.6.7). */
export async function findTarget(
  trusted: TrustedSet,
  path: string,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<TargetFile | undefined> {
  const visited = new Set(["targets"]);
  let stack = push(childrenOf("targets", trusted.targets, path), []);
  let found = trusted.targets.targets.get(path);
  while (found === undefined) {
    const [visit, ...rest] = stack;
    if (visit === undefined) return undefined;
    const { name } = visit.role;
    // 5.6.7.1: a cycle ends here.
    if (visited.has(name)) {
      stack = rest;
      continue;
    }
    if (visited.size >= MAX_ROLES)
      throw new EdgeSyncError(
        "METADATA_INVALID",
        `${path} is delegated through more than ${MAX_ROLES} roles`,
      );
    visited.add(name);
    const targets = await loadDelegated(trusted, visit, deps, signal);
    found = targets.targets.get(path);
    stack = push(childrenOf(name, targets, path), rest);
  }
  return found;
}

/** 5.6.7.2.1: what comes after a terminating delegation is not looked into, neither beside it nor above. */
function push(children: readonly Visit[], rest: readonly Visit[]): readonly Visit[] {
  const last = children.findIndex((visit) => visit.role.terminating);
  return last < 0 ? [...children, ...rest] : children.slice(0, last + 1);
}

function childrenOf(parent: string, { delegations }: Targets, path: string): readonly Visit[] {
  if (delegations === undefined) return [];
  return rolesFor(path, delegations).map((role) => ({ parent, role, delegator: delegations }));
}

/** Metadata of a role to which the top-level targets role delegates, for whoever wants all of it. */
export async function loadRole(
  trusted: TrustedSet,
  role: Delegation,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Targets> {
  const delegator = trusted.targets.delegations ?? { keys: new Map() };
  return await loadDelegated(trusted, { parent: "targets", role, delegator }, deps, signal);
}

/** A role that two others delegate to is verified for each of them: each names its own keys. */
async function loadDelegated(
  trusted: TrustedSet,
  { parent, role, delegator }: Visit,
  deps: TrustDeps,
  signal: AbortSignal,
): Promise<Targets> {
  const key = JSON.stringify([parent, role.name]);
  const known = trusted.delegated.get(key);
  if (known !== undefined) return known.targets;
  const targets = await updateTargets(role.name, delegator, role, trusted, deps, signal);
  trusted.delegated.set(key, { name: role.name, targets });
  return targets;
}
