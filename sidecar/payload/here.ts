/** What a site has already of a release: the files of a bank, and those of a seed; as far as they have not turned out to be damaged. */
import { join } from "node:path";
import type { Release } from "#core/release.ts";
import type { OldFile, OldFiles } from "./make-file.ts";

type Digests = Pick<ReadonlySet<string>, "has">;

export interface Here extends OldFiles, Digests {
  /** What is only on another volume. */
  readonly foreign: Digests;
  readonly damaged: Digests;
  /** One of the two that may have it; the other may still be good. */
  remove(sha256: string): void;
  /** Any file of the bank. */
  some(): OldFile | undefined;
}

/**
 * @param release of the bank; undefined where there is none, or none that can be used
 * @param folder of the bank
 */
export function openHere(
  release: Release | undefined,
  folder: string,
  seed: Pick<ReadonlyMap<string, string>, "get"> | undefined,
): Here {
  const removed = { bank: new Set<string>(), seed: new Set<string>() };
  const find = (sha256: string): number | undefined =>
    removed.bank.has(sha256) ? undefined : release?.find(sha256);
  const inSeed = (sha256: string): string | undefined =>
    removed.seed.has(sha256) ? undefined : seed?.get(sha256);
  const has = (sha256: string): boolean =>
    find(sha256) !== undefined || inSeed(sha256) !== undefined;

  function fileOf(content: number | undefined): OldFile | undefined {
    if (release === undefined || content === undefined) return undefined;
    const entry = release.entries.at(release.firstEntryOf(content));
    if (entry.type !== "file") return undefined;
    return { path: join(folder, entry.path), foreign: false };
  }

  function seedFile(path: string | undefined): OldFile | undefined {
    return path === undefined ? undefined : { path, foreign: true };
  }

  return {
    has,
    get: (sha256) => fileOf(find(sha256)) ?? seedFile(inSeed(sha256)),
    foreign: { has: (sha256) => find(sha256) === undefined && inSeed(sha256) !== undefined },
    damaged: {
      has: (sha256) => !has(sha256) && (removed.bank.has(sha256) || removed.seed.has(sha256)),
    },
    remove(sha256) {
      const from = find(sha256) === undefined ? removed.seed : removed.bank;
      from.add(sha256);
    },
    some: () => fileOf((release?.contents.length ?? 0) > 0 ? 0 : undefined),
  };
}
