/**
 * News: what changed last in a repository, carried in the timestamp that announces it. A site on a link with a long round trip then has
 * the new metadata and the documents they list with the answer to its poll, and not after four or five requests more.
 *
 * News are a way of transport and no more: every file in them is checked as if it had come by itself, and whoever does not know them
 * fetches the files. Signed field `x-edgesync-news` of the timestamp: base64 of a zstd frame of JSON, names of files to their text.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import * as s from "valibot";

export const NEWS_FIELD = "x-edgesync-news";

/** Characters of the field. A timestamp may have 16 KiB; this is what a round trip of 600 ms costs at 13 KB/s. */
const NEWS_LIMIT = 8 * 1024;
/** Bytes of all files in the news. */
const TEXT_LIMIT = 64 * 1024;
const MAX_FILES = 16;
/** What decoding may hold: 2^17 bytes. */
const WINDOW_LOG = 17;

/** Paths in the repository, such as `metadata/7.snapshot.json`, to the bytes of the file. */
export type News = ReadonlyMap<string, Uint8Array>;

/**
 * As many of the files as there is room for, the first ones first; `undefined` when there is none for any.
 */
export function formatNews(files: Iterable<readonly [string, Uint8Array]>): string | undefined {
  let chosen: Record<string, string> = {};
  let text: string | undefined;
  for (const [path, bytes] of files) {
    if (bytes.length > TEXT_LIMIT / 2 || Object.keys(chosen).length === MAX_FILES) continue;
    const more = { ...chosen, [path]: Buffer.from(bytes).toString() };
    const json = Buffer.from(JSON.stringify(more));
    const encoded = zstdCompressSync(json, {
      pledgedSrcSize: json.length,
      params: { [constants.ZSTD_c_compressionLevel]: 19, [constants.ZSTD_c_windowLog]: WINDOW_LOG },
    }).toString("base64");
    if (json.length > TEXT_LIMIT || encoded.length > NEWS_LIMIT) continue;
    chosen = more;
    text = encoded;
  }
  return text;
}

const schema = s.object({ signed: s.object({ [NEWS_FIELD]: s.string() }) });
const filesSchema = s.record(s.string(), s.string());

/** The news in the bytes of a timestamp; none when there are none that can be read, since they can be done without. */
export function newsIn(timestamp: Uint8Array): News {
  const none = new Map<string, Uint8Array>();
  try {
    const parsed = s.safeParse(schema, JSON.parse(Buffer.from(timestamp).toString()));
    const field = parsed.success ? parsed.output.signed[NEWS_FIELD] : undefined;
    if (field === undefined || field.length > NEWS_LIMIT) return none;
    const json = zstdDecompressSync(Buffer.from(field, "base64"), {
      maxOutputLength: TEXT_LIMIT,
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG },
    });
    const files = s.parse(filesSchema, JSON.parse(json.toString()));
    return new Map(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
  } catch {
    return none;
  }
}
