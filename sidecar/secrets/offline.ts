/**
 * The last good set of secrets, sealed on the payload volume: a pod that starts while Vault cannot be reached starts on it. Once Vault
 * has refused the login, it is gone. Nothing here stops what Vault gives: what goes wrong is told and tried again.
 */
import { createHash } from "node:crypto";
import { CompactEncrypt, compactDecrypt } from "jose";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import {
  LEAST_INTERVAL_MS,
  endOf,
  formatOfflineSet,
  offlineProblem,
  parseOfflineSet,
  sealAgainAt,
  timeFor,
} from "#core/offline-set.ts";
import type { OfflineSecret, OfflineSet } from "#core/offline-set.ts";
import type { OfflineReason } from "#core/reasons.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { readSmallFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { symmetricKey } from "./key-source.ts";
import type { KeySource } from "./key-source.ts";
import type { OfflinePlace } from "./offline-place.ts";
import type { SecretFile } from "./publication.ts";
import type { Vault } from "./vault.ts";

export interface OfflineDeps {
  readonly disk: Disk;
  readonly place: OfflinePlace;
  readonly key: KeySource;
  /** Of the pod and of what it declares. */
  readonly identity: string;
  /** Milliseconds. */
  readonly maxAgeMs: number;
  /** Of the trusted time, milliseconds since the epoch; undefined where nothing is known. */
  readonly floor: () => number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** What is to be shown may be another now. */
  readonly changed: () => void;
}

/** The part of `/status`. */
export interface OfflineStatus {
  /** Whether the application has the sealed set and not Vault's. */
  readonly offline: boolean;
  /** When Vault last vouched for the set that is sealed, or in use; absent where none is known. ISO 8601. */
  readonly sealedAt?: string;
  /** Until when the set in use is good. */
  readonly until?: string;
  /** Why a sealed set was not used. */
  readonly refused?: OfflineReason;
  /** Why the set could not be sealed or read. */
  readonly code?: ErrorCode;
}

/** A whole set as Vault gave it. */
export interface GoodSet {
  readonly files: readonly SecretFile[];
  /** Ends in milliseconds since the epoch, by the node's clock. */
  readonly secrets: readonly OfflineSecret[];
  /** Whether something of it ends when the login's token is revoked. */
  readonly isLeased: boolean;
}

export interface Offline {
  /** The same, overheard. */
  overheard(vault: Vault): Vault;
  /** A whole set of Vault's is published. @param vouched whether Vault has given or renewed all of it, and nothing failed since */
  good(set: GoodSet, vouched: boolean): Promise<void>;
  /** While Vault's set is not whole: the files to show, none once Vault has refused the login; undefined when nothing changes. */
  instead(): Promise<readonly SecretFile[] | undefined>;
  /** When a secret of the set in use ends, milliseconds since the epoch by the node's clock; undefined when none is in use. */
  endOf(name: string): number | undefined;
  /** Whether revoking the login's token would make the sealed set worthless. */
  needsLeases(): boolean;
  status(): OfflineStatus;
  /** Keeps what is sealed up to date, until aborted. */
  run(signal: AbortSignal): Promise<void>;
}

/** Bytes: the memory volume has 64 MiB at most, and holds the set twice. */
const FILE_LIMIT = 64 * 2 ** 20;

const ALGORITHMS = {
  keyManagementAlgorithms: ["A256KW"],
  contentEncryptionAlgorithms: ["A256GCM"],
};

