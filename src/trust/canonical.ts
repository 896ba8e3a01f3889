/**
 * The canonical form of JSON that TUF's signatures are made over: specification 1.0.34, 4.2. Keys are sorted, nothing is escaped but `"`
 * and `\`, and there are no numbers but whole ones.
 *
 * Written for files of megabytes from strangers: in time linear in their size, piece by piece into one buffer, and with an end to
 * nesting.
 */
import { EdgeSyncError } from "../errors.ts";

/** Deeper values cannot be TUF metadata, and would take the stack. */
const MAX_DEPTH = 64;

/** UTF-16 units that are gathered before they are encoded: an encoding for each word costs more than the words. */
const PIECE = 4096;

/**
 * @param size bytes that the form will have, about; the JSON text's own are a good guess
 * @throws EdgeSyncError METADATA_INVALID for what has no canonical form that everybody would agree on: fractions, whole numbers that a
 *   double cannot hold, halves of surrogate pairs, endless nesting
 */
export function canonicalForm(value: unknown, size: number): Buffer {
  let bytes = Buffer.allocUnsafe(size + 3 * PIECE);
  let length = 0;
  let text = "";

  function flush(): void {
    // Two of these would be written as one and the same replacement character.
    if (!text.isWellFormed()) throw invalid("half of a surrogate pair");
    const needed = length + Buffer.byteLength(text);
    if (needed > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, 2 * bytes.length));
      bytes.copy(larger, 0, 0, length);
      bytes = larger;
    }
    length += bytes.write(text, length);
    text = "";
  }

  function put(item: unknown, levels: number): void {
    if (typeof item === "string") text += quote(item);
    else if (typeof item === "number") {
      if (!Number.isSafeInteger(item)) throw invalid(`the number ${item}`);
      text += item;
    } else if (typeof item !== "object" || item === null) text += String(item);
    else if (levels === 0) throw invalid(`more than ${MAX_DEPTH} levels`);
    else if (Array.isArray(item)) {
      text += "[";
      for (let index = 0; index < item.length; index++) {
        if (index > 0) text += ",";
        put(item[index], levels - 1);
      }
      text += "]";
    } else {
      const fields = item as Readonly<Record<string, unknown>>;
      let separator = "{";
      for (const key of sorted(Object.keys(fields))) {
        text += `${separator}${quote(key)}:`;
        put(fields[key], levels - 1);
        separator = ",";
      }
      text += separator === "{" ? "{}" : "}";
    }
    if (text.length >= PIECE) flush();
  }

  put(value, MAX_DEPTH);
  flush();
  return bytes.subarray(0, length);
}

/** By code points, as the reference implementation does. JavaScript's own order is by UTF-16 units, which differs for pairs of surrogates. */
function sorted(keys: string[]): readonly string[] {
  return keys.some((key) => /[\ud800-\udfff]/.test(key))
    ? keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    : keys.sort();
}

function quote(text: string): string {
  return /["\\]/.test(text) ? `"${text.replaceAll(/["\\]/g, String.raw`\$&`)}"` : `"${text}"`;
}

function invalid(what: string): EdgeSyncError {
  return new EdgeSyncError("METADATA_INVALID", `there is no canonical form with ${what}`);
}
