/** What the application is asked, and told, on the way of a release. */
import type { Clock } from "#core/clock.ts";
import type { Failure } from "#core/failure.ts";
import { failureOf } from "#core/failure.ts";
import { SILENCE_MS, detailOf, hookTarget, judge, resultOfReply } from "#core/hook.ts";
import type { HookAnswer, HookName, HookRelease, HookReply, HookTarget } from "#core/hook.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { postJson } from "./local-call.ts";
import type { Programs } from "./programs.ts";

export interface Hooks {
  /** Whether there is somebody to ask: without, the answer is always `go`. */
  has(hook: HookName): boolean;
  /** Asks once. That nobody answers is an answer too; rejects with the signal's reason and with nothing else. */
  ask(hook: HookName, release: HookRelease, signal: AbortSignal): Promise<Asked>;
  /** Which of the hooks that a trial will need cannot be asked, as far as that can be told beforehand: those that are programs. */
  broken(): Promise<Failure | undefined>;
  /** What came of the last call of each hook that was called. */
  view(): readonly HookView[];
}

export type Asked = HookAnswer & {
  /** What to tell people of an answer that is no yes. */
  readonly failure?: Failure;
};

/** A hook as `/status` shows it. */
export interface HookView {
  readonly hook: HookName;
  readonly version: string;
  /** `asking` while it is asked for the first time. */
  readonly answer: HookAnswer["answer"] | "silent" | "asking";
  /** What it said, or why the sidecar did not wait for it any longer. */
  readonly detail: string | null;
  /** ISO 8601, by the node's clock, as the next. */
  readonly at: string;
  /** Since when it is being asked; null when it is not. */
  readonly asking: string | null;
}

/** A pod without hooks. */
export const noHooks: Hooks = {
  has: () => false,
  ask: () => Promise.resolve({ answer: "go" }),
  broken: () => Promise.resolve(undefined),
  view: () => [],
};

type HookSettings = Pick<
  Settings,
  | "hookPreDownload"
  | "hookPreSwap"
  | "hookPostSwap"
  | "hookHealth"
  | "hookPostCommit"
  | "hookPostRollback"
>;

export interface HookDeps {
  readonly settings: HookSettings;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Absent in a pod: there, hooks are calls to the application and nothing else. */
  readonly programs?: Programs | undefined;
}

/** Milliseconds for one answer; a health check has the time that checks have. */
export const CALL_TIMEOUT_MS = 30_000;
const HEALTH_TIMEOUT_MS = 5_000;

/** Milliseconds: where a hook has not been asked for so long, nobody knows whether it was silent. A look on a thin link takes a while. */
const GAP_MS = 300_000;

/** Somebody who has not answered about one release since then, and was last asked at; in monotonic milliseconds. */
interface Silence {
  readonly release: string;
  readonly since: number;
  readonly last: number;
}

