/**
 * Holds as files: `*.hold` on a volume that the application writes and the sidecar mounts read-only. Nothing that the application may put there
 * makes the sidecar read anything else, wait, or grow: links and pipes are not opened, and sizes and numbers are bounded.
 */
import { constants } from "node:fs";
import type { BigIntStats } from "node:fs";
import { lstat, open, opendir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { HOLDS_LIMIT, OWNER_FORM, isOwner, readHoldFile, shown } from "#core/hold.ts";
import type { Hold } from "#core/hold.ts";
import type { Log } from "#core/telemetry.ts";
import { errnoOf } from "../disk/durable.ts";

export interface HoldFiles {
  /** Those that hold now. Rejects with the signal's reason and with nothing else. */
  list(signal: AbortSignal): Promise<readonly Hold[]>;
  /** Those that do not hold, or not as they say, as they were seen last: the first few. */
  problems(): readonly FileProblem[];
}

export interface FileProblem {
  readonly file: string;
  readonly problem: string;
}

export interface HoldFilesDeps {
  readonly folder: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

const ENDING = ".hold";

/** Bytes of a file that are read. */
const FILE_LIMIT = 4 * 1024;

/** Names in the folder that are read, of whatever kind, and names of holds among them that are looked at. */
const READ_LIMIT = 4_096;
const NAMES_LIMIT = 1_024;

/** Milliseconds for a look: a volume that hangs must not hang updates for ever. */
const LOOK_TIMEOUT_MS = 5_000;

/** Problems that are told. */
const PROBLEMS_LIMIT = 8;

const NO_FILE = "it does not hold: it is a link, or no file";

const FAILS = "the hold volume cannot be read; what it held before holds on";
const HANGS = "the hold volume hangs; what it held before holds on";

interface Seen {
  /** What tells one version of a file from another. */
  readonly version: string;
  readonly hold: Hold;
  readonly problem: string | undefined;
  /** Monotonic milliseconds. */
  readonly end: number;
}

/** Of a file that is still there; of a folder that lets nothing be looked at nobody can tell. */
async function statOf(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

export function openHoldFiles({ folder, clock, log }: HoldFilesDeps): HoldFiles {
  let seen: ReadonlyMap<string, Seen> = new Map();
  let looking: Promise<void> | undefined;
  let problems: readonly FileProblem[] = [];
  const told = new Set<string>();

  /** Once while it lasts: it is looked at each second. */
  function tell(problem: string, isSo: boolean, context: Readonly<Record<string, unknown>>): void {
    if (isSo && !told.has(problem)) log.warn(context, problem);
    if (isSo) told.add(problem);
    else told.delete(problem);
  }

  /** Stops at a limit: the application must not make the sidecar grow. */
  async function namesIn(from: string): Promise<readonly string[]> {
    const names: string[] = [];
    let read = 0;
    await using entries = await opendir(from);
    for await (const { name } of entries) {
      if (name.endsWith(ENDING)) names.push(name);
      if (++read >= READ_LIMIT) break;
    }
    const isTooMany = read >= READ_LIMIT || names.length > NAMES_LIMIT;
    tell("the hold volume has more files than are looked at", isTooMany, {
      detail: `${READ_LIMIT} files, ${NAMES_LIMIT} of them holds`,
    });
    return names.toSorted().slice(0, NAMES_LIMIT);
  }

  const isOver = (end: number): boolean => end <= clock.monotonic();

  async function look(from: string): Promise<void> {
    const names = new Set(await namesIn(from));
    const found = new Map<string, Seen>();
    // Those that are over are kept, so that they are not taken for new ones: their end is as it was first seen.
    const over = new Map([...seen].filter(([name, { end }]) => isOver(end) && names.has(name)));
    const wrong: FileProblem[] = [];
    for (const name of names) {
      const blame = (problem: string): void => {
        if (wrong.length < PROBLEMS_LIMIT) wrong.push({ file: shown(name) ?? "", problem });
      };
      if (found.size >= HOLDS_LIMIT) {
        blame(`it and those after it do not hold: at most ${HOLDS_LIMIT} files do`);
        break;
      }
      const owner = name.slice(0, -ENDING.length);
      const before = seen.get(name);
      const one = isOwner(owner)
        ? await read(join(from, name), owner, before)
        : `it does not hold: before ${ENDING} must be ${OWNER_FORM}`;
      if (typeof one === "string") blame(one);
      else if (one !== undefined) {
        // One that is being written is another one at the next look.
        if (one.problem !== undefined && before?.version === one.version) blame(one.problem);
        (isOver(one.end) ? over : found).set(name, one);
      }
    }
    seen = new Map([...over, ...found]);
    for (const { file, problem } of wrong)
      if (!problems.some((one) => one.file === file && one.problem === problem))
        log.warn({ detail: `${file}: ${problem}` }, "hold file does not hold as it says");
    problems = wrong;
  }

  /** What a file says, or why it says nothing; `undefined` when it is gone again. */
  async function read(
    path: string,
    name: string,
    before: Seen | undefined,
  ): Promise<Seen | string | undefined> {
    try {
      const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
      await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      const stats = await file.stat({ bigint: true });
      if (!stats.isFile()) return NO_FILE;
      const version = `${stats.ino} ${stats.mtimeNs} ${stats.size}`;
      if (before?.version === version) return before;
      const { buffer, bytesRead } = await file.read(Buffer.alloc(FILE_LIMIT), 0, FILE_LIMIT, 0);
      return seenNow(version, name, buffer.toString("utf8", 0, bytesRead), stats);
    } catch (error) {
      const errno = errnoOf(error) ?? "";
      if (errno === "ENOENT") return undefined;
      return errno === "ELOOP" ? NO_FILE : await withoutReading(path, name, before, errno);
    }
  }

  /** One that is there, and kept from us: whoever has put it there means to hold. */
  async function withoutReading(
    path: string,
    name: string,
    before: Seen | undefined,
    errno: string,
  ): Promise<Seen | string | undefined> {
    const stats = await statOf(path);
    if (stats === undefined) return undefined;
    if (!stats.isFile()) return NO_FILE;
    // Apart from the versions of one that can be read: it may be let be read without being written again.
    const version = `unread ${stats.ino} ${stats.mtimeNs} ${stats.size}`;
    if (before?.version === version) return before;
    const problem = `it cannot be read (${errno}); it holds for an hour`;
    return { ...seenNow(version, name, "", stats), problem };
  }

  function seenNow(version: string, name: string, text: string, stats: BigIntStats): Seen {
    const writtenAt = Number(stats.mtimeMs);
    const now = clock.now();
    const { owner, forMs, reason, problem } = readHoldFile(name, text, writtenAt, now);
    const since = Math.min(writtenAt, now);
    const hold = { owner, since, until: now + forMs, ...(reason !== undefined && { reason }) };
    return { version, hold, problem, end: clock.monotonic() + forMs };
  }

  /** What is known already stands in for a look that takes too long or fails. */
  async function refresh(from: string, signal: AbortSignal): Promise<void> {
    looking ??= look(from).finally(() => (looking = undefined));
    const over = new AbortController();
    const late = clock.sleep(LOOK_TIMEOUT_MS, AbortSignal.any([signal, over.signal]));
    const ended = looking.then(() => true);
    try {
      const isDone = await Promise.race([ended, late.then(() => false)]);
      tell(HANGS, !isDone, { detail: `no answer in ${LOOK_TIMEOUT_MS / 1000} s` });
      if (isDone) tell(FAILS, false, {});
    } catch (err) {
      signal.throwIfAborted();
      tell(FAILS, true, { err });
    } finally {
      over.abort(new Error("the look is over"));
      await late.catch(() => undefined);
    }
  }

  return {
    problems: () => problems,
    async list(signal) {
      if (folder === undefined) return [];
      await refresh(folder, signal);
      const now = clock.monotonic();
      return [...seen.values()]
        .filter(({ end }) => !isOver(end))
        .map(({ hold, end }) => ({ ...hold, until: clock.now() + end - now }));
    },
  };
}
