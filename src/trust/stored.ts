/** What is stored has been verified, and is verified again when it is loaded. */
import { EdgeSyncError, codeOf } from "../errors.ts";
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
  return readStored(await store.load(name), read);
}

/**
 * The same, for what is no floor of anything: a disk that cannot read it costs its bytes once more, and what is saved then lies
 * elsewhere on the disk. Where versions are only held by what is stored, to go on without would be to forget them.
 */
export async function loadReplaceable<T>(
  name: string,
  store: MetadataStore,
  read: (bytes: Uint8Array) => T,
): Promise<T | undefined> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await store.load(name);
  } catch (error) {
    if (codeOf(error) !== "DISK_FAILED") throw error;
  }
  return readStored(bytes, read);
}

function readStored<T>(
  bytes: Uint8Array | undefined,
  read: (bytes: Uint8Array) => T,
): T | undefined {
  if (bytes === undefined) return undefined;
  try {
    return read(bytes);
  } catch (error) {
    if (error instanceof EdgeSyncError) return undefined;
    throw error;
  }
}
