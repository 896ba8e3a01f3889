/**
 * Where a key comes from that opens what is sealed. Now: a mounted Secret, which protects what lies on a volume from who has the volume
 * alone. A source that asks the machine itself, such as its TPM, has the same shape.
 */
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { nodeDisk, readSmallFile } from "../disk/durable.ts";

export interface KeySource {
  /** For the log: where the key is, never what. */
  readonly where: string;
  /**
   * Asked for each use: who owns the key may replace it. The bytes are not kept.
   *
   * @throws EdgeSyncError CONFIG_INVALID when there is none
   */
  read(): Promise<Uint8Array>;
}

/** Bytes; an RSA key of 8192 bits as a JWK has 7 kB. */
const KEY_LIMIT = 65_536;

/** The file `name` of a folder, as the kubelet mounts a Secret. */
export function mountedKey(folder: string, name: string): KeySource {
  const where = join(folder, name);
  return {
    where,
    async read() {
      let bytes: Uint8Array | undefined;
      try {
        bytes = await readSmallFile(nodeDisk, where, KEY_LIMIT);
      } catch (cause) {
        throw new EdgeSyncError("CONFIG_INVALID", `the key ${where} cannot be read`, { cause });
      }
      if (bytes === undefined)
        throw new EdgeSyncError("CONFIG_INVALID", `there is no key ${where}; the Secret needs one`);
      return bytes;
    },
  };
}

/** Bytes of a key for A256KW. */
const SYMMETRIC = 32;

/**
 * A symmetric key: its 32 bytes, or base64 of them.
 *
 * @throws EdgeSyncError CONFIG_INVALID, without a word of the key
 */
export async function symmetricKey(source: KeySource): Promise<Uint8Array> {
  const bytes = await source.read();
  if (bytes.length === SYMMETRIC) return bytes;
  const text = Buffer.from(bytes).toString("latin1").trim();
  const decoded = /^[A-Za-z0-9+/_-]{43}=?$/.test(text) ? Buffer.from(text, "base64") : undefined;
  if (decoded?.length !== SYMMETRIC)
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${source.where} has ${bytes.length} bytes; expected ${SYMMETRIC}, or base64 of as many`,
    );
  return decoded;
}
