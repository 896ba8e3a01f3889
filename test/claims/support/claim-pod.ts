/** Pods on a claim in one process, with a clock that goes on by what is slept, so that each round is a call of the test. */
import { mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Follow } from "#core/follow.ts";
import { formatJournal } from "#core/journal.ts";
import type { Policy } from "#core/policy.ts";
import type { Settings } from "#core/settings.ts";
import { INITIAL } from "#core/update-state.ts";
import type { Bank } from "#core/update-state.ts";
import type { Holds } from "../../../sidecar/application/hold.ts";
import { realClock } from "../../support/real-clock.ts";
import { temporaryFolder } from "../../support/temporary.ts";
import { nodeDisk } from "../../../sidecar/disk/durable.ts";
import type { Disk } from "../../../sidecar/disk/durable.ts";
import { noHooks } from "../../../sidecar/application/hooks.ts";
import type { Hooks } from "../../../sidecar/application/hooks.ts";
import type { Permit } from "../../../sidecar/update/permits.ts";
import { openClaimAgent } from "../../../sidecar/claim/claim.ts";
import type { UpdateAgent } from "../../../sidecar/update/agent.ts";
import { siteSettings } from "../../update/support/site.ts";
import { openClaimVolume } from "../../../sidecar/claim/volume.ts";
import type { ClaimVolume, ClaimVolumeDeps } from "../../../sidecar/claim/volume.ts";
import { ALONE } from "../../../sidecar/claim/turn.ts";
import type { Workload } from "../../../sidecar/application/workload.ts";

export const LEASE_MS = 60_000;
/** For an agent, whose time is the machine's. */
const AGENT_LEASE_MS = 3_000;
export const BANKS = ["one", "two"] as const;

export interface PodOptions {
  readonly settings?: Partial<Settings>;
  readonly holds?: Holds;
  readonly hooks?: Hooks;
  readonly disk?: Disk;
  readonly workload?: Partial<Workload>;
}

export interface ClaimPod {
  readonly volume: ClaimVolume;
  /** What it waits for, if it has asked. */
  waits(): Permit | undefined;
  phase(): Follow["phase"];
  /** One of its rounds, as the sidecar has one every few seconds. @returns the code of the error that it ended with */
  round(): Promise<void>;
}

export interface Claim extends AsyncDisposable {
  readonly folder: string;
  readonly clock: Clock & { pass(ms: number): void };
  pod(name: string, options?: PodOptions): Promise<ClaimPod>;
  /** The agent of a pod, with everything but a repository that answers. */
  agent(name: string, options?: PodOptions): Promise<UpdateAgent>;
  /** A pod has the lead, and does not beat any more. */
  lead(name: string): void;
  /** Makes `current` name a bank, as the leader does at its verdict. */
  commit(bank: (typeof BANKS)[number]): void;
}

export const quietLog: ClaimVolumeDeps["log"] = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export const workloadOf = (more: Partial<Workload> = {}): Workload => ({
  delivery: "restart",
  restart: () => Promise.resolve(),
  backOffMs: () => 0,
  trouble: () => ({ failure: null, reached: true }),
  sinceRestartMs: () => null,
  healthPeriodMs: 20,
  healthFailureThreshold: 3,
  check: () => Promise.resolve("healthy"),
  starts: () => 0,
  ...more,
});

const policy: Policy = {
  restarts: true,
  judged: false,
  trialTimeoutMs: 1_000,
  trialDurationMs: 100,
  trialStarts: 2,
  graceMs: 0,
  healthFailureThreshold: 3,
  notices: [],
};

const rules: ClaimVolumeDeps["settings"] = {
  hold: false,
  downloadWindow: undefined,
  swapWindow: undefined,
  downloadBudget: undefined,
  restartSpacing: 0,
  holdLimit: 259_200_000,
};

export function bankOf(id: string): Bank {
  return { channel: "web/stable", sequence: 2, version: id, id, tree: "a".repeat(64) };
}

