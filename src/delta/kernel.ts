/**
 * Moves addresses with WebAssembly where there is any: what x86.ts, aarch64.ts, tables.ts and the mover say, several times as fast, and
 * so from the first block on. The bytes that it works on stand in its memory.
 */
import { unreachable } from "../errors.ts";
import type { QuickCorrections } from "./corrections.ts";
import type { Copied } from "./fields.ts";
import { ADDRESS_LIMIT } from "./image.ts";
import type { Image, Region } from "./image.ts";
import { KERNEL_CODE } from "./kernel-code.ts";
import type { MoveTables } from "./moves.ts";
import type { Turn } from "./new-code.ts";
import { MACHINES } from "./places.ts";
import type { Layout, Places } from "./places.ts";
import { BLOCK_BYTES, TAIL, anchorOf } from "./records.ts";
import type { Anchors } from "./records.ts";
import { ENTRY_BYTES } from "./tables.ts";
import type { Cursor } from "./tensor-symbols.ts";

/** Where buffers come from. */
export interface Memory {
  readonly bytes: (count: number) => Buffer;
  readonly words: (count: number) => Int32Array;
  /** Gives it back; the buffers must not be used any more. */
  close(): void;
}

/** Both answer false for what is left to others. */
export interface QuickRebase {
  /** The bytes alone. */
  copy(...copy: Copied): boolean;
  /** The fields of one region. */
  move(scanner: Scanned, ...copy: Copied): boolean;
}

export interface Scanned {
  readonly region: Region;
  readonly anchors?: Anchors;
}

export interface Kernel extends Memory {
  /**
   * For bytes in its memory, and for regions that it knows; not for copies to where addresses jump.
   *
   * @param flags by page of addresses, in the kernel's memory as the tables are
   * @param places in the new file, where fields count from those, and what leads into its own copy stays
   */
  open(
    image: Image,
    flags: Uint8Array,
    tables: MoveTables,
    places: Places | undefined,
  ): QuickRebase;
  /** As {@link turnBack} does; false for what is left to it. */
  turn(layout: Layout, places: Places): QuickTurn;
  readonly elements: QuickElements;
  /** For an output in its memory; takes {@link CORRECTION_BYTES} of that. */
  corrections(): QuickCorrections;
}

const LODGING_BYTES = 16 * 1024;
export const CORRECTION_BYTES: readonly number[] = [LODGING_BYTES, LODGING_BYTES, 3 * 4];

/**
 * Decodes elements of tensors, as tensor-symbols.ts does.
 *
 * @param elements in the kernel's memory, as all that the others name
 * @returns the index of the first that is left to others, because something about it is rare; `to` when there is none
 */
export type QuickElements = (
  elements: Int32Array | Uint16Array,
  from: number,
  to: number,
  classes: Uint8Array,
  cursor: Cursor,
) => number;

export type QuickTurn = (...part: Parameters<Turn>) => boolean;

type Call = (...parameters: readonly number[]) => number | undefined;

type Exports = Readonly<
  Record<
    | "open"
    | "bases"
    | "copy"
    | "range"
    | "place"
    | "x86"
    | "aarch64"
    | "pointers"
    | "relocations"
    | "symbols"
    | "frame_index"
    | "frames"
    | "offsets"
    | "go_table"
    | "go_records"
    | "go_types"
    | "turn_x86"
    | "turn_aarch64"
    | "correct"
    | "elements",
    Call
  >
>;

const WASM_PAGE = 65_536;
/** The kernel looks at so many bytes behind what it works on. */
const BEHIND_BYTES = 128;
const ALIGNMENT = 8;
/** Farther than any buffer reaches; indexes stay small enough for 32 bits. */
const FAR = 2 ** 30;

/** As much of the language's own WebAssembly as is needed: Node's types leave it to those of browsers. */
interface Host {
  readonly Module: new (code: Uint8Array) => object;
  readonly Memory: new (pages: { readonly initial: number; readonly maximum: number }) => {
    readonly buffer: ArrayBuffer;
  };
  readonly Instance: new (
    module: object,
    imports: Readonly<Record<string, object>>,
  ) => { readonly exports: unknown };
}

let module: object | undefined;
/** The memory of an earlier segment: those of a delta of many must not wait for the collector side by side. */
let spare: WeakRef<Room> | undefined;

interface Room {
  readonly buffer: ArrayBuffer;
  readonly pages: number;
  readonly exports: Exports;
}

