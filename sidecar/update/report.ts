/** What the update agent tells: the status for people and tools, the metrics, and one log line for each thing that one would act on. */
import { DAY_MS } from "#core/budget.ts";
import type { Usage } from "#core/budget.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import type { Place } from "#core/rollout.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { astray, banksOf, served } from "#core/update-state.ts";
import type { ChannelMemory, UpdateState } from "#core/update-state.ts";
import { planStatus } from "./plan-status.ts";
import type { PlanStatus } from "./plan-status.ts";
import type { Moment, Permit } from "./permits.ts";
import type { Lost } from "../payload/store.ts";
import type { TrustTime } from "../channel/trust-time.ts";
import type {
  BudgetStatus,
  ErrorStatus,
  PhaseName,
  RolloutStatus,
  TrialStatus,
  UpdateStatus,
  WaitingStatus,
} from "./update-status.ts";
import type { UsageBook } from "./usage.ts";

export type { UpdateStatus } from "./update-status.ts";

const PHASES: readonly PhaseName[] = [
  "idle",
  "downloading",
  "staged",
  "trial",
  "rolling-back",
  "committed",
];

export interface Report {
  /** @param current the bank that `current` names */
  status(state: UpdateState | undefined, current: string | undefined): Omit<UpdateStatus, "scrub">;
  /** A transition that has been saved. */
  changed(before: UpdateState, after: UpdateState): void;
  /** What stands in the way of a download or a swap; nothing when it may go on. */
  waits(moment: Moment, permit: Permit): void;
  /** A plan, or the one that takes its place when something in it did not work. */
  planned(plan: Plan, version: string, from: string | null): void;
  /** Bytes of a plan's downloads. */
  readonly arrived: (bytes: number) => void;
  /** What the channel offers the site, at every look. */
  offered(site: string, version: string, place: Place | null): void;
  looked(changed: boolean): void;
  /** A look, or what followed from it, ended in an error. */
  failed(error: unknown, from: "look" | "build" | "step", retryMs: number): void;
  /** A look beside a download failed. */
  missed(error: unknown): void;
  /** What the disk has lost of what is installed. */
  lost(what: Lost, became?: "mended"): void;
  /** Nothing stands in the way any more. */
  cleared(): void;
  /** What is not needed any more could not be removed. */
  leftBehind(error: unknown): void;
}

