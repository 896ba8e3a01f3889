/**
 * One repository at several addresses, in the order in which they are tried. Whoever serves a mirror can do no worse than be passed over:
 * what does not answer, or answers with what does not verify, is put aside for the rest of the look at the channel, and a file goes on
 * at the next address where the last one broke off.
 */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import type { Answer, Repository } from "./repository.ts";

export interface Mirror {
  readonly address: string;
  readonly repository: Repository;
}

interface MirrorsDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

/** What may be the address's fault, and not this site's. */
export const ITS_FAULT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "ORIGIN_UNAVAILABLE",
  "ORIGIN_REFUSED",
  "TLS_UNTRUSTED",
  "RESPONSE_TOO_LARGE",
  "DIGEST_MISMATCH",
  "METADATA_INVALID",
  "METADATA_UNTRUSTED",
  "METADATA_EXPIRED",
  // Signed metadata can be too old to know of it.
  "RELEASE_NOT_FOUND",
]);
/** Of these the address is convicted when all bytes came from it. */
export const LIES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "DIGEST_MISMATCH",
  "RESPONSE_TOO_LARGE",
]);

/** Paths of which something is remembered. */
const MAX_PATHS = 256;

/** Does something with a repository, at another address when it fails at one; throws what the first one had to say. */
export async function anywhere<T>(
  repository: Pick<Repository, "elsewhere">,
  act: () => Promise<T>,
  path?: string,
): Promise<T> {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      repository.elsewhere(error, path);
    }
  }
}

/** What is known of a file that is being fetched. */
interface Fetching {
  /** Where its bytes came from. More than one: nobody can be blamed for them. */
  readonly from: ReadonlySet<Mirror>;
  /** Who serves it now. */
  readonly last: Mirror | undefined;
  /** Who has been given up for it. */
  readonly tried: ReadonlySet<Mirror>;
  /** What was said first. */
  readonly first: { readonly error: unknown } | undefined;
}

/**
 * Files may be fetched while the channel is looked at.
 *
 * @param mirrors at least one
 */
