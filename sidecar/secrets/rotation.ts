/** Tells the application that its secrets have changed, as annotation `on-rotate` says; when is decided by `src/rotation.ts`. */
import { createHash } from "node:crypto";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import { beginTelling, endTelling, noRotation, publishedSet, tellAt } from "#core/rotation.ts";
import type { Rotation } from "#core/rotation.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import type { SecretFile } from "./publication.ts";

/** How the application is told; given by the sidecar, whose application it is. */
export interface RotateHook {
  /** Whether nothing that must not be disturbed is under way. To be asked again every second or so, or the place in line is lost. */
  mayTell(): boolean;
  /** Tells the application, in a bounded time. @returns what stood in the way, `undefined` when it has been told */
  tell(signal: AbortSignal): Promise<string | undefined>;
  /** It is over, however it ended. */
  ended(): void;
}

export interface RotationStatus {
  /** `failed`: it was given up. `interrupted`: the sidecar ended while it told; it is not told twice. */
  readonly state: "idle" | "waiting" | "telling" | "told" | "failed" | "interrupted";
  readonly detail?: string;
}

export interface RotationDeps {
  readonly hook: RotateHook;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Saves the state, in which `saved` is. @throws EdgeSyncError DISK_FULL, DISK_FAILED */
  readonly save: () => Promise<void>;
  /** The application has been told of all that is published, or will not be. */
  readonly settled: () => void;
}

/** What the next process must know. */
export interface SavedRotation {
  readonly told?: string | undefined;
  readonly telling: boolean;
}

export interface RotationTeller {
  run(signal: AbortSignal): Promise<void>;
  published(files: readonly SecretFile[]): void;
  readonly saved: SavedRotation;
  /** Whether there is something that the application has not been told of yet. */
  readonly isBusy: boolean;
  status(): RotationStatus;
}

/** Milliseconds between two questions whether the application may be told, and two attempts to save. */
const AGAIN_MS = 1_000;

export function openRotation(
  deps: RotationDeps,
  resumed: SavedRotation | undefined,
): RotationTeller {
  const { hook, clock, log, metrics } = deps;
  const alarm = openAlarm(clock);
  let rotation: Rotation = { ...noRotation, told: resumed?.told };
  let last: RotationStatus = { state: "idle" };

  const end = (status: RotationStatus): void => {
    last = status;
    const outcome = status.state === "told" ? "ok" : status.state;
    metrics.add("edgesync_sidecar_rotation_hooks_total", { outcome });
    const fields = { outcome, ...(status.detail === undefined ? {} : { detail: status.detail }) };
    if (status.state === "told") log.info(fields, "the application was told of its new secrets");
    else log.warn(fields, "the application was not told of its new secrets");
  };
  if (resumed?.telling === true) end({ state: "interrupted" });

  const tell = async (signal: AbortSignal): Promise<void> => {
    rotation = beginTelling(rotation);
    try {
      await deps.save();
      const detail = await hook.tell(signal);
      end(detail === undefined ? { state: "told" } : { state: "failed", detail });
    } catch (error) {
      signal.throwIfAborted();
      end({ state: "failed", detail: codeOf(error) });
    } finally {
      if (!signal.aborted) rotation = endTelling(rotation);
      hook.ended();
    }
    if (rotation.due === undefined) deps.settled();
  };

  return {
    async run(signal) {
      for (;;) {
        await alarm.until(tellAt(rotation), signal);
        if (tellAt(rotation) > clock.monotonic()) continue;
        if (hook.mayTell()) await tell(signal);
        else await clock.sleep(AGAIN_MS, signal);
      }
    },
    published(files) {
      rotation = publishedSet(rotation, digestOf(files), clock.monotonic());
      alarm.ring();
    },
    get saved() {
      const { told, telling } = rotation;
      return { told, telling };
    },
    get isBusy() {
      return rotation.due !== undefined || rotation.telling;
    },
    status() {
      if (rotation.telling) return { state: "telling" };
      return rotation.due === undefined ? last : { state: "waiting" };
    },
  };
}

function digestOf(files: readonly SecretFile[]): string {
  const hash = createHash("sha256");
  for (const { name, mode, bytes } of files)
    hash.update(`${name}\0${mode}\0${bytes.byteLength}\0`).update(bytes);
  return hash.digest("base64url");
}
