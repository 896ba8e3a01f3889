/**
 * The restart lever of one container: the sidecar answers the kubelet's startup and liveness probes in the application's
 * place, and fails them when the container is to be restarted. No right to the Kubernetes API is needed for it.
 *
 * How the kubelet goes about it (prober/worker.go, measured in restart-lever.md of the research): a container is probed for startup until one
 * probe passes, from then on for liveness, and for startup again only when it has been started anew. After as many failures in
 * a row as the threshold says it is killed, and not probed until a new instance runs. So a startup probe that follows a liveness
 * probe, or the last startup failure that the threshold allows, is a new instance. Where it cannot be told, the answer is 200:
 * a missed restart can be asked for again, a needless one cannot be taken back.
 *
 * After a restart of the sidecar nothing is known: the phase is `unseen`. Where the container may have been started before the sidecar, its
 * first startup probe may be of an instance that has loaded the old release, so it is no proof of a restart that is wanted: the lever is
 * pulled. Were it taken for one, a release could be committed that the application has never had.
 */
import { unreachable } from "./errors.ts";
import type { AppProbes, Probe } from "./probe.ts";
import { initialVerdict, observe } from "./prober.ts";
import type { Verdict } from "./prober.ts";

export interface Lever {
  /**
   * What is known of the kubelet's view: nothing yet; the container is starting; its startup probe was answered with 200 but no
   * liveness probe has come, so that answer may have been lost; it is probed for liveness.
   */
  readonly phase: "unseen" | "starting" | "passed" | "live";
  /** Whether the container may have been started before this process. It says something in phase `unseen` only. */
  readonly inherited: boolean;
  /** Instances seen to start since the sidecar came up. */
  readonly starts: number;
  /** When the present instance was first seen, and when its last startup probe came; monotonic milliseconds. */
  readonly since: number;
  readonly lastStartup: number;
  /** When the kubelet last asked anything; undefined before the first time. */
  readonly lastProbe: number | undefined;
  /** Startup probes of this instance in a row that were answered with 503. */
  readonly refusals: number;
  /** Result of the application's own probe: the one for startup while starting, then the one for liveness. */
  readonly own: Verdict;
  /** A restart that was asked for and has not been seen yet; `pulled` when a probe has been failed for it. */
  readonly request: { readonly at: number; readonly pulled: boolean } | undefined;
  /** When the last pulls began, oldest first; monotonic milliseconds. */
  readonly pulls: readonly number[];
}

export type LeverEvent =
  /** The kubelet asks. `at` is in monotonic milliseconds, here and below. */
  | { readonly kind: "startup" | "liveness"; readonly at: number }
  /** The container shall be restarted; asked again before it has been, it is the same request. */
  | { readonly kind: "restart"; readonly at: number }
  /** Nobody waits for the restart any more. */
  | { readonly kind: "withdraw" }
  /** The application's own probe of this instance has been carried out. */
  | {
      readonly kind: "probed";
      readonly probe: "startup" | "liveness";
      readonly instance: number;
      readonly passed: boolean;
    };

/** What a probe of the kubelet is answered; `undefined` for other events. */
export type Answer = 200 | 503 | undefined;

/** The kubelet's back-off forgets after ten quiet minutes; more pulls than these in that time are not worth telling apart. */
const PULLS_KEPT = 10;

/** Milliseconds; see {@link isNewInstance}. */
const LEAST_GAP_MS = 5_000;

export const initialLever: Lever = {
  phase: "unseen",
  inherited: false,
  starts: 0,
  since: 0,
  lastStartup: 0,
  lastProbe: undefined,
  refusals: 0,
  own: initialVerdict(true),
  request: undefined,
  pulls: [],
};

export function nextLever(lever: Lever, event: LeverEvent, probes: AppProbes): [Lever, Answer] {
  switch (event.kind) {
    case "startup":
      return answerStartup(lever, event.at, probes);
    case "liveness":
      return answerLiveness(lever, event.at);
    case "restart":
      return [{ ...lever, request: lever.request ?? { at: event.at, pulled: false } }, undefined];
    case "withdraw":
      return [{ ...lever, request: undefined }, undefined];
    case "probed":
      return [probed(lever, event, probes), undefined];
    default:
      return unreachable(event);
  }
}

