/** Paths of a tree: which texts can be one, in what order they stand, and where links may lead. */

/**
 * Whether a text can be the path of an entry: relative, at most 4,096 bytes, no dot segments. Control characters would make
 * listings and logs lie, and a back-slash is a separator elsewhere.
 */
export function isTreePath(input: string): boolean {
  if (Buffer.byteLength(input) > 4096 || !input.isWellFormed()) return false;
  if (input.split("/").some((part) => part === "" || part === "." || part === "..")) return false;
  for (let index = 0; index < input.length; index++) {
    const unit = input.charCodeAt(index);
    if (unit < 0x20 || unit === 0x7f || unit === 0x5c) return false;
  }
  return true;
}

/** Orders paths by their UTF-8 bytes, with `/` below every other character so that children follow their directory. */
export function comparePaths(a: string, b: string): number {
  return Buffer.compare(sortKey(a), sortKey(b));
}

function sortKey(input: string): Buffer {
  return Buffer.from(input.replaceAll("/", "\0"));
}

export function parentOf(input: string): string {
  return input.slice(0, Math.max(0, input.lastIndexOf("/")));
}

/**
 * Whether a link at `path` to `target` ends inside the tree. Its parents are real directories, so climbing at the beginning is counted
 * exactly; after a name it is refused, because that name may be a link to somewhere higher up.
 */
export function staysInside(path: string, target: string): boolean {
  if (target.startsWith("/") || target.includes("\0")) return false;
  const segments = target.split("/").filter((segment) => segment !== "" && segment !== ".");
  const climbs = segments.findIndex((segment) => segment !== "..");
  const up = climbs < 0 ? segments.length : climbs;
  return up < path.split("/").length && !segments.slice(up).includes("..");
}
