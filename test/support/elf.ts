/**
 * Small ELF files as a linker would make them: functions that call each other and use data, pointers to functions, relocations, symbols
 * and unwinding records. The same functions in another order or with others between them make the next release.
 */
import { X86_64 } from "#core/delta/elf.ts";

export interface Program {
  readonly machine: number;
  /** Numbers of functions, in the order of their code; a function is the same wherever it stands, but for its addresses. */
  readonly functions: readonly number[];
  /** 0 when it can be loaded anywhere. */
  readonly base: number;
  /** Whether a function loads the addresses of variables as they are: x86-64 that is loaded at its base. */
  readonly absolute?: (seed: number) => boolean;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly bytes: Buffer;
}

const PAGE = 4096;
/** Bytes of code with one call and one use of a variable. */
const BLOCK = 40;

export function makeElf({ machine, functions, base, absolute }: Program): Buffer {
  const isX86 = machine === X86_64;
  const size = (seed: number): number => 64 + 4 * (seed % 40);
  let end = 0;
  const starts = new Map<number, number>();
  for (const seed of functions) {
    starts.set(seed, end);
    end += size(seed);
  }
  const indexes = new Map(functions.map((seed, index) => [seed, index]));
  const text = Buffer.alloc(end);
  const textAt = PAGE;
  const dataAt = Math.ceil((textAt + end) / PAGE + 1) * PAGE;
  const pointers = Buffer.alloc(8 * functions.length);
  const relocations = Buffer.alloc(24 * functions.length);
  const symbols = Buffer.alloc(24 * functions.length);
  const names = [Buffer.from([0])];
  let namesEnd = 1;
  const frames: Buffer[] = [cie()];
  const framesAt = dataAt + pointers.length;
  let framesEnd = 20;
  for (const [index, seed] of functions.entries()) {
    const start = starts.get(seed) ?? 0;
    const chance = random(seed);
    const code = text.subarray(start, start + size(seed));
    for (let at = 0; at + BLOCK <= code.length; at += BLOCK) {
      for (let i = 0; i < BLOCK; i += 4) code.writeUInt32LE(chance() & 0x3f3f_3f3f, at + i);
      // Functions of a lower number are called, or the first when a release does not have that one.
      const callee = chance() % seed;
      const other = starts.get(callee) ?? 0;
      const place = textAt + start + at;
      const variable = dataAt + 8 * Math.max(0, indexes.get(callee) ?? 0);
      if (isX86) {
        code.writeUInt8(0xe8, at);
        code.writeInt32LE(textAt + other - place - 5, at + 1);
        code.writeUInt32LE(0x05_8d48, at + 8);
        code.writeInt32LE(variable - place - 15, at + 11);
        if (absolute?.(seed) === true) {
          code.writeUInt8(0xb8, at + 20);
          code.writeInt32LE(base + variable, at + 21);
        }
      } else {
        code.writeUInt32LE(
          (0x9400_0000 | (((textAt + other - place) >> 2) & 0x3ff_ffff)) >>> 0,
          at,
        );
        const pages = (variable >> 12) - (place >> 12);
        code.writeUInt32LE(
          (0x9000_0003 | ((pages & 3) << 29) | (((pages >> 2) & 0x7_ffff) << 5)) >>> 0,
          at + 4,
        );
        code.writeUInt32LE((0x9100_0063 | ((variable & 4095) << 10)) >>> 0, at + 8);
      }
    }
    pointers.writeBigUInt64LE(BigInt(base + textAt + start), 8 * index);
    relocations.writeBigUInt64LE(BigInt(base + dataAt + 8 * index), 24 * index);
    relocations.writeUInt32LE(isX86 ? 8 : 1027, 24 * index + 8);
    relocations.writeBigUInt64LE(BigInt(base + textAt + start), 24 * index + 16);
    symbols.writeUInt32LE(namesEnd, 24 * index);
    symbols.writeBigUInt64LE(BigInt(base + textAt + start), 24 * index + 8);
    const name = Buffer.from(`function_${seed}\0`);
    names.push(name);
    namesEnd += name.length;
    frames.push(fde(framesEnd, framesAt + framesEnd, textAt + start, size(seed)));
    framesEnd += 24;
  }
  const [write, allocated, executable] = [1, 2, 4];
  return link({ machine, base, textAt, dataAt }, [
    { name: ".text", type: 1, flags: allocated | executable, bytes: text },
    { name: ".data", type: 1, flags: allocated | write, bytes: pointers },
    { name: ".eh_frame", type: 1, flags: allocated, bytes: Buffer.concat(frames) },
    { name: ".rela.dyn", type: 4, flags: allocated, bytes: relocations },
    { name: ".symtab", type: 2, flags: 0, bytes: symbols },
    { name: ".strtab", type: 3, flags: 0, bytes: Buffer.concat(names) },
  ]);
}

