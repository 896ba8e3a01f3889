/**
 * The payloads of a pod: `main`, whose annotations have no suffix, and others by name, as in `edgesync.dev/channel.models`. Each is
 * followed, fetched, tried and kept by a machine of its own; what one of them has of its own is said by the tables of the contract.
 */
import type { Row } from "./annotations.ts";
import type { Value } from "./values.ts";

export const MAIN_PAYLOAD = "main";

/** Each has a machine, connections and room on disk of its own; more would not fit the sidecar's memory. */
export const MAX_PAYLOADS = 8;

/** Short enough for names of volumes that end with it, which may have 63 characters. */
export const payloadName: Value<string> = {
  allowed: `a lower-case name of letters, digits and '-', at most 30 characters, and not ${MAIN_PAYLOAD}`,
  parse: (input) =>
    input !== MAIN_PAYLOAD && /^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$/.test(input)
      ? input
      : undefined,
  format: (value) => value,
};

/** The key of an annotation as it is written for a payload: `channel`, `channel.models`. */
export function keyFor(key: string, payload: string): string {
  return payload === MAIN_PAYLOAD ? key : `${key}.${payload}`;
}

/** Whether a payload may state a row for itself. */
export function isPerPayload(row: Pick<Row<never>, "section" | "payload">): boolean {
  return row.section === "Updates" && row.payload !== "pod";
}

/** Whether what is stated for all is the default of a payload that does not state it. */
export function isInherited(
  { payload }: { readonly payload?: string | undefined },
  sameRepository: boolean,
): boolean {
  return (
    payload === undefined || payload === "default" || (payload === "repository" && sameRepository)
  );
}
