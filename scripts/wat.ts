/**
 * An assembler for WebAssembly text, as far as the kernels need it: functions of folded expressions, one imported memory, globals that
 * hold numbers. Written here because a fresh machine has only Node and its packages, and a tool chain of megabytes is much to trust
 * for a few hundred instructions. What it does not know it refuses. https://webassembly.github.io/spec/core/binary
 *
 * `npm run kernel` writes src/delta/kernel-code.ts.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";

type Expression = string | readonly Expression[];

const TYPES: Readonly<Record<string, number>> = { i32: 0x7f, i64: 0x7e, v128: 0x7b };

/** Operators without immediates. */
const SIMPLE: Readonly<Record<string, readonly number[]>> = {
  return: [0x0f],
  drop: [0x1a],
  select: [0x1b],
  "i32.eqz": [0x45],
  "i32.eq": [0x46],
  "i32.ne": [0x47],
  "i32.lt_s": [0x48],
  "i32.lt_u": [0x49],
  "i32.gt_s": [0x4a],
  "i32.gt_u": [0x4b],
  "i32.le_s": [0x4c],
  "i32.le_u": [0x4d],
  "i32.ge_s": [0x4e],
  "i32.ge_u": [0x4f],
  "i64.eqz": [0x50],
  "i64.lt_s": [0x53],
  "i64.ge_u": [0x5a],
  "i32.ctz": [0x68],
  "i32.popcnt": [0x69],
  "i32.add": [0x6a],
  "i32.sub": [0x6b],
  "i32.mul": [0x6c],
  "i32.and": [0x71],
  "i32.or": [0x72],
  "i32.xor": [0x73],
  "i32.shl": [0x74],
  "i32.shr_s": [0x75],
  "i32.shr_u": [0x76],
  "i64.ctz": [0x7a],
  "i64.add": [0x7c],
  "i64.sub": [0x7d],
  "i64.and": [0x83],
  "i64.or": [0x84],
  "i64.shl": [0x86],
  "i64.shr_s": [0x87],
  "i64.shr_u": [0x88],
  "i32.wrap_i64": [0xa7],
  "i64.extend_i32_s": [0xac],
  "i64.extend_i32_u": [0xad],
  "memory.copy": [0xfc, 0x0a, 0x00, 0x00],
  "i8x16.splat": [0xfd, 0x0f],
  "i32x4.splat": [0xfd, 0x11],
  "i8x16.eq": [0xfd, 0x23],
  "i8x16.le_u": [0xfd, 0x2a],
  "i32x4.le_s": [0xfd, 0x3d],
  "v128.and": [0xfd, 0x4e],
  "v128.or": [0xfd, 0x50],
  "i8x16.bitmask": [0xfd, 0x64],
  "i8x16.add": [0xfd, 0x6e],
  "i32x4.bitmask": [0xfd, 0xa4, 0x01],
};

/** Loads and stores. Addresses are aligned to nothing. */
const MEMORY: Readonly<Record<string, readonly number[]>> = {
  "i32.load": [0x28],
  "i64.load": [0x29],
  "i32.load8_u": [0x2d],
  "i32.load16_s": [0x2e],
  "i32.store": [0x36],
  "i64.store": [0x37],
  "i32.store8": [0x3a],
  "i32.store16": [0x3b],
  "v128.load": [0xfd, 0x00],
};

/** "\0asm" and the version. */
const HEADER = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/** A module's bytes. @throws Error for what is not known, with the words around it */
export function assemble(text: string): Buffer {
  const module = parse(text);
  if (module[0] !== "module") throw new Error("expected one (module …)");
  const fields = module.slice(1).map(listOf);
  const ofKind = (kind: string) => fields.filter(([head]) => head === kind);
  const globals = ofKind("global");
  const functions = ofKind("func").map(readFunction);
  const context: Context = {
    globals: globals.map(nameOf),
    functions: functions.map(({ name }) => name),
    locals: [],
    labels: [],
  };
  const types = functions.map(({ params, result }) => [
    0x60,
    ...vector(params.map(([, type]) => [type])),
    ...vector(result === undefined ? [] : [[result]]),
  ]);
  const exported = functions.flatMap(({ exported }, index) =>
    exported === undefined ? [] : [[...string(exported), 0x00, ...unsigned(index)]],
  );
  return Buffer.from([
    ...HEADER,
    ...section(1, types),
    ...section(2, ofKind("import").map(importOf)),
    ...section(
      3,
      functions.map((_, index) => unsigned(index)),
    ),
    ...section(
      6,
      globals.map(([, , type = "", start = []]) => {
        const [mutable = [], kind] = type;
        if (mutable !== "mut") throw new Error("a global that is not (mut …)");
        return [typeOf(kind), 0x01, ...encode(start, context), 0x0b];
      }),
    ),
    ...section(7, exported),
    ...section(
      10,
      functions.map((one) => {
        const locals = [...one.params, ...one.locals].map(([name]) => name);
        const body = [
          ...vector(one.locals.map(([, type]) => [0x01, type])),
          ...one.body.flatMap((part) => encode(part, { ...context, locals })),
          0x0b,
        ];
        return [...unsigned(body.length), ...body];
      }),
    ),
  ]);
}

