/**
 * What a fleet of 100,000 sites asks of one repository, idle and through a roll-out. Costs of exchanges are measured on the wire in the
 * same run, the sidecar's own code against `edgesync serve`; the fleet is a model that adds them up, with the sidecar's own functions for
 * when a site looks and when its turn comes; and a sample of sites of real code, on compressed time, says how far the model is off.
 */
import type { Rollout } from "#core/channel-document.ts";
import { shareAt } from "#core/rollout.ts";
import { isoSeconds } from "../publisher/metadata.ts";
import { EXCHANGES, peakOf, simulate, sumOf } from "./fleet/model.ts";
import type { Costs, Fleet, Tally } from "./fleet/model.ts";
import { measureExchanges } from "./fleet/exchanges.ts";
import { runSample } from "./fleet/sample.ts";
import type { Sample } from "./fleet/sample.ts";
import { openWire } from "./fleet/wire.ts";
import type { Protocol } from "./fleet/wire.ts";
import { round } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

const SITES = 100_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const POLL_MS = 15 * MINUTE_MS;
/** Bytes of an idle look over plain HTTP; more is a fault. */
const IDLE_LIMIT = 1024;
/** Seconds. */
const DAY = 86_400;

export async function* fleet(): AsyncGenerator<Measurement> {
  const plain = await measure("http");
  yield* exchanges("http", plain.costs);
  if (plain.costs.idle.bytes >= IDLE_LIMIT)
    throw new Error(
      `an idle look takes ${plain.costs.idle.bytes} bytes, allowed are ${IDLE_LIMIT}`,
    );
  const { costs, sample } = await measure("https", true);
  yield* exchanges("https", costs);
  if (sample !== undefined) yield* check(sample, costs);
  yield* phased(costs);
  yield* atOnce(costs);
  yield* outage(costs);
}

async function measure(
  protocol: Protocol,
  withSample = false,
): Promise<{ readonly costs: Costs; readonly sample: Sample | undefined }> {
  let costs: Costs;
  {
    await using wire = await openWire(protocol);
    costs = await measureExchanges(wire);
  }
  if (!withSample) return { costs, sample: undefined };
  await using wire = await openWire(protocol);
  return { costs, sample: await runSample(wire) };
}

function* exchanges(protocol: Protocol, costs: Costs): Generator<Measurement> {
  for (const exchange of EXCHANGES) {
    const subject = `${exchange} look over ${protocol}`;
    const { requests, connections, bytes } = costs[exchange];
    const peer = exchange === "idle" ? null : "idle";
    const { idle } = costs;
    yield line(subject, "requests", requests, "requests", peer, requests / idle.requests);
    const more = connections / idle.connections;
    yield line(subject, "connections", connections, "connections", peer, more);
    yield line(subject, "bytes", bytes, "bytes", peer, bytes / idle.bytes);
  }
}

/** The model beside sites of real code. */
function* check(sample: Sample, costs: Costs): Generator<Measurement> {
  const subject = `sample of ${sample.fleet.sites} sites`;
  // The average of many runs of the model, because so few sites are a matter of chance.
  const runs = 50;
  let [requests, bytes] = [0, 0];
  const installed = sample.installed.map(() => 0);
  const { fleet } = sample;
  for (let seed = 1; seed <= runs; seed++) {
    const tally = simulate(fleet, costs, seed);
    requests += sumOf(tally.seconds) / runs;
    bytes += sumOf(tally.minutes) / runs;
    for (const index of installed.keys()) {
      const minute = (fleet.publishedAt - fleet.from + (index + 1) * HOUR_MS) / MINUTE_MS;
      installed[index] = (installed[index] ?? 0) + sumOf(tally.installs, 0, minute) / runs;
    }
  }
  yield line(subject, "requests", sample.requests, "requests", "model", sample.requests / requests);
  yield line(subject, "bytes", sample.bytes, "bytes", "model", sample.bytes / bytes);
  for (const [index, count] of sample.installed.entries()) {
    const metric = `sites with the release after ${index + 1} h`;
    const expected = installed[index] ?? 0;
    yield line(subject, metric, count, "sites", "model", expected === 0 ? null : count / expected);
  }
}

const EPOCH = Date.parse("2026-03-01T00:00:00Z");

