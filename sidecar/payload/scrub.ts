/**
 * Verifies the committed bank again in the pauses between two looks, slowly, and has made anew what is not as signed. A pass goes on in
 * the next pause where the last one ended, also in the middle of a file.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { dirname, join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Entry, Release } from "#core/release.ts";
import { damageOf, firstPassMs, nextPassMs, repairAgainMs, usedUntil } from "#core/scrub.ts";
import type { Damage } from "#core/scrub.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { parentOf } from "#core/tree-path.ts";
import type { Bank } from "#core/update-state.ts";
import type { Disk } from "../disk/durable.ts";
import { EXECUTABLE_MODE, FILE_MODE } from "./make-file.ts";
import { DIRECTORY_MODE, bringBankManifest, repairFiles, replaceLink } from "./repair.ts";
import type { RepairDeps, Volume } from "./repair.ts";

export interface Scrub {
  /**
   * Goes on with its work on the committed bank for at most `forMs`; ends early when there is nothing to do, or no more before
   * the next pause. Rejects with the signal's reason and with nothing else: what goes wrong it reports itself.
   */
  work(bank: Bank, forMs: number, signal: AbortSignal): Promise<void>;
  status(): ScrubStatus | null;
}

export interface ScrubStatus {
  /** When all of the release was last found to be as signed; ISO 8601. */
  readonly lastPass: string | null;
  /** Entries that are known to be damaged. */
  readonly damaged: number;
  /** Since the sidecar's start. */
  readonly repaired: number;
  /** Why there is still damage. */
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
}

export const noScrub: Scrub = { work: () => Promise.resolve(), status: () => null };

export interface ScrubDeps extends Omit<RepairDeps, "volume"> {
  readonly settings: Pick<Settings, "scrubInterval" | "scrubRate">;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly disk: Disk;
  /** Undefined until the payload volume could be opened. */
  readonly volume: () => Volume | undefined;
}

/** Damaged files that are made anew together, which costs fewer requests. */
const TOGETHER = 64;
/** Bytes read at a time. */
const CHUNK = 64 * 1024;
/** Milliseconds that are worth sleeping for. */
const LEAST_SLEEP_MS = 20;

/** A pass over one bank. */
interface Pass {
  readonly bank: Bank;
  readonly volume: Volume;
  readonly release: Release;
  readonly folder: string;
  /** Number of the entry that is next. */
  next: number;
  /** How far its content has been read. */
  reading: { readonly changed: string; readonly hash: Hash; at: number } | undefined;
  /** Numbers of entries whose files are to be made anew. */
  readonly broken: Set<number>;
  /** Numbers of entries that could not be verified, or mended otherwise: they are looked at again when all others have been. */
  readonly again: Set<number>;
  /** Names in `partial/` of what has been fetched for it. */
  readonly fetched: Set<string>;
}