interface Context {
  readonly globals: readonly string[];
  readonly functions: readonly string[];
  readonly locals: readonly string[];
  /** Innermost first. */
  readonly labels: readonly string[];
}

type Variable = readonly [name: string, type: number];

interface Function {
  readonly name: string;
  readonly exported: string | undefined;
  readonly params: readonly Variable[];
  readonly result: number | undefined;
  readonly locals: readonly Variable[];
  readonly body: readonly Expression[];
}

function readFunction([, ...parts]: readonly Expression[]): Function {
  const named = typeof parts[0] === "string" ? parts[0] : "";
  const lists = (named === "" ? parts : parts.slice(1)).map(listOf);
  const variables = (kind: string): readonly Variable[] =>
    lists
      .filter(([head]) => head === kind)
      .map(([, name, type]): Variable => [wordOf(name), typeOf(type)]);
  const result = lists.find(([head]) => head === "result")?.[1];
  return {
    name: named,
    exported: lists.find(([head]) => head === "export")?.map(wordOf)[1],
    params: variables("param"),
    result: result === undefined ? undefined : typeOf(result),
    locals: variables("local"),
    body: lists.filter(([head]) => !["export", "param", "result", "local"].includes(wordOf(head))),
  };
}

/** (import "module" "name" (memory pages)) */
function importOf([, from, name, what]: readonly Expression[]): readonly number[] {
  const [kind, pages] = listOf(what);
  if (kind !== "memory") throw new Error("only a memory can be imported");
  return [...string(wordOf(from)), ...string(wordOf(name)), 0x02, 0x00, ...unsigned(number(pages))];
}

/** Operands first, then the operator. */
function encode(expression: Expression, context: Context): readonly number[] {
  const [head, ...rest] = listOf(expression);
  const operator = wordOf(head);
  const all = (parts: readonly Expression[], inner: Context = context): readonly number[] =>
    parts.flatMap((part) => encode(part, inner));
  const indexed = (code: number, names: readonly string[]): readonly number[] => [
    ...all(rest.slice(1)),
    code,
    ...unsigned(indexOf(names, rest[0])),
  ];
  const within = (label: string): Context => ({ ...context, labels: [label, ...context.labels] });
  const simple = SIMPLE[operator];
  if (simple !== undefined) return [...all(rest), ...simple];
  const memory = MEMORY[operator];
  if (memory !== undefined) {
    const offset = /^offset=(\d+)$/.exec(typeof rest[0] === "string" ? rest[0] : "")?.[1];
    const operands = offset === undefined ? rest : rest.slice(1);
    return [...all(operands), ...memory, 0x00, ...unsigned(Number(offset ?? 0))];
  }
  switch (operator) {
    case "i32.const":
      return [0x41, ...signed(BigInt.asIntN(32, BigInt(number(rest[0]))))];
    case "i64.const":
      return [0x42, ...signed(BigInt(number(rest[0])))];
    case "local.get":
      return indexed(0x20, context.locals);
    case "local.set":
      return indexed(0x21, context.locals);
    case "global.get":
      return indexed(0x23, context.globals);
    case "global.set":
      return indexed(0x24, context.globals);
    case "call":
      return indexed(0x10, context.functions);
    case "br":
      return indexed(0x0c, context.labels);
    case "br_if":
      return indexed(0x0d, context.labels);
    case "block":
      return [0x02, 0x40, ...all(rest.slice(1), within(wordOf(rest[0]))), 0x0b];
    case "loop":
      return [0x03, 0x40, ...all(rest.slice(1), within(wordOf(rest[0]))), 0x0b];
    case "if": {
      const [condition = [], ...branches] = rest;
      const [then, otherwise] = branches.map(listOf);
      if (then?.[0] !== "then" || (otherwise !== undefined && otherwise[0] !== "else"))
        throw new Error(`expected (then …) and (else …) in ${JSON.stringify(expression)}`);
      return [
        ...encode(condition, context),
        0x04,
        0x40,
        ...all(then.slice(1), within("")),
        ...(otherwise === undefined ? [] : [0x05, ...all(otherwise.slice(1), within(""))]),
        0x0b,
      ];
    }
    default:
      throw new Error(`${operator} is not known: ${JSON.stringify(expression)}`);
  }
}