function fleetOf(rollout: Partial<Rollout>, more: Partial<Fleet> = {}): Fleet {
  const start = isoSeconds(EPOCH + 2 * DAY_MS + HOUR_MS);
  return {
    app: "web",
    channel: "stable",
    sites: SITES,
    name: (index) => `store-${index}`,
    intervalMs: POLL_MS,
    from: EPOCH,
    to: EPOCH + 4 * DAY_MS,
    // All come up together, as after a power cut; by the next day they are spread.
    firstLook: (random) => (random() * POLL_MS) / 10,
    renewMs: DAY_MS,
    publishedAt: EPOCH + 2 * DAY_MS,
    rollout: { start, duration: DAY, percent: 100, paused: false, salt: "2", from: [], ...rollout },
    outage: null,
    ...more,
  };
}

function* phased(costs: Costs): Generator<Measurement> {
  const plan = fleetOf({});
  const tally = simulate(plan, costs, 1);
  yield* period("all sites up at once, first hour", tally, 0, 3_600, null);
  yield* period("idle day", tally, DAY, 2 * DAY, null);
  yield* period("day of the roll-out", tally, 2 * DAY, 3 * DAY, "idle day");
  yield* shares("phased over 24 h", plan, tally);
}

function* atOnce(costs: Costs): Generator<Measurement> {
  const plan = fleetOf({ duration: 0 });
  const tally = simulate(plan, costs, 1);
  yield* period("day of a release without phases", tally, 2 * DAY, 3 * DAY, "idle day");
}

/** The repository is away for two hours in the middle of the roll-out. */
function* outage(costs: Costs): Generator<Measurement> {
  const from = EPOCH + 2 * DAY_MS + 10 * HOUR_MS;
  const plan = fleetOf({}, { outage: { from, to: from + 2 * HOUR_MS } });
  const tally = simulate(plan, costs, 1);
  const start = (from - EPOCH) / 1_000;
  yield* period("two hours without the repository", tally, start, start + 7_200, null);
  yield* period("the hour after them", tally, start + 7_200, start + 10_800, null);
}

/** Requests and bytes of a stretch of seconds, and its peaks beside the same requests spread flatly. */
function* period(
  subject: string,
  tally: Tally,
  from: number,
  to: number,
  peer: string | null,
): Generator<Measurement> {
  const days = (to - from) / DAY;
  const requests = sumOf(tally.seconds, from, to);
  const bytes = sumOf(tally.minutes, from / 60, to / 60);
  const idle = {
    requests: sumOf(tally.seconds, DAY, 2 * DAY),
    bytes: sumOf(tally.minutes, DAY / 60, (2 * DAY) / 60),
  };
  const against = (value: number, other: number): number | null =>
    peer === null ? null : value / other;
  const metric = "per site and day";
  const perSite = (value: number): number => value / SITES / days;
  yield line(
    subject,
    `requests ${metric}`,
    perSite(requests),
    "requests",
    peer,
    against(requests, idle.requests),
  );
  yield line(subject, `bytes ${metric}`, perSite(bytes), "bytes", peer, against(bytes, idle.bytes));
  const flat = requests / (to - from);
  yield line(subject, "flat spread", flat, "requests/s", null, null);
  for (const width of [1, 60]) {
    const peak = peakOf(tally, from, to, width);
    yield line(subject, `peak over ${width} s`, peak, "requests/s", "flat spread", peak / flat);
  }
}

/** How far the sites that have the release follow the schedule. A site acts at its next look, so it is later by at most one. */
function* shares(
  subject: string,
  { from, rollout }: Fleet,
  { installs }: Tally,
): Generator<Measurement> {
  const start = (Date.parse(rollout.start) - from) / MINUTE_MS;
  for (const hours of [0, 1, 2, 4, 8, 12, 16, 20, 23, 24, 25]) {
    const minute = start + hours * 60;
    const share = sumOf(installs, 0, minute) / SITES;
    const scheduled = shareAt(rollout, from + minute * MINUTE_MS);
    const metric = `share after ${hours} h`;
    yield line(
      subject,
      metric,
      share,
      "of sites",
      "schedule",
      scheduled === 0 ? null : share / scheduled,
    );
  }
}

function line(
  subject: string,
  metric: string,
  value: number,
  unit: string,
  peer: string | null,
  ratio: number | null,
): Measurement {
  return {
    subject,
    metric,
    value: round(value),
    unit,
    peer,
    ratio: ratio === null ? null : round(ratio),
  };
}
