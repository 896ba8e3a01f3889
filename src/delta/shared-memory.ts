/**
 * Memory that threads share, used again from segment to segment and from file to file. Left to the collector, it would pile up: gigabytes of
 * it look to each thread like a few small objects that can wait.
 */

/** One buffer of each kind is in use at a time. */
export type Kind = "old" | "target" | "flat" | "made" | "heads" | "links";

export interface SharedMemory {
  /** What was taken of that kind before is gone. The content is what happens to be there. */
  take(kind: Kind, bytes: number): Buffer;
}

export function openSharedMemory(): SharedMemory {
  const kept = new Map<Kind, SharedArrayBuffer>();
  return {
    take(kind, bytes) {
      let memory = kept.get(kind);
      if (memory === undefined || memory.byteLength < bytes) {
        // Twice as much each time, so that what is replaced is little. Pages that nobody writes to take no room.
        memory = new SharedArrayBuffer(2 ** Math.ceil(Math.log2(bytes + 1)));
        kept.set(kind, memory);
      }
      return Buffer.from(memory, 0, bytes);
    },
  };
}
