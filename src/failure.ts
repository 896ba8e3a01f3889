/**
 * What a check of the application came to that did not go well: kept for people, in `/status`, the log and the journal, so that whoever reads
 * that a release was rolled back also reads why.
 */
import { detailOf } from "./hook.ts";

export interface Failure {
  /** `health`, `on-update`, or the name of a hook. */
  readonly check: string;
  /** Where, as its annotation writes it, without what may be secret: `http:8080/ready`, `tcp:5432`, `exec:/etc/edgesync/hook`. */
  readonly target: string;
  /** `HTTP status 503`, `ECONNREFUSED`, `timeout`, `exit status 1`; of a hook that said no, with its first line. */
  readonly result: string;
  /** RFC 3339, by the node's clock. */
  readonly at: string;
}

/** Characters of a target that are kept. */
const TARGET_LIMIT = 120;

/** @param now milliseconds since the epoch */
export function failureOf(check: string, target: string, result: string, now: number): Failure {
  // A query may hold a token.
  const [place = ""] = target.split("?", 1);
  return {
    check,
    target: detailOf(place).slice(0, TARGET_LIMIT),
    result: detailOf(result),
    at: new Date(now).toISOString(),
  };
}

/** The code of a system call that failed, or what else is fit to be shown of an error: never its message, which may quote anything. */
export function resultOf(error: unknown): string {
  if (!(error instanceof Error)) return "failed";
  if (error.name === "TimeoutError") return "timeout";
  if (
    "code" in error &&
    typeof error.code === "string" &&
    /^[A-Z][A-Z0-9_]{1,63}$/.test(error.code)
  )
    return error.code;
  return error.cause === undefined ? "no answer" : resultOf(error.cause);
}
