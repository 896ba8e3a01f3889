/** Between what a secrets agent holds, in monotonic time, and what it saves, in the time of the wall clock. */
import type { Clock } from "#core/clock.ts";
import { openLanes } from "#core/lanes.ts";
import type { Grant } from "#core/lease.ts";
import type { RetiredLease } from "./retired-leases.ts";
import type { SavedRotation } from "./rotation.ts";
import type { KeptSecretId } from "./secret-id.ts";
import type { ResumedVersion, Source, Version } from "./source.ts";
import type { SavedLease, SavedState, SavedToken, StateStore } from "./state.ts";
import type { FormerToken, Resumed, Token, TokenKeeper } from "./vault-token.ts";

export interface ResumedState {
  readonly token: Resumed | undefined;
  /** By the request's text form. */
  readonly secrets: ReadonlyMap<string, ResumedVersion>;
  readonly retired: readonly RetiredLease[];
  readonly rotation: SavedRotation | undefined;
  readonly secretId: KeptSecretId | undefined;
}

/** @param identity of the server and role that the agent is for; a state for another one is not used */
export function fromSaved(
  saved: SavedState | undefined,
  identity: string,
  clock: Clock,
): ResumedState | undefined {
  if (saved === undefined || saved.identity !== identity) return undefined;
  const now = clock.now();
  const offset = clock.monotonic() - now;
  const left = (lease: SavedLease | undefined): (Grant & { remainingMs: number }) | undefined =>
    lease === undefined
      ? undefined
      : {
          durationMs: lease.durationMs,
          renewable: lease.renewable,
          remainingMs: lease.expiresAt - now,
        };
  return {
    token:
      saved.token === undefined
        ? undefined
        : {
            token: saved.token,
            lease: left(saved.token.lease),
            former: formerOf(saved.former, offset),
          },
    secrets: new Map(
      saved.secrets.map(({ request, data, leaseId, generation, lease }) => [
        request,
        { data, leaseId, generation, lease: left(lease) },
      ]),
    ),
    rotation: saved.rotation,
    secretId: saved.secretId,
    retired: saved.retired.map(({ leaseId, generation, expiresAt, revokeAt }) => ({
      leaseId,
      generation,
      expiresAt: offset + expiresAt,
      revokeAt: revokeAt === undefined ? undefined : offset + revokeAt,
      attempt: 0,
    })),
  };
}

function formerOf(saved: SavedToken | undefined, offset: number): FormerToken | undefined {
  return saved?.lease === undefined
    ? undefined
    : { ...tokenOf(saved), expiresAt: offset + saved.lease.expiresAt };
}

function tokenOf({ token, accessor, generation }: Token): Token {
  return { token, accessor, generation };
}

export interface SaverDeps {
  readonly store: StateStore;
  readonly identity: string;
  readonly keeper: TokenKeeper;
  readonly sources: readonly Source[];
  readonly retired: () => readonly RetiredLease[];
  readonly rotation: () => SavedRotation | undefined;
  readonly secretId: () => KeptSecretId | undefined;
  readonly clock: Clock;
}

/** Saves what the agent holds, one time after the other. @returns the versions that are in it */
export type Save = () => Promise<ReadonlyMap<Source, Version>>;

export function openSaver(deps: SaverDeps): Save {
  const inOrder = openLanes(1);
  return () =>
    inOrder(async () => {
      const versions = new Map<Source, Version>();
      for (const source of deps.sources)
        if (source.current !== undefined) versions.set(source, source.current);
      const [retired, rotation] = [deps.retired(), deps.rotation()];
      const secretId = deps.secretId();
      await deps.store.save(toSaved({ ...deps, versions, retired, rotation, secretId }));
      return versions;
    });
}

function toSaved(parts: {
  readonly identity: string;
  readonly keeper: TokenKeeper;
  readonly versions: ReadonlyMap<Source, Version>;
  readonly retired: readonly RetiredLease[];
  readonly rotation: SavedRotation | undefined;
  readonly secretId: KeptSecretId | undefined;
  readonly clock: Clock;
}): SavedState {
  const { identity, keeper, versions, retired, clock } = parts;
  const offset = clock.now() - clock.monotonic();
  const { held, former, credential } = keeper;
  // What comes from elsewhere is there for the next process too.
  const vaults = [...versions].filter(([{ kind }]) => kind === "vault");
  const tokenLease = credential.phase === "leased" ? credential.lease : undefined;
  return {
    identity,
    token:
      held === undefined
        ? undefined
        : {
            ...tokenOf(held),
            lease: tokenLease && { ...tokenLease, expiresAt: offset + tokenLease.expiresAt },
          },
    former:
      former === undefined
        ? undefined
        : {
            ...tokenOf(former),
            lease: { durationMs: 0, renewable: false, expiresAt: offset + former.expiresAt },
          },
    secrets: vaults.map(([source, { data, leaseId, generation, grant, expiresAt }]) => ({
      request: source.key,
      data,
      leaseId,
      generation,
      lease:
        grant === undefined || expiresAt === undefined
          ? undefined
          : { ...grant, expiresAt: offset + expiresAt },
    })),
    rotation: parts.rotation,
    secretId: parts.secretId,
    retired: retired.map(({ leaseId, generation, expiresAt, revokeAt }) => ({
      leaseId,
      generation,
      expiresAt: offset + expiresAt,
      revokeAt: revokeAt === undefined ? undefined : offset + revokeAt,
    })),
  };
}
