import { join } from "node:path";
import { fromEnv } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";

/** Settings of an agent whose token and volume are in a folder; `secrets` are requests by the name of their file. */
export function declaredIn(folder: string, secrets: Readonly<Record<string, string>>): Settings {
  const declared = Object.entries(secrets).map(([file, request], index) => [
    `EDGESYNC_SECRET_S${index}`,
    JSON.stringify({ request, format: "json", file }),
  ]);
  return fromEnv({
    EDGESYNC_VAULT_ADDRESS: "https://vault.example",
    EDGESYNC_VAULT_ROLE: "web",
    EDGESYNC_TOKEN_FILE: join(folder, "token"),
    EDGESYNC_SECRETS_DIR: join(folder, "volume"),
    ...(Object.fromEntries(declared) as Readonly<Record<string, string>>),
  });
}
