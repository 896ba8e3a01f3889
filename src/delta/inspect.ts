/** What a delta consists of, without the old file. */
import { segmentDecoders } from "./codec.ts";
import { chunksOf, readHeader, readSegment } from "./container.ts";
import { invalid } from "./invalid.ts";
import { METHODS } from "./source.ts";
import { openInput } from "./stream-input.ts";

export interface DeltaReport {
  readonly oldBytes: number;
  readonly newBytes: number;
  readonly segments: readonly {
    readonly codec: string;
    readonly newBytes: number;
    /** Streams that are not empty. */
    readonly streams: readonly {
      readonly name: string;
      readonly method: string;
      readonly bytes: number;
    }[];
  }[];
}

/** @throws EdgeSyncError DELTA_INVALID */
export async function inspectDelta(
  delta: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<DeltaReport> {
  const input = openInput(delta);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => input.close());
  const { oldSize, size } = await readHeader(input, undefined, undefined, signal);
  const segments: DeltaReport["segments"][number][] = [];
  for (let rest = size; rest > 0;) {
    const header = await readSegment(input, segmentDecoders, oldSize, rest, signal);
    segments.push({
      codec: header.codec.name,
      newBytes: header.size,
      streams: header.streams
        .map(({ method, length }, index) => ({
          name: header.codec.streams[index] ?? "",
          method: Object.entries(METHODS).find(([, value]) => value === method)?.[0] ?? "unknown",
          bytes: length,
        }))
        .filter(({ bytes }) => bytes > 0),
    });
    await chunksOf(input, header).finish(signal);
    rest -= header.size;
  }
  if (!(await input.ended(signal))) throw invalid("it goes on after its last segment");
  return { oldBytes: oldSize, newBytes: size, segments };
}