export function openMirrors(mirrors: readonly Mirror[], deps: MirrorsDeps): Repository {
  const [only, ...others] = mirrors;
  if (only !== undefined && others.length === 0) return only.repository;
  const { log, metrics } = deps;
  /** What this look has given up. */
  const aside = new Set<Mirror>();
  let first: { readonly error: unknown } | undefined;
  const fetching = new Map<string, Fetching>();
  /** Who has served bytes of a file that were not its own. */
  const liars = new Map<string, ReadonlySet<Mirror>>();
  let current: Mirror | undefined;
  /** Who was asked for metadata last. */
  let asked: Mirror | undefined;
  let announced = only;

  /** The one that works is kept while it does. */
  const choose = (path?: string, besides?: ReadonlySet<Mirror>): Mirror | undefined => {
    const lying = path === undefined ? undefined : liars.get(path);
    const tried = path === undefined ? undefined : fetching.get(path)?.tried;
    const fits = (mirror: Mirror): boolean =>
      [aside, lying, tried, besides].every((those) => those?.has(mirror) !== true) &&
      mirror.repository.holdMs() === 0;
    return current !== undefined && fits(current) ? current : mirrors.find(fits);
  };
  const giveUp = (mirror: Mirror, error: unknown): void => {
    if (current === mirror) current = undefined;
    if (aside.has(mirror)) return;
    aside.add(mirror);
    const code = codeOf(error);
    metrics.add("edgesync_sidecar_failovers_total", { code });
    log.debug({ address: mirror.address, code, err: error }, "repository address given up");
  };
  const works = (mirror: Mirror): void => {
    current = mirror;
    if (mirror === announced) return;
    announced = mirror;
    log.info({ address: mirror.address }, "repository read at another address");
  };

  /** A file that is gone on with has bytes of others too, unless it is known that all came from this one. */
  function remember(path: string, mirror: Mirror, fresh: boolean): void {
    const before = fetching.get(path);
    const from = new Set<Mirror>(fresh ? [] : (before?.from ?? mirrors));
    const tried = before?.tried ?? new Set<Mirror>();
    keep(fetching, path, { from: from.add(mirror), last: mirror, tried, first: before?.first });
  }

  function accuse(path: string, mirror: Mirror): void {
    const all = new Set([...(liars.get(path) ?? []), mirror]);
    // Where everybody lies, nobody does: the publisher has, and may have repaired it by the next time.
    if (all.size === mirrors.length) liars.delete(path);
    else keep(liars, path, all);
  }

  /** Addresses that may still have the file as it was signed. */
  const innocents = (path: string): number =>
    mirrors.length - (liars.get(path)?.size ?? mirrors.length);

  /** As `elsewhere`, for a file. */
  function elsewhereFor(path: string, error: unknown): void {
    const before = fetching.get(path);
    const culprit = before?.last;
    // Nobody has served anything of it since the last time: there is nobody left.
    if (before === undefined || culprit === undefined) {
      fetching.delete(path);
      throw before?.first?.error ?? error;
    }
    const now = { ...before, last: undefined, first: before.first ?? { error } };
    const lie = LIES.has(codeOf(error));
    if (lie && before.from.size > 1) {
      // Whose bytes were bad cannot be told: once more from the beginning, from one address.
      fetching.set(path, now);
    } else {
      if (lie) accuse(path, culprit);
      fetching.set(path, { ...now, tried: new Set([...before.tried, culprit]) });
      giveUp(culprit, error);
    }
    if (choose(path) !== undefined) return;
    fetching.delete(path);
    throw lie && innocents(path) > 0 ? quiet(error) : now.first.error;
  }

  return {
    async metadata(name, limit, known, signal) {
      const mirror = choose();
      if (mirror === undefined) throw quiet();
      asked = mirror;
      const bytes = await mirror.repository.metadata(name, limit, known, signal);
      works(mirror);
      return bytes;
    },
    async open(path, offset, end, signal) {
      const without = new Set<Mirror>();
      let lacking: Answer | undefined;
      let failed: { readonly error: unknown } | undefined;
      for (;;) {
        const mirror = choose(path, without);
        if (mirror === undefined) break;
        without.add(mirror);
        try {
          const answer = await mirror.repository.open(path, offset, end, signal);
          if (answer.answer === "bytes") {
            // A range is of one piece, and checked as such.
            remember(path, mirror, offset === 0 || end !== undefined);
            works(mirror);
            return answer;
          }
          lacking ??= answer;
        } catch (error) {
          if (signal.aborted || !ITS_FAULT.has(codeOf(error))) throw error;
          failed ??= { error };
          giveUp(mirror, error);
        }
      }
      // An address that could not be asked may have it.
      if (failed !== undefined) throw failed.error;
      if (lacking !== undefined) return lacking;
      throw quiet();
    },
    holdMs: () => Math.min(...mirrors.map(({ repository }) => repository.holdMs())),
    begin() {
      aside.clear();
      first = undefined;
      current = undefined;
    },
    elsewhere(error, path) {
      if (!ITS_FAULT.has(codeOf(error))) throw error;
      if (path !== undefined) {
        elsewhereFor(path, error);
        return;
      }
      first ??= { error };
      const culprit = asked;
      asked = undefined;
      if (culprit !== undefined) giveUp(culprit, error);
      if (culprit === undefined || choose() === undefined) throw first.error;
    },
  };
}

/** Adds to a map that forgets what is oldest. */
function keep<T>(map: Map<string, T>, path: string, value: T): void {
  map.delete(path);
  map.set(path, value);
  const [oldest] = map.keys();
  if (map.size > MAX_PATHS && oldest !== undefined) map.delete(oldest);
}

function quiet(cause?: unknown): EdgeSyncError {
  return new EdgeSyncError(
    "ORIGIN_UNAVAILABLE",
    "no address of the repository is left that can be asked now",
    { cause },
  );
}
