/** A static server for trying out; in earnest any web server or object store does the same. */
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import { open, realpath } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { EdgeSyncError } from "#core/errors.ts";
import { errnoOf } from "./files.ts";

/** What is served of a repository; nothing else in the folder is anybody's business. */
const SERVED: ReadonlySet<string> = new Set(["metadata", "targets", "blobs"]);

export interface ServeOptions {
  readonly root: string;
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer } | undefined;
}

export interface Serving extends AsyncDisposable {
  readonly url: string;
}

/** @throws EdgeSyncError CONFIG_INVALID when it cannot listen or the certificate is not one */
export async function serve({ root, host, port, tls }: ServeOptions): Promise<Serving> {
  const base = await realpath(root);
  const listener: RequestListener = (request, response) => {
    answer(base, request, response).catch((error: unknown) => {
      // The client went away, or the file became unreadable: this response is over, the server is not.
      if (response.headersSent || errnoOf(error) === "ERR_STREAM_PREMATURE_CLOSE")
        response.destroy();
      else refuse(response, 500);
    });
  };
  const server = await makeServer(listener, tls);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(
        new EdgeSyncError("CONFIG_INVALID", `cannot listen on ${host} port ${port}`, { cause }),
      ),
    );
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return {
    url: `${tls === undefined ? "http" : "https"}://${name}:${address.port}/`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function makeServer(listener: RequestListener, tls: ServeOptions["tls"]): Promise<Server> {
  // Loaded here, because they take 12 MiB of memory that no other command needs.
  const [http, https] = await Promise.all([import("node:http"), import("node:https")]);
  if (tls === undefined) return http.createServer(listener);
  try {
    return https.createServer({ ...tls, minVersion: "TLSv1.2" }, listener);
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", "the TLS certificate and key do not fit", { cause });
  }
}

function refuse(
  response: ServerResponse,
  status: number,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-length": "0", ...headers });
  response.end();
}

async function answer(
  base: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD")
    return refuse(response, 405, { allow: "GET, HEAD" });
  const path = pathOf(request.url ?? "");
  if (path === undefined) return refuse(response, 404);
  await using file = await openInside(base, path);
  if (file === undefined) return refuse(response, 404);
  const stat = await file.stat({ bigint: true });
  if (!stat.isFile()) return refuse(response, 404);

  // Files are replaced by renaming, never written in place, so these three change whenever the bytes do.
  const etag = `"${stat.ino.toString(36)}-${stat.mtimeNs.toString(36)}-${stat.size.toString(36)}"`;
  const size = Number(stat.size);
  const headers = {
    etag,
    "accept-ranges": "bytes",
    "content-type": path.endsWith(".json") ? "application/json" : "application/octet-stream",
    // Only the timestamp has a name that is used again; every other file is what its name says for ever.
    "cache-control": path.endsWith("/timestamp.json")
      ? "no-cache"
      : "public, max-age=31536000, immutable",
  };
  if (namesTag(request.headers["if-none-match"], etag)) {
    response.writeHead(304, headers);
    response.end();
    return;
  }
  const range = rangeOf(request, etag, size);
  if (range === "unsatisfiable")
    return refuse(response, 416, { "content-range": `bytes */${size}` });
  const { start, end } = range ?? { start: 0, end: size - 1 };
  response.writeHead(range === undefined ? 200 : 206, {
    ...headers,
    "content-length": end - start + 1,
    ...(range !== undefined && { "content-range": `bytes ${start}-${end}/${size}` }),
  });
  if (request.method === "HEAD" || size === 0) {
    response.end();
    return;
  }
  await pipeline(file.createReadStream({ start, end, autoClose: false }), response);
}

/** Path inside the repository; `undefined` for whatever is not plainly a name of something that is served. */
function pathOf(url: string): string | undefined {
  let path: string;
  try {
    path = decodeURIComponent(url.split("?", 1)[0] ?? "");
  } catch {
    // Not percent-encoded UTF-8.
    return undefined;
  }
  const [first, ...segments] = path.split("/");
  // A name with a dot first covers `..` and the files that publishers and editors leave.
  const plain = segments.every(
    (segment) => segment !== "" && !segment.startsWith(".") && !/[\\\0]/.test(segment),
  );
  return first === "" && plain && SERVED.has(segments[0] ?? "") ? segments.join("/") : undefined;
}

/** Opens a file that lies in the folder also after every symlink has been followed. */
async function openInside(base: string, path: string): Promise<FileHandle | undefined> {
  try {
    const real = await realpath(join(base, path));
    return real.startsWith(base + sep) ? await open(real, "r") : undefined;
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP" || code === "ENAMETOOLONG")
      return undefined;
    throw error;
  }
}

/** If-None-Match, RFC 9110, 13.1.2. */
function namesTag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header
    .split(",")
    .map((tag) => tag.trim().replace(/^W\//, ""))
    .some((tag) => tag === "*" || tag === etag);
}

type Range = { readonly start: number; readonly end: number };

/** One range of bytes, RFC 9110, 14.2; a header that asks for several, or cannot be read, counts as absent. */
function rangeOf(
  request: IncomingMessage,
  etag: string,
  size: number,
): Range | "unsatisfiable" | undefined {
  const { range } = request.headers;
  const condition = request.headers["if-range"];
  if (range === undefined || request.method !== "GET") return undefined;
  if (condition !== undefined && condition !== etag) return undefined;
  const [, first = "", last = ""] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(range) ?? [];
  if (first === "" && last === "") return undefined;
  if (first === "") {
    const length = Math.min(Number(last), size);
    return length === 0 ? "unsatisfiable" : { start: size - length, end: size - 1 };
  }
  const start = Number(first);
  const end = last === "" ? size - 1 : Math.min(Number(last), size - 1);
  if (last !== "" && Number(last) < start) return undefined;
  return start >= size ? "unsatisfiable" : { start, end };
}
