/**
 * The holds of a pod's application: those that came over the control port, which are kept on the volume across a restart of the sidecar,
 * and those that stand as files on a volume of the application's own. Each ends by monotonic time, whatever the clock does meanwhile.
 */
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import { formatHolds, isFull, parseHolds } from "#core/hold.ts";
import type { Hold, HoldRequest } from "#core/hold.ts";
import type { Log } from "#core/telemetry.ts";
import { nodeDisk, readSmallFile, replaceFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { openHoldFiles } from "./hold-files.ts";
import type { FileProblem } from "./hold-files.ts";

export type { Hold } from "#core/hold.ts";

/** Those that have not ended yet; looked at anew at each call, because one may have come a moment ago. */
export type Holds = (signal: AbortSignal) => Promise<readonly Hold[]>;

export const noHolds: Holds = () => Promise.resolve([]);

export interface HoldBook {
  readonly list: Holds;
  /** As {@link HoldBook.list} saw them last: for what must not wait. */
  known(): readonly Hold[];
  /** Files that do not hold, or not as they say, as {@link HoldBook.list} saw them last. */
  problems(): readonly FileProblem[];
  /** Takes a hold, or takes it anew from now on; `undefined` when there are too many already. */
  put(owner: string, request: HoldRequest): Promise<TakenHold | undefined>;
  /** Whether there was one, and whether that it is gone outlives a restart of the sidecar. */
  remove(owner: string): Promise<{ readonly released: boolean; readonly saved: boolean }>;
}

/** A hold that counts from now on. */
export interface TakenHold extends Hold {
  /** False when a restart of the sidecar forgets it, because the disk does not take it. */
  readonly saved: boolean;
}

export interface HoldDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Folder of the payload volume; absent when there is none, and then nothing is kept. */
  readonly volume: string | undefined;
  /** Folder with the application's own files, if it has one. */
  readonly folder: string | undefined;
  /** UID of the pod. */
  readonly pod: string | undefined;
  /** For tests that make it fail. */
  readonly disk?: Disk;
}

interface Entry {
  readonly hold: Hold;
  /** Monotonic milliseconds. */
  readonly end: number;
}

/** Bytes. */
const FILE_LIMIT = 64 * 1024;

/** Milliseconds: what a crash may give back of the time of a hold, where the clock was set back meanwhile or it was taken anew since. */
const SAVE_AGAIN_MS = 300_000;

/** Milliseconds: less is not worth a write, however short the hold. */
const SAVE_LEAST_MS = 10_000;

/**
 * What of a hold that is taken anew need not be saved. At half of its length, one that is taken anew in good time
 * stands on the disk all along.
 */
function slackMs(forMs: number): number {
  return Math.min(SAVE_AGAIN_MS, Math.max(SAVE_LEAST_MS, forMs / 2));
}

export function openHolds(deps: HoldDeps): HoldBook {
  const { clock, log, pod, disk = nodeDisk } = deps;
  const path = deps.volume === undefined ? undefined : join(deps.volume, "holds.json");
  const files = openHoldFiles(deps);
  const entries = new Map<string, Entry>();
  /** Ends of those on the disk, monotonic. */
  let savedEnds: ReadonlyMap<string, number> = new Map();
  let savedAt = -Infinity;
  let saving: Promise<boolean> = Promise.resolve(true);
  /** What the disk has is not what counts. */
  let isUnsaved = false;
  let fromFiles: readonly Hold[] = [];

  function current(): readonly Hold[] {
    const now = clock.monotonic();
    for (const [owner, { end }] of entries) if (end <= now) entries.delete(owner);
    // As the clock stands: it may have been set since.
    return Array.from(entries.values(), ({ hold, end }) => ({
      ...hold,
      until: clock.now() + end - now,
    }));
  }

  /** One after the other. A disk that takes nothing does not let an update through: the hold counts, and a restart forgets it. */
  function save(): Promise<boolean> {
    if (path === undefined) return Promise.resolve(false);
    saving = saving.then(async () => {
      savedAt = clock.monotonic();
      const ends = new Map(Array.from(entries, ([owner, { end }]) => [owner, end]));
      try {
        const text = formatHolds(current(), pod, clock.now());
        await replaceFile(disk, path, Buffer.from(text));
        savedEnds = ends;
        isUnsaved = false;
      } catch (err) {
        // Once while it lasts: an application may take its hold anew each second.
        if (!isUnsaved)
          log.warn(
            { err, code: codeOf(err) },
            "holds not saved; a restart of the sidecar forgets them",
          );
        isUnsaved = true;
      }
      return !isUnsaved;
    });
    return saving;
  }

  async function restore(from: string): Promise<void> {
    try {
      const bytes = await readSmallFile(disk, from, FILE_LIMIT);
      const text = bytes === undefined ? "" : Buffer.from(bytes).toString();
      for (const { leftMs, ...hold } of parseHolds(text, pod, clock.now()))
        entries.set(hold.owner, { hold, end: clock.monotonic() + leftMs });
      savedEnds = new Map(Array.from(entries, ([owner, { end }]) => [owner, end]));
    } catch (err) {
      log.warn({ err, code: codeOf(err) }, "saved holds cannot be read");
    }
  }

  // Not waited for here: a disk that hangs must not keep the probes from being answered.
  const restored = path === undefined ? Promise.resolve() : restore(path);

  return {
    async list(signal) {
      await restored;
      fromFiles = await files.list(signal);
      if (entries.size > 0 && clock.monotonic() - savedAt >= SAVE_AGAIN_MS) await save();
      return [...current(), ...fromFiles];
    },
    known: () => [...current(), ...fromFiles],
    problems: () => files.problems(),
    async put(owner, { forMs, reason }) {
      await restored;
      const before = current().find((hold) => hold.owner === owner);
      if (before === undefined && isFull(owner, entries.keys())) return undefined;
      const now = clock.now();
      const since = before?.since ?? now;
      const hold: Hold = {
        owner,
        since,
        until: now + forMs,
        ...(reason !== undefined && { reason }),
      };
      const end = clock.monotonic() + forMs;
      entries.set(owner, { hold, end });
      // An application may take its hold anew each second, for months.
      if (before === undefined) {
        const expiresAt = new Date(hold.until).toISOString();
        const detail = reason !== undefined && { detail: reason };
        log.info({ owner, expiresAt, ...detail }, "updates held");
      }
      const missingMs = end - (savedEnds.get(owner) ?? -Infinity);
      const mustSave = before === undefined || missingMs < 0 || missingMs > slackMs(forMs);
      return { ...hold, saved: mustSave ? await save() : true };
    },
    async remove(owner) {
      await restored;
      current();
      if (!entries.delete(owner)) return { released: false, saved: true };
      log.info({ owner }, "hold released");
      return { released: true, saved: await save() };
    },
  };
}

/** A hold as it is shown; times in ISO 8601, by the node's clock. */
export function holdView({ owner, since, until, reason }: Hold): Readonly<Record<string, unknown>> {
  const iso = (ms: number): string => new Date(ms).toISOString();
  return { owner, since: iso(since), until: iso(until), reason: reason ?? null };
}
