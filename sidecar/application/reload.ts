/**
 * The ways to tell the application of a release without a restart of its container: a POST, a signal to a process of the pod, or, in a daemon,
 * a command. What does not work is tried again until it does, or until nobody waits for it any more.
 */
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { unreachable } from "#core/errors.ts";
import { isReached, judge, resultOfReply } from "#core/hook.ts";
import type { HookReply } from "#core/hook.ts";
import type { OnUpdate, ReloadSignal } from "#core/on-update.ts";
import type { ChannelRef } from "#core/values.ts";
import { errnoOf } from "../disk/durable.ts";
import { postJson } from "./local-call.ts";
import type { Programs } from "./programs.ts";

export type ReloadWay = Exclude<OnUpdate, { readonly kind: "restart" | "none" }>;

/** This process among the others; given by the program, which alone knows that it is one. */
export interface OwnProcess {
  readonly pid: number;
  /** @throws NodeJS.ErrnoException EPERM when the process is another user's, ESRCH when it is gone */
  signal(pid: number, signal: NodeJS.Signals): void;
}

export interface ReloadDeps {
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly channel: ChannelRef | undefined;
  /** What it is about: a release, where nothing is stated, or new secrets. */
  readonly hook?: "reload" | "rotate";
  /** Absent where no process is to be signalled. */
  readonly own?: OwnProcess | undefined;
  /** Absent in a pod. */
  readonly programs?: Programs | undefined;
  /** Of the processes that can be seen; `/proc`, but for tests. */
  readonly processes?: string;
  /** Told what stands in the way, at each attempt. */
  refused(refusal: Refusal): void;
}

export interface Refusal {
  /** What was answered. */
  readonly detail: string;
  /** What came of the attempt. */
  readonly result: string;
  /** Whether anything of it can have reached the application. */
  readonly reached: boolean;
}

/** Milliseconds for one answer, and for one command. */
const CALL_TIMEOUT_MS = 30_000;
const COMMAND_TIMEOUT_MS = 300_000;

/** Milliseconds: the most between two attempts. */
const RETRY_CAP_MS = 30_000;

/** Resolves when the application has been told, or has said that it has the release. Rejects with the signal's reason and with nothing else. */
export async function reload(way: ReloadWay, deps: ReloadDeps, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const reply = await tell(way, deps, signal);
    const answer = judge("post-swap", reply, deps.clock.now(), 0);
    signal.throwIfAborted();
    if (answer.answer === "go") return;
    const result = resultOfReply(reply);
    const detail = "detail" in answer ? answer.detail : "silent" in answer ? result : "not now";
    deps.refused({ detail, result, reached: isReached(reply) });
    const pause = backoffMs(attempt, deps.random, RETRY_CAP_MS);
    const ms = answer.answer === "later" ? Math.min(RETRY_CAP_MS, answer.afterMs) : 1_000 + pause;
    await deps.clock.sleep(ms, signal);
  }
}

async function tell(way: ReloadWay, deps: ReloadDeps, signal: AbortSignal): Promise<HookReply> {
  const { app = "", channel = "" } = deps.channel ?? {};
  const { hook = "reload" } = deps;
  switch (way.kind) {
    case "http":
      return await postJson(way, { hook, app, channel }, CALL_TIMEOUT_MS, signal);
    case "signal":
      return await sendSignal(way, deps);
    case "command": {
      if (deps.programs === undefined) return broken("a command is for a daemon only");
      const facts = { EDGESYNC_HOOK: hook, EDGESYNC_APP: app, EDGESYNC_CHANNEL: channel };
      return await deps.programs.run(way.argv, facts, COMMAND_TIMEOUT_MS, signal);
    }
    default:
      return unreachable(way);
  }
}

function broken(text: string): HookReply {
  return { kind: "broken", text };
}

async function sendSignal(
  { signal, process: name }: { readonly signal: ReloadSignal; readonly process: string },
  { own, processes = "/proc" }: ReloadDeps,
): Promise<HookReply> {
  if (own === undefined) return broken("no process can be signalled here");
  const found = await findProcesses(name, own.pid, processes);
  if (found.length === 0) return broken(`no process is named ${name}`);
  let sent = 0;
  let problem = "";
  for (const pid of found)
    try {
      own.signal(pid, `SIG${signal}`);
      sent += 1;
    } catch (error) {
      // One that has ended meanwhile needs no signal.
      problem =
        errnoOf(error) === "EPERM" ? `process ${pid} is another user's` : `process ${pid} is gone`;
    }
  return sent > 0 ? { kind: "exit", status: 0, text: "" } : broken(problem);
}

interface Found {
  readonly pid: number;
  readonly parent: number;
  readonly matches: boolean;
}

/**
 * The processes of a name: that of their program, or the last part of their first argument. Of a program that has made others of its name,
 * only those that no other of them has started: it is they who tell the rest, as nginx does. Never the first process of the namespace, which
 * is the pod's own, nor this one.
 *
 * @param processes a folder as `/proc` is, see proc_pid_stat(5)
 */
export async function findProcesses(
  name: string,
  own: number,
  processes: string,
): Promise<readonly number[]> {
  const pids = (await readdir(processes)).filter((entry) => /^\d+$/.test(entry)).map(Number);
  const all = (await Promise.all(pids.map((pid) => look(pid, name, processes)))).filter(
    (one) => one !== undefined,
  );
  const meant = all.filter(({ pid, matches }) => matches && pid !== own && pid !== 1);
  const pidsOf = new Set(meant.map(({ pid }) => pid));
  return meant
    .filter(({ parent }) => !pidsOf.has(parent))
    .map(({ pid }) => pid)
    .toSorted((a, b) => a - b);
}

/** `undefined` when it has ended meanwhile, or is one that has ended and waits for its parent to ask how. */
async function look(pid: number, name: string, processes: string): Promise<Found | undefined> {
  try {
    const [stat, line] = await Promise.all([
      readFile(join(processes, String(pid), "stat"), "utf8"),
      readFile(join(processes, String(pid), "cmdline"), "utf8"),
    ]);
    // The name is in brackets, and may hold any character, brackets too.
    const end = stat.lastIndexOf(")");
    const program = stat.slice(stat.indexOf("(") + 1, end);
    const [state, parent] = stat.slice(end + 2).split(" ");
    if (state === "Z" || state === "X") return undefined;
    const [argument = ""] = line.split("\0", 1);
    const matches = program === name || argument.split(" ", 1)[0]?.split("/").at(-1) === name;
    return { pid, parent: Number(parent), matches };
  } catch {
    // Ended between the two looks.
    return undefined;
  }
}
