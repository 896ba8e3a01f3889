/** What every part of the delta engine throws when a delta is not what the format says. */
import { EdgeSyncError } from "../errors.ts";

export function invalid(problem: string, cause?: unknown): EdgeSyncError {
  return new EdgeSyncError("DELTA_INVALID", `delta: ${problem}`, { cause });
}