/**
 * @param sizes bytes of each buffer that will be asked for
 * @returns undefined where there is no WebAssembly, or not enough address space for it
 */
export function openKernel(sizes: readonly number[]): Kernel | undefined {
  const count = sizes.reduce((sum, size) => sum + sizeOf(size), 0);
  const pages = Math.ceil((count + BEHIND_BYTES) / WASM_PAGE);
  const known = spare?.deref();
  spare = undefined;
  const room = known !== undefined && known.pages >= pages ? known : openRoom(pages);
  if (room === undefined) return undefined;
  const { exports, buffer } = room;
  let used = 0;
  const take = (bytes: number): number => {
    const start = used;
    used += sizeOf(bytes);
    return start;
  };
  return {
    bytes: (bytes) => Buffer.from(buffer, take(bytes), bytes),
    words: (words) => new Int32Array(buffer, take(4 * words), words),
    close() {
      spare = new WeakRef(room);
    },
    open(image, flags, tables, places) {
      return openQuick(room, image, flags, tables, places);
    },
    corrections() {
      const [gapRoom, changeRoom] = [0, 1].map(() => Buffer.from(buffer, take(LODGING_BYTES), LODGING_BYTES)) as [Buffer, Buffer]; // prettier-ignore
      const state = new Int32Array(buffer, take(12), 3);
      return {
        gaps: gapRoom,
        changes: changeRoom,
        run({ byteOffset }, at, end, gaps, changes, gap) {
          const [first, second] = [gapRoom.byteOffset, changeRoom.byteOffset];
          const to = exports.correct(
            byteOffset + at,
            byteOffset + end,
            first + gaps.at,
            first + gaps.end,
            second + changes.at,
            second + changes.end,
            gap,
            state.byteOffset,
          );
          gaps.at = (state[0] ?? 0) - first;
          changes.at = (state[1] ?? 0) - second;
          return (to ?? 0) - byteOffset;
        },
        get gap() {
          return state[2] ?? -1;
        },
      };
    },
    elements: (elements, from, to, classes, { arena, at, bits }) =>
      exports.elements(
        elements.byteOffset,
        elements.BYTES_PER_ELEMENT,
        from,
        to,
        classes.byteOffset,
        arena.byteOffset,
        at.byteOffset,
        bits.byteOffset,
      ) ?? from,
    turn:
      ({ machine, end }, places) =>
      (bytes, from, to, position) => {
        if (bytes.buffer !== buffer) return false;
        if (!places.isCode(position)) return true;
        // Of the first byte of the memory.
        const address = places.address(position) - from - bytes.byteOffset;
        const [first, last] = [bytes.byteOffset + from, bytes.byteOffset + to];
        if (address + last > ADDRESS_LIMIT) return false;
        if (machine === MACHINES.x86) exports.turn_x86(first, last, address, end);
        else if (machine === MACHINES.aarch64)
          exports.turn_aarch64(first + (-(address + first) & 3), last, address);
        return true;
      },
  };
}

