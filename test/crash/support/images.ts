/** Which of the images that a power cut may leave are looked at: each where there are few, else the worst and some by chance. */
import type { Chooser, CrashDisk, Drawn } from "../../support/crash-model.ts";
import { randomOf } from "../../support/random.ts";

const last = (made: readonly number[]): number => made.length - 1;

/** Each name, mode and stretch of bytes for itself. */
function byChance(random: () => number): Chooser {
  // Some images have lost nearly all, some nearly nothing, and most are between.
  const keep = random();
  return ({ made }) =>
    random() < keep ? last(made) : Math.floor(random() * Math.max(1, last(made)));
}

/** A journalling file system: operations on names reach the platter in their order, up to one of them. */
function inOrder(until: number, bytes: "lost" | "kept"): Chooser {
  return ({ of, made }) => {
    if (of === "bytes" && bytes === "lost") return 0;
    return made.findLastIndex((number) => number <= until);
  };
}

/** All is well but for one operation, or nothing is. */
function besides(number: number, lost: boolean): Chooser {
  return ({ of, made }) => {
    const at = made.indexOf(number);
    if (lost) return made.at(-1) === number ? last(made) - 1 : last(made);
    return of === "bytes" ? last(made) : Math.max(0, at);
  };
}

const EXTREMES: readonly Chooser[] = [
  // Nothing that was not synced.
  () => 0,
  // Everything: a kill, no power cut.
  ({ made }) => last(made),
  // Names without their bytes: files of length 0.
  ({ of, made }) => (of === "bytes" ? 0 : last(made)),
  // Names and lengths without their bytes: zeros.
  ({ of, made }) => (of === "bytes" ? 2 : last(made)),
  // What was made is there, what was removed is too.
  ({ of, made }) => (of === "name" ? Math.min(1, last(made)) : last(made)),
];

export interface Sample {
  readonly seed: string;
  /** Images by chance, besides those that are always looked at. */
  readonly random: number;
  /** So many cases are few. */
  readonly few: number;
}

/** The images of a power cut now, each once. */
export function imagesAt(disk: CrashDisk, { seed, random, few }: Sample): readonly Drawn[] {
  const every = disk.everyImage(few);
  if (every !== undefined) return every;
  const now = disk.count();
  const ordered = [1, 2, 3, 5, 8].flatMap((ago) => [
    inOrder(now - ago, "lost"),
    inOrder(now - ago, "kept"),
  ]);
  const alone = [1, 2, 3, 4, 6].flatMap((ago) => [
    besides(now - ago, true),
    besides(now - ago, false),
  ]);
  const chances = Array.from({ length: random }, (_, index) =>
    byChance(randomOf(`${seed}/${index}`)),
  );
  const found = new Map<string, Drawn>();
  for (const choose of [...EXTREMES, ...ordered, ...alone, ...chances]) {
    const drawn = disk.draw(choose);
    found.set(drawn.fingerprint, drawn);
  }
  return [...found.values()];
}
