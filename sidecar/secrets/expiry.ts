/** When the published credentials end, for status, metrics and the gate. */
import type { Clock } from "#core/clock.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Source, Version } from "./source.ts";

export interface SecretStatus {
  readonly name: string;
  readonly state: "missing" | "valid" | "expired";
  /** RFC 3339; absent for what has no end. */
  readonly expiresAt?: string;
  /** Why the last request for it failed. */
  readonly code?: ErrorCode;
}

export interface ExpiryRow {
  readonly name: string;
  readonly isShown: boolean;
  /** Milliseconds since the epoch, of the published credential. */
  readonly expiresAt: number | undefined;
  readonly code: ErrorCode | undefined;
}

export function expiries(
  sources: readonly Source[],
  shown: ReadonlyMap<Source, Version>,
  clock: Clock,
): readonly ExpiryRow[] {
  const offset = clock.now() - clock.monotonic();
  return sources.flatMap((source) => {
    const version = shown.get(source);
    const expiresAt = version?.expiresAt === undefined ? undefined : offset + version.expiresAt;
    return source.secrets.map(({ name }) => ({
      name,
      isShown: version !== undefined,
      expiresAt,
      code: source.code,
    }));
  });
}

export function statusOf({ name, isShown, expiresAt, code }: ExpiryRow, now: number): SecretStatus {
  const state = expiresAt !== undefined && expiresAt <= now ? "expired" : "valid";
  return {
    name,
    state: isShown ? state : "missing",
    ...(expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString() }),
    ...(code === undefined ? {} : { code }),
  };
}