/** A claim on `one`, with its link, its banks and its journal. */
export async function openClaim(urgent = false): Promise<Claim> {
  const temporary = await temporaryFolder();
  const folder = join(temporary.path, "claim");
  for (const bank of BANKS) mkdirSync(join(folder, "banks", bank), { recursive: true });
  let elapsed = 0;
  const clock: Claim["clock"] = {
    now: () => 1_800_000_000_000 + elapsed,
    monotonic: () => elapsed,
    async sleep(ms, signal) {
      signal.throwIfAborted();
      // What is raced with a sleep has a chance to be first.
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
      elapsed += ms;
    },
    pass(ms) {
      elapsed += ms;
    },
  };

  function commit(bank: (typeof BANKS)[number]): void {
    const channels = {
      "web/stable": { sequence: 2, blocked: null, ...(urgent ? { urgent } : {}) },
    };
    const journal = { ...INITIAL, phase: "committed", bank: bankOf(bank), previous: null } as const;
    writeFileSync(join(folder, "state.json"), formatJournal({ ...journal, channels }));
    symlinkSync(`banks/${bank}`, join(folder, "next"));
    renameSync(join(folder, "next"), join(folder, "current"));
  }

  commit("one");
  return {
    folder,
    clock,
    commit,
    lead(name) {
      mkdirSync(join(folder, "leader/9/token"), { recursive: true });
      writeFileSync(join(folder, "leader/9/beat.1"), `uid-${name}\n${name}\n`);
      writeFileSync(
        join(folder, `pods/uid-${name}.0`),
        JSON.stringify({ name, banks: ["two"], settled: true }),
      );
    },
    agent(name, options = {}) {
      const place = join(temporary.path, name);
      const payload = join(place, ".volume");
      const site = siteSettings({ payload, url: "http://127.0.0.1:1", root: "/dev/null" });
      return openClaimAgent({
        settings: {
          ...site,
          payloadLinkDir: place,
          podUid: `uid-${name}`,
          podName: name,
          pollInterval: LEASE_MS,
          ...options.settings,
        },
        clock: realClock,
        random: () => 0.5,
        log: quietLog,
        metrics: {
          add: () => undefined,
          set: () => undefined,
          clear: () => undefined,
          observe: () => undefined,
        },
        http: {
          request: () => Promise.reject(new EdgeSyncError("ORIGIN_UNAVAILABLE", "no network")),
          close: () => undefined,
        },
        workload: workloadOf(options.workload),
        platform: "linux-x64",
        times: { leaseMs: AGENT_LEASE_MS, forgetMs: 900_000 },
        ...(options.holds === undefined ? {} : { holds: options.holds }),
      });
    },
    async pod(name, options = {}) {
      const place = join(temporary.path, name);
      if (!readdirSync(temporary.path).includes(name)) {
        mkdirSync(place);
        symlinkSync("../claim", join(place, ".volume"));
      }
      let waits: Permit | undefined;
      const volume = await openClaimVolume({
        clock,
        workload: workloadOf(options.workload),
        settings: { ...rules, ...options.settings },
        log: quietLog,
        now: () => clock.now(),
        usage: {
          load: () => Promise.resolve(),
          today: () => ({ usage: { day: 0, bytes: 0 }, ranMs: 0 }),
          count: () => undefined,
          save: () => Promise.resolve(),
        },
        holds: options.holds ?? (() => Promise.resolve([])),
        app: "web",
        channel: "stable",
        root: join(place, ".volume"),
        folder: place,
        uid: `uid-${name}`,
        podName: name,
        disk: options.disk ?? nodeDisk,
        policy,
        times: { leaseMs: LEASE_MS, forgetMs: 900_000 },
        held: () => false,
        hooks: options.hooks ?? noHooks,
        podTurn: ALONE,
        report: {
          waits(_moment, permit) {
            waits = permit;
          },
          lost: () => undefined,
        },
        ended: () => undefined,
      });
      await volume.tend();
      await volume.follower.begin();
      const { signal } = new AbortController();
      return {
        volume,
        waits: () => waits,
        phase: () => volume.follower.state().phase,
        round: () => volume.follower.round(signal),
      };
    },
    [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose](),
  };
}