export interface ReportDeps {
  readonly app: string;
  readonly channel: string;
  readonly clock: Clock;
  readonly time: TrustTime;
  readonly usage: Pick<UsageBook, "today">;
  /** Bytes a day. */
  readonly budget: number | undefined;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

export function openReport(deps: ReportDeps): Report {
  const { app, channel, clock, time, usage, budget, log, metrics } = deps;
  let plan: PlanStatus | undefined;
  let site: string | null = null;
  let rollout: RolloutStatus | null = null;
  let lastLook: number | undefined;
  let error: ErrorStatus | null = null;
  let untidy = false;
  let waiting: WaitingStatus | null = null;

  const iso = (ms: number): string => new Date(ms).toISOString();
  const memoryOf = (state: UpdateState | undefined): ChannelMemory =>
    state?.channels[`${app}/${channel}`] ?? { sequence: 0, blocked: null };

  function announce(before: UpdateState, after: UpdateState): void {
    const from = served(before)?.version ?? "";
    switch (after.phase) {
      case "downloading":
        log.info({ app, channel, ...labelsOf(after.target), from }, "release offered");
        break;
      case "staged": {
        const labels = { app, channel, ...labelsOf(after.bank), from };
        // It has not been fetched now, and has not been tried either.
        if (before.phase === "rolling-back") log.info(labels, "release waits for another trial");
        else log.info(labels, "release staged");
        break;
      }
      case "trial":
        log.info({ app, channel, ...labelsOf(after.bank), from }, "trial begun");
        break;
      case "rolling-back": {
        // A newer release that was begun meanwhile did not come about.
        if (before.phase !== "trial") break;
        const { blocked } = memoryOf(after);
        const reason = blocked?.reason ?? "interrupted";
        metrics.add("edgesync_sidecar_rollbacks_total", { reason });
        const fields = { app, channel, ...labelsOf(after.to), from, reason, ...blocked?.failure };
        log.warn(fields, "trial failed, going back");
        break;
      }
      case "committed":
        announceCommit(before, after);
        announceVeto(before, after);
        break;
      case "idle":
        break;
    }
  }

  function announceTrial(
    { resumed }: Extract<UpdateState, { phase: "trial" }>,
    after: Extract<UpdateState, { phase: "trial" }>,
  ): void {
    if (after.resumed === resumed) return;
    const { bank, stage, starts } = after;
    const fields = { app, channel, ...labelsOf(bank), stage, starts, resumed: after.resumed };
    log.info(fields, "trial resumed");
  }

  function announceCommit(
    before: UpdateState,
    { bank }: Extract<UpdateState, { phase: "committed" }>,
  ): void {
    const labels = { app, channel, ...labelsOf(bank) };
    if (before.phase === "rolling-back") log.info(labels, "previous release restored");
    const tried = before.phase === "trial";
    const installed = before.phase === "downloading" && before.from?.sequence !== bank.sequence;
    if (!tried && !installed) return;
    metrics.add("edgesync_sidecar_commits_total", {});
    log.info(labels, "release committed");
  }

  function measureWaiting(): void {
    metrics.clear("edgesync_sidecar_waiting");
    const reason = waiting?.reason ?? rollout?.waiting ?? null;
    if (reason !== null) metrics.set("edgesync_sidecar_waiting", { reason }, 1);
  }

  /** A release that the application did not want at all was never on trial. */
  function announceVeto(before: UpdateState, after: UpdateState): void {
    const blocked = memoryOf(after).blocked;
    if (blocked?.reason !== "hook_refused" || memoryOf(before).blocked === blocked) return;
    const { version, sequence, reason, detail = "" } = blocked;
    const fields = { app, channel, version, sequence, reason, detail, ...blocked.failure };
    log.warn(fields, "release refused");
  }

  function measure(state: UpdateState): void {
    for (const phase of PHASES)
      metrics.set("edgesync_sidecar_update_phase", { phase }, state.phase === phase ? 1 : 0);
    metrics.clear("edgesync_sidecar_release_info");
    const bank = served(state);
    if (bank !== null)
      metrics.set("edgesync_sidecar_release_info", { app, channel, version: bank.version }, 1);
    metrics.set("edgesync_sidecar_channel_sequence", {}, memoryOf(state).sequence);
  }

  return {
    status(state, current) {
      const { sequence, blocked } = memoryOf(state);
      const bank = state && banksOf(state).find(({ id }) => id === current);
      return {
        phase: state?.phase ?? "unknown",
        channel: `${app}/${channel}`,
        release: bank === undefined ? null : labelsOf(bank),
        target: state === undefined ? null : targetOf(state),
        sequence,
        site,
        rollout,
        plan: plan ?? null,
        trial: state?.phase === "trial" ? trialOf(state) : null,
        waiting,
        budget: budget === undefined ? null : budgetOf(usage.today().usage, budget),
        blocked,
        lastLook: lastLook === undefined ? null : iso(lastLook),
        time: time.status(),
        error,
      };
    },
    changed(before, after) {
      if (before.phase !== after.phase) announce(before, after);
      else if (before.phase === "trial" && after.phase === "trial") announceTrial(before, after);
      const heard = astray(before).length > 0 && astray(after).length === 0;
      if (heard && after.phase !== "rolling-back" && after.phase !== "committed")
        log.info({ app, channel }, "the application has been told at last");
      if (
        waiting !== null &&
        after.phase !== (waiting.moment === "swap" ? "staged" : "downloading")
      )
        waiting = null;
      const built = before.phase === "downloading" && after.phase !== "downloading";
      if (built && plan !== undefined && targetReached(before, after))
        metrics.add("edgesync_sidecar_saved_bytes_total", {}, Math.max(0, plan.savedBytes));
      measure(after);
      measureWaiting();
    },
    waits(moment, permit) {
      const before = waiting?.moment === moment ? waiting : null;
      if (permit.answer !== "wait") {
        waiting = null;
        if (before !== null) log.info({ app, channel, moment }, "waiting is over");
      } else {
        const { reason, failure = null } = permit;
        const until = permit.until === null ? null : iso(permit.until);
        const same = before?.reason === reason;
        const since = same ? before.since : iso(clock.now());
        waiting = { moment, reason, until, since, failure };
        const fields = { app, channel, moment, reason, until: until ?? "", ...failure };
        if (!same && reason === "hook_broken") log.error(fields, "waiting until that is mended");
        else if (!same) log.info(fields, "waiting");
      }
      measureWaiting();
    },
    planned(next, version, from) {
      // With a second plan for the same release the bytes of the first were spent all the same.
      const receivedBytes = plan?.version === version ? plan.receivedBytes : 0;
      plan = planStatus(next, version, from, receivedBytes);
      const { downloadBytes, savedBytes, ways, whole } = plan;
      const labels = { app, channel, version, from: from ?? "" };
      log.info({ ...labels, sizeBytes: downloadBytes, savedBytes, ways, whole }, "update planned");
    },
    arrived(bytes) {
      if (plan !== undefined) plan = { ...plan, receivedBytes: plan.receivedBytes + bytes };
    },
    offered(name, version, place) {
      const before = rollout?.waiting ?? null;
      site = name;
      rollout = place && {
        version,
        number: place.number,
        turn: place.turn === null ? null : iso(place.turn),
        waiting: place.waiting,
      };
      measureRollout(place, metrics);
      measureWaiting();
      if (rollout === null || rollout.waiting === before) return;
      const { waiting, turn } = rollout;
      const labels = { app, channel, version };
      if (waiting === null) log.info(labels, "waiting in the roll-out is over");
      else log.info({ ...labels, reason: waiting, turn: turn ?? "" }, "waiting in the roll-out");
    },
    looked(changed) {
      lastLook = clock.now();
      metrics.add("edgesync_sidecar_polls_total", { outcome: changed ? "changed" : "unchanged" });
      metrics.set("edgesync_sidecar_last_poll_success_timestamp_seconds", {}, lastLook / 1000);
    },
    failed(cause, from, retryMs) {
      const code = codeOf(cause);
      const message = cause instanceof Error ? cause.message : String(cause);
      if (from === "look") metrics.add("edgesync_sidecar_polls_total", { outcome: code });
      if (from === "build") metrics.add("edgesync_sidecar_update_failures_total", { code });
      const before = error?.code === code ? error : undefined;
      const repeated = before !== undefined;
      error = { code, message, since: before?.since ?? iso(clock.now()) };
      const fields = { app, channel, code, err: cause, delayMs: Math.round(retryMs) };
      // A site that is cut off for a week says so once.
      if (repeated) log.debug(fields, "still failing, trying again later");
      else log.warn(fields, "update failed, trying again later");
    },
    missed(cause) {
      const code = codeOf(cause);
      metrics.add("edgesync_sidecar_polls_total", { outcome: code });
      log.debug({ app, channel, code, err: cause }, "cannot look at the channel");
    },
    leftBehind(cause) {
      // Tried again at every look, told once.
      const fields = { app, channel, code: codeOf(cause), err: cause };
      if (untidy) log.debug(fields, "still cannot remove what is not needed any more");
      else log.warn(fields, "cannot remove what is not needed any more");
      untidy = true;
    },
    lost({ kind, path }, became) {
      metrics.add("edgesync_sidecar_scrub_damage_total", { kind });
      log.warn({ app, channel, reason: kind, detail: path }, "installed release is damaged");
      if (became === undefined) return;
      metrics.add("edgesync_sidecar_scrub_repairs_total", {});
      log.info({ app, channel, detail: path }, "installed release repaired");
    },
    cleared() {
      if (error !== null) log.info({ app, channel, code: error.code }, "update works again");
      error = null;
    },
  };
}

function measureRollout(place: Place | null, metrics: SidecarMetrics): void {
  metrics.clear("edgesync_sidecar_rollout_number");
  metrics.clear("edgesync_sidecar_rollout_turn_timestamp_seconds");
  if (place === null) return;
  metrics.set("edgesync_sidecar_rollout_number", {}, place.number);
  if (place.turn !== null)
    metrics.set("edgesync_sidecar_rollout_turn_timestamp_seconds", {}, place.turn / 1000);
}

function labelsOf(target: { readonly version: string; readonly sequence: number }): {
  readonly version: string;
  readonly sequence: number;
} {
  return { version: target.version, sequence: target.sequence };
}

function budgetOf({ day, bytes }: Usage, limit: number): BudgetStatus {
  return { day: new Date(day * DAY_MS).toISOString().slice(0, 10), bytes, limit };
}

function targetOf(state: UpdateState): UpdateStatus["target"] {
  if (state.phase === "downloading") return labelsOf(state.target);
  return state.phase === "staged" || state.phase === "trial" ? labelsOf(state.bank) : null;
}

function trialOf(trial: Extract<UpdateState, { phase: "trial" }>): TrialStatus {
  const { stage, fallback, starts, resumed, watch } = trial;
  const { spentMs, healthyMs, failure = null } = watch;
  return { stage, fallback: fallback.version, starts, resumed, spentMs, healthyMs, failure };
}

function targetReached(
  { target }: Extract<UpdateState, { phase: "downloading" }>,
  after: UpdateState,
): boolean {
  return "bank" in after && after.bank.sequence === target.sequence;
}
