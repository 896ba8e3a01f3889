/**
 * One Vault for many agents, without a network: tokens and leases are those of the development Vault, with the terms of its clock; what
 * is in front of them is as little as the agents ask for. It counts what it is asked, and fails in the ways in which Vaults fail.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import {
  Refusal,
  absent,
  answer,
  denied,
  durationMs,
  invalid,
  text,
} from "../../demo/vault/exchange.ts";
import type { Answer, Fields } from "../../demo/vault/exchange.ts";
import { authOf, openTokenStore, secondsLeft } from "../../demo/vault/tokens.ts";
import type { Terms, Token } from "../../demo/vault/tokens.ts";
import type { VaultHttp } from "../../sidecar/secrets/login.ts";

const HOUR_MS = 3_600_000;

/** What a request meets in place of its answer. */
export const OUTAGES = {
  refused: "connections are refused",
  silent: "nothing answers, until the client gives up",
  sealed: "503 to everything",
  broken: "500 to everything",
  busy: "429 to everything, with Retry-After: 60",
  maintenance: "503 to everything, with the time of its end in Retry-After",
  denied: "every token is lost, and the login answers 403",
} as const;
export type Outage = keyof typeof OUTAGES;

export const KINDS = ["login", "token", "renew", "database", "kv", "pki", "revoke"] as const;
export type Kind = (typeof KINDS)[number];

export interface Asked {
  /** Monotonic milliseconds. */
  readonly at: number;
  readonly agent: number;
  readonly kind: Kind;
}

/** A lease, which ends with its token. */
export interface Holding {
  /** Milliseconds since the epoch, as it stands. */
  readonly endsAt: () => number;
  /** Whether the agent has been given another in its place. */
  isReplaced: boolean;
}

export interface SimulatedVault {
  /** The connections of one agent. */
  http(agent: number): VaultHttp;
  /** Begins, or with `undefined` ends. @param endsAt of the clock, for what tells it */
  fail(outage: Outage | undefined, endsAt?: number): Promise<void>;
  /** Since it was last taken. */
  take(): readonly Asked[];
  /** Requests under way at once, at most, since it was last taken. */
  takeConcurrent(): number;
  /** What the agents were given last and has an end. */
  holdings(): readonly Holding[];
  /** Ends what has expired, until aborted. */
  run(signal: AbortSignal): Promise<void>;
}

const TOKEN: Terms = { ttlMs: HOUR_MS, maxTtlMs: 24 * HOUR_MS };
const LEASES: Readonly<Record<string, Terms>> = {
  "database/creds/short": { ttlMs: HOUR_MS, maxTtlMs: 24 * HOUR_MS },
  "database/creds/long": { ttlMs: 4 * HOUR_MS, maxTtlMs: 48 * HOUR_MS },
};
const CERTIFICATE_MS = 72 * HOUR_MS;
/** Milliseconds of one answer. */
const ANSWER_MS = 20;
/** Milliseconds, as the client has it. */
const TIME_OUT_MS = 10_000;
const NO_CONTENT = { status: 204 };

