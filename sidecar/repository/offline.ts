/**
 * A repository that is also read from bundles on a volume. Metadata come from the network while it answers, because it knows more; files that
 * are named by their digest come from a bundle whenever one has them, because that costs the link nothing.
 */
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Log } from "#core/telemetry.ts";
import { openBundles } from "./bundle.ts";
import type { Bundle, Bundles } from "./bundle.ts";
import type { Disk } from "../disk/durable.ts";
import { ITS_FAULT, LIES } from "./mirrors.ts";
import type { Answer, Repository } from "./repository.ts";

/** @param folder where bundles may appear; without one the repository is as it was */
export function withBundles(
  network: Repository,
  folder: string | undefined,
  { disk, log }: { readonly disk: Disk; readonly log: Log },
): Repository {
  if (folder === undefined) return network;
  const refused = (bundle: string, err: unknown): void => {
    log.warn({ bundle, err }, "bundle cannot be used");
  };
  return reading(network, openBundles(disk, folder, refused), log);
}

function reading(network: Repository, bundles: Bundles, log: Log): Repository {
  /** What was on the volume when this look began. */
  let found: Promise<readonly Bundle[]> | undefined;
  let list: readonly Bundle[] = [];
  /** Where metadata are read in this look; undefined for the network. */
  let current: Bundle | undefined;
  const givenUp = new Set<Bundle>();
  /** What the network had to say. */
  let first: { readonly error: unknown } | undefined;
  /** By path, the bundle that gave the bytes that are being read, and whether all of them. */
  const sources = new Map<string, { readonly bundle: Bundle; readonly all: boolean }>();
  /** Bytes that were good when the bundle was looked at and are not any more. */
  const bad = new Map<Bundle, Set<string>>();
  /** Files that could not be read in this look: the volume may be back by the next. */
  const unread = new Map<Bundle, Set<string>>();
  let announced: string | undefined;

  async function look(signal: AbortSignal): Promise<readonly Bundle[]> {
    found ??= bundles.list(signal).catch((error: unknown) => {
      signal.throwIfAborted();
      // A volume that cannot be read must not keep the site from its network.
      log.warn({ err: error }, "volume of bundles cannot be read");
      return [];
    });
    list = await found;
    return list;
  }

  function announce(name: string | undefined): void {
    if (name === announced) return;
    announced = name;
    if (name === undefined) log.info({}, "repository read over the network again");
    else log.info({ bundle: name }, "repository read from a bundle");
  }

  return {
    async metadata(name, limit, known, signal) {
      await look(signal);
      const bytes =
        current === undefined
          ? await network.metadata(name, limit, known, signal)
          : await current.metadata(name, limit, known, signal);
      if (name === "timestamp.json") announce(current?.name);
      return bytes;
    },
    async open(path, offset, end, signal): Promise<Answer> {
      sources.delete(path);
      for (const bundle of await look(signal)) {
        if ([bad, unread].some((those) => those.get(bundle)?.has(path) === true)) continue;
        try {
          const answer = await bundle.open(path, offset, end, signal);
          if (answer.answer === "absent") continue;
          sources.set(path, { bundle, all: offset === 0 || end !== undefined });
          return answer;
        } catch (error) {
          signal.throwIfAborted();
          if (!(error instanceof EdgeSyncError)) throw error;
          log.debug({ bundle: bundle.name, err: error }, "bundle cannot be read");
        }
      }
      return await network.open(path, offset, end, signal);
    },
    holdMs: () => network.holdMs(),
    begin() {
      network.begin();
      found = undefined;
      current = undefined;
      givenUp.clear();
      unread.clear();
      // What is not on the volume any more is not blamed any more either.
      for (const bundle of bad.keys()) if (!list.includes(bundle)) bad.delete(bundle);
      first = undefined;
    },
    elsewhere(error, path) {
      const source = path === undefined ? undefined : sources.get(path);
      if (path !== undefined && source !== undefined) {
        // An abort, or a payload volume that is full, says nothing about the bundle.
        if (!ITS_FAULT.has(codeOf(error))) throw error;
        sources.delete(path);
        const { bundle, all } = source;
        const lie = LIES.has(codeOf(error));
        // Whose bytes were bad cannot be told where they went on behind others: once more, from the beginning.
        if (lie && !all) return;
        const blamed = lie ? bad : unread;
        blamed.set(bundle, (blamed.get(bundle) ?? new Set()).add(path));
        return;
      }
      if (path !== undefined) {
        network.elsewhere(error, path);
        return;
      }
      if (current === undefined) {
        try {
          network.elsewhere(error);
          return;
        } catch (last) {
          first ??= { error: last };
        }
      } else givenUp.add(current);
      current = list.find((bundle) => !givenUp.has(bundle));
      // What the network had to say says more than what was wrong with the last of the bundles.
      if (current === undefined) throw first?.error ?? error;
    },
  };
}
