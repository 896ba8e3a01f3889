/** Which delegated role is responsible for a target path. */
import { createHash } from "node:crypto";
import type { Delegation, Delegations } from "./metadata.ts";

/** The delegated roles for a path, in the order in which their delegator trusts them. */
export function rolesFor(path: string, delegations: Delegations): readonly Delegation[] {
  const { bins } = delegations;
  if (bins !== undefined) {
    // TAP 15: the number of the bin is the left-most bits of the path's hash, and its name has that number at the end.
    const number = createHash("sha256").update(path).digest().readUInt32BE() >>> (32 - bins.bits);
    const digits = (2 ** bins.bits - 1).toString(16).length;
    const name = `${bins.prefix}-${number.toString(16).padStart(digits, "0")}`;
    return [{ name, keyids: bins.keyids, threshold: bins.threshold, terminating: true, paths: [] }];
  }
  return delegations.roles.filter((role) => isResponsible(role, path));
}

function isResponsible(role: Delegation, path: string): boolean {
  if (role.paths !== undefined) return role.paths.some((pattern) => matchesPattern(path, pattern));
  const hash = createHash("sha256").update(path).digest("hex");
  return role.pathHashPrefixes?.some((prefix) => hash.startsWith(prefix)) ?? false;
}

/** PATHPATTERN of specification 4.5: `*` and `?` stand for characters other than `/`, so segments match one by one. */
export function matchesPattern(path: string, pattern: string): boolean {
  const segments = path.split("/");
  const patterns = pattern.split("/");
  return (
    segments.length === patterns.length &&
    segments.every((segment, index) => matchesSegment(segment, patterns[index] ?? ""))
  );
}

/** Goes back to the last star only, so that no pattern takes more than length × length steps. */
function matchesSegment(text: string, pattern: string): boolean {
  let at = 0;
  let wanted = 0;
  let star = -1;
  let resume = 0;
  while (at < text.length) {
    const symbol = pattern[wanted];
    if (symbol === "*") {
      star = wanted++;
      resume = at;
    } else if (symbol === "?" || symbol === text[at]) {
      wanted++;
      at++;
    } else if (star >= 0) {
      wanted = star + 1;
      at = ++resume;
    } else return false;
  }
  while (pattern[wanted] === "*") wanted++;
  return wanted === pattern.length;
}
