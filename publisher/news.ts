/** What a publication tells with its timestamp; see `core/news.ts`. */
import { hash } from "node:crypto";
import { formatNews, newsIn } from "#core/news.ts";
import type { MetaFile, Metadata, Targets } from "./metadata.ts";
import { toBytes } from "./metadata.ts";
import { targetLocation } from "./repository.ts";
import type { Repository } from "./repository.ts";

export interface Change {
  /** Files of the publication, by path in the repository; what matters most comes first. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** What the new snapshot lists. */
  readonly meta: Readonly<Record<string, MetaFile>>;
  readonly changed: ReadonlyMap<string, Metadata<Targets>>;
}

/**
 * The news of a publication: its own files, and then what was news before and still holds, since a release and the channel that names it
 * are published one after the other.
 */
export function newsOf(
  repository: Repository,
  { files, meta, changed }: Change,
): string | undefined {
  const before = newsIn(toBytes(repository.timestamp));
  const roles = [...changed.values()];
  for (const [name, role] of [["targets", repository.targets] as const, ...repository.roles])
    if (!changed.has(name)) roles.push(role);
  const holds = (path: string, bytes: Uint8Array): boolean => {
    const sha256 = hash("sha256", bytes);
    const [, version, role] = /^metadata\/(\d+)\.(.+\.json)$/.exec(path) ?? [];
    if (role !== undefined)
      return meta[role]?.version === Number(version) && meta[role].hashes.sha256 === sha256;
    return roles.some(({ signed }) =>
      Object.entries(signed.targets).some(
        ([target, file]) =>
          file.hashes.sha256 === sha256 && targetLocation(target, sha256) === path,
      ),
    );
  };
  const old = [...before].filter(([path, bytes]) => !files.has(path) && holds(path, bytes));
  return formatNews([...files, ...old]);
}
