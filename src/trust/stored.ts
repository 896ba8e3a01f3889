/** What is stored has been verified, and is verified again when it is loaded. */
import { EdgeSyncError } from "../errors.ts";
import type { MetadataStore } from "./trusted.ts";

/**
 * What is stored under a name; `undefined` when it is absent or does not pass `read`: a file that is torn, tampered with or signed by
 * keys that have since been withdrawn is fetched again.
 */
export async function loadStored<T>(
  name: string,
  store: MetadataStore,
  read: (bytes: Uint8Array) => T,
): Promise<T | undefined> {
  const bytes = await store.load(name);
  if (bytes === undefined) return undefined;
  try {
    return read(bytes);
  } catch (error) {
    if (error instanceof EdgeSyncError) return undefined;
    throw error;
  }
}
