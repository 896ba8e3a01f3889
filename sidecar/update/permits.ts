/**
 * Whether the machine may go on. What the operator has stated is decided by `src/permission.ts`; then those are asked that have a say in
 * it as well: other payloads, other replicas, and last the application. The first that says no is the reason that is told.
 */
import type { Clock } from "#core/clock.ts";
import { unreachable } from "#core/errors.ts";
import type { Failure } from "#core/failure.ts";
import { permission } from "#core/permission.ts";
import type { Facts, Moment, Permission, Rules } from "#core/permission.ts";
import type { Veto } from "#core/hook.ts";
import type { WaitReason } from "#core/reasons.ts";
import type { Log } from "#core/telemetry.ts";
import { isSwapping, served } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import type { Holds } from "../application/hold.ts";
import type { Hooks } from "../application/hooks.ts";
import { openPause } from "./pause.ts";
import type { Replica } from "../claim/replica.ts";
import type { Turn } from "../claim/turn.ts";
import type { UsageBook } from "./usage.ts";
import type { Workload } from "../application/workload.ts";

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
      /** What has to be mended. */
      readonly failure?: Failure | undefined;
    }
  | {
      readonly answer: "no";
      readonly hook: Veto;
      readonly detail: string;
      readonly failure?: Failure | undefined;
    };

type Waiting = Extract<Permit, { answer: "wait" }>;

export interface Permits {
  /**
   * Asks once, without waiting.
   *
   * @param heldSince when the application was first all that stood in the way, in milliseconds since the epoch, as far as it was saved
   */
  ask(moment: Moment, target: Target, since: number | null, signal: AbortSignal): Promise<Permit>;
  /** Resolves when the download that is under way may not go on. Rejects with the signal's reason. */
  lapse(signal: AbortSignal): Promise<void>;
  /** Whether files of what is installed may be fetched anew now: an operator holds updates, and not repairs. */
  readonly mayMend: () => boolean;
  /** Something has changed that a download may lapse for. */
  readonly changed: () => void;
  /** A hook that has said when it wants to be asked again is asked at once. */
  readonly forgive: () => void;
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
  const patience = { download: openPatience(clock, now), swap: openPatience(clock, now) };
  let overruled: string | undefined;
  /** What hooks have said that want to be asked again later, each about one release; in monotonic milliseconds. */
  const postponed = new Map<Veto, { readonly release: string; readonly until: number }>();

  function facts(first: boolean, leasedUntil: number | null, heldMs: number): Facts {
    const current = state();
    const { usage: spent, ranMs } = usage.today();
    return {
      now: now(),
      urgent: current.channels[`${app}/${channel}`]?.urgent === true,
      first,
      usage: spent,
      dayRanMs: ranMs,
      leasedUntil,
      heldMs,
      sinceRestartMs: workload.sinceRestartMs(),
    };
  }

  const isFirst = (): boolean => served(state()) === null;

  function wait(reason: WaitReason, againMs = AGAIN_MS): Waiting {
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
    const release = nameOf({ version, sequence });
    const later = postponed.get(hook);
    const leftMs = later?.release === release ? later.until - clock.monotonic() : 0;
    // It has been asked, and has said when: also to a look at the channel between the two.
    if (leftMs > 0) return waitFor(leftMs);
    const from = served(state())?.version ?? null;
    const answer = await hooks.ask(hook, { app, channel, version, sequence, from }, signal);
    const { failure } = answer;
    switch (answer.answer) {
      case "go":
        return GO;
      case "no":
        return { answer: "no", hook, detail: answer.detail, failure };
      case "broken":
        return { ...wait("hook_broken", answer.afterMs), failure };
      case "later": {
        const { afterMs, silent = false } = answer;
        if (silent) return { ...wait("hook_later", afterMs), failure };
        postponed.set(hook, { release, until: clock.monotonic() + afterMs });
        return waitFor(afterMs);
      }
      default:
        return unreachable(answer);
    }
  }

  function waitFor(againMs: number): Waiting {
    return { ...wait("hook_later", againMs), until: now() + againMs };
  }

  async function askForDownload(target: Target, signal: AbortSignal): Promise<Permit> {
    const decided = permitOf(permission("download", settings, facts(isFirst(), null, 0)));
    // While nothing is installed nothing runs, and nobody could answer.
    if (decided.answer !== "go" || held() || isFirst()) return decided;
    const answer = await consult("pre-download", target, signal);
    return bounded("download", target, null, answer);
  }