/** One list; comments go from two semicolons to the end of the line. */
function parse(text: string): readonly Expression[] {
  const open: Expression[][] = [[]];
  for (const [token] of text.replaceAll(/;;.*$/gm, "").matchAll(/[()]|"[^"]*"|[^\s()"]+/g)) {
    if (token === "(") open.push([]);
    else if (token === ")") {
      const list = open.pop();
      if (list === undefined || open.length === 0) throw new Error("a parenthesis too many");
      open.at(-1)?.push(list);
    } else open.at(-1)?.push(token.startsWith('"') ? token.slice(1, -1) : token);
  }
  const [whole, ...more] = open;
  if (more.length > 0 || whole?.length !== 1) throw new Error("a parenthesis too few");
  return listOf(whole[0]);
}

function listOf(expression: Expression | undefined): readonly Expression[] {
  if (expression === undefined || typeof expression === "string")
    throw new Error(`expected a list, not ${expression}`);
  return expression;
}

function wordOf(expression: Expression | undefined): string {
  if (typeof expression !== "string")
    throw new Error(`expected a word, not ${JSON.stringify(expression)}`);
  return expression;
}

const nameOf = ([, name]: readonly Expression[]): string => wordOf(name);

function typeOf(expression: Expression | undefined): number {
  const type = TYPES[wordOf(expression)];
  if (type === undefined) throw new Error(`${JSON.stringify(expression)} is no type`);
  return type;
}

function indexOf(names: readonly string[], expression: Expression | undefined): number {
  const index = names.indexOf(wordOf(expression));
  if (index < 0 || expression === "") throw new Error(`${JSON.stringify(expression)} is not there`);
  return index;
}

function number(expression: Expression | undefined): number {
  const value = Number(wordOf(expression));
  if (!Number.isSafeInteger(value)) throw new Error(`${JSON.stringify(expression)} is no number`);
  return value;
}

function section(kind: number, entries: readonly (readonly number[])[]): readonly number[] {
  const content = vector(entries);
  return [kind, ...unsigned(content.length), ...content];
}

function vector(entries: readonly (readonly number[])[]): readonly number[] {
  return [...unsigned(entries.length), ...entries.flat()];
}

function string(text: string): readonly number[] {
  return vector([...Buffer.from(text)].map((byte) => [byte]));
}

/** LEB128. */
function unsigned(value: number): readonly number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(Math.floor(value / 128))];
}

function signed(value: bigint): readonly number[] {
  const low = Number(value & 127n);
  const rest = value >> 7n;
  const ends = (rest === 0n && low < 64) || (rest === -1n && low >= 64);
  return ends ? [low] : [low | 128, ...signed(rest)];
}

const DELTA = join(import.meta.dirname, "../src/delta");

/** The module that the decoder loads, as text. */
export async function kernelModule(): Promise<string> {
  const code = assemble(await readFile(join(DELTA, "kernel.wat"), "utf8"));
  const lines = code.toString("base64").match(/.{1,90}/g) ?? [];
  return [
    "/** Made of kernel.wat by `npm run kernel`; a test and every build compare the two. */",
    "export const KERNEL_CODE = [",
    ...lines.map((line) => `  "${line}",`),
    '].join("");',
    "",
  ].join("\n");
}

const OUTPUT = join(DELTA, "kernel-code.ts");

/** @throws Error when what is committed was not made of what is committed */
export async function checkKernel(): Promise<void> {
  if ((await readFile(OUTPUT, "utf8")) !== (await kernelModule()))
    throw new Error("src/delta/kernel-code.ts is not what kernel.wat says; run `npm run kernel`");
}

if (import.meta.main) {
  await writeFile(OUTPUT, await kernelModule());
  process.stdout.write(`${OUTPUT}\n`);
}
