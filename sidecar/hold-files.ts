/**
 * Holds as files: `*.hold` on a volume that the application writes and the sidecar mounts read-only. Nothing that the application may put there
 * makes the sidecar read anything else, wait, or grow: links and pipes are not opened, and sizes and numbers are bounded.
 */
import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { HOLDS_LIMIT, isOwner, readHoldFile } from "#core/hold.ts";
import type { Hold } from "#core/hold.ts";
import type { Log } from "#core/telemetry.ts";

export interface HoldFiles {
  /** Those that hold now. Rejects with the signal's reason and with nothing else. */
  list(signal: AbortSignal): Promise<readonly Hold[]>;
}

export interface HoldFilesDeps {
  readonly folder: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

const ENDING = ".hold";

/** Bytes of a file that are read. */
const FILE_LIMIT = 4 * 1024;

/** Names in the folder that are looked at. */
const NAMES_LIMIT = 1_024;

/** Milliseconds for a look: a volume that hangs must not hang updates for ever. */
const LOOK_TIMEOUT_MS = 5_000;

interface Seen {
  /** What tells one version of a file from another. */
  readonly version: string;
  readonly hold: Hold;
  /** Monotonic milliseconds. */
  readonly end: number;
}

export function openHoldFiles({ folder, clock, log }: HoldFilesDeps): HoldFiles {
  let seen: ReadonlyMap<string, Seen> = new Map();
  let looking: Promise<void> | undefined;
  let failing = false;

  async function look(from: string): Promise<void> {
    const found = new Map<string, Seen>();
    const names = (await readdir(from)).filter((name) => name.endsWith(ENDING));
    for (const name of names.toSorted().slice(0, NAMES_LIMIT)) {
      if (found.size >= HOLDS_LIMIT) break;
      const owner = name.slice(0, -ENDING.length);
      const one = isOwner(owner) ? await read(join(from, name), owner, seen.get(name)) : undefined;
      if (one !== undefined && one.end > clock.monotonic()) found.set(name, one);
    }
    // Also those that are over, so that they are not taken for new ones: their end is as it was first seen.
    seen = new Map([...over(names), ...found]);
  }

  function over(names: readonly string[]): readonly (readonly [string, Seen])[] {
    return [...seen].filter(([name, { end }]) => end <= clock.monotonic() && names.includes(name));
  }

  async function read(
    path: string,
    name: string,
    before: Seen | undefined,
  ): Promise<Seen | undefined> {
    try {
      const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
      await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      const stats = await file.stat({ bigint: true });
      if (!stats.isFile()) return undefined;
      const version = `${stats.ino} ${stats.mtimeNs} ${stats.size}`;
      if (before?.version === version) return before;
      const { buffer, bytesRead } = await file.read(Buffer.alloc(FILE_LIMIT), 0, FILE_LIMIT, 0);
      const text = buffer.toString("utf8", 0, bytesRead);
      const writtenAt = Number(stats.mtimeMs);
      const now = clock.now();
      const { owner, forMs, reason } = readHoldFile(name, text, writtenAt, now);
      const since = Math.min(writtenAt, now);
      const hold = { owner, since, until: now + forMs, ...(reason !== undefined && { reason }) };
      return { version, hold, end: clock.monotonic() + forMs };
    } catch {
      // Gone again, or a link: it holds nothing.
      return undefined;
    }
  }

  /** What is known already stands in for a look that takes too long or fails. */
  async function refresh(from: string, signal: AbortSignal): Promise<void> {
    looking ??= look(from).finally(() => (looking = undefined));
    const over = new AbortController();
    const late = clock.sleep(LOOK_TIMEOUT_MS, AbortSignal.any([signal, over.signal]));
    try {
      await Promise.race([looking, late]);
      failing = false;
    } catch (err) {
      signal.throwIfAborted();
      if (!failing) log.warn({ err }, "the hold volume cannot be read");
      failing = true;
    } finally {
      over.abort(new Error("the look is over"));
      await late.catch(() => undefined);
    }
  }

  return {
    async list(signal) {
      if (folder === undefined) return [];
      await refresh(folder, signal);
      const now = clock.monotonic();
      return [...seen.values()]
        .filter(({ end }) => end > now)
        .map(({ hold, end }) => ({ ...hold, until: clock.now() + end - now }));
    },
  };
}
