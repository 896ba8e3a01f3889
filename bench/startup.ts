import { temporaryFolder } from "../test/support/temporary.ts";
import { buildSubjects, median, round, start } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

/** One more is made first and thrown away, which brings the files into the page cache. */
const ROUNDS = 11;

/** Milliseconds from spawn to the first 200, the median of several; the programs take turns, so that all meet the same noise. */
export async function* startup(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  const subjects = await buildSubjects(folder.path);
  const times = new Map<string, number[]>(subjects.map(({ name }) => [name, []]));
  for (let turn = 0; turn <= ROUNDS; turn++)
    for (const subject of subjects) {
      await using running = await start(subject);
      if (turn > 0) times.get(subject.name)?.push(running.startMs);
    }
  const medianOf = (name: string): number => median(times.get(name) ?? []);
  for (const { name } of subjects)
    for (const peer of peersOf(name)) {
      const value = medianOf(name);
      yield {
        subject: name,
        metric: "start",
        value: round(value),
        unit: "ms",
        peer,
        ratio: peer === null ? null : round(value / medianOf(peer)),
      };
    }
}

/** Against whom a program's figures are given. */
export function peersOf(name: string): readonly (string | null)[] {
  if (name === "sidecar") return ["bare", "libraries"];
  return name === "libraries" ? ["bare"] : [null];
}
