/** Go's pclntab: which parts of it hold addresses. The layout is that of Go 1.18 and later, debug/gosym/pclntab.go. */
import type { Elf, ElfSection } from "./elf.ts";
import type { Region } from "./image.ts";
import type { Layout } from "./image-of-elf.ts";

/** Magic numbers of Go 1.18 and 1.20. */
const MAGICS = [0xffff_fff0, 0xffff_fff1];
const HEADER_BYTES = 72;
/** Where moduledata holds the address of the function data; runtime/symtab.go. */
const FUNCTION_DATA_AT = 320;

interface Tables {
  readonly functions: number;
  /** Addresses, counted from the base. */
  readonly code: number;
  readonly names: number;
  readonly units: number;
  readonly files: number;
  readonly tables: number;
  readonly records: number;
  /** 0 when unknown. */
  readonly data: number;
}

export function goRegions(
  oldBytes: Buffer,
  newBytes: Buffer,
  oldElf: Elf,
  newElf: Elf,
  oldLayout: Layout,
  newLayout: Layout,
): readonly Region[] {
  const section = oldElf.sections.find(({ name }) => name === ".gopclntab");
  const from = tablesOf(oldBytes, oldElf, oldLayout);
  const to = tablesOf(newBytes, newElf, newLayout);
  if (section === undefined || from === undefined || to === undefined) return [];
  const address = oldLayout.addressOf(section);
  const table = from.records - address;
  const tableBytes = from.functions * 8 + 4;
  if (tableBytes + table > section.size) return [];
  // The first record stands where the first pair says.
  const first = table + oldBytes.readUInt32LE(section.offset + table + 4);
  if (first < table + tableBytes || first > section.size) return [];
  const data = from.data > 0 && to.data > 0 ? [from.data, to.data] : [0, 0];
  const regions: Region[] = [
    {
      // Of each compilation unit its files, by the offset of their names.
      name: "offsets",
      offset: section.offset + from.units - address,
      size: from.files - from.units,
      address: from.units,
      parameters: [from.files, to.files],
    },
    {
      name: "goTable",
      offset: section.offset + table,
      size: tableBytes,
      address: address + table,
      parameters: [from.code, to.code, from.records, to.records],
    },
    {
      name: "goRecords",
      offset: section.offset + first,
      size: section.size - first,
      address: address + first,
      parameters: [
        from.code,
        to.code,
        from.names,
        to.names,
        from.tables,
        to.tables,
        from.units,
        to.units,
        ...data,
      ],
    },
  ];
  return [
    ...regions.filter(({ size }) => size > 0),
    ...typeRegions(oldElf, newElf, oldLayout, newLayout, [from.code, to.code]),
  ];
}

/** Where Go's types stand, since 1.26 in a section of their own; the link section counts from its start. */
const TYPE_SECTIONS = [".go.type", ".rodata"];

function typeRegions(
  oldElf: Elf,
  newElf: Elf,
  oldLayout: Layout,
  newLayout: Layout,
  code: readonly number[],
): readonly Region[] {
  const find = ({ sections }: Elf, name: string): ElfSection | undefined =>
    sections.find((section) => section.name === name && section.size > 0);
  for (const name of TYPE_SECTIONS) {
    const [from, to] = [find(oldElf, name), find(newElf, name)];
    if (from === undefined || to === undefined) continue;
    const types = [oldLayout.addressOf(from), newLayout.addressOf(to)];
    const links = find(oldElf, ".typelink");
    const place = ({ offset, size, ...rest }: ElfSection) => ({
      offset,
      size,
      address: oldLayout.addressOf({ offset, size, ...rest }),
    });
    return [
      { name: "goTypes", ...place(from), parameters: [...code, ...types] },
      ...(links === undefined
        ? []
        : [{ name: "offsets" as const, ...place(links), parameters: types }]),
    ];
  }
  return [];
}

function tablesOf(bytes: Buffer, { sections }: Elf, layout: Layout): Tables | undefined {
  const find = (wanted: string): ElfSection | undefined =>
    sections.find(({ name, size }) => name === wanted && size > 0);
  const section = find(".gopclntab");
  const text = find(".text");
  if (section === undefined || text === undefined || section.size < HEADER_BYTES) return undefined;
  const header = bytes.subarray(section.offset, section.offset + HEADER_BYTES);
  if (!MAGICS.includes(header.readUInt32LE(0)) || header[7] !== 8) return undefined;
  const word = (at: number): number => Number(header.readBigUInt64LE(at));
  const address = layout.addressOf(section);
  const inside = [32, 40, 48, 56, 64].every((at) => word(at) <= section.size);
  if (!inside || word(8) * 8 > section.size) return undefined;
  // Newer versions leave the start of the code to the linker.
  const code = word(24) === 0 ? layout.addressOf(text) : word(24) - layout.base;
  const module = find(".go.module");
  let data = 0;
  if (module !== undefined && module.size >= FUNCTION_DATA_AT + 8) {
    const value = Number(bytes.readBigUInt64LE(module.offset + FUNCTION_DATA_AT)) - layout.base;
    if (value > 0 && value < 2 ** 31) data = value;
  }
  return {
    functions: word(8),
    code,
    names: address + word(32),
    units: address + word(40),
    files: address + word(48),
    tables: address + word(56),
    records: address + word(64),
    data,
  };
}
