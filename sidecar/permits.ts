/** Whether the machine may go on: what stands in the way is asked in turn, and the first that says no is the reason that is told. */
import type { Clock } from "#core/clock.ts";
import type { Veto } from "#core/hook.ts";
import type { WaitReason } from "#core/reasons.ts";
import { served } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import type { Hooks } from "./hooks.ts";
import type { Replica } from "./replica.ts";
import type { Turn } from "./turn.ts";

/** What may be permitted: that bytes of a release are fetched, or that the application is given it. */
export type Moment = "download" | "swap";

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
  /** Asks once, without waiting. */
  ask(moment: Moment, target: Target, signal: AbortSignal): Promise<Permit>;
}

export interface PermitDeps {
  readonly app: string;
  readonly channel: string;
  readonly clock: Clock;
  readonly hooks: Hooks;
  readonly turn: Turn;
  readonly replica: Replica;
  /** Whether the main container's first start is still held back: nothing can be tried, or asked, before something runs. */
  readonly held: () => boolean;
  readonly state: () => UpdateState;
}

/** Milliseconds between two looks at what may change at any time. */
const AGAIN_MS = 1_000;

const GO: Permit = { answer: "go" };

export function openPermits({
  app,
  channel,
  hooks,
  turn,
  replica,
  held,
  state,
}: PermitDeps): Permits {
  /** Milliseconds since the epoch are not known here. */
  const wait = (reason: WaitReason, againMs = AGAIN_MS): Permit => ({
    answer: "wait",
    reason,
    until: null,
    againMs,
  });

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

  return {
    async ask(moment, target, signal) {
      if (moment === "download") return held() ? GO : await consult("pre-download", target, signal);
      if (held()) return wait("not_started");
      if (!turn.ask()) return wait("payload");
      const busy = await replica.take(signal);
      const answer = busy === null ? await consult("pre-swap", target, signal) : wait(busy);
      // What others wait for is not kept for an application, or a site, that is busy.
      if (answer.answer !== "go") turn.follow(false);
      if (answer.answer !== "go" && busy === null) await replica.release();
      return answer;
    },
  };
}
