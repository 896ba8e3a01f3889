/**
 * What secrets ask of a Vault: 500 agents of real code at one simulated Vault, on a virtual clock, through a day and through outages of every
 * kind. Each target is what the operator of a small Vault would ask for; one that is missed fails the run.
 * And what they ask of a node: a sidecar with 500 secrets, as a process, beside `vault agent` or `bao agent` with the same ones at the same Vault,
 * where `VAULT_AGENT` names the program.
 */
import process from "node:process";
import { temporaryFolder } from "../test/support/temporary.ts";
import { openFleet } from "./secrets/fleet.ts";
import type { Fleet } from "./secrets/fleet.ts";
import { bySecond, suffer } from "./secrets/outage.ts";
import { measurePeer } from "./secrets/peer.ts";
import { measurePod } from "./secrets/pod.ts";
import type { PodFigures } from "./secrets/pod.ts";
import { KINDS, OUTAGES } from "./secrets/vault.ts";
import type { Outage } from "./secrets/vault.ts";
import { buildSubjects, round } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

const AGENTS = 500;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_HOURS = 24;

/** Two that are read every five minutes, leases of one hour and of four, and a certificate of three days; tokens last an hour. */
const SECRETS = {
  shared: "secret/data/shared",
  own: "secret/data/own",
  short: "database/creds/short",
  long: "database/creds/long",
  certificate: "pki/issue/web common_name=web.example",
};

const TARGETS = {
  /** Requests of an agent in an hour in which Vault works. */
  normal: 40,
  /** Requests of the busiest agent in an hour of an outage. */
  outage: 120,
  /** Requests in the busiest second, for each agent of the fleet. */
  busiest: 0.15,
  /** Seconds after an outage until all is well with every agent. */
  fresh: 600,
  /** Credentials that lapse after an outage with a minute or more left: none, and half of one so that there is a ratio. */
  lapsed: 0.5,
};

/** The short one first: some leases outlast it, by little. */
const TROUBLES: readonly (readonly [Outage, number])[] = [
  ["refused", 40],
  ...(Object.keys(OUTAGES) as Outage[]).map((kind) => [kind, 60] as const),
];

export async function* secrets(): AsyncGenerator<Measurement> {
  yield* podLines();
  const missed: string[] = [];
  for await (const line of fleetLines()) {
    yield line;
    if (line.peer === "target" && (line.ratio ?? 0) > 1)
      missed.push(`${line.subject}: ${line.metric} ${line.value}`);
  }
  if (missed.length > 0) throw new Error(`targets are missed: ${missed.join("; ")}`);
}

/** How many secrets a pod has; one, for what the agent itself takes. */
const COUNTS = [1, 500];

const UNITS: Readonly<Record<keyof PodFigures, string>> = {
  publishedMs: "ms",
  requests: "requests",
  rssPeak: "MiB",
  rss: "MiB",
  rssAnon: "MiB",
  startCpu: "ms",
  steadyCpu: "ms/s",
  steadyRequests: "requests/s",
};

async function* podLines(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  const sidecar = (await buildSubjects(folder.path)).find(({ name }) => name === "sidecar");
  if (sidecar === undefined) throw new Error("no bundle");
  const { VAULT_AGENT: program } = process.env;
  for (const count of COUNTS) {
    const peer = program === undefined ? undefined : await measurePeer(program, count);
    const figures = await measurePod(sidecar, count);
    const what = `a pod with ${count} secret${count === 1 ? "" : "s"}`;
    for (const metric of Object.keys(UNITS) as (keyof PodFigures)[]) {
      const [value, other, unit] = [figures[metric], peer?.[metric], UNITS[metric]];
      if (other !== undefined)
        yield {
          subject: `agent, ${what}`,
          metric,
          value: round(other),
          unit,
          peer: null,
          ratio: null,
        };
      const beside = other === undefined ? null : "agent";
      const ratio = other === undefined ? null : round(value / other);
      yield { subject: what, metric, value: round(value), unit, peer: beside, ratio };
    }
  }
}

