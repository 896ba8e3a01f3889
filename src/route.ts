/**
 * The way with the fewest bytes to each content of a release, as a shortest path: from what the site has, by one delta or by a chain
 * of deltas over steps, or by the full blob. Each content has the cheapest way of its own; blobs that two ways share are fetched once.
 */
import type { WholeReason } from "./reasons.ts";
import type { Content, DeltaBlob, PlacedBlob, Release, Step } from "./release.ts";

type Set = Pick<ReadonlySet<string>, "has">;

/** What the ways may use. */
export interface Means {
  /** Digests of the contents that are here undamaged. */
  readonly available: Set;
  /** Digests of contents that would be, had they not turned out to be damaged. */
  readonly damaged: Set;
  /** Names of the delta codecs that this sidecar can decode. */
  readonly codecs: Set;
  /** Digests of deltas that turned out not to work. */
  readonly rejected: Set;
}

/** One delta of a chain. */
export interface Link {
  readonly delta: DeltaBlob;
  /** Of what it makes. */
  readonly sha256: string;
  readonly size: number;
}

export type Source =
  | { readonly how: "keep"; readonly content: Content }
  | { readonly how: "delta"; readonly content: Content; readonly delta: DeltaBlob }
  /** The first starts from what is here, each other from what the one before it makes; the last makes the content. */
  | { readonly how: "chain"; readonly content: Content; readonly links: readonly Link[] }
  | { readonly how: "full"; readonly content: Content };
export type How = Source["how"];

/** A choice as a number, so that a plan for many contents stays small: 16 bits with a sign. */
const KEEP = -1;
const FULL = -2;
/** Added to the number of the delta that ends a chain; a manifest's lines have room for a few hundred deltas. */
const CHAIN = 0x4000;

export interface Routes {
  /** The cheapest way, as a number that `source` understands. */
  choose(content: Content): number;
  /** @param choice of this content */
  source(content: Content, choice: number): Source;
  /** Why a content that comes whole does. */
  reason(content: Content): WholeReason;
}

export function openRoutes(release: Pick<Release, "steps" | "findStep">, means: Means): Routes {
  const { available, codecs, damaged, rejected } = means;
  const steps = findPaths(release, means);

  /** Bytes to the content that a delta makes; infinite when there is no way to its base. */
  function costBy(delta: DeltaBlob): { readonly bytes: number; readonly chained: boolean } {
    if (!isUsable(delta, means)) return NO_WAY;
    if (available.has(delta.base)) return { bytes: delta.size, chained: false };
    const step = steps?.find(delta.base);
    if (steps === undefined || step === undefined) return NO_WAY;
    return { bytes: delta.size + steps.bytesTo(step), chained: true };
  }

  /** Why a delta is of no use. */
  function reasonOf(delta: DeltaBlob, depth: number): WholeReason {
    const { base, codec, sha256 } = delta;
    if (rejected.has(sha256)) return "delta_rejected";
    if (damaged.has(base)) return "base_damaged";
    const step = release.steps.length === 0 ? undefined : release.findStep(base);
    if (!codecs.has(codec))
      return available.has(base) || step !== undefined ? "codec_unknown" : "no_delta";
    if (step === undefined || depth === 0) return "no_delta";
    const { deltas } = release.steps.at(step);
    return worst(deltas.map((one) => reasonOf(one, depth - 1)));
  }

  return {
    choose(content) {
      if (available.has(content.sha256)) return KEEP;
      let choice = FULL;
      let least = content.full.size;
      for (const [number, delta] of content.deltas.entries()) {
        const { bytes, chained } = costBy(delta);
        // At the same price rather by one delta than by several.
        if (bytes < least || (bytes === least && !chained && choice >= CHAIN)) {
          choice = chained ? CHAIN + number : number;
          least = bytes;
        }
      }
      return choice;
    },
    source(content, choice) {
      if (choice === KEEP) return { how: "keep", content };
      const delta = content.deltas[choice >= CHAIN ? choice - CHAIN : choice];
      if (delta === undefined) return { how: "full", content };
      if (steps === undefined || choice < CHAIN) return { how: "delta", content, delta };
      const { sha256, size } = content;
      return {
        how: "chain",
        content,
        links: [...steps.pathTo(delta.base), { delta, sha256, size }],
      };
    },
    reason(content) {
      const reachable = content.deltas.some((delta) => costBy(delta).bytes < Infinity);
      if (reachable) return "whole_is_smaller";
      return worst(content.deltas.map((delta) => reasonOf(delta, MAX_DEPTH)));
    },
  };
}

const NO_WAY = { bytes: Number.POSITIVE_INFINITY, chained: false };

/** How far back the reason is looked for, in steps; those that a publisher makes are not as long. */
const MAX_DEPTH = 8;

/** What says most about why there is no way comes first. */
const TELLING: readonly WholeReason[] = ["delta_rejected", "base_damaged", "codec_unknown"];

function worst(reasons: readonly WholeReason[]): WholeReason {
  return TELLING.find((reason) => reasons.includes(reason)) ?? "no_delta";
}

/** The blobs that a source needs; none for what is there already, and none for an empty file. */
export function blobsOf(source: Source): readonly PlacedBlob[] {
  if (source.how === "keep" || source.content.size === 0) return [];
  if (source.how === "full") return [source.content.full];
  return source.how === "delta" ? [source.delta] : source.links.map(({ delta }) => delta);
}