export function simulatedVault(clock: Clock, random: () => number): SimulatedVault {
  const tokens = openTokenStore(clock);
  let outage: { readonly kind: Outage; readonly endsAt: number } | undefined;
  let asked: Asked[] = [];
  const concurrent = { now: 0, most: 0 };
  const issued = new Set<Token>();
  const holdings = new Map<string, Holding>();

  const logIn = (): Answer => {
    const token = tokens.issue({ policies: [], path: "auth/kubernetes/login", terms: () => TOKEN });
    issued.add(token);
    return answer({ auth: authOf(token, clock.now()) });
  };
  const read = (path: string, token: Token, agent: number): Answer => {
    const terms = LEASES[path];
    if (terms === undefined) {
      const [kind] = path.split("/");
      if (kind === "secret") return answer({ data: { data: { path }, metadata: {} } });
      if (kind !== "pki") throw absent();
      const expiration = Math.floor((clock.now() + CERTIFICATE_MS) / 1_000);
      return answer({ data: { certificate: randomUUID(), private_key: randomUUID(), expiration } });
    }
    const lease = tokens.lease(
      token,
      path,
      () => terms,
      () => Promise.resolve(),
    );
    const key = `${agent} ${path}`;
    const before = holdings.get(key);
    if (before !== undefined) before.isReplaced = true;
    const endsAt = (): number => Math.min(lease.expiresAt, token.expiresAt ?? lease.expiresAt);
    holdings.set(key, { endsAt, isReplaced: false });
    return answer({
      data: { username: randomUUID(), password: randomUUID() },
      lease: { id: lease.id, renewable: true, duration: secondsLeft(lease, clock.now()) },
    });
  };
  const serve = async (
    agent: number,
    path: string,
    id: string | undefined,
    fields: Fields,
  ): Promise<Answer> => {
    if (path === "auth/kubernetes/login") return logIn();
    const token = tokens.find(id ?? "");
    if (token === undefined) throw denied();
    switch (path) {
      case "auth/token/lookup-self":
        return answer({ data: {} });
      case "auth/token/renew-self":
        tokens.renew(token, durationMs(fields, "increment"));
        return answer({ auth: authOf(token, clock.now()) });
      case "auth/token/revoke-self":
        issued.delete(token);
        await tokens.revoke(token);
        return NO_CONTENT;
      case "sys/leases/renew": {
        const lease = tokens.findLease(text(fields, "lease_id") ?? "");
        if (lease === undefined) throw invalid("lease not found");
        tokens.renewLease(lease, durationMs(fields, "increment"));
        const duration = secondsLeft(lease, clock.now());
        return answer({ lease: { id: lease.id, renewable: true, duration } });
      }
      case "sys/leases/revoke": {
        const lease = tokens.findLease(text(fields, "lease_id") ?? "");
        if (lease !== undefined) await tokens.revokeLease(lease);
        return NO_CONTENT;
      }
      default:
        return read(path, token, agent);
    }
  };
  /** @throws EdgeSyncError VAULT_UNAVAILABLE */
  const faulty = async (signal: AbortSignal): Promise<FaultyAnswer | undefined> => {
    switch (outage?.kind) {
      case "refused":
        throw new EdgeSyncError("VAULT_UNAVAILABLE", "connect ECONNREFUSED");
      case "silent":
        await clock.sleep(TIME_OUT_MS, signal);
        throw new EdgeSyncError("VAULT_UNAVAILABLE", `no bytes for ${TIME_OUT_MS} ms`);
      case "sealed":
        return { status: 503 };
      case "broken":
        return { status: 500 };
      case "busy":
        return { status: 429, retryAfter: "60" };
      case "maintenance":
        return { status: 503, retryAfter: new Date(outage.endsAt).toUTCString() };
      case "denied":
        return { status: 403, body: { errors: ["permission denied"] } };
      case undefined:
      default:
        return undefined;
    }
  };
  const settled = async (work: () => Promise<Answer>): Promise<Answer> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Refusal) return { status: error.status, body: error.body };
      throw error;
    }
  };

  return {
    http: (agent) => ({
      async request({ url, headers = {}, body }, signal) {
        const path = new URL(url).pathname.slice("/v1/".length);
        asked.push({ at: clock.monotonic(), agent, kind: kindOf(path) });
        concurrent.most = Math.max(concurrent.most, ++concurrent.now);
        try {
          const fault = await faulty(signal);
          await clock.sleep(ANSWER_MS * (0.5 + random()), signal);
          const fields = JSON.parse(
            body === undefined ? "{}" : Buffer.from(body).toString(),
          ) as Fields;
          const answered =
            fault ?? (await settled(() => serve(agent, path, headers["x-vault-token"], fields)));
          const text = "body" in answered ? JSON.stringify(answered.body) : "";
          const retryAfter = fault?.retryAfter;
          return {
            status: answered.status,
            headers: {
              date: new Date(clock.now()).toUTCString(),
              ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }),
            },
            body: bodyOf(text),
          };
        } finally {
          concurrent.now--;
        }
      },
      close: () => undefined,
    }),
    async fail(kind, endsAt = 0) {
      outage = kind === undefined ? undefined : { kind, endsAt };
      if (kind !== "denied") return;
      for (const token of issued) {
        token.expiresAt = clock.now();
        await tokens.revoke(token);
      }
      issued.clear();
    },
    take() {
      const taken = asked;
      asked = [];
      return taken;
    },
    takeConcurrent() {
      const { most } = concurrent;
      concurrent.most = concurrent.now;
      return most;
    },
    holdings: () => [...holdings.values()],
    run: (signal) => tokens.run(signal),
  };
}

interface FaultyAnswer extends Answer {
  readonly retryAfter?: string;
}

async function* bodyOf(text: string): AsyncGenerator<Uint8Array, void, undefined> {
  yield Buffer.from(text);
}

function kindOf(path: string): Kind {
  if (path.startsWith("auth/token/")) return path.endsWith("revoke-self") ? "revoke" : "token";
  if (path.startsWith("sys/")) return path.endsWith("revoke") ? "revoke" : "renew";
  if (path.startsWith("auth/")) return "login";
  if (path.startsWith("database/")) return "database";
  return path.startsWith("pki/") ? "pki" : "kv";
}
