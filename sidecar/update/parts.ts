/** What an update agent is made of, put together: `update-agent.ts` is the loop that uses it. */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { policyOf } from "#core/policy.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { INITIAL } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { openAddresses } from "../repository/addresses.ts";
import { openBuilder } from "./builder.ts";
import type { Builder } from "./builder.ts";
import { openDownloads } from "../repository/download.ts";
import { nodeDisk } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { openFollower } from "../channel/follower.ts";
import type { Follower } from "../channel/follower.ts";
import { noHolds } from "../application/hold.ts";
import type { Holds } from "../application/hold.ts";
import { noHooks } from "../application/hooks.ts";
import type { Hooks } from "../application/hooks.ts";
import type { Http } from "../network/http.ts";
import { openMeter } from "./meter.ts";
import { withBundles } from "../repository/offline.ts";
import { openPause } from "./pause.ts";
import type { Pause } from "./pause.ts";
import { openPermits } from "./permits.ts";
import type { Permits } from "./permits.ts";
import { single } from "../claim/replica.ts";
import type { Replica } from "../claim/replica.ts";
import type { Repository } from "../repository/repository.ts";
import { openRebuild } from "../payload/rebuild.ts";
import type { Rebuild } from "../payload/rebuild.ts";
import { openScrub } from "../payload/scrub.ts";
import type { Scrub } from "../payload/scrub.ts";
import { openSeed } from "../payload/seed.ts";
import { limitsOf } from "../payload/space.ts";
import { openStore } from "../payload/store.ts";
import type { Store } from "../payload/store.ts";
import { openTrustTime } from "../channel/trust-time.ts";
import { ALONE } from "../claim/turn.ts";
import type { Turn } from "../claim/turn.ts";
import { openUpdateMachine } from "./machine.ts";
import type { UpdateMachine, Volume } from "./machine.ts";
import { openReport } from "./report.ts";
import type { Report } from "./report.ts";
import { openStepper } from "./steps.ts";
import { openUsage } from "./usage.ts";
import type { UsageBook } from "./usage.ts";
import type { Workload } from "../application/workload.ts";

export interface UpdateDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly http: Http;
  readonly workload: Workload;
  /** `<os>-<architecture>`, as releases name it. */
  readonly platform: string;
  /** Whether the main container's first start is still held back: nothing can be tried before something runs. */
  readonly held?: () => boolean;
  readonly hooks?: Hooks;
  readonly holds?: Holds;
  /** Among the payloads of the pod; without it there is one. */
  readonly turn?: Turn;
  readonly replica?: Replica;
  readonly scrub?: Scrub;
  /** Takes a payload folder for this process alone. @throws EdgeSyncError AGENT_RUNNING */
  readonly lock?: ((folder: string) => Promise<void>) | undefined;
  /** For tests that make it fail, and for the leader of a shared volume. */
  readonly disk?: Disk;
  /** The store as the leader of a shared volume has it. */
  readonly shared?: (store: Store) => Store;
}

export interface UpdateParts {
  readonly machine: UpdateMachine;
  readonly follower: Follower;
  readonly builder: Builder;
  readonly repository: Repository;
  readonly report: Report;
  readonly pause: Pause;
  readonly usage: UsageBook;
  readonly scrub: Scrub;
  readonly permits: Permits;
  readonly rebuild: Rebuild;
}

/**
 * Puts the parts together; nothing is read or written yet.
 *
 * @param patienceMs milliseconds until the channel is to be looked at again
 * @throws EdgeSyncError CONFIG_INVALID when a setting is missing that a payload needs
 */
export function openParts(deps: UpdateDeps, patienceMs: () => number): UpdateParts {
  const { settings, clock, random, log, metrics, workload, platform } = deps;
  const { channel, repository: address, payloadDir: root, trustRootFile: trustRoot } = settings;
  if (
    channel === undefined ||
    address === undefined ||
    root === undefined ||
    trustRoot === undefined
  )
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      "a payload needs the settings channel, repository, payload-dir and trust-root-file",
    );
  const volume = root;
  const { disk = nodeDisk, hooks = noHooks, holds = noHolds } = deps;
  const { turn = ALONE, replica = single, held = () => false } = deps;
  const policy = policyOf(settings, workload.healthFailureThreshold, (hook) => hooks.has(hook));
  const time = openTrustTime(deps);
  const { now } = time;
  const budget = settings.downloadBudget;
  const usage = openUsage({ root, disk, clock, metrics, now, budget });
  const report = openReport({ ...channel, clock, time, usage, budget, log, metrics });
  const pause = openPause(clock);
  const base = { ...channel, settings, clock, random, log, disk, now, usage, report, platform };
  const asked = { workload, hooks, holds, turn, replica, held };
  const state = (): UpdateState => machine.state() ?? INITIAL;
  const permits = openPermits({ ...base, ...asked, state });
  const meter = openMeter({
    ...base,
    metrics,
    rate: settings.downloadRate,
    counted: () => permits.changed(),
  });
  const metered = { ...deps, disk, metrics: meter.metrics };
  const addresses = [address, ...(settings.repositoryMirrors ?? [])];
  const { seedDir } = settings;
  const repository = [settings.importDir, seedDir].reduce(
    (behind, folder) => withBundles(behind, folder, { disk, log }),
    openAddresses(settings, addresses, metered),
  );
  const seed = seedDir === undefined ? undefined : openSeed(seedDir, { disk, log });
  const follower = openFollower({ ...base, followed: channel, repository, time, root, trustRoot });
  const builder = openBuilder({ ...base, seed, follower, permits, machine: () => machine });

  async function open(): Promise<Volume> {
    await deps.lock?.(volume);
    const opened = await openStore(volume, disk);
    const store = deps.shared?.(opened) ?? opened;
    await usage.load();
    const { pass } = meter;
    const { arrived } = report;
    const folder = store.partial;
    const downloads = openDownloads({ ...metered, folder, repository, arrived, pass });
    const { judged } = policy;
    const waits = { permits, pause, patienceMs, judged, build: builder.build };
    const stepper = openStepper({ ...base, ...asked, ...waits, store });
    return { store, downloads, stepper };
  }

  const machine = openUpdateMachine({ ...base, open, policy, turn, replica });
  const mending = {
    ...base,
    metrics,
    fallback: settings.fullFallback,
    limits: limitsOf(settings),
    seed,
    trusted: () => follower.latest()?.trusted,
    mayFetch: () => permits.mayMend(),
    volume: () => machine.volume(),
  };
  const scrub = deps.scrub ?? openScrub(mending);
  const rebuild = openRebuild(mending);
  return { machine, follower, builder, repository, report, pause, usage, scrub, rebuild, permits };
}