/** Bytes that the files between the links of a chain take at a time: one is read while the next is written. */
export function roomOf(source: Source): number {
  if (source.how !== "chain") return 0;
  let most = 0;
  let before = 0;
  for (const { size } of source.links.slice(0, -1)) {
    most = Math.max(most, before + size);
    before = size;
  }
  return most;
}

function isUsable({ codec, sha256 }: DeltaBlob, { codecs, rejected }: Means): boolean {
  return codecs.has(codec) && !rejected.has(sha256);
}

/** The cheapest ways to the steps of a release. */
interface Paths {
  find(sha256: string): number | undefined;
  /** Infinite when there is none. */
  bytesTo(step: number): number;
  /** The deltas of the way to a step that has one. */
  pathTo(sha256: string): readonly Link[];
}

/** @returns undefined where there are no steps */
function findPaths(release: Pick<Release, "steps" | "findStep">, means: Means): Paths | undefined {
  const { steps } = release;
  const { length } = steps;
  if (length === 0) return undefined;
  const bytes = new Float64Array(length).fill(Number.POSITIVE_INFINITY);
  /** The delta that leads to each step, and the step that it starts from, or this. */
  const by = new Uint16Array(length);
  const from = new Uint32Array(length).fill(HERE);
  const settled = new Uint8Array(length);
  const edges = edgesOf(release, means);
  const queue = openQueue();
  const offer = (step: number, cost: number, delta: number, base: number): void => {
    if (cost >= (bytes[step] ?? 0)) return;
    bytes[step] = cost;
    by[step] = delta;
    from[step] = base;
    queue.add(step, cost);
  };
  for (const { step, delta, size } of edges.from(HERE)) offer(step, size, delta, HERE);
  // Dijkstra's. A way is replaced only by one with fewer bytes, so that none leads back to itself, also by deltas of no bytes.
  for (let next = queue.take(); next !== undefined; next = queue.take()) {
    if (settled[next] === 1) continue;
    settled[next] = 1;
    const cost = bytes[next] ?? 0;
    for (const { step, delta, size } of edges.from(next))
      if (settled[step] === 0) offer(step, cost + size, delta, next);
  }
  return {
    find: (sha256) => release.findStep(sha256),
    bytesTo: (step) => bytes[step] ?? Number.POSITIVE_INFINITY,
    pathTo(sha256) {
      const links: Link[] = [];
      let number = release.findStep(sha256) ?? HERE;
      while (number !== HERE) {
        const step = steps.at(number);
        const delta = step.deltas[by[number] ?? 0];
        if (delta === undefined) break;
        links.push({ delta, sha256: step.sha256, size: step.size });
        number = from[number] ?? HERE;
      }
      return links.toReversed();
    },
  };
}

/** Stands for everything that the site has. */
const HERE = 0xffffffff;

interface Edge {
  /** Where it leads. */
  readonly step: number;
  /** Its number there. */
  readonly delta: number;
  readonly size: number;
}

/** The usable deltas of the steps by what they start from. */
function edgesOf(
  release: Pick<Release, "steps" | "findStep">,
  means: Means,
): { from(base: number): Generator<Edge> } {
  const heads = new Map<number, number>();
  const columns = { step: [] as number[], delta: [] as number[], size: [] as number[] };
  /** The edge before it that has the same base, counted from 1. */
  const others: number[] = [];
  const add = (
    base: number,
    step: number,
    { size }: Step["deltas"][number],
    delta: number,
  ): void => {
    others.push(heads.get(base) ?? 0);
    columns.step.push(step);
    columns.delta.push(delta);
    columns.size.push(size);
    heads.set(base, others.length);
  };
  for (let number = 0; number < release.steps.length; number++)
    for (const [at, delta] of release.steps.at(number).deltas.entries()) {
      if (!isUsable(delta, means)) continue;
      const base = means.available.has(delta.base) ? HERE : release.findStep(delta.base);
      if (base !== undefined) add(base, number, delta, at);
    }
  return {
    *from(base) {
      for (let edge = heads.get(base) ?? 0; edge > 0; edge = others[edge - 1] ?? 0)
        yield {
          step: columns.step[edge - 1] ?? 0,
          delta: columns.delta[edge - 1] ?? 0,
          size: columns.size[edge - 1] ?? 0,
        };
    },
  };
}

/** A binary heap of numbers by their cost. */
function openQueue(): { add(number: number, cost: number): void; take(): number | undefined } {
  const heap: { readonly number: number; readonly cost: number }[] = [];
  const costAt = (at: number): number => heap[at]?.cost ?? Number.POSITIVE_INFINITY;
  const swap = (a: number, b: number): void => {
    const [first, second] = [heap[a], heap[b]];
    if (first === undefined || second === undefined) return;
    heap[a] = second;
    heap[b] = first;
  };
  return {
    add(number, cost) {
      let at = heap.push({ number, cost }) - 1;
      while (at > 0) {
        const above = (at - 1) >> 1;
        if (costAt(above) <= cost) break;
        swap(at, above);
        at = above;
      }
    },
    take() {
      const [top] = heap;
      const last = heap.pop();
      if (top === undefined || last === undefined || heap.length === 0) return top?.number;
      heap[0] = last;
      for (let at = 0; ;) {
        const left = 2 * at + 1;
        const least = costAt(left + 1) < costAt(left) ? left + 1 : left;
        if (costAt(least) >= last.cost) return top.number;
        swap(at, least);
        at = least;
      }
    },
  };
}