export function openOffline(deps: OfflineDeps): Offline {
  const { disk, place, identity, maxAgeMs, clock, log, metrics } = deps;
  let heard: "nothing" | "answer" | "silence" | "denial" = "nothing";
  /** The set in use, and since when, monotonic milliseconds. */
  let used: { readonly set: OfflineSet; readonly since: number } | undefined;
  let sealed: OfflineSet | undefined;
  /** What Vault last vouched for. */
  let wanted: OfflineSet | undefined;
  let sealedSince = Number.NEGATIVE_INFINITY;
  let isLeased = false;
  let isRemoved = false;
  let refused: OfflineReason | undefined;
  let code: ErrorCode | undefined;

  const now = (): number => Math.max(clock.now(), deps.floor() ?? 0);
  /** The time for the set in use, which passes also where the clock does not know it. */
  const timeOf = ({ set, since }: NonNullable<typeof used>): number =>
    Math.max(
      timeFor(set, clock.now(), deps.floor()),
      Math.floor(set.seenAt + clock.monotonic() - since),
    );

  const tell = (): void => {
    metrics.set("edgesync_sidecar_secrets_offline", {}, Number(used !== undefined));
    metrics.clear("edgesync_sidecar_offline_set_timestamp_seconds");
    const set = used?.set ?? sealed;
    if (set !== undefined)
      metrics.set("edgesync_sidecar_offline_set_timestamp_seconds", {}, set.sealedAt / 1_000);
  };

  const seal = async (set: OfflineSet): Promise<void> => {
    try {
      const text = await new CompactEncrypt(formatOfflineSet(set))
        .setProtectedHeader({ alg: "A256KW", enc: "A256GCM" })
        .encrypt(await symmetricKey(deps.key));
      await place.write(disk, Buffer.from(text));
      sealed = set;
      sealedSince = clock.monotonic();
      isRemoved = false;
      code = undefined;
    } catch (error) {
      code = codeOf(error);
      // What jose says is left out: it has had the set in its hands.
      const err = error instanceof EdgeSyncError ? error : undefined;
      log.warn({ code, err }, "the set of secrets could not be sealed; it is tried again");
    }
    tell();
  };

  const open = async (): Promise<OfflineSet | undefined> => {
    const bytes = await readSmallFile(disk, place.path, FILE_LIMIT);
    if (bytes === undefined) {
      refused = "absent";
      return undefined;
    }
    const key = await symmetricKey(deps.key);
    try {
      const { plaintext } = await compactDecrypt(bytes, key, ALGORITHMS);
      return parseOfflineSet(plaintext);
    } catch {
      // Another key, or a damaged file: no cause is kept, and none would help.
      refused = "unreadable";
      return undefined;
    }
  };

  const begin = async (): Promise<readonly SecretFile[] | undefined> => {
    const before = refused;
    refused = undefined;
    try {
      const set = await open();
      code = undefined;
      if (set !== undefined) {
        const time = timeFor(set, clock.now(), deps.floor());
        refused = offlineProblem(set, identity, time, maxAgeMs);
        if (refused === undefined) {
          used = { set: { ...set, seenAt: time }, since: clock.monotonic() };
          sealed = used.set;
          log.warn(
            { at: isoOf(set.sealedAt), expiresAt: isoOf(until(set)) },
            "Vault does not answer; the application gets the sealed set of secrets",
          );
          tell();
          return set.files;
        }
      }
    } catch (error) {
      code = codeOf(error);
      log.warn({ code, err: error }, "the sealed set of secrets could not be read");
    }
    if (refused !== undefined && refused !== before)
      log.warn({ reason: refused }, "Vault does not answer, and no sealed set may be used");
    return undefined;
  };

  const until = (set: OfflineSet): number =>
    Math.min(...set.secrets.map((secret) => endOf(set, secret, maxAgeMs)));

  /** Once refused, a site must not go on with what it had. */
  const remove = async (): Promise<void> => {
    if (isRemoved) return;
    try {
      await place.remove(disk);
      isRemoved = true;
      sealed = undefined;
      wanted = undefined;
      refused = "denied";
      code = undefined;
      log.warn({ code: "VAULT_DENIED" }, "Vault refused the login: no sealed set is kept");
    } catch (error) {
      code = codeOf(error);
      log.error({ code, err: error }, "the sealed set could not be removed; it is tried again");
    }
    tell();
  };

  const hear = (error: unknown, isLogin: boolean): void => {
    const failure = codeOf(error);
    if (isLogin && failure === "VAULT_DENIED") heard = "denial";
    else if (heard === "denial") return;
    else if (failure === "VAULT_UNAVAILABLE" || (isLogin && failure === "TLS_UNTRUSTED"))
      heard = "silence";
    deps.changed();
  };

  const refresh = async (): Promise<void> => {
    if (heard === "denial") return remove();
    if (used !== undefined) {
      // How long it is in use counts, also where the clock starts anew with each boot.
      const seenAt = timeOf(used);
      const isDue = seenAt - used.set.seenAt >= Math.min(maxAgeMs / 24, PROGRESS_MS);
      if (!isDue) return;
      used = { set: { ...used.set, seenAt }, since: clock.monotonic() };
      return seal(used.set);
    }
    if (wanted === undefined || wanted === sealed) return;
    const isNew =
      sealed === undefined || code !== undefined || !sameFiles(sealed.files, wanted.files);
    if (isNew || now() >= sealAgainAt(sealed ?? wanted, maxAgeMs)) await seal(wanted);
  };

  tell();
  return {
    overheard: (vault) => ({
      ...vault,
      login: (signal) =>
        vault.login(signal).then(
          (login) => {
            heard = "answer";
            return login;
          },
          (error: unknown) => {
            if (!signal.aborted) hear(error, true);
            throw error;
          },
        ),
      read: (token, request, signal) =>
        vault.read(token, request, signal).catch((error: unknown) => {
          if (!signal.aborted) hear(error, false);
          throw error;
        }),
    }),
    async good(set, vouched) {
      if (used !== undefined) log.info({ outcome: "ok" }, "Vault's set replaces the sealed one");
      used = undefined;
      tell();
      if (heard === "denial") return remove();
      isLeased = set.isLeased;
      if (vouched) {
        const time = Math.floor(now());
        const { files, secrets } = set;
        wanted = { identity, sealedAt: time, seenAt: time, secrets, files };
        refused = undefined;
      }
      // What is new, at once; but a credential of seconds must not wear out the flash. The next look of `run` sees to the rest.
      if (clock.monotonic() - sealedSince >= LEAST_INTERVAL_MS) await refresh();
      tell();
    },
    async instead() {
      if (heard === "denial") {
        await remove();
        if (used === undefined) return undefined;
        used = undefined;
        log.warn({ code: "VAULT_DENIED" }, "the sealed set is withdrawn from the application");
        tell();
        return [];
      }
      return heard === "silence" && used === undefined ? begin() : undefined;
    },
    endOf(name) {
      if (used === undefined) return undefined;
      const secret = used.set.secrets.find((one) => one.name === name) ?? { name };
      return clock.now() + endOf(used.set, secret, maxAgeMs) - timeOf(used);
    },
    needsLeases: () => isLeased && sealed !== undefined,
    status() {
      const set = used?.set ?? sealed;
      return {
        offline: used !== undefined,
        ...(set === undefined ? {} : { sealedAt: isoOf(set.sealedAt) }),
        ...(used === undefined ? {} : { until: isoOf(until(used.set)) }),
        ...(refused === undefined ? {} : { refused }),
        ...(code === undefined ? {} : { code }),
      };
    },
    async run(signal) {
      for (;;) {
        await clock.sleep(LEAST_INTERVAL_MS, signal);
        await refresh();
      }
    },
  };
}

/** Milliseconds between two notes of how long a set has been in use, at most. */
const PROGRESS_MS = 3_600_000;

function sameFiles(a: readonly SecretFile[], b: readonly SecretFile[]): boolean {
  return fingerprint(a) === fingerprint(b);
}

function fingerprint(files: readonly SecretFile[]): string {
  const hash = createHash("sha256");
  for (const { name, mode, bytes } of files)
    hash.update(`${name} ${mode} ${bytes.length}\n`).update(bytes);
  return hash.digest("hex");
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