function openQuick(
  { exports, buffer }: Room,
  { oldBase, newBase }: Image,
  flags: Uint8Array,
  { addresses, shifts, pages, used }: MoveTables,
  places: Places | undefined,
): QuickRebase {
  exports.open(
    flags.byteOffset,
    flags.length,
    addresses.byteOffset,
    shifts.byteOffset,
    pages.byteOffset,
    pages.length,
    used,
  );
  exports.bases(oldBase | 0, oldBase / 2 ** 32, newBase | 0, newBase / 2 ** 32);
  const low = oldBase < 2 ** 32 ? 2 : 1;

  return {
    copy(bytes, position, from, to, into, at) {
      if (bytes.buffer !== buffer || into.buffer !== buffer) return false;
      exports.copy(into.byteOffset + at, bytes.byteOffset + from - position, to - from);
      return true;
    },
    move({ region, anchors }, bytes, position, from, to, into, at, goal) {
      const { name, parameters } = region;
      if (bytes.buffer !== buffer || into.buffer !== buffer) return false;
      const origin = region.offset - position;
      const address = region.address - origin;
      const source = bytes.byteOffset;
      const skew = into.byteOffset + at - (from - position);
      const first = Math.max(from, region.offset) - position;
      const last = Math.min(to, region.offset + region.size) - position;
      const end = Math.min(origin + region.size, FAR);
      if (places !== undefined) {
        // A field of 4 bytes may begin before the copy, but not before the region.
        const place = goal - (from - position);
        const distance = places.distance(place + Math.max(first - 3, origin), place + last);
        if (distance === undefined) return false;
        exports.place(place + distance - address, from - position, to - position);
      }
      const phase = (position + FAR) % BLOCK_BYTES;
      if (name === "x86" || name === "aarch64") {
        const lowest = Math.max(origin, -FAR);
        const parameter = parameters[0] === 1;
        if (name === "aarch64") {
          const conditional = parameter ? 1 : 0;
          exports.aarch64(source, skew, first, last, phase, lowest, end, address, conditional);
        } else {
          const absolute = parameter ? low : 0;
          exports.x86(source, skew, first, last, phase, lowest, end, address, absolute, oldBase, newBase, (position + first - ((first + phase) % BLOCK_BYTES)) / BLOCK_BYTES); // prettier-ignore
        }
        return true;
      }
      exports.range(skew, first, last);
      switch (name) {
        case "pointers":
          exports.pointers(source, firstEntry(8, first, origin), end);
          break;
        case "relocations":
          exports.relocations(source, firstEntry(ENTRY_BYTES, first, origin), end, ...parameters);
          break;
        case "symbols":
          exports.symbols(source, firstEntry(ENTRY_BYTES, first, origin), end, ...parameters);
          break;
        case "frameIndex":
          exports.frame_index(source, Math.max(firstEntry(4, first, origin), origin + 12), end, region.address, ...parameters); // prettier-ignore
          break;
        case "offsets":
          exports.offsets(source, firstEntry(4, first, origin), end, ...parameters);
          break;
        case "goTable":
          exports.go_table(source, firstEntry(4, first, origin), end, origin, ...parameters);
          break;
        case "goTypes":
          exports.go_types(source, first, last, phase, origin, end, ...parameters);
          break;
        case "goRecords":
          for (
            let block = first - ((first + phase) % BLOCK_BYTES);
            block < last;
            block += BLOCK_BYTES
          ) {
            // prettier-ignore
            const blockEnd = block + BLOCK_BYTES;
            const record = anchors === undefined ? -1 : anchorOf(anchors, region, position + block);
            if (record < 0) continue;
            exports.range(skew, Math.max(first, block), Math.min(last, blockEnd));
            exports.go_records(source, origin + record, Math.min(blockEnd, end), Math.min(blockEnd + TAIL, end), ...parameters); // prettier-ignore
          }
          break;
        case "frames": {
          const record = firstRecord(anchors, region, position + first, position + last);
          if (record >= 0) exports.frames(source, origin + record, end, address);
          break;
        }
        default:
          return unreachable(name);
      }
      return true;
    },
  };
}

/** Where the first entry of a table begins that reaches to `first`. No closure: that would be allocated for every copy. */
function firstEntry(bytes: number, first: number, origin: number): number {
  return origin + Math.max(0, Math.ceil((first - bytes + 1 - origin) / bytes)) * bytes;
}

/** The first record of all blocks of a range, as an offset in the region; -1 when they have none. */
function firstRecord(
  anchors: Anchors | undefined,
  region: Region,
  from: number,
  to: number,
): number {
  let record = -1;
  if (anchors !== undefined)
    for (let block = from - (from % BLOCK_BYTES); record < 0 && block < to; block += BLOCK_BYTES)
      record = anchorOf(anchors, region, block);
  return record;
}

/** Bytes that a buffer takes. */
function sizeOf(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function openRoom(pages: number): Room | undefined {
  const { WebAssembly: host } = globalThis as { readonly WebAssembly?: Host };
  if (host === undefined) return undefined;
  try {
    module ??= new host.Module(Buffer.from(KERNEL_CODE, "base64"));
    const memory = new host.Memory({ initial: pages, maximum: pages });
    const { exports } = new host.Instance(module, { edgesync: { memory } });
    return { buffer: memory.buffer, pages, exports: exports as Exports };
  } catch {
    // Switched off, without vectors, or no address space under a limit: everything works without it, only slower.
    return undefined;
  }
}

/** Memory of the process, where there is no kernel. */
export function openMemory(): Memory {
  const buffers: ArrayBuffer[] = [];
  const take = (bytes: number): ArrayBuffer => {
    const buffer = new ArrayBuffer(bytes);
    buffers.push(buffer);
    return buffer;
  };
  return {
    bytes: (bytes) => Buffer.from(take(bytes)),
    words: (words) => new Int32Array(take(4 * words)),
    close() {
      // Not left to the collector: a delta of many segments would let them come together.
      for (const buffer of buffers) buffer.transfer(0);
    },
  };
}
