/**
 * What the decoder of the executable codec knows of the old file: where it holds code and tables with addresses, and which addresses
 * exist. The publisher finds it out from the file's own headers; the decoder only checks that every number is within bounds.
 *
 * All addresses are counted from the lowest that the file is loaded at, rounded down, so that they fit in 31 bits. What is never
 * loaded but pointed into (the names of a symbol table) is given addresses behind all others.
 */
import { invalid } from "./invalid.ts";
import { openWriter } from "./numbers.ts";

/** Kinds of regions. The number of parameters is part of the format. */
export const REGIONS = {
  /** x86-64 instructions; parameter: 1 when 32-bit operands may be absolute addresses. */
  x86: { kind: 0, parameters: 1 },
  /** AArch64 instructions; parameter: 1 when conditional branches are moved too. */
  aarch64: { kind: 1, parameters: 1 },
  /** Elf64_Rela entries; parameter: the type of relative relocations, whose addend is an address. */
  relocations: { kind: 2, parameters: 1 },
  /** Elf64_Sym entries; parameters: address of the names, old and new. */
  symbols: { kind: 3, parameters: 2 },
  /** Aligned 64-bit words, some of which are addresses. */
  pointers: { kind: 4, parameters: 0 },
  /** The search table of .eh_frame_hdr, pairs from its byte 12 on; parameter: new address of the section. */
  frameIndex: { kind: 5, parameters: 1 },
  /** .eh_frame records. */
  frames: { kind: 6, parameters: 0 },
  /** Go's table of functions; parameters: addresses that its pairs count from, old and new: code, records. */
  goTable: { kind: 7, parameters: 4 },
  /** Go's function records; parameters: old and new addresses of code, names, pc tables, units, function data. */
  goRecords: { kind: 8, parameters: 10 },
  /** Aligned words of 32 bits that count from an address; parameters: that address, old and new. */
  offsets: { kind: 9, parameters: 2 },
  /** Go's type data: pointers, and methods by offsets; parameters: old and new addresses of code, types. */
  goTypes: { kind: 10, parameters: 4 },
} as const;
export type RegionName = keyof typeof REGIONS;

export interface Region {
  readonly name: RegionName;
  /** In the old range. */
  readonly offset: number;
  readonly size: number;
  /** Of its first byte. */
  readonly address: number;
  readonly parameters: readonly number[];
}

/** Addresses that something stands at. */
export interface Area {
  readonly address: number;
  readonly size: number;
  readonly executable: boolean;
}

export interface Image {
  /** What addresses are counted from, in the old file and in the new one. A multiple of 64 KiB. */
  readonly oldBase: number;
  readonly newBase: number;
  readonly areas: readonly Area[];
  /** In the order of their offsets, without overlap. */
  readonly regions: readonly Region[];
}

/** Addresses end here. */
export const ADDRESS_LIMIT = 2 ** 31 - 2 ** 16;
const BASE_LIMIT = 2 ** 47;
const BASE_UNIT = 2 ** 16;
const MAX_AREAS = 64;
export const MAX_REGIONS = 256;

export function writeImage({ oldBase, newBase, areas, regions }: Image): Buffer {
  const writer = openWriter();
  writer.number(oldBase / BASE_UNIT);
  writer.number(newBase / BASE_UNIT);
  writer.number(areas.length);
  for (const { address, size, executable } of areas) {
    writer.number(address);
    writer.number(size * 2 + (executable ? 1 : 0));
  }
  writer.number(regions.length);
  let end = 0;
  for (const { name, offset, size, address, parameters } of regions) {
    writer.number(REGIONS[name].kind);
    writer.number(offset - end);
    writer.number(size);
    writer.number(address);
    for (const parameter of parameters) writer.number(parameter);
    end = offset + size;
  }
  return writer.done();
}

/**
 * @param number reads the next number of the stream
 * @param size of the old range
 * @throws EdgeSyncError DELTA_INVALID
 */
export async function readImage(number: () => Promise<number>, size: number): Promise<Image> {
  const below = async (limit: number, what: string): Promise<number> => {
    const value = await number();
    if (value >= limit) throw invalid(`${what} ${value} is not below ${limit}`);
    return value;
  };
  const oldBase = (await below(BASE_LIMIT / BASE_UNIT, "a base")) * BASE_UNIT;
  const newBase = (await below(BASE_LIMIT / BASE_UNIT, "a base")) * BASE_UNIT;
  const areas: Area[] = [];
  for (let count = await below(MAX_AREAS + 1, "a count of areas"); count > 0; count--) {
    const address = await below(ADDRESS_LIMIT, "an address");
    const value = await below(2 * (ADDRESS_LIMIT - address) + 2, "a size");
    areas.push({ address, size: Math.floor(value / 2), executable: value % 2 === 1 });
  }
  const regions: Region[] = [];
  let end = 0;
  for (let count = await below(MAX_REGIONS + 1, "a count of regions"); count > 0; count--) {
    const kind = await number();
    const name = regionNames.find((name) => REGIONS[name].kind === kind);
    if (name === undefined) throw invalid(`a region of kind ${kind}`);
    const offset = end + (await below(size - end + 1, "an offset"));
    const length = await below(size - offset + 1, "a size");
    const address = await below(ADDRESS_LIMIT - length + 1, "an address");
    const parameters: number[] = [];
    while (parameters.length < REGIONS[name].parameters)
      parameters.push(await below(2 ** 31, "a parameter"));
    regions.push({ name, offset, size: length, address, parameters });
    end = offset + length;
  }
  return { oldBase, newBase, areas, regions };
}

const regionNames = Object.keys(REGIONS) as readonly RegionName[];

/** What stands at each page of addresses: 1 something, 2 code. */
export function pageFlags(areas: readonly Area[]): Uint8Array {
  const end = Math.max(0, ...areas.map(({ address, size }) => address + size));
  const flags = new Uint8Array(Math.ceil(end / 4096));
  for (const { address, size, executable } of areas) {
    if (size === 0) continue;
    const last = Math.floor((address + size - 1) / 4096);
    for (let page = Math.floor(address / 4096); page <= last; page++)
      flags[page] = (flags[page] ?? 0) | (executable ? 3 : 1);
  }
  return flags;
}

/** No field means an address from here on; if one does, it is only slower. */
export function addressEnd({ areas, regions }: Image): number {
  return Math.max(0, ...[...areas, ...regions].map(({ address, size }) => address + size));
}