function cie(): Buffer {
  const record = Buffer.alloc(20);
  record.writeUInt32LE(16, 0);
  return record;
}

function fde(offset: number, address: number, code: number, size: number): Buffer {
  const record = Buffer.alloc(24);
  record.writeUInt32LE(20, 0);
  record.writeUInt32LE(offset + 4, 4);
  record.writeInt32LE(code - address - 8, 8);
  record.writeUInt32LE(size, 12);
  return record;
}

/** Two segments: the code, and everything else that is loaded. */
function link(
  {
    machine,
    base,
    textAt,
    dataAt,
  }: { machine: number; base: number; textAt: number; dataAt: number },
  sections: readonly Section[],
): Buffer {
  const names = Buffer.from(["", ...sections.map(({ name }) => name), ".shstrtab", ""].join("\0"));
  const all = [...sections, { name: ".shstrtab", type: 3, flags: 0, bytes: names }];
  const header = Buffer.alloc(textAt);
  const parts: Buffer[] = [header];
  let offset = textAt;
  const offsets = all.map(({ bytes }, index) => {
    const at = index === 1 ? dataAt : Math.ceil(offset / 8) * 8;
    parts.push(Buffer.alloc(at - offset), bytes);
    offset = at + bytes.length;
    return at;
  });
  header.writeUInt32LE(0x464c_457f, 0);
  header.writeUInt32LE(0x0001_0102, 4);
  header.writeUInt16LE(3, 16);
  header.writeUInt16LE(machine, 18);
  header.writeBigUInt64LE(64n, 32);
  header.writeBigUInt64LE(BigInt(offset), 40);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(2, 56);
  header.writeUInt16LE(64, 58);
  header.writeUInt16LE(all.length + 1, 60);
  header.writeUInt16LE(all.length, 62);
  const loadedEnd = (offsets[3] ?? 0) + (all[3]?.bytes.length ?? 0);
  const segments = [
    { flags: 5, at: textAt, size: all[0]?.bytes.length ?? 0 },
    { flags: 6, at: dataAt, size: loadedEnd - dataAt },
  ];
  for (const [index, { flags, at, size }] of segments.entries()) {
    const place = 64 + 56 * index;
    header.writeUInt32LE(1, place);
    header.writeUInt32LE(flags, place + 4);
    header.writeBigUInt64LE(BigInt(at), place + 8);
    header.writeBigUInt64LE(BigInt(base + at), place + 16);
    header.writeBigUInt64LE(BigInt(size), place + 32);
    header.writeBigUInt64LE(BigInt(size + PAGE), place + 40);
  }
  const table = Buffer.alloc(64 * (all.length + 1));
  for (const [index, { name, type, flags, bytes }] of all.entries()) {
    const place = 64 * (index + 1);
    table.writeUInt32LE(names.indexOf(`${name}\0`), place);
    table.writeUInt32LE(type, place + 4);
    table.writeBigUInt64LE(BigInt(flags), place + 8);
    const at = offsets[index] ?? 0;
    table.writeBigUInt64LE(BigInt((flags & 2) === 0 ? 0 : base + at), place + 16);
    table.writeBigUInt64LE(BigInt(at), place + 24);
    table.writeBigUInt64LE(BigInt(bytes.length), place + 32);
  }
  return Buffer.concat([...parts, table]);
}

/** Numbers that are the same for the same seed (Numerical Recipes). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 4;
  };
}
