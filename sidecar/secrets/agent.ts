/**
 * The secrets agent: logs in, reads and renews each declared secret by itself, and publishes the whole set whenever it has
 * changed. What is published is never taken away, whatever Vault says. The state is saved before each set is shown, so a
 * sidecar that is restarted goes on with the same token and the same leases.
 */
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { needsVault, usesSealed } from "#core/pod-options.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { aborted } from "../aborted.ts";
import { openFiles } from "./files.ts";
import { loginMethod, required } from "./login.ts";
import type { VaultHttp } from "./login.ts";
import type { OfflineStatus } from "./offline.ts";
import { openMemory } from "./memory.ts";
import type { MemorySystem, StorageStatus } from "./memory.ts";
import { openPublication } from "./publication.ts";
import { openRetirement } from "./retired-leases.ts";
import { openRotation } from "./rotation.ts";
import type { RotateHook, RotationStatus } from "./rotation.ts";
import type { ReleaseAt } from "./sealed.ts";
import type { Source, Version } from "./source.ts";
import { openSources } from "./sources.ts";
import { fromSaved, openSaver } from "./resume.ts";
import { openSecretIds } from "./secret-id.ts";
import { openChanges, openShownSet } from "./shown-set.ts";
import { statusOf } from "./expiry.ts";
import type { SecretStatus } from "./expiry.ts";
import { openStateStore } from "./state.ts";
import { supervise } from "../supervise.ts";
import { openVault } from "./vault.ts";
import type { VaultOptions } from "./vault.ts";
import { openTokenKeeper } from "./vault-token.ts";
import { openTurnstile } from "./turnstile.ts";

export interface SecretsDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly http: VaultHttp;
  /** The time that it cannot be before, as signed statements have said: milliseconds since the epoch. */
  readonly floor?: () => number | undefined;
  /** Of the payload with sealed files. */
  readonly release?: ReleaseAt;
  /** Tells the application of new secrets; absent where nobody is to be told. */
  readonly rotate?: RotateHook | undefined;
  /** What is asked about memory; tests give other answers. */
  readonly system?: MemorySystem | undefined;
}

/** For people and tools: no paths, no values. */
export interface SecretsStatus {
  readonly published: boolean;
  readonly loggedIn: boolean;
  /** RFC 3339: since when Vault fails at whatever is asked. */
  readonly vaultFailingSince?: string;
  /** Why there is no token, or why the set could not be published. */
  readonly code?: ErrorCode;
  readonly rotations: number;
  /** Absent where nobody is to be told of them. */
  readonly onRotate?: RotationStatus;
  readonly secrets: readonly SecretStatus[];
  /** Why what is published may get to a disk; absent where it may not. */
  readonly storage?: StorageStatus;
  /** Absent where no set is kept for a start without a link. */
  readonly sealed?: OfflineStatus;
}

export interface SecretsAgent {
  /** Works until aborted; then resolves. */
  run(signal: AbortSignal): Promise<void>;
  /** Whether every declared secret is in the published set. */
  published(): boolean;
  /** Since when, by `clock.now()`, a published credential is expired; `undefined` when all are good. */
  expiredSince(): number | undefined;
  status(): SecretsStatus;
  /** One bounded attempt to revoke what was issued; for the end of the pod's life, after `run`. Failures are logged. */
  revoke(signal: AbortSignal): Promise<void>;
}

/** Milliseconds: what remains after the kubelet's SIGTERM is two seconds. */
const REVOKE_TIMEOUT_MS = 1_400;

/**
 * @throws EdgeSyncError SECRET_STORAGE_UNSAFE when the secrets folder is not in memory, SECRET_STORAGE_SWAPS when it may be swapped
 *   and must not, CONFIG_INVALID when a setting that is needed is missing, DISK_FULL, DISK_FAILED
 */
