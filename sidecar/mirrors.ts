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
const ITS_FAULT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
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
const LIES: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["DIGEST_MISMATCH", "RESPONSE_TOO_LARGE"]);

/** Paths of which bad bytes are remembered. */
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

/** @param mirrors at least one */
export function openMirrors(mirrors: readonly Mirror[], deps: MirrorsDeps): Repository {
  const [only, ...others] = mirrors;
  if (only !== undefined && others.length === 0) return only.repository;
  const { log, metrics } = deps;
  /** What this look has given up. */
  const aside = new Set<Mirror>();
  /** Where the bytes of a file came from that is being fetched, and who is serving it now. */
  const sources = new Map<
    string,
    { readonly all: ReadonlySet<Mirror>; readonly last: Mirror | undefined }
  >();
  /** Who has served bytes of a file that were not its own. */
  const liars = new Map<string, ReadonlySet<Mirror>>();
  /** What was said first, by path, or of the look as a whole. */
  const first = new Map<string, unknown>();
  let current: Mirror | undefined;
  let announced = only;

  const usable = (mirror: Mirror, path?: string): boolean =>
    !aside.has(mirror) &&
    mirror.repository.holdMs() === 0 &&
    (path === undefined || liars.get(path)?.has(mirror) !== true);
  /** The one that works is kept while it does. */
  const choose = (path?: string, besides?: ReadonlySet<Mirror>): Mirror | undefined => {
    const fits = (mirror: Mirror): boolean => usable(mirror, path) && besides?.has(mirror) !== true;
    return current !== undefined && fits(current) ? current : mirrors.find(fits);
  };
  const giveUp = (mirror: Mirror, error: unknown): void => {
    const code = codeOf(error);
    aside.add(mirror);
    metrics.add("edgesync_sidecar_failovers_total", { code });
    log.debug({ address: mirror.address, code, err: error }, "repository address given up");
  };
  const works = (mirror: Mirror): void => {
    current = mirror;
    if (mirror === announced) return;
    announced = mirror;
    log.info({ address: mirror.address }, "repository read at another address");
  };

  /** A file that is gone on with has bytes of more than one address, unless all came from this one. */
  function remember(path: string, mirror: Mirror, fresh: boolean): void {
    const all = fresh ? [] : (sources.get(path)?.all ?? mirrors);
    sources.set(path, { all: new Set([...all, mirror]), last: mirror });
  }

  function accuse(path: string, mirror: Mirror): void {
    const all = new Set([...(liars.get(path) ?? []), mirror]);
    // Where everybody lies, nobody does: the publisher has, and may have repaired it by the next time.
    if (all.size === mirrors.length) liars.delete(path);
    else liars.set(path, all);
    const [oldest] = liars.keys();
    if (liars.size > MAX_PATHS && oldest !== undefined) liars.delete(oldest);
  }

  /** Addresses that may still have the file as it was signed. */
  const innocents = (path: string): number =>
    mirrors.length - (liars.get(path)?.size ?? mirrors.length);

  /** False when nobody has served anything since the last time: there is nobody left. */
  function blame(error: unknown, lie: boolean, path: string | undefined): boolean {
    const source = path === undefined ? undefined : sources.get(path);
    const culprit = path === undefined ? current : source?.last;
    if (culprit === undefined) return false;
    if (path !== undefined && source !== undefined) {
      if (lie) sources.delete(path);
      else sources.set(path, { ...source, last: undefined });
      // Whose bytes were bad cannot be told: once more from the beginning, from one address.
      if (lie && source.all.size > 1) return true;
      if (lie) accuse(path, culprit);
    }
    if (!aside.has(culprit)) giveUp(culprit, error);
    if (current === culprit) current = undefined;
    return true;
  }

  return {
    async metadata(name, limit, known, signal) {
      const mirror = choose();
      if (mirror === undefined) throw quiet();
      current = mirror;
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
        try {
          const answer = await mirror.repository.open(path, offset, end, signal);
          if (answer.answer === "bytes") {
            // A range is of one piece, and checked as such.
            remember(path, mirror, offset === 0 || end !== undefined);
            works(mirror);
            return answer;
          }
          without.add(mirror);
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
      sources.clear();
      first.clear();
      current = undefined;
    },
    elsewhere(error, path) {
      if (!ITS_FAULT.has(codeOf(error))) throw error;
      const key = path ?? "";
      if (!first.has(key)) first.set(key, error);
      const lie = LIES.has(codeOf(error));
      if (!blame(error, lie, path) || choose(path) === undefined)
        throw lie && path !== undefined && innocents(path) > 0 ? quiet(error) : first.get(key);
    },
  };
}

function quiet(cause?: unknown): EdgeSyncError {
  return new EdgeSyncError(
    "ORIGIN_UNAVAILABLE",
    "no address of the repository is left that can be asked now",
    { cause },
  );
}
