/**
 * The tensor codec's decoder. A segment is a row of items: raw bytes, or regions. A region lies in one piece in the old and in the new
 * file and is a row of elements; runs of units that stay as they are take turns with runs whose elements are coded.
 *
 * The control stream: a byte, the number of tables; the tables (`tensor-table.ts`); then items until the segment is made. An item is a
 * byte, 255 for raw bytes or the number of a table; then its length in bytes, a number. For a region follow how far its old bytes are
 * from the end of the last region's (a signed number), and its runs in turn: units that stay, units that are coded, a number each; the last
 * unit of a region may be cut short. Only the first run of a region may be empty.
 */
import type { RandomAccess } from "./decoder.ts";
import { invalid } from "./invalid.ts";
import { openKernel, openMemory } from "./kernel.ts";
import { NUMBER_BYTES, readNumber, signed } from "./numbers.ts";
import type { SegmentDecoder } from "./segment.ts";
import { readFully } from "./source.ts";
import type { ByteSource } from "./source.ts";
import { ELEMENT_BYTES, openElements } from "./tensor-symbols.ts";
import type { Elements, ElementReader } from "./tensor-symbols.ts";
import { MAX_TABLES, SYMBOL_STREAMS, readTable } from "./tensor-table.ts";
import type { Table } from "./tensor-table.ts";

/** Bytes that are made at a time. */
const PIECE_BYTES = 128 * 1024;
/** In place of a table's number. */
export const RAW = 255;

export const tensor: SegmentDecoder = {
  name: "tensor",
  streams: [
    "control",
    "bytes",
    "bits",
    "escapes",
    ...Array.from({ length: SYMBOL_STREAMS }, (_, index) => `symbols ${index}`),
  ],

  async *decode({ old, size, streams }, signal) {
    const [control, bytes, bits, escapes, ...symbols] = streams;
    if (!control || !bytes || !bits || !escapes) throw invalid("a stream is missing");
    const number = async (): Promise<number> => {
      await control.ready(NUMBER_BYTES, signal);
      return readNumber(control);
    };
    const tables = await readTables(control, signal);
    const kernel = openKernel([PIECE_BYTES, ...ELEMENT_BYTES]);
    const memory = kernel ?? openMemory();
    using cleanup = new DisposableStack();
    cleanup.defer(() => {
      memory.close();
    });
    const piece = memory.bytes(PIECE_BYTES);
    const reader = openElements(tables, [...symbols, bits, escapes], memory, kernel?.elements);
    let position = 0;
    for (let rest = size; rest > 0;) {
      await control.ready(1, signal);
      const item = control.buffer[control.at++] ?? 0;
      const length = await number();
      if (length === 0 || length > rest)
        throw invalid(`an item of ${length} bytes, ${rest} are left`);
      rest -= length;
      if (item === RAW) {
        yield* readRaw(bytes, length, piece, signal);
        continue;
      }
      const table = tables[item];
      if (table === undefined) throw invalid(`table ${item} is not there`);
      if (length % table.width !== 0) throw invalid(`a region of ${length} bytes`);
      position += signed(await number());
      if (position < 0 || position + length > old.size)
        throw invalid(`${length} old bytes at ${position}, there are ${old.size}`);
      yield* decodeRegion({ old, position, length, table, item, reader, number, piece }, signal);
      position += length;
    }
  },
};

async function readTables(control: ByteSource, signal: AbortSignal): Promise<readonly Table[]> {
  await control.ready(1, signal);
  const count = control.buffer[control.at++] ?? 0;
  if (count > MAX_TABLES) throw invalid(`${count} tables`);
  const tables: Table[] = [];
  while (tables.length < count) tables.push(await readTable(control, signal));
  return tables;
}

async function* readRaw(
  bytes: ByteSource,
  length: number,
  piece: Buffer,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  for (let rest = length; rest > 0;) {
    const part = piece.subarray(0, rest);
    await readFully(bytes, part, signal);
    rest -= part.length;
    yield part;
  }
}

interface Region {
  readonly old: RandomAccess;
  readonly position: number;
  readonly length: number;
  readonly table: Table;
  readonly item: number;
  readonly reader: ElementReader;
  readonly number: () => Promise<number>;
  readonly piece: Buffer;
}

async function* decodeRegion(
  { old, position, length, table, item, reader, number, piece }: Region,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const { width, unitLog } = table;
  const elements: Elements = {
    words: new Int32Array(piece.buffer, piece.byteOffset, PIECE_BYTES / 4),
    halves: new Uint16Array(piece.buffer, piece.byteOffset, PIECE_BYTES / 2),
  };
  const total = length / width;
  // Runs that stay and runs that are coded take turns; before the first there is none.
  let coded = true;
  let runEnd = 0;
  let first = true;
  for (let start = 0; start < total;) {
    const end = Math.min(total, start + PIECE_BYTES / width);
    const part = piece.subarray(0, (end - start) * width);
    await old.readInto(part, position + start * width);
    for (let at = start; at < end;) {
      if (at === runEnd) {
        const units = await number();
        if (units === 0 && !first) throw invalid("an empty run");
        first = false;
        coded = !coded;
        runEnd = Math.min(total, at + units * 2 ** unitLog);
        continue;
      }
      const until = Math.min(end, runEnd);
      if (coded) await reader.decode(item, elements, at - start, until - start, signal);
      at = until;
    }
    start = end;
    yield part;
  }
}
