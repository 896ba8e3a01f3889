/** All that runs in the sidecar once its settings are known: an agent for each payload, one for the secrets, and what they share. */
import type { Clock } from "#core/clock.ts";
import type { UpdateOrder } from "#core/control.ts";
import { codeOf } from "#core/errors.ts";
import { needsVault } from "#core/pod-options.ts";
import { payloadNames, settingsOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { withFields } from "#core/telemetry.ts";
import type { Log, PodMetrics } from "#core/telemetry.ts";
import { aborted } from "./aborted.ts";
import { openPayloadAgent } from "./claim/claim.ts";
import type { Clients } from "./clients.ts";
import { keepControl } from "./application/control.ts";
import type { Ordered } from "./application/control.ts";
import type { Programs } from "./application/programs.ts";
import { openHolds } from "./application/hold.ts";
import { noHooks, openHooks } from "./application/hooks.ts";
import type { OwnProcess } from "./application/reload.ts";
import { openRotateHook } from "./application/rotate.ts";
import { openSandbox } from "./application/sandbox.ts";
import type { ServerDeps } from "./server.ts";
import { openStatus, updatePart } from "./status.ts";
import type { Agents, Part, Status } from "./status.ts";
import { supervise } from "./supervise.ts";
import { openTurns } from "./claim/turn.ts";
import { openPresence } from "./application/presence.ts";
import type { ApplicationPresence } from "./application/presence.ts";
import { openWorkload } from "./application/workload.ts";

/** A native sidecar has about two seconds from its SIGTERM, whatever the pod's grace period (cluster-facts 5 of the research). */
const SHUTDOWN_MS = 1_500;

/** Milliseconds past the longest trial in which a payload may go on holding the turn: a rollback waits for its restart. */
const TURN_SLACK_MS = 3_600_000;

/** Beside the payloads among those that take turns with the lever; no payload can have this name. */
const ROTATION = " on-rotate";

export interface Shell {
  readonly settings: Settings;
  readonly clients: Clients;
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: PodMetrics;
  /** `<os>-<architecture>`, as releases name it. */
  readonly platform: string;
  /** Absent in a pod, where the sidecar runs none. */
  readonly programs?: Programs | undefined;
  /** Absent in a pod, whose volume is its own, or has a leader. */
  readonly lock?: ((folder: string) => Promise<void>) | undefined;
  /** This process, for on-update signal. */
  readonly own: OwnProcess;
  /** Whether the application comes after this process, and needs what Vault has issued to it. */
  readonly once?: boolean;
  /** Opens the server for the kubelet; it is closed at the end. */
  listen(status: Status, lever: ServerDeps["lever"]): Promise<AsyncDisposable>;
}

/** Resolves when `signal` is aborted and what could be ended in order has been; never rejects. */
export async function runAgents(shell: Shell, signal: AbortSignal): Promise<void> {
  const { settings, clients, log, metrics, clock } = shell;
  const agents: Agents = { updates: new Map(), invalid: new Set(), failed: new Map() };
  const names = payloadNames(settings);
  const settingsFor = new Map(names.map((name) => [name, settingsOf(settings, name)]));
  const [first] = settingsFor.values();
  // The pod's own, also where the payload volume is not.
  const volume = first?.payloadLinkDir ?? first?.payloadDir;
  const sandbox = openSandbox({ volume, pod: settings.podUid, log });
  using workload = openWorkload({ ...shell, inherited: () => sandbox.inherited() });
  const folder = settings.holdDir;
  const holds = openHolds({ clock, log, volume, folder, pod: settings.podUid });
  const hooks = new Map(
    Array.from(settingsFor, ([payload, own]) => {
      const fields = { log: withFields(log, { payload }), metrics: metrics.of(payload) };
      return [payload, openHooks({ ...shell, ...fields, settings: own })];
    }),
  );
  const status = openStatus({ ...shell, workload, agents, holds, hooks });
  await using _ = await shell.listen(status, (container, probe) =>
    workload.answer(container, probe),
  );

  const keepRunning = <A extends { run(signal: AbortSignal): Promise<void> }>(
    part: Part,
    open: () => Promise<A>,
    adopt: (agent: A) => void,
  ): Promise<void> => {
    const once = async (signal: AbortSignal): Promise<void> => {
      try {
        const agent = await open();
        agents.invalid.delete(part);
        agents.failed.delete(part);
        adopt(agent);
        await agent.run(signal);
      } catch (error) {
        if (codeOf(error) === "CONFIG_INVALID") agents.invalid.add(part);
        if (!signal.aborted) agents.failed.set(part, codeOf(error));
        throw error;
      }
    };
    return supervise(part, once, shell, signal);
  };
  const trials = Array.from(settingsFor.values(), ({ trialTimeout }) => trialTimeout);
  const rotates = settings.secrets.length > 0 && settings.onRotate.kind === "restart";
  const sharers = rotates && names.length > 0 ? [...names, ROTATION] : names;
  const turnOf = openTurns(sharers, 2 * Math.max(0, ...trials) + TURN_SLACK_MS, clock);
  const updates = Array.from(settingsFor, ([payload, own]) => {
    const deps = {
      ...shell,
      settings: own,
      log: withFields(log, { payload }),
      metrics: metrics.of(payload),
      http: clients.repository(own),
      workload: workload.of(own),
      hooks: hooks.get(payload) ?? noHooks,
      holds: holds.list,
      turn: turnOf(payload),
      held: () => status.held(),
    };
    return keepRunning(
      updatePart(payload),
      () => openPayloadAgent(deps),
      (agent) => agents.updates.set(payload, agent),
    );
  });
  const order = (what: UpdateOrder): readonly Ordered[] =>
    Array.from(agents.updates, ([payload, agent]) => {
      const { blocked, phase, replica } = agent.status();
      // A follower asks nobody: it has nothing to try again, and looks at the volume every few seconds as it is.
      if (what === "retry" && replica?.role === "follower")
        return { payload, blocked, phase, leader: replica.leader ?? "nobody yet" };
      agent[what]();
      return { payload, blocked, phase };
    });
  const { controlPort: port } = settings;
  const document = (): unknown => status.document();
  // In a pod without payloads the port may be the application's.
  const isControlled = names.length > 0 || settings.podName === undefined;
  const control =
    isControlled && keepControl({ port, clock, log, holds, status: document, order }, signal);
  const floor = (): number | undefined => {
    const floors = Array.from(agents.updates.values(), (agent) => agent.status().time.floor);
    const times = floors.flatMap((at) => (at === null ? [] : [Date.parse(at)]));
    return times.length === 0 ? undefined : Math.max(...times);
  };
  const payloadFolder = first?.payloadLinkDir ?? first?.payloadDir;
  const release = payloadFolder !== undefined && {
    release: {
      folder: payloadFolder,
      isOnTrial: () => agents.updates.get(names[0] ?? "")?.status().trial !== null,
    },
  };
  const forgotten =
    names.length > 0 &&
    import("./secrets/offline-place.ts").then((place) => place.forgetOffline(settings, log));
  const rotate = openRotateHook({
    ...shell,
    workload,
    turn: turnOf(ROTATION),
    held: () => status.held(),
  });
  const secrets =
    settings.secrets.length > 0
      ? keepRunning(
          "secrets agent",
          // Many pods have updates and no secrets, and do not load what those take.
          async () => {
            const { openSecretsAgent } = await import("./secrets/agent.ts");
            return openSecretsAgent({ ...shell, http: clients.vault, floor, rotate, ...release });
          },
          (agent) => (agents.secrets = agent),
        )
      : undefined;

  const presence = openPresence(shell);
  const looking =
    needsVault(settings) && shell.once !== true
      ? supervise("presence", (stop) => presence.run(stop), shell, signal)
      : undefined;

  await aborted(signal);
  const deadline = AbortSignal.timeout(SHUTDOWN_MS);
  const orderly = Promise.all([
    ...updates,
    control,
    forgotten,
    // The agent must not renew what is being revoked.
    looking,
    shell.once === true || secrets?.then(() => revoke(agents, presence, log, deadline)),
  ]);
  await Promise.race([orderly, aborted(deadline)]);
  clients.close();
}

/** Native sidecars are stopped last: only when the application has ended are its credentials of no more use. */
async function revoke(
  { secrets }: Agents,
  presence: ApplicationPresence,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  try {
    if (secrets === undefined) return;
    if (await presence.ended(signal)) await secrets.revoke(signal);
    else log.info({}, "nothing is revoked: the application is not known to have ended");
  } catch (err) {
    log.warn({ err, code: codeOf(err) }, "credentials not revoked; they end with their leases");
  }
}
