import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { appendFile, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseManifest } from "#core/manifest.ts";
import { eventually, startNode } from "../../support/process.ts";
import type { Program } from "../../support/process.ts";
import { checkVolume } from "../../update/support/invariants.ts";
import type { ReplicaOptions, WorkloadEvent } from "./replica-process.ts";

const SCRIPT = fileURLToPath(new URL("replica-process.ts", import.meta.url));

export interface Replicas extends AsyncDisposable {
  readonly claim: string;
  readonly pods: readonly string[];
  /** Starts the sidecar of a pod, or starts it again. */
  start(pod: string, kill?: ReplicaOptions["kill"]): Promise<void>;
  /** Ends a sidecar that runs. */
  end(pod: string, signal: NodeJS.Signals): Promise<void>;
  /** Stops a sidecar where it stands, or lets it go on. */
  signal(pod: string, signal: "SIGSTOP" | "SIGCONT"): void;
  /** Resolves when the sidecar has ended by itself. */
  ended(pod: string): Promise<unknown>;
  /** The version that the workload was started from last. */
  running(pod: string): string | undefined;
  events(): readonly WorkloadEvent[];
  /** Resolves when each of these workloads runs this version; holds the invariants until then. */
  reach(version: string, pods?: readonly string[]): Promise<void>;
  readonly output: (pod?: string) => string;
}

/** Pods of one site that share a claim. */
export async function openReplicas(
  folder: string,
  options: Pick<ReplicaOptions, "url" | "root" | "leaseMs" | "forgetMs">,
  pods: readonly string[] = ["pod-a", "pod-b", "pod-c"],
): Promise<Replicas> {
  const claim = join(folder, "claim");
  const events = join(folder, "events");
  await mkdir(claim, { recursive: true });
  await appendFile(events, "");
  for (const pod of pods) {
    if (existsSync(join(folder, pod))) continue;
    await mkdir(join(folder, pod));
    // The kubelet mounts the claim there.
    await symlink("../claim", join(folder, pod, ".volume"));
  }
  const programs = new Map<string, Program>();
  const before: string[] = [];

  const told = (): readonly WorkloadEvent[] =>
    readFileSync(events, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as WorkloadEvent);
  const versionOf = (bank: string): string => /banks\/([^-]+)-/.exec(bank)?.[1] ?? bank;
  const running = (pod: string): string | undefined => {
    const file = join(folder, pod, "running");
    return existsSync(file) ? versionOf(readFileSync(file, "utf8")) : undefined;
  };
  const output = (pod?: string): string =>
    pod === undefined
      ? [...before, ...[...programs.values()].map((program) => program.output())].join("")
      : (programs.get(pod)?.output() ?? "");

  async function holds(): Promise<void> {
    await checkCurrent(claim);
    for (const pod of pods) checkOwnLink(folder, pod);
  }

  return {
    claim,
    pods,
    running,
    events: told,
    output,
    async start(pod, kill) {
      before.push(programs.get(pod)?.output() ?? "");
      const wanted: ReplicaOptions = {
        ...options,
        pod,
        events,
        folder: join(folder, pod),
        ...(kill === undefined ? {} : { kill }),
      };
      programs.set(pod, startNode([SCRIPT, JSON.stringify(wanted)]));
    },
    async end(pod, signal) {
      await programs.get(pod)?.end(signal);
    },
    signal(pod, signal) {
      const pid = programs.get(pod)?.pid;
      if (pid !== undefined) process.kill(pid, signal);
    },
    ended: async (pod) => programs.get(pod)?.ended(),
    async reach(version, wanted = pods) {
      await eventually(
        async () => {
          await holds();
          return wanted.every((pod) => running(pod) === version) || undefined;
        },
        () => `${wanted.map((pod) => `${pod} ${running(pod)}`).join(", ")}\n${output()}`,
        120_000,
      );
    },
    async [Symbol.asyncDispose]() {
      for (const program of programs.values()) await program[Symbol.asyncDispose]();
    },
  };
}

/** `current` on the claim names a complete bank that the journal knows, at any instant. */
async function checkCurrent(claim: string): Promise<void> {
  if (!existsSync(join(claim, "state.json"))) return;
  // The volume moves on between two looks at it: what is wrong for good is wrong again.
  for (let attempt = 0; ; attempt++)
    try {
      await checkVolume(claim);
      return;
    } catch (error) {
      if (attempt === 5) throw error;
    }
}

/** The pod's own link names a bank that is there, with its manifest. */
function checkOwnLink(folder: string, pod: string): void {
  for (let attempt = 0; ; attempt++)
    try {
      const target = readlinkSync(join(folder, pod, "current"));
      assert.match(target, /^\.volume\/banks\/[^/]+$/);
      assert.ok(readdirSync(join(folder, pod, target)).length > 0, `${pod} sees a whole bank`);
      parseManifest(readFileSync(join(folder, pod, `${target}.json`)));
      return;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") {
        if (!existsSync(join(folder, pod, "running"))) return;
      }
      if (attempt === 5) throw error;
    }
}

/**
 * No two workloads swap together: what a pod does from the pull of its lever to its last health check, or to the death of its sidecar, is done before
 * another pulls its own.
 */
export function checkTurns(events: readonly WorkloadEvent[]): void {
  const swaps: { readonly pod: string; readonly from: number; to: number }[] = [];
  const open = new Map<string, { readonly pod: string; readonly from: number; to: number }>();
  for (const [index, { pod, event }] of events.entries()) {
    if (event === "killed") open.delete(pod);
    else if (event === "swap") {
      const swap = { pod, from: index, to: index };
      open.set(pod, swap);
      swaps.push(swap);
    } else {
      const swap = open.get(pod);
      if (swap !== undefined) swap.to = index;
    }
  }
  for (const one of swaps)
    for (const other of swaps)
      assert.ok(
        one.pod === other.pod || one.to < other.from || other.to < one.from,
        `${one.pod} and ${other.pod} swap together: ${JSON.stringify(events)}`,
      );
}
