/** One corpus: every peer makes its delta (or has made it before) and applies it now, edgesync likewise. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { cacheFolder, exists } from "./cache.ts";
import type { Corpus, Pair } from "./corpora.ts";
import { digestOf } from "./ours.ts";
import type { Ours } from "./ours.ts";
import { identityOf } from "./peers.ts";
import type { Files, Peer } from "./peers.ts";
import { runAll } from "./process.ts";
import type { Usage } from "./process.ts";

export interface Line {
  readonly corpus: string;
  readonly peer: string;
  readonly status: "ok" | "missing" | "failed";
  /** What is missing, or what went wrong. */
  readonly why?: string;
  /** Of the delta. */
  readonly bytes?: number;
  /** Of the new file. */
  readonly newBytes?: number;
  /** On a peer's line edgesync's bytes divided by the peer's; on edgesync's own, by those of the best peer. Null without HDiffPatch. */
  readonly ratio?: number | null;
  readonly bestPeer?: string;
  readonly atMost?: number;
  /** Null when the delta was made in an earlier run: a speed is only worth something beside the others of its run. */
  readonly makeSeconds?: number | null;
  readonly makeRssMiB?: number;
  /** With the start of the process. */
  readonly applyMBps?: number;
  /** Without the start of the command; only edgesync's. */
  readonly applyNetMBps?: number;
  readonly applyRssMiB?: number;
  readonly applyRssAnonMiB?: number;
  readonly verified?: boolean;
  /** Apply speed as a share of the speed of copy + SHA-256 of the same file in the same run, both with Node's start. */
  readonly copyShare?: number;
  /** Processes that wanted a processor, of the last minute: speeds are only worth something when there are as many processors. */
  readonly load?: number;
}

interface Delta {
  readonly file: string;
  readonly make: Usage;
  readonly fresh: boolean;
}

/** As long as bsdiff may need for weights on a busy machine. */
const MAKE_LIMIT_SECONDS = 7_200;
const APPLY_LIMIT_SECONDS = 600;
/** Applied so often; the fastest counts. */
const ROUNDS = 3;

export interface Bench {
  readonly ours: Ours;
  readonly peers: readonly Peer[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly folder: string;
}

/** Lines of the peers, then edgesync's. */
export async function* measureCorpus(
  corpus: Corpus,
  { ours, peers, env, folder }: Bench,
  signal: AbortSignal,
): AsyncGenerator<Line> {
  let pair: Pair;
  try {
    pair = await corpus.prepare(signal);
  } catch (error) {
    signal.throwIfAborted();
    yield { corpus: corpus.name, peer: "edgesync", status: "missing", why: String(error) };
    return;
  }
  const newBytes = (await stat(pair.target)).size;
  const digests = { old: await digestOf(pair.old), target: await digestOf(pair.target) };
  const out = join(folder, "out");
  const base = { corpus: corpus.name, newBytes };

  async function applied(peer: Peer, files: Files, expected: string): Promise<Partial<Line>> {
    let best = Number.POSITIVE_INFINITY;
    let verified = true;
    for (let round = 0; round < ROUNDS; round++) {
      await rm(out, { recursive: true, force: true });
      const usage = await runAll(peer.apply(files), false, APPLY_LIMIT_SECONDS, signal);
      best = Math.min(best, usage.seconds);
      verified &&= (await digestOf(out)) === expected;
    }
    // Looking at memory costs time: once more, and not timed.
    await rm(out, { recursive: true, force: true });
    const { rss, anon } = await runAll(peer.apply(files), true, APPLY_LIMIT_SECONDS, signal);
    return {
      applyMBps: round3(newBytes / 1e6 / best),
      applyRssMiB: round3(rss),
      applyRssAnonMiB: round3(anon),
      verified,
    };
  }

  const own = await measureOwn();
  const ownBytes = own.bytes;
  const complete = peers.some(({ name }) => name.startsWith("hdiff"));
  const ratioTo = (bytes: number): number | null =>
    complete && ownBytes !== undefined ? round4(ownBytes / bytes) : null;

  const sizes: [number, string][] = [];
  for (const peer of peers) {
    if (corpus.without?.includes(peer.name) === true) continue;
    const line = await measurePeer(peer);
    if (line.bytes !== undefined && line.verified === true) sizes.push([line.bytes, peer.name]);
    yield line;
  }
  const [best] = sizes.sort(([a], [b]) => a - b);
  yield {
    ...own,
    ...(best !== undefined && { ratio: ratioTo(best[0]), bestPeer: best[1] }),
    ...(corpus.atMost !== undefined && { atMost: corpus.atMost }),
  };

  async function measureOwn(): Promise<Line> {
    const files: Files = {
      old: pair.folders?.old ?? pair.old,
      target: pair.folders?.target ?? pair.target,
      delta: join(folder, "delta"),
      out,
    };
    const line = { ...base, peer: ours.peer.name };
    try {
      const make = await runAll(ours.peer.make(files), true, MAKE_LIMIT_SECONDS, signal);
      const applying = await applied(ours.peer, files, await digestOf(files.target));
      const copy = await fastest([
        ours.copy({ ...files, target: pair.target, out: `${out}.copy` }),
      ]);
      const start = await fastest([ours.start()]);
      const seconds = newBytes / 1e6 / (applying.applyMBps ?? Number.NaN);
      return {
        ...line,
        status: applying.verified === true ? "ok" : "failed",
        bytes: (await stat(files.delta)).size,
        makeSeconds: round3(make.seconds),
        makeRssMiB: round3(make.rss),
        ...applying,
        applyNetMBps: round3(newBytes / 1e6 / Math.max(0.001, seconds - start)),
        copyShare: round3(copy / seconds),
        load: round3(loadavg()[0] ?? Number.NaN),
      };
    } catch (error) {
      signal.throwIfAborted();
      return { ...line, status: "failed", why: String(error) };
    }
  }

  async function fastest(commands: Parameters<typeof runAll>[0]): Promise<number> {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < ROUNDS; round++)
      best = Math.min(best, (await runAll(commands, false, APPLY_LIMIT_SECONDS, signal)).seconds);
    return best;
  }

