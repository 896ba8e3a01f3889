/** The bytes of a day, counted in `usage.json` on the payload volume, so that neither a restart nor a power cut gives a second budget. */
import { join } from "node:path";
import * as s from "valibot";
import { NO_USAGE, savedFor, usageAt } from "#core/budget.ts";
import type { Usage } from "#core/budget.ts";
import type { Clock } from "#core/clock.ts";
import type { SidecarMetrics } from "#core/telemetry.ts";
import { readSmallFile, replaceFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

export interface UsageBook {
  /** Reads what was saved. What cannot be read is a budget that is spent: a damaged disk must not cost money. */
  load(): Promise<void>;
  count(bytes: number): void;
  /** Saves what has been counted, where that is more than has been saved. @throws EdgeSyncError DISK_FULL or DISK_FAILED */
  save(): Promise<void>;
  today(): { readonly usage: Usage; readonly ranMs: number };
}

export interface UsageDeps {
  /** Of the payload volume. */
  readonly root: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly metrics: SidecarMetrics;
  /** Trusted time, in milliseconds since the epoch. */
  readonly now: () => number;
  /** Bytes a day; without one nothing is kept. */
  readonly budget: number | undefined;
}

/** Bytes. */
const FILE_LIMIT = 4096;

const count = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
const schema = s.object({ schema: s.literal(1), day: count, bytes: count });

export function openUsage(deps: UsageDeps): UsageBook {
  const { disk, clock, metrics, now, budget } = deps;
  const path = join(deps.root, "usage.json");
  let usage: Usage = NO_USAGE;
  /** What a crash would leave. */
  let saved: Usage = NO_USAGE;
  let saving: Promise<void> = Promise.resolve();
  /** Monotonic milliseconds at which this process saw the day begin. */
  let since = clock.monotonic();

  function today(): { readonly usage: Usage; readonly ranMs: number } {
    const after = usageAt(usage, now(), clock.monotonic() - since);
    if (after.day !== usage.day) since = clock.monotonic();
    usage = after;
    return { usage, ranMs: clock.monotonic() - since };
  }

  async function saveNow(limit: number): Promise<void> {
    if (usage.day === saved.day && usage.bytes <= saved.bytes) return;
    const next = savedFor(usage, limit);
    await replaceFile(disk, path, Buffer.from(`${JSON.stringify({ schema: 1, ...next })}\n`));
    saved = next;
  }

  return {
    today,
    async load() {
      if (budget === undefined) return;
      const { day } = today().usage;
      const spent = { day, bytes: budget };
      try {
        const bytes = await readSmallFile(disk, path, FILE_LIMIT);
        if (bytes === undefined) return;
        const parsed = s.safeParse(schema, jsonOf(bytes));
        saved = parsed.success ? parsed.output : spent;
      } catch {
        // The old release must come up all the same, and what else is wrong with the disk shows when it is used.
        saved = spent;
      }
      usage = saved;
      since = clock.monotonic();
    },
    count(bytes) {
      const { day, bytes: before } = today().usage;
      usage = { day, bytes: before + bytes };
      metrics.set("edgesync_sidecar_day_bytes", {}, usage.bytes);
    },
    save() {
      if (budget === undefined) return Promise.resolve();
      // One after the other: both write the same file beside it. That an earlier one failed is told to who asked for it.
      saving = saving.catch(() => undefined).then(() => saveNow(budget));
      return saving;
    },
  };
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // Not JSON: the schema says so.
    return undefined;
  }
}
