/** How much is done at a time, and telling how far it is. */
import { availableParallelism } from "node:os";
import type { Run } from "#core/delta/encode.ts";
import { openLanes } from "#core/lanes.ts";

/** Node compresses on four threads, and each compression takes about 150 MiB: more at a time would only wait. */
const MAX_SLOTS = 4;

/** Runs as much work at a time as there are processors. */
export function openSlots(): Run {
  return openLanes(Math.min(availableParallelism(), MAX_SLOTS));
}

export interface Progress {
  /** Work that has been found: bytes that will be read. */
  expect(bytes: number): void;
  /** Bytes of it that are done, and what is being done now. */
  advance(bytes: number, label: string): void;
  /** Clears what was shown. */
  end(): void;
}

export const silent: Progress = {
  expect: () => undefined,
  advance: () => undefined,
  end: () => undefined,
};

/**
 * One line that is written over.
 *
 * @param monotonic milliseconds, to limit how often it is drawn
 */
export function progressLine(write: (text: string) => void, monotonic: () => number): Progress {
  let total = 0;
  let done = 0;
  let drawn = Number.NEGATIVE_INFINITY;
  return {
    expect(bytes) {
      total += bytes;
    },
    advance(bytes, label) {
      done += bytes;
      if (monotonic() - drawn < 100) return;
      drawn = monotonic();
      const percent = total === 0 ? 100 : Math.min(100, Math.floor((done * 100) / total));
      write(
        `\r\u001B[K${percent} %  ${mebibytes(done)} of ${mebibytes(total)} MiB  ${label.slice(0, 60)}`,
      );
    },
    end() {
      write("\r\u001B[K");
    },
  };
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
