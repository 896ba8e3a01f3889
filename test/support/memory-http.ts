/** A static web server that is a map in this process: for tests that ask it a hundred thousand times and mean the client's disk. */
import { createHash } from "node:crypto";
import { EdgeSyncError } from "#core/errors.ts";
import type { Http } from "../../sidecar/network/http.ts";

/** Files by their path in the repository. */
export type RepositoryFiles = ReadonlyMap<string, Buffer>;

export interface MemoryHttp extends Http {
  /** Requests so far. */
  requests(): number;
  /** Bytes of bodies that were read, by path. */
  readonly received: ReadonlyMap<string, number>;
}

/** Bytes at a time, as TLS gives them. */
const CHUNK = 16 * 1024;

/** @param asked told of each request before it is answered */
export function memoryHttp(
  origin: string,
  files: RepositoryFiles,
  asked: (path: string) => void = () => undefined,
): MemoryHttp {
  let requests = 0;
  const received = new Map<string, number>();
  return {
    requests: () => requests,
    received,
    async request({ url, headers = {} }, signal) {
      signal.throwIfAborted();
      requests += 1;
      if (!url.startsWith(`${origin}/`))
        throw new EdgeSyncError("ORIGIN_UNAVAILABLE", `${url} is not at ${origin}`);
      const path = decodeURIComponent(url.slice(origin.length + 1));
      asked(path);
      const file = files.get(path);
      if (file === undefined) return { status: 404, headers: {}, body: bodyOf(Buffer.alloc(0)) };
      const etag = tagOf(file);
      if (headers["if-none-match"] === etag)
        return { status: 304, headers: { etag }, body: bodyOf(Buffer.alloc(0)) };
      const range = /^bytes=(\d+)-(\d*)$/.exec(headers["range"] ?? "");
      const start = Number(range?.[1] ?? 0);
      const end = range?.[2] ? Math.min(Number(range[2]) + 1, file.length) : file.length;
      const whole = range === null || (headers["if-range"] ?? etag) !== etag;
      if (!whole && start >= file.length)
        return {
          status: 416,
          headers: { "content-range": `bytes */${file.length}` },
          body: bodyOf(Buffer.alloc(0)),
        };
      const sent = whole ? file : file.subarray(start, end);
      const length = { etag, "content-length": String(sent.length) };
      const body = bodyOf(sent, (bytes) => received.set(path, (received.get(path) ?? 0) + bytes));
      if (whole) return { status: 200, headers: length, body };
      const contentRange = `bytes ${start}-${end - 1}/${file.length}`;
      return { status: 206, headers: { ...length, "content-range": contentRange }, body };
    },
    close: () => undefined,
  };
}

const tags = new WeakMap<Buffer, string>();

function tagOf(file: Buffer): string {
  const known = tags.get(file);
  if (known !== undefined) return known;
  const tag = `"${createHash("sha256").update(file).digest("hex").slice(0, 16)}"`;
  tags.set(file, tag);
  return tag;
}

async function* bodyOf(
  bytes: Buffer,
  read: (bytes: number) => void = () => undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const chunk = bytes.subarray(at, at + CHUNK);
    read(chunk.length);
    yield Buffer.from(chunk);
  }
}
