/** docs/benchmarks.md and its chart, from the lines of the bench. */
import { writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { format } from "prettier";
import { chart } from "./chart.ts";
import { CORPORA } from "./corpora.ts";
import type { Line } from "./measure.ts";
import type { Peer } from "./peers.ts";

const DOCS = resolve(import.meta.dirname, "../../docs");
const OURS = "edgesync";

type Results = ReadonlyMap<string, readonly Line[]>;

/** @param results the newest lines by corpus */
export async function writeReport(results: Results, peers: readonly Peer[]): Promise<void> {
  const text = [
    "# Deltas beside those of other tools",
    "<!-- Made by `npm run bench -- delta --docs`. -->",
    "Made by `npm run bench -- delta --docs` from real consecutive releases, fetched on demand and pinned by digest, and from weights that a committed generator makes. Every delta was applied and its result compared by SHA-256; a delta that fails that is not in a table.",
    "![Size of edgesync's deltas as a share of the best peer's](benchmarks.svg)",
    `A ratio is edgesync's bytes divided by those of the best peer. The peers: ${peers.map(({ name, about }) => `\`${name}\` is ${about}`).join("; ")}.`,
    "## Bytes",
    sizes(results, peers),
    "## Speed and memory",
    `Taken on ${new Date().toISOString().slice(0, 10)}, on ${cpus().length} processors (${cpus()[0]?.model.trim() ?? "unknown"}) with Node ${process.versions.node}; the fastest of three. ${loadOf(results)}Times are those of whole processes, so small files show mostly how long a process takes to start; "net" is without what the same command takes for a file of a few bytes, which a sidecar, as it goes on running, takes once. "Of copy" is the speed as a share of that of a process that only copies the same file and hashes it. RSS of a Node process has about 40 MiB of Node's own program in it, which all such processes share; RssAnon is what it has for itself. MiB are 2^20 bytes, MB are 10^6.`,
    speeds(results),
    missing(results),
  ].filter((part) => part !== "");
  const path = join(DOCS, "benchmarks.md");
  await writeFile(path, await format(text.join("\n\n"), { parser: "markdown", printWidth: 100 }));
  const bars = CORPORA.flatMap(({ name, about }) => {
    const ratio = own(results, name)?.ratio;
    return typeof ratio === "number" ? [{ label: about, ratio }] : [];
  });
  await writeFile(join(DOCS, "benchmarks.svg"), chart(bars));
}

/** A machine that was busy with other things must not pass for a slow one. */
function loadOf(results: Results): string {
  const loads = CORPORA.flatMap(({ name }) => own(results, name)?.load ?? []);
  if (loads.length === 0 || Math.max(...loads) <= cpus().length) return "";
  const [least, most] = [Math.min(...loads), Math.max(...loads)].map((load) => number(load));
  return `**The machine was busy with other work**, its load between ${least} and ${most}, so the speeds here are too low and only sizes and memory are exact. `;
}

function own(results: Results, corpus: string): Line | undefined {
  return results.get(corpus)?.find(({ peer }) => peer === OURS);
}

function sizes(results: Results, peers: readonly Peer[]): string {
  const head = ["corpus", "new file", ...peers.map(({ name }) => name), OURS, "ratio", "promised"];
  const rows = CORPORA.flatMap(({ name, about, atMost }) => {
    const lines = results.get(name);
    const mine = own(results, name);
    if (lines === undefined || mine?.newBytes === undefined) return [];
    const cells = peers.map((peer) => {
      const line = lines.find((candidate) => candidate.peer === peer.name);
      const bytes = number(line?.status === "ok" ? line.bytes : undefined);
      return peer.name === mine.bestPeer ? `**${bytes}**` : bytes;
    });
    return [
      [
        about,
        number(mine.newBytes),
        ...cells,
        mine.status === "ok" ? number(mine.bytes) : mine.status,
        typeof mine.ratio === "number" ? mine.ratio.toFixed(3) : "–",
        atMost === undefined ? "–" : `≤ ${atMost}`,
      ],
    ];
  });
  return table(head, rows);
}

function speeds(results: Results): string {
  const head = [
    "corpus",
    "make s",
    "make RSS MiB",
    "apply MB/s",
    "net",
    "of copy",
    "RSS MiB",
    "RssAnon MiB",
    "best peer",
    "its make s",
    "its apply MB/s",
    "its RSS MiB",
  ];
  const rows = CORPORA.flatMap(({ name, about }) => {
    const mine = own(results, name);
    if (mine?.status !== "ok") return [];
    const best = results.get(name)?.find(({ peer }) => peer === mine.bestPeer);
    return [
      [
        about,
        number(mine.makeSeconds, 1),
        number(mine.makeRssMiB),
        number(mine.applyMBps),
        number(mine.applyNetMBps),
        mine.copyShare === undefined ? "–" : mine.copyShare.toFixed(2),
        number(mine.applyRssMiB),
        number(mine.applyRssAnonMiB, 1),
        best?.peer ?? "–",
        number(best?.makeSeconds, 1),
        number(best?.applyMBps),
        number(best?.applyRssMiB),
      ],
    ];
  });
  return table(head, rows);
}

/** What the tables lack, said in words. */
function missing(results: Results): string {
  const notes = CORPORA.flatMap(({ name, about, without, onRequest }) => {
    const lines = results.get(name);
    if (lines === undefined) return onRequest === true ? [] : [`- ${about}: not measured`];
    const skipped = without?.map((peer) => `- ${about}: not tried with \`${peer}\``) ?? [];
    const failed = lines
      .filter(({ status }) => status !== "ok")
      .map(({ peer, status, why }) => `- ${about}: \`${peer}\` ${status}${reason(why)}`);
    return [...(onRequest === true ? [] : skipped), ...failed];
  });
  return notes.length === 0 ? "" : ["## Not in the tables", "", ...notes].join("\n");
}

/** Without the command line, which has the paths of this machine in it. */
function reason(why: string | undefined): string {
  const limit = /gave up after \d+ s/.exec(why ?? "")?.[0];
  return limit === undefined ? "" : `, ${limit}`;
}

function number(value: number | null | undefined, digits = 0): string {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const align = head.map((_, index) => (index === 0 ? "---" : "--:"));
  return [line(head), line(align), ...rows.map(line)].join("\n");
}
