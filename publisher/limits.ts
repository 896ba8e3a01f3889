/** Keeps metadata below what sites read: told before any work is done, and while there is still room to put it right. */
import { EdgeSyncError } from "#core/errors.ts";
import { LIMITS } from "#core/trust/metadata.ts";
import type { View } from "./repository.ts";

/** Bytes that are kept free, so that what has to be signed anew, or removed, always fits. */
const SPARE = 64 * 1024;

/**
 * @param role that is to list one more target, or that is new
 * @throws EdgeSyncError REPOSITORY_FULL
 */
export function refuseFull(
  { roles, snapshot }: Pick<View, "roles" | "snapshot">,
  role: string,
): void {
  const { meta } = snapshot.signed;
  const check = (name: string, bytes: number, limit: number, cure: string): void => {
    if (bytes > limit - SPARE)
      throw new EdgeSyncError(
        "REPOSITORY_FULL",
        `the role ${name} has ${bytes} bytes, and sites read at most ${limit}; ${cure}`,
      );
  };
  const sizeOf = (name: string): number => meta[`${name}.json`]?.length ?? 0;
  if (roles.has(role))
    check(role, sizeOf(role), LIMITS.targets, "take old releases off its list first");
  else {
    const cure = "begin another repository for more apps and channels";
    check("targets", sizeOf("targets"), LIMITS.targets, cure);
    check("snapshot", Buffer.byteLength(JSON.stringify(meta)), LIMITS.snapshot, cure);
  }
}
