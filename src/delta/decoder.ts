/** What a delta codec is to those who use it: bytes of the old file by position and the delta as a stream, the new file as a stream. */

/** A file that is read by position, so that memory does not depend on its size. */
export interface RandomAccess {
  /** Bytes. */
  readonly size: number;
  /** Fills `bytes` with what stands from `position` on; the caller stays inside `size`. */
  readInto(bytes: Uint8Array, position: number): Promise<void>;
}

/** `length` bytes from `position`, in a buffer of their own. */
export async function readBytes(
  file: RandomAccess,
  position: number,
  length: number,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  await file.readInto(bytes, position);
  return bytes;
}

/** Waits for all reads, also when one has failed: nobody may give up a buffer that another thread still reads into. */
export async function allRead(reads: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(reads))
    if (result.status === "rejected") throw result.reason;
}

export interface Decoder {
  /** As manifests name it. */
  readonly name: string;
  /**
   * The new file, in order. Yields exactly `size` bytes or throws; what they are worth is decided by the caller, who hashes them.
   * Each piece is valid until the next is asked for: its buffer is used again.
   *
   * @param delta each piece is done with when the next is asked for
   * @param size bytes of the new file, from the signed manifest
   * @throws EdgeSyncError DELTA_INVALID
   */
  apply(
    old: RandomAccess,
    delta: AsyncIterable<Uint8Array>,
    size: number,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array>;
}
