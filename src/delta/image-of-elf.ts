/** From two ELF files to what the decoder must know of the old one; see image.ts. */
import { AARCH64, SECTION_FLAGS, SECTION_TYPES, X86_64 } from "./elf.ts";
import type { Elf, ElfSection } from "./elf.ts";
import { goRegions } from "./go.ts";
import { ADDRESS_LIMIT, MAX_REGIONS } from "./image.ts";
import type { Image, Region } from "./image.ts";
import type { Shifts } from "./moves.ts";
import { MACHINES, MAX_PARTS, openPlaces } from "./places.ts";
import type { Layout as PlacedLayout, PlacedPart, Places } from "./places.ts";

const BASE_UNIT = 2 ** 16;

/** A part of a file that has addresses. */
export interface Mapped {
  readonly offset: number;
  readonly size: number;
  readonly address: number;
}

/** Addresses of one file, counted from its base. */
export interface Layout {
  readonly base: number;
  readonly mapped: readonly Mapped[];
  addressOf(section: ElfSection): number;
}

export interface Executables {
  readonly image: Image;
  readonly oldLayout: Layout;
  readonly newLayout: Layout;
  readonly layout: PlacedLayout;
  readonly places: Places;
  /** How sections have moved, for what no copy tells. */
  readonly sections: Shifts;
}

/** What can be tried. */
export interface Features {
  /** x86-64: 32-bit operands are taken for addresses. */
  readonly absolute: boolean;
  /** AArch64: conditional branches. */
  readonly conditional: boolean;
}

/** Undefined when the two are not for the same machine, or nothing is known of it, or they do not fit in 31 bits. */
export function describe(
  oldBytes: Buffer,
  newBytes: Buffer,
  oldElf: Elf,
  newElf: Elf,
  features: Features,
): Executables | undefined {
  if (oldElf.machine !== newElf.machine) return undefined;
  if (oldElf.machine !== X86_64 && oldElf.machine !== AARCH64) return undefined;
  const oldLayout = layoutOf(oldElf);
  const newLayout = layoutOf(newElf);
  if (oldLayout === undefined || newLayout === undefined) return undefined;

  const regions: Region[] = [];
  for (const section of oldElf.sections) {
    const other = newElf.sections.find(({ name }) => name === section.name);
    if (section.size === 0 || section.type === SECTION_TYPES.noBits || other === undefined)
      continue;
    const region = regionOf(section, other, { oldElf, newElf, oldLayout, newLayout }, features);
    if (region !== undefined) regions.push(region);
  }
  const go = goRegions(oldBytes, newBytes, oldElf, newElf, oldLayout, newLayout);
  // What is known better takes the place of what was guessed.
  for (const { offset } of go) {
    const index = regions.findIndex((region) => region.offset === offset);
    if (index >= 0) regions.splice(index, 1);
  }
  regions.push(...go);
  regions.sort((a, b) => a.offset - b.offset);
  const usable: Region[] = [];
  let end = 0;
  for (const region of regions) {
    if (region.offset < end || !isWithinLimits(region)) continue;
    usable.push(region);
    end = region.offset + region.size;
  }
  const areas = oldElf.segments
    .filter(({ memorySize }) => memorySize > 0)
    .map(({ address, memorySize, executable }) => ({
      address: address - oldLayout.base,
      size: memorySize,
      executable,
    }));
  const layout = placedLayout(newElf, newLayout);
  return {
    layout,
    places: openPlaces(layout),
    image: {
      oldBase: oldLayout.base,
      newBase: newLayout.base,
      areas,
      regions: usable.slice(0, MAX_REGIONS),
    },
    oldLayout,
    newLayout,
    sections: sectionShifts(oldElf, newElf, oldLayout, newLayout),
  };
}

/** Segments, in which sections of code begin and end. */
function placedLayout({ machine, segments, sections }: Elf, { base }: Layout): PlacedLayout {
  const parts = new Map<number, PlacedPart>();
  const add = (offset: number, address: number, executable: boolean): void => {
    if (address >= base) parts.set(offset, { offset, address: address - base, executable });
  };
  for (const { offset, address } of segments) add(offset, address, false);
  const code = sections.filter(
    ({ type, flags, size }) =>
      (flags & SECTION_FLAGS.executable) !== 0 && type !== SECTION_TYPES.noBits && size > 0,
  );
  for (const { offset, address, size } of code) add(offset + size, address + size, false);
  for (const { offset, address } of code) add(offset, address, true);
  const end = Math.max(...segments.map(({ address, memorySize }) => address + memorySize)) - base;
  return {
    machine: machine === X86_64 ? MACHINES.x86 : MACHINES.aarch64,
    end,
    parts: [...parts.values()].sort((a, b) => a.offset - b.offset).slice(0, MAX_PARTS),
  };
}

