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
  return [
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
  const inside = [32, 40, 56, 64].every((at) => word(at) <= section.size);
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
    tables: address + word(56),
    records: address + word(64),
    data,
  };
}