export function openHooks(deps: HookDeps): Hooks {
  const { settings, clock, log, metrics } = deps;
  const targets: Readonly<Record<HookName, HookTarget | undefined>> = {
    "pre-download": settings.hookPreDownload,
    "pre-swap": settings.hookPreSwap,
    "post-swap": settings.hookPostSwap,
    health: settings.hookHealth,
    "post-commit": settings.hookPostCommit,
    "post-rollback": settings.hookPostRollback,
  };
  const silences = new Map<HookName, Silence>();
  const views = new Map<HookName, HookView>();
  const iso = (): string => new Date(clock.now()).toISOString();
  const formatTarget = (target: HookTarget): string => hookTarget.format(target);

  /** Milliseconds for which a hook has been silent about a release; 0 when it has answered. */
  function silentMs(
    hook: HookName,
    release: HookRelease,
    isSilent: boolean,
    begun: number,
  ): number {
    if (!isSilent) {
      silences.delete(hook);
      return 0;
    }
    const key = `${release.app}/${release.channel} ${release.sequence} ${release.version}`;
    const before = silences.get(hook);
    const goesOn = before?.release === key && begun - before.last < GAP_MS;
    const since = goesOn ? before.since : begun;
    const last = clock.monotonic();
    silences.set(hook, { release: key, since, last });
    return last - since;
  }

  async function call(
    hook: HookName,
    target: HookTarget,
    release: HookRelease,
    signal: AbortSignal,
  ): Promise<HookReply> {
    const timeoutMs = hook === "health" ? HEALTH_TIMEOUT_MS : CALL_TIMEOUT_MS;
    if (target.kind === "http")
      return await postJson(target, { hook, ...release }, timeoutMs, signal);
    if (deps.programs === undefined)
      return { kind: "broken", text: "a pod's hooks are calls, not programs" };
    return await deps.programs.run([target.path], environmentOf(hook, release), timeoutMs, signal);
  }

  function record(
    hook: HookName,
    { version }: Pick<HookRelease, "version">,
    view: Pick<HookView, "answer" | "detail">,
    before: HookView | undefined,
  ): void {
    views.set(hook, { hook, version, ...view, at: iso(), asking: null });
    metrics.add("edgesync_sidecar_hook_calls_total", { hook, answer: view.answer });
    // Once, and not at each of the questions of a night.
    const isNews = before?.answer !== view.answer || before.version !== version;
    const fields = {
      hook,
      version,
      answer: view.answer,
      ...(view.detail !== null && { detail: view.detail }),
    };
    if (!isNews || hook === "health") log.debug(fields, "hook called");
    else if (view.answer === "go") log.info(fields, "hook called");
    else if (view.answer === "broken") log.error(fields, "a hook cannot be asked");
    else log.warn(fields, "hook called");
  }

  return {
    has: (hook) => targets[hook] !== undefined,
    async ask(hook, release, signal) {
      const target = targets[hook];
      if (target === undefined) return { answer: "go" };
      const begun = clock.monotonic();
      const before = views.get(hook);
      const { version } = release;
      const at = iso();
      const first = { hook, version, answer: "asking", detail: null, at } as const;
      views.set(hook, { ...(before ?? first), asking: at });
      let reply: HookReply;
      try {
        reply = await call(hook, target, release, signal);
      } finally {
        const now = views.get(hook);
        if (now !== undefined) views.set(hook, { ...now, asking: null });
      }
      const isSilent = reply.kind === "silent";
      const ms = silentMs(hook, release, isSilent, begun);
      const answer = judge(hook, reply, clock.now(), ms);
      const detail =
        "detail" in answer
          ? answer.detail
          : isSilent && answer.answer === "go"
            ? `nobody has answered for ${Math.round(SILENCE_MS / 60_000)} minutes`
            : reply.kind === "silent"
              ? reply.text
              : detailOf(reply.text) || null;
      const shown = isSilent && answer.answer === "later" ? "silent" : answer.answer;
      record(hook, release, { answer: shown, detail }, before);
      if (answer.answer === "go") return answer;
      const result = resultOfReply(reply);
      return { ...answer, failure: failureOf(hook, formatTarget(target), result, clock.now()) };
    },
    async broken() {
      for (const hook of ["pre-swap", "post-swap", "health"] as const) {
        const target = targets[hook];
        const problem =
          target?.kind === "exec" ? await deps.programs?.problem(target.path) : undefined;
        if (target === undefined || problem === undefined) continue;
        const before = views.get(hook);
        const { version = "" } = before ?? {};
        record(hook, { version }, { answer: "broken", detail: problem }, before);
        return failureOf(hook, formatTarget(target), problem, clock.now());
      }
      return undefined;
    },
    view: () => [...views.values()],
  };
}

function environmentOf(hook: HookName, release: HookRelease): Readonly<Record<string, string>> {
  return {
    EDGESYNC_HOOK: hook,
    EDGESYNC_APP: release.app,
    EDGESYNC_CHANNEL: release.channel,
    EDGESYNC_VERSION: release.version,
    EDGESYNC_SEQUENCE: String(release.sequence),
    EDGESYNC_FROM: release.from ?? "",
  };
}
