/**
 * `npm run fuzz [-- --runs <n>] [--seed <n>] [--from <n>]`: changes valid deltas of every codec and has them decoded; in one run of four
 * it also changes a valid template and has it rendered. Ends with 0 when each was refused with its own code or made a file of the declared size, or a text, none took long, and memory stayed within its bound. A failure names
 * the seed and the run; `--seed S --from R --runs 1` repeats it.
 */
import { availableParallelism } from "node:os";
import process from "node:process";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { OUTCOMES, RUN_LIMIT_MS } from "./judge.ts";
import type { Report, Work } from "./worker.ts";

/** MiB for the process, with all its threads: what a few decoders of a few MiB each and uncollected garbage can come to. */
const BASE_RSS = 300;
const WORKER_RSS = 200;
const MAX_FAILURES = 10;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    from: { type: "string", default: "0" },
  },
});
const [runs, seed, from] = [Number(values.runs), Number(values.seed), Number(values.from)];
if (![runs, seed, from].every((value) => Number.isSafeInteger(value) && value >= 0)) {
  process.stderr.write("fuzz: --runs, --seed and --from take whole numbers\n");
  process.exit(64);
}
process.stdout.write(`fuzz: ${runs} runs with seed ${seed}\n`);

const count = Math.max(1, Math.min(runs, availableParallelism()));
const limit = BASE_RSS + count * WORKER_RSS;
const places = new Int32Array(new SharedArrayBuffer(4 * count));
const reports: (Report | undefined)[] = Array.from({ length: count });
let failures = 0;
let peak = 0;

function fail(text: string): void {
  process.stdout.write(`fuzz: FAILED: ${text}\n`);
  if (++failures >= MAX_FAILURES) process.exit(1);
}

function begin(place: number): Promise<void> {
  const work: Work = { seed, first: from + place, step: count, end: from + runs, places, place };
  const worker = new Worker(new URL("./worker.ts", import.meta.url), {
    workerData: work,
    resourceLimits: { maxOldGenerationSizeMb: 128 },
  });
  worker.on("message", (report: Report) => {
    reports[place] = report;
    for (const failure of report.failures) fail(failure);
    const rss = report.rss / 2 ** 20;
    if (rss > limit && peak <= limit) fail(`${Math.round(rss)} MiB, at most ${limit} are allowed`);
    peak = Math.max(peak, rss);
  });
  return new Promise((resolve) => {
    worker.on("error", (error) => {
      fail(`run ${places[place]}: ${String(error)}`);
    });
    worker.on("exit", () => {
      resolve();
    });
  });
}

/** Prints how far it is, and ends everything when a thread stays at one run. */
let seen: readonly number[] = [];
let still = 0;
const TICK_MS = 5_000;
const watch = setInterval(() => {
  const now = [...places];
  still = now.some((run, place) => run === seen[place]) ? still + TICK_MS : 0;
  seen = now;
  const stuck = reports.some((report) => report === undefined)
    ? 6 * RUN_LIMIT_MS
    : 2 * RUN_LIMIT_MS;
  if (still > stuck) {
    fail(`a thread does not end: they are at the runs ${now.join(", ")}`);
    process.exit(1);
  }
  process.stdout.write(`fuzz: ${summary()}\n`);
}, TICK_MS);

function summary(): string {
  const sums = OUTCOMES.map((outcome) => {
    const sum = reports.reduce((total, report) => total + (report?.counts[outcome] ?? 0), 0);
    return `${sum} ${outcome}`;
  });
  const templates = reports.reduce((total, report) => total + (report?.templates ?? 0), 0);
  return `deltas: ${sums.join(", ")}; templates: ${templates}; ${Math.round(peak)} MiB`;
}

await Promise.all(Array.from({ length: count }, (_, place) => begin(place)));
clearInterval(watch);
process.stdout.write(`fuzz: ${summary()}, ${failures} failures with seed ${seed}\n`);
process.exitCode = failures === 0 ? 0 : 1;
