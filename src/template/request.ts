/** What a template's calls mean to edgesync: requests that it makes of Vault, and the variables that it shows. */
import { EdgeSyncError } from "../errors.ts";
import { secretRequest } from "../secret-request.ts";
import type { VaultRequest } from "../secret-request.ts";
import type { TemplateCall } from "./calls.ts";

/** What a template may know of where it is: nothing else of the environment is for it. */
export const VARIABLES = ["POD_NAME", "POD_NAMESPACE", "POD_UID", "NODE_NAME", "SITE"] as const;

/**
 * @param name of the template
 * @throws EdgeSyncError TEMPLATE_FAILED
 */
export function requestOf({ path, query, parameters }: TemplateCall, name: string): VaultRequest {
  const { version, ...more } = query;
  const request: VaultRequest = {
    kind: "vault",
    path,
    ...(version === undefined ? {} : { version: Number(version) }),
    parameters,
  };
  const read = secretRequest.parse(secretRequest.format(request));
  // The path may be what another secret says: a space in it must not begin what is written, nor a word of our own.
  if (read?.kind !== "vault" || read.path !== path || Object.keys(more).length > 0)
    throw new EdgeSyncError(
      "TEMPLATE_FAILED",
      `${name}: it calls for what is no path of Vault, or writes a path with ?version`,
    );
  return read;
}
