/** What the encoder reads of an ELF file: its segments and sections (System V ABI, chapter 4 and 5). 64 bits, little-endian. */

export const X86_64 = 62;
export const AARCH64 = 183;

export interface ElfSegment {
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly executable: boolean;
}

export interface ElfSection {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly address: number;
  readonly offset: number;
  /** 0 in the file when the type is NOBITS. */
  readonly size: number;
}

export interface Elf {
  readonly machine: number;
  /** Those that are loaded. */
  readonly segments: readonly ElfSegment[];
  readonly sections: readonly ElfSection[];
}

export const SECTION_TYPES = { bits: 1, relocations: 4, noBits: 8, symbols: 2, dynamicSymbols: 11 };
export const SECTION_FLAGS = { write: 1, allocated: 2, executable: 4 };

/** Undefined when the bytes are no such file, or a damaged one. */
export function parseElf(bytes: Uint8Array): Elf | undefined {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 64 || file.readUInt32LE(0) !== 0x464c_457f || file.readUInt16LE(4) !== 0x0102)
    return undefined;
  try {
    return parse(file);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function parse(file: Buffer): Elf | undefined {
  const number = (at: number): number => Number(file.readBigUInt64LE(at));
  const segments: ElfSegment[] = [];
  const programs = { at: number(32), size: file.readUInt16LE(54), count: file.readUInt16LE(56) };
  for (let index = 0; index < programs.count; index++) {
    const at = programs.at + index * programs.size;
    if (file.readUInt32LE(at) !== 1) continue;
    segments.push({
      executable: (file.readUInt32LE(at + 4) & 1) !== 0,
      offset: number(at + 8),
      address: number(at + 16),
      fileSize: number(at + 32),
      memorySize: number(at + 40),
    });
  }
  const table = { at: number(40), size: file.readUInt16LE(58), count: file.readUInt16LE(60) };
  const headers = Array.from({ length: table.at === 0 ? 0 : table.count }, (_, index) => {
    const at = table.at + index * table.size;
    const type = file.readUInt32LE(at + 4);
    return {
      nameAt: file.readUInt32LE(at),
      type,
      flags: number(at + 8),
      address: number(at + 16),
      offset: number(at + 24),
      size: number(at + 32),
    };
  });
  const names = headers[file.readUInt16LE(62)];
  const sections = headers.map(({ nameAt, ...section }) => {
    const start = (names?.offset ?? 0) + nameAt;
    const end = file.indexOf(0, start);
    return { ...section, name: file.toString("latin1", start, Math.max(start, end)) };
  });
  const fits = sections.every(
    ({ type, offset, size }) => type === SECTION_TYPES.noBits || offset + size <= file.length,
  );
  if (!fits || segments.some(({ offset, fileSize }) => offset + fileSize > file.length))
    return undefined;
  return { machine: file.readUInt16LE(18), segments, sections };
}
