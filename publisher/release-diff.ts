/** What changes from one release to another, and what a site would fetch for it. */
import type { Entry, Release } from "#core/release.ts";
import type { How } from "#core/route.ts";
import { sitePlan } from "./site-plan.ts";

/** One path. Sizes are bytes of files; null for what is no file, and on the side where it is absent. */
export interface PathChange {
  readonly path: string;
  readonly change: "added" | "removed" | "changed";
  readonly before: number | null;
  readonly after: number | null;
  /** What differs, of a path that is on both sides. */
  readonly differs: readonly ("type" | "content" | "mode" | "target")[];
}

export interface Difference {
  readonly changes: readonly PathChange[];
  /** Paths that are the same on both sides. */
  readonly same: number;
  /** What a site with the old release fetches. */
  readonly transfer: Transfer;
}

export interface Transfer {
  readonly bytes: number;
  readonly requests: number;
  /** How many contents are had in which way. */
  readonly contents: Readonly<Record<How, number>>;
  /** What a site with nothing would fetch. */
  readonly fullBytes: number;
}

export function compareReleases(old: Release, next: Release): Difference {
  const before = pathsOf(old);
  const changes: PathChange[] = [];
  let same = 0;
  for (const [path, after] of pathsOf(next)) {
    const was = before.get(path);
    before.delete(path);
    const differs = was === undefined ? [] : differences(was.entry, after.entry);
    if (was !== undefined && differs.length === 0) same++;
    else
      changes.push({
        path,
        change: was === undefined ? "added" : "changed",
        before: was?.size ?? null,
        after: after.size,
        differs,
      });
  }
  for (const [path, { size }] of before)
    changes.push({ path, change: "removed", before: size, after: null, differs: [] });
  return {
    changes: changes.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    same,
    transfer: transferOf(next, old),
  };
}

/** @param installed what the site has; undefined for nothing */
export function transferOf(release: Release, installed: Release | undefined): Transfer {
  const { downloadBytes, fetches, ways, fullBytes } = sitePlan(release, installed);
  const contents = {
    keep: ways.keep.contents,
    delta: ways.delta.contents,
    chain: ways.chain.contents,
    full: ways.full.contents,
  };
  return { bytes: downloadBytes, requests: fetches.length, contents, fullBytes };
}

interface Place {
  readonly entry: Entry;
  readonly size: number | null;
}

function pathsOf({ entries, contents }: Release): Map<string, Place> {
  const sizes = new Map<string, number>();
  for (const { sha256, size } of contents) sizes.set(sha256, size);
  const paths = new Map<string, Place>();
  for (const entry of entries)
    paths.set(entry.path, {
      entry,
      size: entry.type === "file" ? (sizes.get(entry.sha256) ?? 0) : null,
    });
  return paths;
}

function differences(a: Entry, b: Entry): PathChange["differs"] {
  if (a.type === "symlink" || b.type === "symlink") {
    if (a.type !== b.type) return ["type"];
    return a.type === "symlink" && b.type === "symlink" && a.target !== b.target ? ["target"] : [];
  }
  if (a.type !== b.type) return ["type"];
  const content = a.type === "file" && b.type === "file" && a.sha256 !== b.sha256;
  return [
    ...(content ? ["content" as const] : []),
    ...(a.mode !== b.mode ? ["mode" as const] : []),
  ];
}