  /** Who waits for anything but its turn among the replicas does not stand in that queue either: it would keep the turn for nothing. */
  async function askForSwap(
    target: Target,
    heldSince: number | null,
    signal: AbortSignal,
  ): Promise<Permit> {
    const answer = await decideSwap(target, heldSince, signal);
    const queues = answer.answer === "wait" && answer.reason === "replica";
    if (answer.answer !== "go" && !queues && !isSwapping(state())) await replica.release();
    return answer;
  }

  async function decideSwap(
    target: Target,
    heldSince: number | null,
    signal: AbortSignal,
  ): Promise<Permit> {
    if (held()) return wait("not_started");
    const leases = await holds(signal);
    const waited = patience.swap.spentMs(target, heldSince);
    const until = leases.length === 0 ? null : Math.max(...leases.map((lease) => lease.until));
    const decided = permitOf(permission("swap", settings, facts(false, until, waited)));
    if (decided.answer === "wait" && decided.reason === "app_lease") patience.swap.begin(target);
    if (decided.answer !== "go") return decided;
    if (leases.length > 0) overrule(target, leases.map(({ owner }) => owner).join(", "));
    // Where nobody could say afterwards whether the release is right, it is not begun with.
    const broken = await hooks.broken();
    if (broken !== undefined) return { ...wait("hook_broken", CLOCK_MS), failure: broken };
    if (!turn.ask()) return wait("payload");
    replica.want?.(target);
    const busy = await replica.take(signal);
    const consulted = busy === null ? await consult("pre-swap", target, signal) : wait(busy);
    const answer = bounded("swap", target, heldSince, consulted);
    // What others wait for is not kept for an application, or a site, that is busy.
    if (answer.answer !== "go") turn.follow(isSwapping(state()));
    return answer;
  }

  /** From the first time on that the application is all that stands in the way it has `hold-limit`; later is then a yes. */
  function bounded(
    moment: Moment,
    target: Target,
    heldSince: number | null,
    permit: Permit,
  ): Permit {
    if (permit.answer !== "wait" || permit.reason !== "hook_later") return permit;
    patience[moment].begin(target);
    const left = settings.holdLimit - patience[moment].spentMs(target, heldSince);
    if (left <= 0) return GO;
    const until = permit.until && Math.min(permit.until, now() + left);
    return { ...permit, until, againMs: Math.min(permit.againMs, left) };
  }

  function overrule({ version, sequence }: Target, owner: string): void {
    if (overruled === version) return;
    overruled = version;
    const fields = { app, channel, version, sequence, owner, reason: "app_lease" };
    log.warn(fields, "held for longer than hold-limit, going on");
  }

  return {
    ask: (moment, target, heldSince, signal) =>
      moment === "download"
        ? askForDownload(target, signal)
        : askForSwap(target, heldSince, signal),
    async lapse(signal) {
      // Asked for each piece that comes, and when a window closes takes long to find out: once for each opening.
      let open: { readonly from: number; readonly until: number } | undefined;
      for (;;) {
        bell.begin();
        const current = facts(isFirst(), null, 0);
        if (open !== undefined && (current.now < open.from || current.now >= open.until))
          open = undefined;
        const rules = open === undefined ? settings : { ...settings, downloadWindow: undefined };
        const decided = permission("download", rules, current);
        if (!decided.go) return;
        if (decided.until !== null) open = { from: current.now, until: decided.until };
        const leftMs = open === undefined ? CLOCK_MS : open.until - now();
        await bell.wait(Math.min(CLOCK_MS, Math.max(0, leftMs)), signal);
      }
    },
    mayMend: () => permission("download", { ...settings, hold: false }, facts(false, null, 0)).go,
    changed: bell.end,
    forgive: () => postponed.clear(),
  };
}

/** Whether it is the application that wants a release to wait. */
export function isOfApplication(reason: WaitReason): boolean {
  return reason === "app_lease" || reason === "hook_later";
}

function nameOf({ sequence, version }: Pick<Target, "sequence" | "version">): string {
  return `${sequence} ${version}`;
}

interface Patience {
  begin(target: Target): void;
  /** For how long the application has held a release, by the clocks of earlier processes and by that of this one. */
  spentMs(target: Target, heldSince: number | null): number;
}

/** A clock that is set while a release waits changes nothing about how long it has. */
function openPatience(clock: Clock, now: () => number): Patience {
  let held: { readonly release: string; readonly before: number; readonly at: number } | undefined;
  function begin(release: string, before: number): void {
    if (held?.release !== release) held = { release, before, at: clock.monotonic() };
  }

  return {
    begin: (target) => begin(nameOf(target), 0),
    spentMs(target, heldSince) {
      if (heldSince !== null) begin(nameOf(target), Math.max(0, now() - heldSince));
      if (held?.release !== nameOf(target)) return 0;
      return held.before + clock.monotonic() - held.at;
    },
  };
}