function answerStartup(before: Lever, at: number, probes: AppProbes): [Lever, Answer] {
  const seen: Lever = { ...instanceOf(before, at, probes), lastStartup: at, lastProbe: at };
  if (probes.startup === undefined && (seen.phase === "passed" || seen.request === undefined))
    return [passed(seen), 200];
  if (seen.phase === "starting" && seen.request !== undefined) return refused(pulled(seen, at));
  if (seen.phase === "starting") return seen.own.passing ? [passed(seen), 200] : refused(seen);
  // The 200 was lost, or a new instance came too fast to be told apart: for either, its own probe decides anew.
  return refused({ ...seen, phase: "starting", refusals: 0, own: initialVerdict(false) });
}

function instanceOf(lever: Lever, at: number, probes: AppProbes): Lever {
  if (lever.phase === "unseen" && lever.inherited) return first(lever, at, probes);
  return isNewInstance(lever, at, probes) ? started(lever, at, probes) : lever;
}

function refused(lever: Lever): [Lever, Answer] {
  return [{ ...lever, refusals: lever.refusals + 1 }, 503];
}

/**
 * Whether a startup probe is the first of an instance that was not seen before: after a liveness probe; after the refusal that
 * made the kubelet kill the last one; or after a pause that only a restart, with its back-off, explains.
 */
function isNewInstance(lever: Lever, at: number, { startupWindow }: AppProbes): boolean {
  if (lever.phase === "unseen" || lever.phase === "live") return true;
  if (lever.refusals >= startupWindow.failureThreshold) return true;
  return at - lever.lastStartup > Math.max(3 * startupWindow.periodMs, LEAST_GAP_MS);
}

function started(lever: Lever, at: number, probes: AppProbes): Lever {
  return { ...first(lever, at, probes), starts: lever.starts + 1, request: undefined };
}

/** An instance at its first sight. */
function first(lever: Lever, at: number, probes: AppProbes): Lever {
  const own = initialVerdict(probes.startup === undefined);
  return { ...lever, phase: "starting", since: at, refusals: 0, own };
}

/** From here on the application's liveness counts; the kubelet takes it to be good until it has failed. */
function passed(lever: Lever): Lever {
  return lever.phase === "passed" || lever.phase === "live"
    ? lever
    : { ...lever, phase: "passed", refusals: 0, own: initialVerdict(true) };
}

function answerLiveness(before: Lever, at: number): [Lever, Answer] {
  const lever: Lever =
    before.phase === "unseen"
      ? { ...before, phase: "live", since: at, lastProbe: at }
      : { ...passed(before), phase: "live", lastProbe: at };
  if (lever.request !== undefined) return [pulled(lever, at), 503];
  return [lever, lever.own.passing ? 200 : 503];
}

function pulled(lever: Lever, at: number): Lever {
  if (lever.request === undefined || lever.request.pulled) return lever;
  return {
    ...lever,
    request: { ...lever.request, pulled: true },
    pulls: [...lever.pulls, at].slice(-PULLS_KEPT),
  };
}

function probed(
  lever: Lever,
  event: Extract<LeverEvent, { kind: "probed" }>,
  probes: AppProbes,
): Lever {
  const probe = probes[event.probe];
  // A result may arrive when the kubelet has gone on to another instance or another probe.
  const current = ownProbe(lever, probes);
  if (probe === undefined || probe !== current || event.instance !== lever.starts) return lever;
  return { ...lever, own: observe(lever.own, event.passed, probe) };
}

/** The application's own probe that is to be carried out now. */
export function ownProbe(lever: Lever, probes: AppProbes): Probe | undefined {
  switch (lever.phase) {
    case "unseen":
      return undefined;
    case "starting":
      return probes.startup;
    case "passed":
    case "live":
      return probes.liveness;
    default:
      return unreachable(lever.phase);
  }
}

/** Milliseconds that a container may take to end and to start, beyond the window in which it is killed. */
const START_MS = 10_000;

/**
 * Since when the kubelet has held back a container that it has killed for the lever: the time of its last probe, or undefined when it does
 * not, as far as can be told. A container that waits in the back-off is not probed (measured in restart-lever.md of the research).
 *
 * @param windowMs in which the kubelet kills a container whose liveness probe fails
 */
export function heldBackSince(lever: Lever, windowMs: number, now: number): number | undefined {
  const { request, lastProbe } = lever;
  if (request?.pulled !== true || lastProbe === undefined) return undefined;
  return now - lastProbe > windowMs + START_MS ? lastProbe : undefined;
}
