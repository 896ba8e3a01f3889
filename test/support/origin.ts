import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import type { Identity } from "./certificates.ts";
import { httpServer } from "./server.ts";

/** What goes wrong with a response. Positions are in the bytes of this response. */
export type Fault =
  | { readonly fault: "status"; readonly status: number; readonly headers?: Record<string, string> }
  /** The connection breaks after so many bytes. */
  | { readonly fault: "reset"; readonly after: number }
  /** The body ends in good order after so many bytes. */
  | { readonly fault: "truncated"; readonly after: number }
  /** One bit of the byte at a position is another. */
  | { readonly fault: "flipped"; readonly at: number }
  /** The whole file instead of the range that was asked for. */
  | { readonly fault: "no-range" }
  /** A range that was not asked for. */
  | { readonly fault: "wrong-range" }
  /** The right bytes, and then ever more. */
  | { readonly fault: "endless" };

export interface Request {
  readonly path: string;
  readonly range: string | undefined;
  status: number;
  /** Bytes of the body that were sent. */
  bytes: number;
}

export interface Origin extends AsyncDisposable {
  readonly url: string;
  /** All that was asked so far. */
  readonly requests: readonly Request[];
  /** Makes the next `times` requests whose path matches go wrong. */
  fail(path: RegExp, fault: Fault, times?: number): void;
  /** No request goes wrong any more, and none is remembered. */
  reset(): void;
}

/** A static web server for a folder, with whatever a bad link or a bad server does to its answers. */
export async function openOrigin(folder: string, identity?: Identity): Promise<Origin> {
  const requests: Request[] = [];
  let faults: { readonly path: RegExp; readonly fault: Fault; left: number }[] = [];

  function answer(incoming: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(incoming.url ?? "").slice(1);
    const { range } = incoming.headers;
    const planned = faults.find((item) => item.left > 0 && item.path.test(path));
    if (planned !== undefined) planned.left -= 1;
    const entry: Request = { path, range, status: 0, bytes: 0 };
    requests.push(entry);
    respond(join(folder, path), incoming, response, planned?.fault, entry);
    entry.status = response.statusCode;
  }

  const server = await httpServer(answer, identity);
  return {
    url: server.url,
    requests,
    fail(path, fault, left = 1) {
      faults.push({ path, fault, left });
    },
    reset() {
      faults = [];
      requests.length = 0;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function respond(
  file: string,
  incoming: IncomingMessage,
  response: ServerResponse,
  fault: Fault | undefined,
  entry: Request,
): void {
  if (fault?.fault === "status") {
    response.writeHead(fault.status, fault.headers).end();
    return;
  }
  if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) {
    response.writeHead(404).end();
    return;
  }
  const bytes = readFileSync(file);
  const etag = `"${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}"`;
  if (incoming.headers["if-none-match"] === etag) {
    response.writeHead(304, { etag }).end();
    return;
  }
  const condition = incoming.headers["if-range"];
  const range = condition === undefined || condition === etag ? incoming.headers.range : undefined;
  const asked = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  const start = Number(asked?.[1] ?? 0);
  const end = asked?.[2] ? Math.min(Number(asked[2]) + 1, bytes.length) : bytes.length;
  if (asked !== null && fault?.fault !== "no-range") {
    if (start >= bytes.length) {
      response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
      return;
    }
    const shown = fault?.fault === "wrong-range" ? start + 1 : start;
    response.writeHead(206, { etag, "content-range": `bytes ${shown}-${end - 1}/${bytes.length}` });
    send(response, bytes.subarray(start, end), fault, entry);
  } else {
    response.writeHead(200, { etag });
    send(response, bytes, fault, entry);
  }
}

function send(
  response: ServerResponse,
  body: Buffer,
  fault: Fault | undefined,
  entry: Request,
): void {
  const write = (bytes: Buffer): void => {
    entry.bytes += bytes.length;
    response.write(bytes);
  };
  switch (fault?.fault) {
    case "reset":
      write(body.subarray(0, fault.after));
      // Only when the bytes are on their way: the point is that they arrive.
      setTimeout(() => response.destroy(), 20);
      return;
    case "truncated":
      write(body.subarray(0, fault.after));
      response.end();
      return;
    case "flipped": {
      const copy = Buffer.from(body);
      copy[fault.at] = (copy[fault.at] ?? 0) ^ 1;
      write(copy);
      response.end();
      return;
    }
    case "endless": {
      write(body);
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(16_384))) entry.bytes += 16_384;
        if (!response.destroyed) response.once("drain", more);
      };
      more();
      return;
    }
    case undefined:
    case "status":
    case "no-range":
    case "wrong-range":
      // Faults of the header, if any, which has been sent.
      write(body);
      response.end();
  }
}