export function openScrub(deps: ScrubDeps): Scrub {
  const { clock, random, log, metrics, disk } = deps;
  const { scrubInterval: intervalMs, scrubRate: rate } = deps.settings;
  if (intervalMs === 0) return noScrub;
  let pass: Pass | undefined;
  /** Monotonic milliseconds. */
  let due = clock.monotonic() + firstPassMs(intervalMs, random);
  let failures = 0;
  let repaired = 0;
  let lastPass: number | undefined;
  let error: ScrubStatus["error"] = null;
  /** Monotonic milliseconds until which the rate is used up. */
  let used = 0;
  /** What has been told since the last whole pass: what cannot be mended is found at each attempt. */
  const told = new Set<string>();

  const damaged = (): number => (pass === undefined ? 0 : pass.broken.size + pass.again.size);

  function found(kind: Damage, path: string): void {
    const what = `${kind} ${path}`;
    if (told.has(what)) return;
    told.add(what);
    metrics.add("edgesync_sidecar_scrub_damage_total", { kind });
    log.warn({ reason: kind, detail: path }, "installed release is damaged");
  }

  function mended(path: string): void {
    repaired += 1;
    metrics.add("edgesync_sidecar_scrub_repairs_total", {});
    log.info({ detail: path }, "installed release repaired");
  }

  async function keepRate(signal: AbortSignal): Promise<void> {
    const waitMs = used - clock.monotonic();
    if (waitMs >= LEAST_SLEEP_MS) await clock.sleep(waitMs, signal);
    signal.throwIfAborted();
  }

  async function begin(bank: Bank, volume: Volume, signal: AbortSignal): Promise<Pass> {
    const { store } = volume;
    let release = await store.manifest(bank.id, signal);
    if (release?.tree !== bank.tree) {
      found("manifest", store.manifestPath(bank.id));
      release = await bringBankManifest(bank, { ...deps, volume }, signal);
      mended(store.manifestPath(bank.id));
    }
    const folder = store.bankPath(bank.id);
    return {
      bank,
      volume,
      release,
      folder,
      next: 0,
      reading: undefined,
      broken: new Set(),
      again: new Set(),
      fetched: new Set(),
    };
  }

  async function checkEntry(now: Pass, number: number, signal: AbortSignal): Promise<void> {
    const entry = now.release.entries.at(number);
    const path = join(now.folder, entry.path);
    const stat = await disk.stat(path);
    const target = stat?.kind === "symlink" ? await disk.readLink(path) : undefined;
    const damage = damageOf(entry, stat && { ...stat, target }, modeOf(entry));
    if (damage !== undefined) found(damage, entry.path);
    if (damage === "mode") {
      await disk.chmod(path, modeOf(entry));
      mended(entry.path);
    }
    if (entry.type === "file") {
      if (damage === undefined || damage === "mode") {
        if (await isSound(now, number, path, signal)) return;
        found("content", entry.path);
      }
      now.broken.add(number);
    } else if (damage !== undefined && damage !== "mode") {
      if (stat?.kind === "directory") await disk.removeTree(path);
      if (entry.type === "symlink") await replaceLink(disk, now.volume, path, entry.target);
      else {
        await disk.remove(path);
        await disk.makeDirectory(path, DIRECTORY_MODE);
      }
      await disk.syncDirectory(dirname(path));
      mended(entry.path);
    }
  }

  /** Whether a file has its bytes. What cannot be read has not. */
  async function isSound(
    now: Pass,
    number: number,
    path: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { release, broken, folder } = now;
    const content = release.contentOf(number);
    if (content === undefined) return true;
    const { sha256, size } = release.contents.at(content);
    const stat = await disk.stat(path);
    if (stat?.size !== size) return false;
    const first = release.firstEntryOf(content);
    // Equal files are links to each other, and have been read.
    if (first !== number && !broken.has(first)) {
      const twin = await disk.stat(join(folder, release.entries.at(first).path));
      if (twin?.identity === stat.identity) return true;
    }
    if (now.reading?.changed !== stat.changed)
      now.reading = { changed: stat.changed, hash: createHash("sha256"), at: 0 };
    const { reading } = now;
    const before = reading.at;
    try {
      await using file = await disk.openRead(path);
      if (file === undefined) return false;
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK, size));
      while (reading.at < size) {
        await keepRate(signal);
        const chunk = buffer.subarray(0, Math.min(CHUNK, size - reading.at));
        await file.readInto(chunk, reading.at);
        reading.hash.update(chunk);
        reading.at += chunk.byteLength;
        used = usedUntil(used, clock.monotonic(), chunk.byteLength, rate);
      }
    } catch (cause) {
      if (codeOf(cause) !== "DISK_FAILED") throw cause;
      now.reading = undefined;
      return false;
    } finally {
      metrics.add("edgesync_sidecar_scrub_bytes_total", {}, reading.at - before);
    }
    now.reading = undefined;
    return reading.hash.digest("hex") === sha256;
  }

  /** What is in a directory and not in the release. */
  async function removeExtra({ release, folder }: Pass, signal: AbortSignal): Promise<void> {
    const counts = new Map<string, number>([["", 0]]);
    for (const { path, type } of release.entries) {
      counts.set(parentOf(path), (counts.get(parentOf(path)) ?? 0) + 1);
      if (type === "directory") counts.set(path, 0);
    }
    for (const [directory, count] of counts) {
      signal.throwIfAborted();
      const items = await disk.list(join(folder, directory));
      // An entry that is missing as well is found once it is there again.
      if (items.length <= count) continue;
      const names = new Set<string>();
      for (const { path } of release.entries)
        if (parentOf(path) === directory)
          names.add(path.slice(directory === "" ? 0 : directory.length + 1));
      for (const { name, kind } of items) {
        if (names.has(name)) continue;
        const path = join(directory, name);
        found("extra", path);
        if (kind === "directory") await disk.removeTree(join(folder, path));
        else await disk.remove(join(folder, path));
        mended(path);
      }
      await disk.syncDirectory(join(folder, directory));
    }
  }

  async function mend(now: Pass, signal: AbortSignal): Promise<void> {
    if (now.broken.size === 0) return;
    measure();
    const { bank, release, folder, volume, broken, fetched } = now;
    const done = (number: number): void => {
      broken.delete(number);
      mended(release.entries.at(number).path);
    };
    await repairFiles(
      { id: bank.id, release, folder, broken, fetched },
      done,
      { ...deps, volume },
      signal,
    );
  }

  function measure(): void {
    metrics.set("edgesync_sidecar_scrub_damaged", {}, damaged());
  }

  /** @returns when to try again, in monotonic milliseconds */
  function failed(cause: unknown): number {
    failures += 1;
    const code = codeOf(cause);
    error = { code, message: cause instanceof Error ? cause.message : String(cause) };
    const delayMs = repairAgainMs(failures, intervalMs, random);
    measure();
    log.warn({ err: cause, code, delayMs }, "installed release not repaired");
    return clock.monotonic() + delayMs;
  }

  /** @returns what stands in the way */
  async function attempt(
    now: Pass,
    number: number,
    signal: AbortSignal,
  ): Promise<{ readonly cause: unknown } | undefined> {
    signal.throwIfAborted();
    try {
      await checkEntry(now, number, signal);
      now.again.delete(number);
      return undefined;
    } catch (cause) {
      signal.throwIfAborted();
      now.again.add(number);
      return { cause };
    }
  }

  async function run(bank: Bank, volume: Volume, signal: AbortSignal): Promise<void> {
    if (pass !== undefined && (pass.bank.id !== bank.id || pass.volume !== volume)) {
      pass = undefined;
      told.clear();
    }
    pass ??= await begin(bank, volume, signal);
    const now = pass;
    // What cannot be mended must not keep the rest from being verified.
    let mendAt = -Infinity;
    while (now.next < now.release.entries.length) {
      await attempt(now, now.next, signal);
      now.next += 1;
      if (now.broken.size < TOGETHER || clock.monotonic() < mendAt) continue;
      try {
        await mend(now, signal);
      } catch (cause) {
        signal.throwIfAborted();
        mendAt = failed(cause);
      }
    }
    let trouble: { readonly cause: unknown } | undefined;
    for (const number of now.again) {
      const left = await attempt(now, number, signal);
      trouble ??= left;
    }
    await mend(now, signal);
    if (trouble !== undefined) throw trouble.cause;
    await removeExtra(now, signal);
    await volume.downloads.discard([...now.fetched]);
    pass = undefined;
    told.clear();
    failures = 0;
    error = null;
    lastPass = clock.now();
    due = clock.monotonic() + nextPassMs(intervalMs, random);
    metrics.set("edgesync_sidecar_scrub_last_pass_timestamp_seconds", {}, lastPass / 1000);
    measure();
    log.debug({ version: now.release.version }, "installed release verified");
  }

  async function workUntilDone(bank: Bank, signal: AbortSignal): Promise<void> {
    for (;;) {
      await clock.sleep(Math.max(0, due - clock.monotonic()), signal);
      const volume = deps.volume();
      if (volume === undefined) return;
      try {
        // Built anew as a whole, by `rebuild.ts`.
        if ((await disk.stat(volume.store.bankPath(bank.id)))?.kind !== "directory") return;
        await run(bank, volume, signal);
      } catch (cause) {
        signal.throwIfAborted();
        due = failed(cause);
      }
    }
  }

  return {
    async work(bank, forMs, signal) {
      const over = new AbortController();
      const reason = new Error("the pause is over");
      const bounded = AbortSignal.any([signal, over.signal]);
      const ended = workUntilDone(bank, bounded).finally(() => over.abort(reason));
      const late = clock.sleep(forMs, bounded).finally(() => over.abort(reason));
      const outcomes = await Promise.allSettled([ended, late]);
      signal.throwIfAborted();
      for (const outcome of outcomes)
        if (outcome.status === "rejected" && outcome.reason !== reason) throw outcome.reason;
    },
    status: () => ({
      lastPass: lastPass === undefined ? null : new Date(lastPass).toISOString(),
      damaged: damaged(),
      repaired,
      error,
    }),
  };
}

function modeOf(entry: Entry): number {
  if (entry.type !== "file") return DIRECTORY_MODE;
  return (entry.mode & 0o111) === 0 ? FILE_MODE : EXECUTABLE_MODE;
}
