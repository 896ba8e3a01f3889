/**
 * Tar archives as a bundle needs them: regular files in the interchange format of POSIX.1-2001 (ustar headers, with a pax record for a name
 * that ustar cannot hold). Written so that any tar unpacks them, and the same files make the same bytes; read by position, so that a
 * file in the middle of a large archive costs one read.
 */
import type { RandomAccess } from "./delta/decoder.ts";
import { readBytes } from "./delta/decoder.ts";
import { EdgeSyncError } from "./errors.ts";

/** Bytes; headers and contents begin at multiples of it. */
const BLOCK = 512;
/** Two blocks of zeros end an archive. */
export const END_OF_ARCHIVE: Uint8Array = new Uint8Array(2 * BLOCK);
/** Bytes of a pax header: more than any name that edgesync writes. */
const PAX_LIMIT = 64 * 1024;
/** Bytes that eleven octal digits can say, and one more. */
const OCTAL_LIMIT = 8 ** 11;

export interface TarFile {
  readonly name: string;
  readonly size: number;
}

/** A file of an archive, and where its bytes are. */
export interface TarEntry extends TarFile {
  readonly offset: number;
}

/** What stands before the bytes of a file. */
export function tarHeader({ name, size }: TarFile): Uint8Array {
  const records: string[] = [];
  const parts = splitName(name);
  if (parts === undefined) records.push(paxRecord("path", name));
  if (size >= OCTAL_LIMIT) records.push(paxRecord("size", String(size)));
  const header = ustar(parts ?? { prefix: "", name: "long-name" }, size % OCTAL_LIMIT, "0");
  if (records.length === 0) return header;
  const pax = Buffer.from(records.join(""));
  const before = ustar({ prefix: "", name: "pax-header" }, pax.length, "x");
  return Buffer.concat([before, pax, tarPadding(pax.length), header]);
}

/** What stands after the bytes of a file. */
export function tarPadding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function splitName(path: string): { readonly prefix: string; readonly name: string } | undefined {
  if (!/^[\x20-\x7e]*$/.test(path)) return undefined;
  if (path.length <= 100) return { prefix: "", name: path };
  // The longest name that fits leaves the shortest prefix.
  const slash = path.indexOf("/", path.length - 101);
  if (slash < 1 || slash > 155 || slash === path.length - 1) return undefined;
  return { prefix: path.slice(0, slash), name: path.slice(slash + 1) };
}

function ustar(
  { prefix, name }: { readonly prefix: string; readonly name: string },
  size: number,
  kind: "0" | "x",
): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, "0"), at, "latin1");
  };
  block.write(name, 0, "latin1");
  octal(0o644, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(size, 124, 11);
  octal(0, 136, 11);
  block.write(kind, 156, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  octal(0, 329, 7);
  octal(0, 337, 7);
  block.write(prefix, 345, "latin1");
  octal(checksum(block), 148, 6);
  block.write("\0 ", 154, "latin1");
  return block;
}

/** The sum of the bytes of a header, its own field taken for blanks. */
function checksum(block: Uint8Array): number {
  return block.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 0x20 : byte), 0);
}

/** `<length> <key>=<value>\n`, where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  const digits = String(bytes + String(bytes).length).length;
  return `${bytes + digits}${rest}`;
}

/**
 * The regular files of an archive, in order, from their headers alone. Directories are passed over; everything else is refused.
 *
 * @throws EdgeSyncError BUNDLE_INVALID also for an archive that ends early
 */
export async function* tarEntries(
  archive: RandomAccess,
  signal: AbortSignal,
): AsyncIterable<TarEntry> {
  let at = 0;
  let extended: Partial<TarFile> = {};
  for (;;) {
    signal.throwIfAborted();
    if (at + BLOCK > archive.size) throw invalid("it ends without its last blocks");
    const block = await readBytes(archive, at, BLOCK);
    if (block.every((byte) => byte === 0)) return;
    const header = parseHeader(block, at);
    const size = header.kind === "0" ? (extended.size ?? header.size) : header.size;
    const offset = at + BLOCK;
    if (offset + size > archive.size)
      throw invalid(`${header.name} goes on after the end of the file`);
    at = offset + size + tarPadding(size).length;
    if (header.kind === "x") {
      if (size > PAX_LIMIT) throw invalid(`a pax header has ${size} bytes`);
      extended = parsePax(await readBytes(archive, offset, size));
      continue;
    }
    if (header.kind === "0") yield { name: extended.name ?? header.name, size, offset };
    extended = {};
  }
}

interface Header extends TarFile {
  /** A file, a directory, a pax header of one file. */
  readonly kind: "0" | "5" | "x";
}

function parseHeader(block: Buffer, at: number): Header {
  const text = (from: number, length: number): string =>
    block.toString("utf8", from, from + length).replace(/\0.*$/s, "");
  const number = (from: number, length: number): number => {
    const digits = /^ *([0-7]{1,12})[ \0]*$/.exec(block.toString("latin1", from, from + length));
    if (digits === null) throw invalid(`the header at byte ${at} has a field that is no number`);
    return Number.parseInt(digits[1] ?? "", 8);
  };
  if (text(257, 5) !== "ustar") throw invalid(`there is no header at byte ${at}`);
  if (number(148, 8) !== checksum(block))
    throw invalid(`the header at byte ${at} does not have its checksum`);
  const kind = text(156, 1) === "" ? "0" : text(156, 1);
  if (kind !== "0" && kind !== "5" && kind !== "x")
    throw invalid(`${text(0, 100)} is neither a file nor a directory`);
  const prefix = text(345, 155);
  const name = text(0, 100);
  return { kind, name: prefix === "" ? name : `${prefix}/${name}`, size: number(124, 12) };
}

function parsePax(bytes: Buffer): Partial<TarFile> {
  const found = new Map<string, string>();
  for (let at = 0; at < bytes.length;) {
    const digits = /^(\d{1,6}) /.exec(bytes.toString("latin1", at, at + 7))?.[1] ?? "";
    const length = Number(digits);
    const record = bytes.subarray(at + digits.length + 1, at + length).toString("utf8");
    const equals = record.indexOf("=");
    if (digits === "" || at + length > bytes.length || equals < 1 || !record.endsWith("\n"))
      throw invalid("a pax header cannot be read");
    found.set(record.slice(0, equals), record.slice(equals + 1, -1));
    at += length;
  }
  const [name, size] = [found.get("path"), found.get("size")];
  if (size !== undefined && !/^\d{1,15}$/.test(size)) throw invalid("a pax size is no number");
  return {
    ...(name !== undefined && { name }),
    ...(size !== undefined && { size: Number(size) }),
  };
}

function invalid(problem: string): EdgeSyncError {
  return new EdgeSyncError("BUNDLE_INVALID", `the archive cannot be read: ${problem}`);
}