async function* fleetLines(): AsyncGenerator<Measurement> {
  // As after a power cut, which is when a fleet is most in step.
  await using fleet = await openFleet({ agents: AGENTS, secrets: SECRETS, startMs: MINUTE_MS });
  const { clock, vault } = fleet;
  await clock.passTo(2 * MINUTE_MS);
  const begun = vault.take();
  yield line("start within a minute", "requests-per-agent", begun.length / AGENTS, "requests");
  yield line(
    "start within a minute",
    "busiest-second",
    Math.max(...bySecond(begun, 0, 120)),
    "requests",
  );
  let at = 2 * HOUR_MS;
  for (const [kind, minutes] of TROUBLES) {
    await clock.passTo(at);
    yield* trouble(fleet, kind, minutes);
    at = clock.monotonic() + HOUR_MS;
  }
  await clock.passTo(at);
  yield* day(fleet);
}

async function* trouble(fleet: Fleet, kind: Outage, minutes: number): AsyncGenerator<Measurement> {
  const subject = `${minutes} min of ${OUTAGES[kind]}`;
  const found = await suffer(fleet, kind, minutes * MINUTE_MS);
  const { perHour, busiest, mean, p99, freshAfter, expired, lapsed } = found;
  yield line(subject, "requests-per-agent-hour", perHour.mean, "requests");
  yield line(subject, "requests-of-busiest-agent-hour", perHour.most, "requests", TARGETS.outage);
  const limit = TARGETS.busiest * AGENTS;
  yield line(subject, "busiest-second-during", busiest.during, "requests", limit);
  yield line(subject, "busiest-second-after", busiest.after, "requests", limit);
  yield line(subject, "p99-second-after", p99, "requests");
  yield line(subject, "busiest-over-mean-after", busiest.after / mean, "1");
  const seconds = Number.isNaN(freshAfter) ? Number.MAX_SAFE_INTEGER : freshAfter;
  yield line(subject, "all-well-after", seconds, "s", TARGETS.fresh);
  yield line(subject, "credentials-ended-in-it", expired, "credentials");
  yield line(subject, "credentials-lapsed-after", lapsed, "credentials", TARGETS.lapsed);
}

async function* day({ clock, vault }: Fleet): AsyncGenerator<Measurement> {
  const subject = "a day";
  const begun = clock.monotonic();
  vault.take();
  vault.takeConcurrent();
  const counts = new Map<string, number>();
  let busiest = 0;
  for (let hour = 0; hour < DAY_HOURS; hour++) {
    await clock.passTo(begun + (hour + 1) * HOUR_MS);
    const asked = vault.take();
    for (const { kind } of asked) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    const from = begun + hour * HOUR_MS;
    busiest = Math.max(busiest, ...bySecond(asked, from, HOUR_MS / 1_000));
  }
  const hourly = (count: number): number => count / AGENTS / DAY_HOURS;
  for (const kind of KINDS)
    yield line(
      subject,
      `${kind}-requests-per-agent-hour`,
      hourly(counts.get(kind) ?? 0),
      "requests",
    );
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  yield line(subject, "requests-per-agent-hour", hourly(all), "requests", TARGETS.normal);
  yield line(subject, "busiest-second", busiest, "requests", TARGETS.busiest * AGENTS);
  yield line(subject, "mean-second", all / DAY_HOURS / 3_600, "requests");
  yield line(subject, "requests-at-once", vault.takeConcurrent(), "requests");
}

function line(
  subject: string,
  metric: string,
  value: number,
  unit: string,
  target?: number,
): Measurement {
  return {
    subject: `${AGENTS} agents, ${subject}`,
    metric,
    value: round(value),
    unit,
    peer: target === undefined ? null : "target",
    ratio: target === undefined ? null : round(value / target),
  };
}
