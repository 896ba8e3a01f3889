/**
 * Hooks: the application is asked, or told, at certain moments of an update. What its answers mean is decided here; the calls are
 * made in `sidecar/application/hooks.ts`.
 */
import { unreachable } from "./errors.ts";
import { formatHttpTarget, parseHttpTarget } from "./http-target.ts";
import type { HttpTarget } from "./http-target.ts";
import type { Value } from "./values.ts";

/** Every hook, with what its annotation means. */
export const HOOKS = {
  "pre-download":
    "Asked before a release is fetched, but for the first one: whether it may be fetched now.",
  "pre-swap": "Asked before a release is swapped in: whether it may be tried now.",
  "post-swap": "Asked when the application has got a release on trial: whether it is right.",
  health: "Asked at each check of a release on trial, beside the check that health names.",
  "post-commit": "Told at least once that a release has been kept.",
  "post-rollback": "Told at least once that the application has the release before again.",
} as const satisfies Record<string, string>;
export type HookName = keyof typeof HOOKS;

/** Hooks whose refusal ends a release. */
export type Veto = "pre-download" | "pre-swap" | "post-swap";

/** Hooks that only tell. */
export type NoticeHook = "post-commit" | "post-rollback";

/** An address of the pod itself, or a program of the machine; the latter for a daemon only. */
export type HookTarget = HttpTarget | { readonly kind: "exec"; readonly path: string };

export const hookTarget: Value<HookTarget> = {
  allowed: "http:<port>/<path>, at the pod itself",
  parse: parseHttpTarget,
  format: (value) => (value.kind === "http" ? formatHttpTarget(value) : `exec:${value.path}`),
};

/** As {@link hookTarget}, with a program: for the configuration of a daemon, which nobody but root and its own user may write. */
export const daemonHookTarget: Value<HookTarget> = {
  allowed: "http:<port>/<path> on this machine, or exec:<absolute path of a program>",
  parse(input) {
    const path = /^exec:(\/[^\0]{1,4095})$/.exec(input)?.[1];
    return path === undefined ? parseHttpTarget(input) : { kind: "exec", path };
  },
  format: (value) => hookTarget.format(value),
};

/** Which release a hook is about: the body of the call, and the environment of a program. */
export interface HookRelease {
  readonly app: string;
  readonly channel: string;
  readonly version: string;
  readonly sequence: number;
  /** The version before it, or, after a rollback, the one that failed; null where there is none. */
  readonly from: string | null;
}

export type HookAnswer =
  | { readonly answer: "go" }
  /** Asked again after so many milliseconds. */
  | {
      readonly answer: "later";
      readonly afterMs: number;
      /** Nobody has answered. */
      readonly silent?: true;
    }
  /** It cannot be asked before somebody mends what `detail` says; asked again after so many milliseconds. */
  | { readonly answer: "broken"; readonly afterMs: number; readonly detail: string }
  /** `detail` is for people: one line of what the hook said. */
  | { readonly answer: "no"; readonly detail: string };

/** What came of one call. */
export type HookReply =
  | {
      readonly kind: "http";
      readonly status: number;
      readonly retryAfter: string | undefined;
      /** The beginning of the body. */
      readonly text: string;
    }
  /** A program's exit status; null when a signal ended it. */
  | { readonly kind: "exit"; readonly status: number | null; readonly text: string }
  /** Nobody listens, or the time was over without an answer. */
  | {
      readonly kind: "silent";
      /** `timeout`, or the code of the error. */
      readonly text: string;
      /** Whether what was sent can have been heard all the same. */
      readonly reached: boolean;
    }
  /** There is nothing that could be asked: a program that cannot be run, a process that is not there. */
  | { readonly kind: "broken"; readonly text: string };

/** Milliseconds: `later` without a time, and the least and the most that one answer may put it off. */
const LATER_MS = 60_000;
const LATER_LEAST_MS = 1_000;
const LATER_MOST_MS = 3_600_000;

/** Milliseconds until somebody who did not answer is asked again. */
export const SILENT_RETRY_MS = 10_000;

/**
 * Milliseconds of silence in a row after which a hook counts as answered with go: the release that waits may be what brings a dead
 * application back.
 */
