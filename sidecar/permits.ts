/**
 * Whether the machine may go on. What the operator has stated is decided by `src/permission.ts`; then those are asked that have a say in
 * it as well: other payloads, other replicas, and last the application. The first that says no is the reason that is told.
 */
import type { Clock } from "#core/clock.ts";
import { permission } from "#core/permission.ts";
import type { Facts, Moment, Permission, Rules } from "#core/permission.ts";
import type { Veto } from "#core/hook.ts";
import type { WaitReason } from "#core/reasons.ts";
import type { Log } from "#core/telemetry.ts";
import { served } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import type { Holds } from "./hold.ts";
import type { Hooks } from "./hooks.ts";
import { openPause } from "./pause.ts";
import type { Replica } from "./replica.ts";
import type { Turn } from "./turn.ts";
import type { UsageBook } from "./usage.ts";
import type { Workload } from "./workload.ts";

export type { Moment } from "#core/permission.ts";

export type Permit =
  | { readonly answer: "go" }
  | {
      readonly answer: "wait";
      readonly reason: WaitReason;
      /** Milliseconds since the epoch, by trusted time; null when nobody knows. */
      readonly until: number | null;
      /** Milliseconds after which it is worth asking again. */
      readonly againMs: number;
    }
  | { readonly answer: "no"; readonly hook: Veto; readonly detail: string };

export interface Permits {
  /**
   * Asks once, without waiting.
   *
   * @param since when the release was complete, in milliseconds since the epoch; null for one that is not, or when nobody knows
   */
  ask(moment: Moment, target: Target, since: number | null, signal: AbortSignal): Promise<Permit>;
  /** Resolves when the download that is under way may not go on. Rejects with the signal's reason. */
  lapse(signal: AbortSignal): Promise<void>;
  /** Something has changed that a download may lapse for. */
  readonly changed: () => void;
}

export interface PermitDeps {
  readonly app: string;
  readonly channel: string;
  readonly settings: Rules;
  readonly clock: Clock;
  readonly log: Log;
  /** Trusted time, in milliseconds since the epoch. */
  readonly now: () => number;
  readonly usage: UsageBook;
  readonly workload: Workload;
  readonly hooks: Hooks;
  readonly holds: Holds;
  readonly turn: Turn;
  readonly replica: Replica;
  /** Whether the main container's first start is still held back: nothing can be tried, or asked, before something runs. */
  readonly held: () => boolean;
  readonly state: () => UpdateState;
}

/** Milliseconds between two looks at what may change at any time. */
const AGAIN_MS = 1_000;
/** The clock may be set meanwhile. */
const CLOCK_MS = 60_000;

const GO: Permit = { answer: "go" };

export function openPermits(deps: PermitDeps): Permits {
  const { app, channel, settings, clock, log, now, usage, workload } = deps;
  const { hooks, holds, turn, replica, held, state } = deps;
  const bell = openPause(clock);
  /** For how long a release has been waiting, by the clocks of earlier processes and by that of this one. */
  let waiting:
    { readonly release: string; readonly before: number; readonly at: number } | undefined;
  let overruled: string | undefined;

  function facts(first: boolean, leasedUntil: number | null, waitedMs: number): Facts {
    const current = state();
    const { usage: spent, ranMs } = usage.today();
    return {
      now: now(),
      urgent: current.channels[`${app}/${channel}`]?.urgent === true,
      first,
      usage: spent,
      dayRanMs: ranMs,
      leasedUntil,
      waitedMs,
      sinceRestartMs: workload.sinceRestartMs(),
    };
  }

  const isFirst = (): boolean => served(state()) === null;

  /** A clock that is set while a release waits changes nothing about how long it has. */
  function waitedMs({ sequence, version }: Target, since: number | null): number {
    const release = `${sequence} ${version}`;
    if (waiting?.release !== release) {
      const before = since === null ? 0 : Math.max(0, now() - since);
      waiting = { release, before, at: clock.monotonic() };
    }
    return waiting.before + clock.monotonic() - waiting.at;
  }

  function wait(reason: WaitReason, againMs = AGAIN_MS): Permit {
    return { answer: "wait", reason, until: null, againMs };
  }

  function permitOf(decided: Permission): Permit {
    if (decided.go) return GO;
    const { reason, until } = decided;
    const leftMs = until === null ? CLOCK_MS : Math.max(0, until - now());
    // A lease may be given back at any time.
    const againMs = reason === "app_lease" ? AGAIN_MS : Math.min(CLOCK_MS, Math.max(100, leftMs));
    return { answer: "wait", reason, until, againMs };
  }

  async function consult(
    hook: "pre-download" | "pre-swap",
    { version, sequence }: Target,
    signal: AbortSignal,
  ): Promise<Permit> {
    const from = served(state())?.version ?? null;
    const answer = await hooks.ask(hook, { app, channel, version, sequence, from }, signal);
    if (answer.answer === "go") return GO;
    if (answer.answer === "later") return wait("hook_later", answer.afterMs);
    return { answer: "no", hook, detail: answer.detail };
  }

  async function askForDownload(target: Target, signal: AbortSignal): Promise<Permit> {
    const decided = permitOf(permission("download", settings, facts(isFirst(), null, 0)));
    // While nothing runs, nobody could answer.
    if (decided.answer !== "go" || held()) return decided;
    return await consult("pre-download", target, signal);
  }

  async function askForSwap(
    target: Target,
    since: number | null,
    signal: AbortSignal,
  ): Promise<Permit> {
    if (held()) return wait("not_started");
    const leases = await holds(signal);
    const waited = waitedMs(target, since);
    const until = leases.length === 0 ? null : Math.max(...leases.map((lease) => lease.until));
    const decided = permitOf(permission("swap", settings, facts(false, until, waited)));
    if (decided.answer !== "go") return decided;
    const patient = waited < settings.holdLimit;
    if (!patient && leases.length > 0)
      overrule(target, leases.map(({ owner }) => owner).join(", "));
    if (!turn.ask()) return wait("payload");
    const busy = await replica.take(signal);
    const answer = busy === null ? await consult("pre-swap", target, signal) : wait(busy);
    if (busy === null && answer.answer === "wait" && !patient) return GO;
    // What others wait for is not kept for an application, or a site, that is busy.
    if (answer.answer !== "go") turn.follow(false);
    if (answer.answer !== "go" && busy === null) await replica.release();
    return answer;
  }

  function overrule({ version, sequence }: Target, owner: string): void {
    if (overruled === version) return;
    overruled = version;
    const fields = { app, channel, version, sequence, owner, reason: "app_lease" };
    log.warn(fields, "held for longer than hold-limit, going on");
  }

  return {
    ask: (moment, target, since, signal) =>
      moment === "download" ? askForDownload(target, signal) : askForSwap(target, since, signal),
    async lapse(signal) {
      for (;;) {
        bell.begin();
        const decided = permission("download", settings, facts(isFirst(), null, 0));
        if (!decided.go) return;
        const leftMs = decided.until === null ? CLOCK_MS : decided.until - now();
        await bell.wait(Math.min(CLOCK_MS, Math.max(0, leftMs)), signal);
      }
    },
    changed: bell.end,
  };
}
