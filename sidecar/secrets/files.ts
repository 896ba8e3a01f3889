/** From what a source gave to the files that the pod has declared of it. */
import type { SecretOptions } from "#core/pod-options.ts";
import { fieldsOf, secretFile } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { Settings } from "#core/settings.ts";
import type { SecretFile } from "./publication.ts";

/** @throws EdgeSyncError SECRET_INVALID when the data cannot be put in a form that is asked for */
export type FilesOf = (
  secrets: readonly SecretOptions[],
  data: SecretData,
) => readonly SecretFile[];

/** Few pods have key stores, so what makes them is loaded for these alone. */
export async function openFiles({
  secrets: declared,
  secretsMode,
}: Pick<Settings, "secrets" | "secretsMode">): Promise<FilesOf> {
  const stores = declared.some(({ format }) => format.kind === "pkcs12")
    ? await import("./key-store.ts")
    : undefined;

  const bytesOf = (fields: SecretData, { name, format }: SecretOptions): Uint8Array => {
    if (format.kind !== "pkcs12") return secretFile(fields, format);
    if (stores === undefined) throw new TypeError(`${name} is a key store that nobody declared`);
    return stores.keyStore(fields, name, format.password);
  };
  return (secrets, data) => {
    const fields = fieldsOf(data);
    return secrets.map((secret) => ({
      name: secret.file,
      bytes: bytesOf(fields, secret),
      mode: secret.mode ?? secretsMode,
    }));
  };
}