export const SILENCE_MS = 600_000;

/** BSD's EX_TEMPFAIL. */
const EXIT_LATER = 75;

/** Statuses by which a server says that the address is none of its own, or takes no such request: no answer of a hook. */
const NO_HOOK: ReadonlySet<number> = new Set([404, 405, 501]);

/**
 * The meaning of a reply.
 *
 * @param now milliseconds since the epoch, for a Retry-After that is a date
 * @param silentMs for how long there has been no answer, this call included
 */
export function judge(hook: HookName, reply: HookReply, now: number, silentMs: number): HookAnswer {
  switch (reply.kind) {
    case "http":
      if (reply.status >= 200 && reply.status < 300) return { answer: "go" };
      if (reply.status === 503) return { answer: "later", afterMs: laterMs(reply.retryAfter, now) };
      if (NO_HOOK.has(reply.status)) return isOfRelease(hook) ? no(reply) : broken(reply);
      return no(reply);
    case "exit":
      if (reply.status === 0) return { answer: "go" };
      if (reply.status === EXIT_LATER) return { answer: "later", afterMs: LATER_MS };
      return no(reply);
    case "broken":
      return broken(reply);
    case "silent":
      return isPatient(hook) && silentMs >= SILENCE_MS
        ? { answer: "go" }
        : { answer: "later", afterMs: SILENT_RETRY_MS, silent: true };
    default:
      return unreachable(reply);
  }
}

function no(reply: HookReply): HookAnswer {
  return {
    answer: "no",
    detail: isUnhooked(reply) ? resultOfReply(reply) : detailOf(reply.text) || resultOfReply(reply),
  };
}

function broken(reply: HookReply): HookAnswer {
  return { answer: "broken", afterMs: LATER_MS, detail: resultOfReply(reply) };
}

/** The release itself has to answer these, so that it does not is its own mistake; the others are asked of what ran before. */
function isOfRelease(hook: HookName): boolean {
  return hook === "post-swap" || hook === "health";
}

function isUnhooked(reply: HookReply): boolean {
  return reply.kind === "http" && NO_HOOK.has(reply.status);
}

/** Whether what was sent can have been heard by somebody whom it concerns. */
export function isReached(reply: HookReply): boolean {
  return reply.kind === "silent" ? reply.reached : reply.kind !== "broken" && !isUnhooked(reply);
}

/** What a reply was, in a line for people. */
export function resultOfReply(reply: HookReply): string {
  const said = detailOf(reply.text);
  if (isUnhooked(reply) && reply.kind === "http")
    return `HTTP status ${reply.status}: nothing at this address answers hooks`;
  switch (reply.kind) {
    case "silent":
    case "broken":
      return said;
    case "http":
    case "exit": {
      const status =
        reply.kind === "http"
          ? `HTTP status ${reply.status}`
          : reply.status === null
            ? "ended by a signal"
            : `exit status ${reply.status}`;
      return said === "" ? status : `${status}: ${said}`;
    }
    default:
      return unreachable(reply);
  }
}

/** Those whose silence is waited out; of the others' the trial's own time decides, or the number of attempts. */
function isPatient(hook: HookName): boolean {
  return hook === "pre-download" || hook === "pre-swap";
}

/** Retry-After in seconds or as a date (RFC 9110, 10.2.3). */
function laterMs(header: string | undefined, now: number): number {
  const text = header?.trim() ?? "";
  if (!/^\d{1,9}$|GMT$/.test(text)) return LATER_MS;
  const ms = text.endsWith("GMT") ? Date.parse(text) - now : Number(text) * 1000;
  if (Number.isNaN(ms)) return LATER_MS;
  return Math.min(LATER_MOST_MS, Math.max(LATER_LEAST_MS, ms));
}

/** Characters of an answer that are shown. */
const DETAIL_LIMIT = 200;

/** The first line of what an application says, fit for a log: other people's text. */
export function detailOf(text: string): string {
  const [line = ""] = text.trimStart().split(/[\r\n]/, 1);
  return line
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "")
    .trim()
    .slice(0, DETAIL_LIMIT);
}
