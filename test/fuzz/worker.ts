/** A part of the runs in a thread of its own, so that one that never ends can be told from outside. */
import process from "node:process";
import { parentPort, workerData } from "node:worker_threads";
import { openFuzzer } from "./judge.ts";
import type { Outcome } from "./judge.ts";
import { openTemplateFuzzer } from "./templates.ts";

export interface Work {
  readonly seed: number;
  /** Runs `first`, `first + step`, … below `end`. */
  readonly first: number;
  readonly step: number;
  readonly end: number;
  /** The worker writes the run that it is at to its place. */
  readonly places: Int32Array;
  readonly place: number;
}

export interface Report {
  /** Of deltas. */
  readonly counts: Readonly<Record<Outcome, number>>;
  readonly templates: number;
  /** Bytes of the whole process. */
  readonly rss: number;
  readonly failures: readonly string[];
}

/** One run in so many changes a template too. */
const TEMPLATE_EVERY = 4;

/** Runs between two reports. */
const REPORT = 500;

if (parentPort !== null) {
  const { seed, first, step, end, places, place } = workerData as Work;
  const [deltas, texts] = [await openFuzzer(), openTemplateFuzzer()];
  const counts = { same: 0, different: 0, refused: 0 };
  let failures: string[] = [];
  let [done, templates] = [0, 0];
  for (let number = first; number < end; number += step) {
    Atomics.store(places, place, number);
    try {
      counts[await deltas.run(seed, number)]++;
      // By the number alone, so that a run can be repeated; not by its last bit, which is a thread's own.
      if ((number >> 4) % TEMPLATE_EVERY === 0) {
        await texts.run(seed, number);
        templates++;
      }
    } catch (error) {
      failures.push(describe(error));
    }
    if (++done % REPORT === 0 || number + step >= end) {
      const report: Report = { counts, templates, failures, rss: process.memoryUsage.rss() };
      parentPort.postMessage(report, []);
      failures = [];
    }
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? `\n${error.cause.stack ?? error.cause.message}` : "";
  return `${error.message}${cause}`;
}