/** Headers may say anything. */
function isWithinLimits({ address, size, parameters }: Region): boolean {
  const isAddress = (value: number): boolean => value >= 0 && value < ADDRESS_LIMIT;
  return isAddress(address) && isAddress(address + size) && parameters.every(isAddress);
}

function layoutOf({ segments, sections }: Elf): Layout | undefined {
  if (segments.length === 0 || segments.length > 32) return undefined;
  const lowest = Math.min(...segments.map(({ address }) => address));
  const base = Math.floor(lowest / BASE_UNIT) * BASE_UNIT;
  const end = Math.max(...segments.map(({ address, memorySize }) => address + memorySize)) - base;
  const mapped: Mapped[] = segments
    .filter(({ fileSize }) => fileSize > 0)
    .map(({ offset, address, fileSize }) => ({ offset, size: fileSize, address: address - base }));
  // Behind the image: names of symbols, which are not loaded but are pointed at.
  let free = Math.ceil(end / BASE_UNIT + 1) * BASE_UNIT;
  const given = new Map<string, number>();
  for (const { name, flags, offset, size, type } of sections) {
    if (name !== ".strtab" || (flags & SECTION_FLAGS.allocated) !== 0) continue;
    if (type === SECTION_TYPES.noBits) continue;
    given.set(name, free);
    mapped.push({ offset, size, address: free });
    free += Math.ceil(size / BASE_UNIT + 1) * BASE_UNIT;
  }
  // Also when a size is not a number that can be.
  if (!(base < 2 ** 46 && free < ADDRESS_LIMIT)) return undefined;
  return {
    base,
    mapped,
    addressOf: ({ name, address, flags }) =>
      (flags & SECTION_FLAGS.allocated) === 0 ? (given.get(name) ?? -1) : address - base,
  };
}

interface Pair {
  readonly oldElf: Elf;
  readonly newElf: Elf;
  readonly oldLayout: Layout;
  readonly newLayout: Layout;
}

function regionOf(
  section: ElfSection,
  other: ElfSection,
  { oldElf, newElf, oldLayout, newLayout }: Pair,
  features: Features,
): Region | undefined {
  const { name, type, flags, offset, size } = section;
  const place = { offset, size, address: oldLayout.addressOf(section) };
  const moved = newLayout.addressOf(other);
  const isX86 = oldElf.machine === X86_64;
  if ((flags & SECTION_FLAGS.executable) !== 0)
    return isX86
      ? { name: "x86", ...place, parameters: [features.absolute ? 1 : 0] }
      : { name: "aarch64", ...place, parameters: [features.conditional ? 1 : 0] };
  if (type === SECTION_TYPES.relocations && size % 24 === 0)
    // R_X86_64_RELATIVE, R_AARCH64_RELATIVE
    return { name: "relocations", ...place, parameters: [isX86 ? 8 : 1027] };
  if (
    (type === SECTION_TYPES.symbols || type === SECTION_TYPES.dynamicSymbols) &&
    size % 24 === 0
  ) {
    const names = type === SECTION_TYPES.symbols ? ".strtab" : ".dynstr";
    const from = oldElf.sections.find((section) => section.name === names);
    const to = newElf.sections.find((section) => section.name === names);
    if (from === undefined || to === undefined) return undefined;
    const parameters = [oldLayout.addressOf(from), newLayout.addressOf(to)];
    return parameters.some((address) => address < 0)
      ? undefined
      : { name: "symbols", ...place, address: Math.max(0, place.address), parameters };
  }
  if ((flags & SECTION_FLAGS.allocated) === 0) return undefined;
  if (name === ".eh_frame_hdr") return { name: "frameIndex", ...place, parameters: [moved] };
  if (name === ".eh_frame") return { name: "frames", ...place, parameters: [] };
  // In what is not written to, addresses stand only when the file is loaded at a fixed place.
  const fixed = oldLayout.base > 0;
  const holds = (flags & SECTION_FLAGS.write) !== 0 || (fixed && name !== ".gopclntab");
  if (holds && (type === SECTION_TYPES.bits || type >= 14) && !name.startsWith(".gcc_except"))
    return { name: "pointers", ...place, parameters: [] };
  return undefined;
}

function sectionShifts(oldElf: Elf, newElf: Elf, oldLayout: Layout, newLayout: Layout): Shifts {
  const pairs: [number, number][] = [];
  for (const section of oldElf.sections) {
    const other = newElf.sections.find(({ name }) => name === section.name);
    if (other === undefined) continue;
    const [from, to] = [oldLayout.addressOf(section), newLayout.addressOf(other)];
    if (Math.min(from, to) >= 0 && Math.max(from, to) < ADDRESS_LIMIT)
      pairs.push([from, to - from]);
  }
  pairs.sort(([a], [b]) => a - b);
  return {
    addresses: Int32Array.from(pairs, ([address]) => address),
    shifts: Int32Array.from(pairs, ([, shift]) => shift),
  };
}
