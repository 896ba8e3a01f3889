/**
 * `npm run bench -- delta [--docs] [corpus…]`: deltas of real releases and of weights, beside those of bsdiff, xdelta3, zstd and
 * HDiffPatch. One JSON object on each line; see `Line` for what stands in it. What cannot be had (no network, no program) is on a line of
 * its own with the status "missing". Without HDiffPatch, the strongest peer, there are no ratios.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { temporaryFolder } from "../test/support/temporary.ts";
import { cacheFolder, exists } from "./delta/cache.ts";
import { CORPORA } from "./delta/corpora.ts";
import { measureCorpus } from "./delta/measure.ts";
import type { Line } from "./delta/measure.ts";
import { buildOurs } from "./delta/ours.ts";
import { peersFor } from "./delta/peers.ts";
import { writeReport } from "./delta/report.ts";

/**
 * @param args names of corpora, all but those on request without any; `--docs` makes docs/benchmarks.md of the newest lines of every corpus
 * @throws Error when a name is not known
 */
export async function* delta(args: readonly string[]): AsyncGenerator<object> {
  const names = args.filter((arg) => arg !== "--docs");
  const unknown = names.filter((name) => !CORPORA.some((corpus) => corpus.name === name));
  if (unknown.length > 0) {
    const known = CORPORA.map(({ name }) => name).join(", ");
    throw new Error(`${unknown.join(", ")} is no corpus; there are ${known}`);
  }
  const chosen = CORPORA.filter(({ name, onRequest }) =>
    names.length > 0 ? names.includes(name) : onRequest !== true,
  );
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort(new Error("interrupted")));
  // On the same disk as the corpora: a temporary folder in memory would make applying look faster than it is.
  await using folder = await temporaryFolder(await cacheFolder("work"));
  const bench = {
    ours: await buildOurs(folder.path, stop.signal),
    peers: peersFor(process.env),
    env: process.env,
    folder: folder.path,
  };
  if (!bench.peers.some(({ name }) => name.startsWith("hdiff")))
    yield {
      peer: "hdiff",
      status: "missing",
      why: "HDIFFZ and HPATCHZ name no HDiffPatch, the strongest peer: there are no ratios",
    };
  for (const corpus of chosen) {
    const lines: Line[] = [];
    for await (const line of measureCorpus(corpus, bench, stop.signal)) {
      lines.push(line);
      yield line;
    }
    await writeFile(await resultsOf(corpus.name), JSON.stringify(lines));
  }
  if (args.includes("--docs")) {
    const results = new Map<string, readonly Line[]>();
    for (const { name } of CORPORA) {
      const file = await resultsOf(name);
      if (await exists(file))
        results.set(name, JSON.parse(await readFile(file, "utf8")) as readonly Line[]);
    }
    await writeReport(results, bench.peers);
  }
}

async function resultsOf(corpus: string): Promise<string> {
  return join(await cacheFolder("results"), `${corpus}.json`);
}
