/**
 * The secrets agent: logs in, reads and renews each declared secret by itself, and publishes the whole set whenever it has
 * changed. What is published is never taken away, whatever Vault says. The state is saved before each set is shown, so a
 * sidecar that is restarted goes on with the same token and the same leases.
 */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { openLanes } from "#core/lanes.ts";
import { needsVault, usesSealed } from "#core/pod-options.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { aborted } from "../aborted.ts";
import { openAlarm } from "./alarm.ts";
import { loginMethod, required } from "./login.ts";
import type { VaultHttp } from "./login.ts";
import type { OfflineStatus } from "./offline.ts";
import { openPublication } from "./publication.ts";
import { openRetirement } from "./retired-leases.ts";
import type { RetiredLease } from "./retired-leases.ts";
import { openRotation } from "./rotation.ts";
import type { RotateHook, RotationStatus } from "./rotation.ts";
import type { ReleaseAt } from "./sealed.ts";
import type { Source, Version } from "./source.ts";
import { openSources } from "./sources.ts";
import { fromSaved, toSaved } from "./resume.ts";
import { expiries, statusOf } from "./expiry.ts";
import type { ExpiryRow, SecretStatus } from "./expiry.ts";
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
/** Milliseconds between two attempts to write the set, at most. */
const WRITE_RETRY_CAP_MS = 60_000;

/**
 * @throws EdgeSyncError SECRET_STORAGE_UNSAFE when the secrets folder is not in memory, CONFIG_INVALID when a setting that is
 *   needed is missing, DISK_FULL, DISK_FAILED
 */
