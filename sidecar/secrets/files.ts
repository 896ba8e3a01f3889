/** From what a source gave to the files that the pod has declared of it. */
import type { SecretOptions } from "#core/pod-options.ts";
import { fieldsOf, secretFile } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { SecretFile } from "./publication.ts";

/** @throws EdgeSyncError SECRET_INVALID when the data cannot be put in a form that is asked for */
export function filesOf(
  secrets: readonly SecretOptions[],
  data: SecretData,
  defaultMode: number,
): readonly SecretFile[] {
  const fields = fieldsOf(data);
  return secrets.map(({ file, format, mode }) => ({
    name: file,
    bytes: secretFile(fields, format),
    mode: mode ?? defaultMode,
  }));
}