  async function measurePeer(peer: Peer): Promise<Line> {
    const line = { ...base, peer: peer.name };
    const identity = await identityOf(peer, env["PATH"] ?? "");
    if (identity === undefined)
      return { ...line, status: "missing", why: `no ${peer.programs.join(" or no ")}` };
    try {
      const delta = await peerDelta(peer, pair, { identity, ...digests }, signal);
      const files: Files = { ...pair, delta: delta.file, out };
      const bytes = (await stat(delta.file)).size;
      const applying = await applied(peer, files, digests.target);
      return {
        ...line,
        status: applying.verified === true ? "ok" : "failed",
        bytes,
        ratio: ratioTo(bytes),
        makeSeconds: delta.fresh ? round3(delta.make.seconds) : null,
        makeRssMiB: round3(delta.make.rss),
        ...applying,
      };
    } catch (error) {
      signal.throwIfAborted();
      return { ...line, status: "failed", why: String(error) };
    }
  }
}

/**
 * A peer's delta, from the cache when the same programs made it with the same options from the same files. That it could not be made in
 * the time that there is, is remembered as well.
 */
async function peerDelta(
  peer: Peer,
  { old, target }: Pair,
  known: { readonly identity: string; readonly old: string; readonly target: string },
  signal: AbortSignal,
): Promise<Delta> {
  const line = peer.make({ old: "OLD", target: "NEW", delta: "DELTA", out: "OUT" });
  const options = line.map(({ args }) => args);
  const key = createHash("sha256")
    .update(JSON.stringify([options, known]))
    .digest("hex");
  const folder = join(await cacheFolder("deltas"), key);
  const [file, note] = [join(folder, "delta"), join(folder, "made.json")];
  if (await exists(note)) {
    const made = JSON.parse(await readFile(note, "utf8")) as Usage & { readonly failed?: string };
    if (made.failed !== undefined) throw new Error(made.failed);
    return { file, make: made, fresh: false };
  }
  await mkdir(folder, { recursive: true });
  const partial = join(folder, "partial");
  const commands = peer.make({ old, target, delta: partial, out: "" });
  try {
    const make = await runAll(commands, true, MAKE_LIMIT_SECONDS, signal);
    await rename(partial, file);
    await rm(`${partial}.plain`, { force: true });
    await writeFile(note, JSON.stringify({ peer: peer.name, options, ...known, ...make }));
    return { file, make, fresh: true };
  } catch (error) {
    signal.throwIfAborted();
    await rm(partial, { force: true });
    await writeFile(
      note,
      JSON.stringify({ peer: peer.name, options, ...known, failed: String(error) }),
    );
    throw error;
  }
}

function round3(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function round4(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