export async function openSecretsAgent(deps: SecretsDeps): Promise<SecretsAgent> {
  const { settings, clock, random, log, metrics } = deps;
  if (settings.secrets.length === 0) return idleAgent();
  // A pod whose secrets all come from elsewhere does not log in.
  const options = needsVault(settings) ? vaultOptions(settings) : NO_VAULT;
  const folder = required(settings.secretsDir, "secrets-dir");
  const publication = await openPublication(folder);
  const store = await openStateStore(folder);
  const { address, namespace, login } = options;
  const identity = JSON.stringify([address, namespace, login.mount, settings.vaultRole]);
  const saved = fromSaved(await store.load(), identity, clock);

  const dirty = openAlarm(clock);
  const turnstile = openTurnstile(deps);
  const inOrder = openLanes(1);
  let isEnded = false;
  let isPublished = false;
  let rotations = 0;
  let shown: ReadonlyMap<Source, Version> = new Map();
  let writeCode: ErrorCode | undefined;
  let hasChanged = true;
  const changed = (): void => {
    hasChanged = true;
    dirty.ring();
  };
  const offline =
    settings.offlineSecrets === "never"
      ? undefined
      : await (await import("./offline-place.ts")).offlineFor(deps, options, changed);
  const openSealed = usesSealed(settings)
    ? (await import("./sealed.ts")).sealedOpener(deps)
    : undefined;
  const directly = openVault(deps.http, options);
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
    refreshMs: settings.secretsRefreshInterval,
    defaultMode: settings.secretsMode,
    replaced: (version: Version) => retirement.supersede(version),
    discarded: (version: Version) => retirement.discard(version),
  };
  const opened = await openSources(settings, sourceDeps, saved?.secrets, openSealed);
  const sources = opened.list;

  // The process before may have ended between losing a token and replacing what it had issued.
  for (const source of sources) {
    const generation = source.current?.generation ?? keeper.held?.generation;
    if (generation === undefined || generation === keeper.held?.generation) continue;
    const { former } = keeper;
    source.superseded(generation, former?.generation === generation ? former.expiresAt : undefined);
  }

  const save = (): Promise<ReadonlyMap<Source, Version>> =>
    inOrder(async () => {
      const versions = new Map<Source, Version>();
      for (const source of sources)
        if (source.current !== undefined) versions.set(source, source.current);
      const { saved: rotation } = teller ?? {};
      const retired = retirement.all();
      await store.save(toSaved({ identity, keeper, versions, retired, rotation, clock }));
      return versions;
    });
  const unsettled = new Set<RetiredLease>();
  const teller =
    deps.rotate &&
    openRotation(
      {
        hook: deps.rotate,
        clock,
        log,
        metrics,
        save: async () => void (await save()),
        settled() {
          retirement.published([...unsettled], false);
          unsettled.clear();
          changed();
        },
      },
      saved?.rotation,
    );

  /** Saves, then shows: a set whose credentials nobody remembers must not be seen. */
  const write = async (): Promise<void> => {
    const settled = retirement.pending();
    const versions = await save();
    // What only a template calls for is its own to wait for.
    if (sources.some((source) => source.secrets.length > 0 && !versions.has(source))) {
      const sealed = await offline?.instead();
      if (sealed === undefined) return;
      await publication.publish(sealed);
      isPublished = sealed.length > 0;
      if (isPublished) teller?.published(sealed);
      return;
    }
    const files = [...versions.values()].flatMap((version) => version.files);
    const swapped = await publication.publish(files);
    if (swapped && (isPublished || publication.wasPublished)) {
      rotations++;
      metrics.add("edgesync_sidecar_rotations_total", {});
    }
    if (swapped) log.info({ outcome: "ok" }, "the set of secrets was published");
    shown = versions;
    isPublished = true;
    teller?.published(files);
    // Who has not been told yet goes on with what the leases before have issued.
    const waits = teller?.isBusy === true;
    if (waits) for (const lease of settled) unsettled.add(lease);
    retirement.published(waits ? [] : settled, swapped);
    if (swapped && teller !== undefined) await save();
    const rows = expiries(sources, shown, clock);
    const vouched = keeper.code === undefined && rows.every(({ code }) => code === undefined);
    const isLeased = [...versions.values()].some(({ leaseId }) => leaseId !== undefined);
    const secrets = rows.map(({ name, expiresAt: endsAt }) => ({
      name,
      ...(endsAt === undefined ? {} : { endsAt: Math.floor(endsAt) }),
    }));
    await offline?.good({ files, secrets, isLeased }, vouched);
  };
  const rowsNow = (): readonly ExpiryRow[] =>
    expiries(sources, shown, clock).map((row) => {
      const expiresAt = offline?.endOf(row.name);
      return expiresAt === undefined ? row : { ...row, isShown: true, expiresAt };
    });
  const report = (): void => {
    metrics.clear("edgesync_sidecar_lease_expiry_timestamp_seconds");
    for (const { name, expiresAt } of rowsNow())
      if (expiresAt !== undefined)
        metrics.set(
          "edgesync_sidecar_lease_expiry_timestamp_seconds",
          { secret: name },
          Math.round(expiresAt / 1_000),
        );
  };
  const keepWriting = async (signal: AbortSignal): Promise<void> => {
    for (let attempt = 0; ;) {
      if (hasChanged && !isEnded) {
        hasChanged = false;
        try {
          await write();
          writeCode = undefined;
          attempt = 0;
        } catch (error) {
          hasChanged = true;
          writeCode = codeOf(error);
          const delayMs = Math.max(1_000, backoffMs(attempt++, random, WRITE_RETRY_CAP_MS));
          log.error(
            { code: writeCode, err: error, attempt, delayMs },
            "the secrets could not be written",
          );
          // Not the alarm: whatever changes meanwhile does not make room.
          await clock.sleep(delayMs, signal);
        }
        report();
      } else await dirty.until(Number.POSITIVE_INFINITY, signal);
    }
  };

  return {
    async run(signal) {
      const parts = [
        { run: keepWriting },
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
    published: () => isPublished,
    expiredSince() {
      const now = clock.now();
      const ended = rowsNow()
        .map((row) => row.expiresAt)
        .filter((at) => at !== undefined && at <= now);
      return ended.length === 0 ? undefined : Math.min(...ended.map((at) => at ?? now));
    },
    status() {
      const code = keeper.code ?? writeCode;
      const { openSince } = turnstile;
      const failingMs = openSince === undefined ? undefined : clock.monotonic() - openSince;
      return {
        published: isPublished,
        loggedIn: keeper.held !== undefined,
        ...(failingMs === undefined
          ? {}
          : { vaultFailingSince: new Date(clock.now() - failingMs).toISOString() }),
        ...(code === undefined ? {} : { code }),
        rotations,
        ...(teller === undefined ? {} : { onRotate: teller.status() }),
        secrets: rowsNow().map((row) => statusOf(row, clock.now())),
        ...(offline === undefined ? {} : { sealed: offline.status() }),
      };
    },
    async revoke(signal) {
      isEnded = true;
      if (offline?.needsLeases() === true) {
        log.info({}, "nothing is revoked: the sealed set is of use only while its leases last");
        return;
      }
      const tokens = [keeper.held, keeper.former].filter((token) => token !== undefined);
      const limited = AbortSignal.any([signal, AbortSignal.timeout(REVOKE_TIMEOUT_MS)]);
      try {
        await Promise.all(tokens.map(({ token }) => vault.revokeToken(token, limited)));
        await store.remove();
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