export async function openSecretsAgent(deps: SecretsDeps): Promise<SecretsAgent> {
  const { settings, clock, random, log, metrics } = deps;
  if (settings.secrets.length === 0) return idleAgent();
  // A pod whose secrets all come from elsewhere does not log in.
  const options = needsVault(settings) ? vaultOptions(settings) : NO_VAULT;
  const folder = required(settings.secretsDir, "secrets-dir");
  const memory = openMemory({
    folder,
    require: settings.require,
    log,
    metrics,
    system: deps.system,
  });
  await memory.check();
  const publication = await openPublication(folder);
  const store = await openStateStore(folder);
  const { address, namespace, login } = options;
  const identity = JSON.stringify([address, namespace, login.mount, settings.vaultRole]);
  const saved = fromSaved(await store.load(), identity, clock);

  const changes = openChanges(clock);
  const changed = (): void => changes.mark();
  const turnstile = openTurnstile(deps);
  const offline =
    settings.offlineSecrets === "never"
      ? undefined
      : await (await import("./offline-place.ts")).offlineFor(deps, options, changed);
  const openSealed = usesSealed(settings)
    ? (await import("./sealed.ts")).sealedOpener(deps)
    : undefined;
  const secretIds = openSecretIds(saved?.secretId, async () => {
    try {
      await memory.check();
      await save();
    } catch (error) {
      // The login goes on with it; each set that is shown saves it again.
      log.warn(
        { code: codeOf(error), err: error },
        "the unwrapped secret_id could not be saved yet: a sidecar that is restarted now needs another",
      );
    }
  });
  const directly = openVault(deps.http, { ...options, secretIds });
  const vault = offline?.overheard(directly) ?? directly;

  const keeper = openTokenKeeper(
    {
      vault,
      turnstile,
      clock,
      random,
      log,
      metrics,
      changed,
      superseded: (generation, expiresAt) => {
        for (const source of sources) source.superseded(generation, expiresAt);
        retirement.check();
      },
    },
    saved?.token,
  );
  const retirement = openRetirement(
    {
      vault,
      keeper,
      turnstile,
      publication,
      clock,
      random,
      log,
      changed,
      isUsed: (generation) =>
        sources.some(
          ({ current }) => current?.leaseId !== undefined && current.generation === generation,
        ),
    },
    saved?.retired ?? [],
  );
  const sourceDeps = {
    vault,
    keeper,
    turnstile,
    clock,
    random,
    log,
    metrics,
    changed,
    // How old a sealed set is counts from when Vault gave it last.
    confirmed: () => (offline === undefined ? undefined : changed()),
    refreshMs: settings.secretsRefreshInterval,
    filesOf: await openFiles(settings),
    replaced: (version: Version) => retirement.supersede(version),
    discarded: (version: Version) => retirement.discard(version),
  };
  const opened = await openSources(settings, sourceDeps, saved?.secrets, openSealed);
  const sources = opened.list;

  // Declared no more, since a daemon's configuration was changed. What a template calls for is found out only later.
  if (!settings.secrets.some(({ request }) => request.kind === "template"))
    for (const [key, { leaseId, generation, lease }] of saved?.secrets ?? [])
      if (!sources.some((source) => source.key === key))
        retirement.supersede({
          leaseId,
          generation,
          expiresAt: lease && clock.monotonic() + lease.remainingMs,
        });
  // The process before may have ended between losing a token and replacing what it had issued.
  for (const source of sources) {
    const generation = source.current?.generation ?? keeper.held?.generation;
    if (generation === undefined || generation === keeper.held?.generation) continue;
    const { former } = keeper;
    source.superseded(generation, former?.generation === generation ? former.expiresAt : undefined);
  }

  const save = openSaver({
    store,
    identity,
    keeper,
    sources,
    retired: () => retirement.all(),
    rotation: () => teller?.saved,
    secretId: () => secretIds.kept,
    clock,
  });
  const teller =
    deps.rotate &&
    openRotation(
      {
        hook: deps.rotate,
        clock,
        log,
        metrics,
        save: async () => void (await save()),
        settled: () => set.settled(),
      },
      saved?.rotation,
    );
  const set = openShownSet({
    changes,
    memory,
    publication,
    save,
    sources,
    keeper,
    retirement,
    offline,
    teller,
    clock,
    random,
    log,
    metrics,
  });

  return {
    async run(signal) {
      const parts = [
        set,
        ...(teller === undefined ? [] : [teller]),
        ...(options === NO_VAULT ? [] : [turnstile, keeper, retirement]),
        ...(offline === undefined ? [] : [offline]),
        ...sources,
      ];
      // Each by itself: what nobody expected in one of them takes no other along.
      const deps = { clock, random, log };
      const running: Promise<void>[] = [];
      const start = (part: Pick<Source, "run">): void =>
        void running.push(supervise("secrets", (stop) => part.run(stop), deps, signal));
      for (const part of parts) start(part);
      opened.begin(start);
      await aborted(signal);
      await Promise.all(running);
    },
    published: () => set.isPublished,
    expiredSince() {
      const now = clock.now();
      const ended = set
        .rows()
        .map((row) => row.expiresAt)
        .filter((at) => at !== undefined && at <= now);
      return ended.length === 0 ? undefined : Math.min(...ended.map((at) => at ?? now));
    },
    status() {
      const code = keeper.code ?? set.code;
      const { openSince } = turnstile;
      const storage = memory.status();
      const failingMs = openSince === undefined ? undefined : clock.monotonic() - openSince;
      return {
        published: set.isPublished,
        loggedIn: keeper.held !== undefined,
        ...(failingMs === undefined
          ? {}
          : { vaultFailingSince: new Date(clock.now() - failingMs).toISOString() }),
        ...(code === undefined ? {} : { code }),
        rotations: set.rotations,
        ...(teller === undefined ? {} : { onRotate: teller.status() }),
        secrets: set.rows().map((row) => statusOf(row, clock.now())),
        ...(storage === undefined ? {} : { storage }),
        ...(offline === undefined ? {} : { sealed: offline.status() }),
      };
    },
    async revoke(signal) {
      set.end();
      if (offline?.needsLeases() === true) {
        log.info({}, "nothing is revoked: the sealed set is of use only while its leases last");
        return;
      }
      const tokens = [keeper.held, keeper.former].filter((token) => token !== undefined);
      const limited = AbortSignal.any([signal, AbortSignal.timeout(REVOKE_TIMEOUT_MS)]);
      try {
        await Promise.all(tokens.map(({ token }) => vault.revokeToken(token, limited)));
        const { kept: secretId } = secretIds;
        // Not issued to this sidecar, and not to be had again: a daemon that is started again logs in with it.
        await (secretId === undefined
          ? store.remove()
          : store.save({ identity, secrets: [], retired: [], secretId }));
        if (tokens.length > 0) log.info({ outcome: "ok" }, "revoked what Vault had issued");
      } catch (error) {
        const code = limited.aborted ? "VAULT_UNAVAILABLE" : codeOf(error);
        log.warn({ code }, "could not revoke in time; the credentials end by themselves");
      }
    },
  };
}

function idleAgent(): SecretsAgent {
  return {
    run: (signal) =>
      new Promise((resolve) => {
        if (signal.aborted) resolve();
        else signal.addEventListener("abort", () => resolve(), { once: true });
      }),
    published: () => true,
    expiredSince: () => undefined,
    status: () => ({ published: true, loggedIn: false, rotations: 0, secrets: [] }),
    revoke: () => Promise.resolve(),
  };
}

/** Nothing is asked of it. */
const NO_VAULT: VaultOptions = {
  address: "",
  namespace: undefined,
  login: { kind: "cert", mount: "", role: undefined },
};

function vaultOptions(settings: Settings): VaultOptions {
  return {
    address: required(settings.vaultAddress, "vault-address"),
    namespace: settings.vaultNamespace,
    login: loginMethod(settings),
  };
}
