/**
 * What the application has: the set is written whenever something has changed, once every declared secret is there. Saved before it is
 * shown, tried again when the volume refuses it, and never taken away.
 */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import { expiries } from "./expiry.ts";
import type { ExpiryRow } from "./expiry.ts";
import type { Memory } from "./memory.ts";
import type { Offline } from "./offline.ts";
import type { Publication, SecretFile } from "./publication.ts";
import type { Save } from "./resume.ts";
import type { Retirement, RetiredLease } from "./retired-leases.ts";
import type { RotationTeller } from "./rotation.ts";
import type { Source, Version } from "./source.ts";
import type { TokenKeeper } from "./vault-token.ts";

/** That there is something to save, and perhaps to show. */
export interface Changes {
  mark(): void;
  /** Whether something was marked since this was last asked. */
  take(): boolean;
  marked(signal: AbortSignal): Promise<void>;
}

export function openChanges(clock: Clock): Changes {
  const alarm = openAlarm(clock);
  // What was saved by a process before this one is to be looked at, too.
  let isMarked = true;
  return {
    mark() {
      isMarked = true;
      alarm.ring();
    },
    take() {
      const taken = isMarked;
      isMarked = false;
      return taken;
    },
    marked: (signal) => alarm.until(Number.POSITIVE_INFINITY, signal),
  };
}

export interface ShownSetDeps {
  readonly changes: Changes;
  readonly memory: Memory;
  readonly publication: Publication;
  readonly save: Save;
  readonly sources: readonly Source[];
  readonly keeper: Pick<TokenKeeper, "code">;
  readonly retirement: Pick<Retirement, "pending" | "published">;
  readonly offline: Offline | undefined;
  readonly teller: RotationTeller | undefined;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

export interface ShownSet {
  /** Writes whatever changes, until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** Nothing is written from here on. */
  end(): void;
  /** The application has been told of all that is shown, or will not be. */
  settled(): void;
  readonly isPublished: boolean;
  /** Sets that followed another. */
  readonly rotations: number;
  /** Why the last set could not be written. */
  readonly code: ErrorCode | undefined;
  rows(): readonly ExpiryRow[];
}

/** Milliseconds between two attempts to write the set, at most. */
const RETRY_CAP_MS = 60_000;

export function openShownSet(deps: ShownSetDeps): ShownSet {
  const { changes, publication, sources, retirement, offline, teller } = deps;
  const { clock, random, log, metrics } = deps;
  let isEnded = false;
  let isPublished = false;
  let rotations = 0;
  let shown: ReadonlyMap<Source, Version> = new Map();
  let code: ErrorCode | undefined;
  /** Leases whose successors are shown, and of which the application has not been told. */
  const unsettled = new Set<RetiredLease>();

  const rows = (): readonly ExpiryRow[] =>
    expiries(sources, shown, clock).map((row) => {
      const expiresAt = offline?.endOf(row.name);
      return expiresAt === undefined ? row : { ...row, isShown: true, expiresAt };
    });

  /** Saves, then shows: a set whose credentials nobody remembers must not be seen. */
  const write = async (): Promise<void> => {
    await deps.memory.check();
    const followed = retirement.pending();
    const versions = await deps.save();
    // What only a template calls for is its own to wait for.
    if (sources.some((source) => source.secrets.length > 0 && !versions.has(source)))
      return showSealed();
    const files = [...versions.values()].flatMap((version) => version.files);
    const swapped = await publication.publish(files);
    if (swapped && (isPublished || publication.wasPublished)) {
      rotations++;
      metrics.add("edgesync_sidecar_rotations_total", {});
    }
    if (swapped) log.info({ outcome: "ok" }, "the set of secrets was published");
    shown = versions;
    isPublished = true;
    teller?.published(files);
    // Who has not been told yet goes on with what the leases before have issued.
    const waits = teller?.isBusy === true;
    if (waits) for (const lease of followed) unsettled.add(lease);
    retirement.published(waits ? [] : followed, swapped);
    if (swapped && teller !== undefined) await deps.save();
    await keepSealed(files, versions);
  };

  /** What was kept for a start without a link, while Vault has not given everything. */
  const showSealed = async (): Promise<void> => {
    const sealed = await offline?.instead();
    if (sealed === undefined) return;
    await publication.publish(sealed);
    isPublished = sealed.length > 0;
    if (isPublished) teller?.published(sealed);
  };

  const keepSealed = async (
    files: readonly SecretFile[],
    versions: ReadonlyMap<Source, Version>,
  ): Promise<void> => {
    const now = expiries(sources, shown, clock);
    const vouched = deps.keeper.code === undefined && now.every((row) => row.code === undefined);
    const isLeased = [...versions.values()].some(({ leaseId }) => leaseId !== undefined);
    const secrets = now.map(({ name, expiresAt: endsAt }) => ({
      name,
      ...(endsAt === undefined ? {} : { endsAt: Math.floor(endsAt) }),
    }));
    await offline?.good({ files, secrets, isLeased }, vouched);
  };

  const report = (): void => {
    metrics.clear("edgesync_sidecar_lease_expiry_timestamp_seconds");
    for (const { name, expiresAt } of rows())
      if (expiresAt !== undefined)
        metrics.set(
          "edgesync_sidecar_lease_expiry_timestamp_seconds",
          { secret: name },
          Math.round(expiresAt / 1_000),
        );
  };

  return {
    async run(signal) {
      for (let attempt = 0; ;) {
        if (isEnded || !changes.take()) {
          await changes.marked(signal);
          continue;
        }
        try {
          await write();
          code = undefined;
          attempt = 0;
        } catch (error) {
          changes.mark();
          code = codeOf(error);
          const delayMs = Math.max(1_000, backoffMs(attempt++, random, RETRY_CAP_MS));
          log.error({ code, err: error, attempt, delayMs }, "the secrets could not be written");
          // Whatever changes meanwhile does not make room.
          await clock.sleep(delayMs, signal);
        }
        report();
      }
    },
    end() {
      isEnded = true;
    },
    settled() {
      retirement.published([...unsettled], false);
      unsettled.clear();
      changes.mark();
    },
    get isPublished() {
      return isPublished;
    },
    get rotations() {
      return rotations;
    },
    get code() {
      return code;
    },
    rows,
  };
}
