/**
 * A bad link, or a bad server, between a site and its repository: a reverse proxy in user space that speaks HTTP byte by byte, so that it
 * can break an answer anywhere, on the level of TCP as well as on that of HTTP.
 */
import { request as plainRequest } from "node:http";
import type { IncomingHttpHeaders } from "node:http";
import type { Socket } from "node:net";
import { gzipSync } from "node:zlib";
import type { Identity } from "./certificates.ts";
import { byteServer } from "./server.ts";
import type { TestServer } from "./server.ts";

/** Positions are in the body of the answer. */
export type LinkFault =
  /** RST after so many bytes, once they have arrived: what a reset drops of the receiver's buffers depends on its load. */
  | { readonly fault: "reset"; readonly after: number; readonly arrived?: () => Promise<unknown> }
  /** FIN after so many bytes, though more were announced. */
  | { readonly fault: "closed"; readonly after: number; readonly before?: () => void }
  /** The announced length is that of the beginning. */
  | { readonly fault: "truncated"; readonly after: number }
  /** Nothing more after so many bytes, and the connection stays. */
  | { readonly fault: "stall"; readonly after: number }
  /** One byte at a time. */
  | { readonly fault: "drip"; readonly everyMs: number }
  | { readonly fault: "flip"; readonly at: number }
  /** The right bytes, said to be those from one later on. */
  | { readonly fault: "wrong-range" }
  /** The bytes from one later on, said to be the right ones. */
  | { readonly fault: "other-bytes" }
  /** The bytes from one later on, said to be those. */
  | { readonly fault: "other-offset" }
  /** The whole file with 200 for a range. */
  | { readonly fault: "whole" }
  | {
      readonly fault: "status";
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** No length, and no end. */
  | { readonly fault: "endless" }
  /** To itself, by another query each time. */
  | { readonly fault: "redirect-loop" }
  | { readonly fault: "redirect"; readonly to: string }
  | { readonly fault: "gzip" }
  | { readonly fault: "large-headers" }
  | { readonly fault: "closed-in-headers" }
  /** A byte of the headers at a time. */
  | { readonly fault: "slow-headers"; readonly everyMs: number };

export interface Passed {
  readonly path: string;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  /** Bytes of the body that were sent. */
  sent: number;
}

export interface FaultProxy extends AsyncDisposable {
  readonly url: string;
  readonly requests: readonly Passed[];
  connections(): number;
  /** Bytes in both directions, those of TLS included. */
  bytes(): number;
  /** The next `times` requests whose path matches go wrong; what was planned before comes first. */
  fail(path: RegExp, fault: LinkFault, times?: number): void;
  /** Every connection is reset as soon as it is made. */
  kill(): void;
  /** The ETag of every answer from now on. */
  tag(etag: string): void;
}

interface Asked {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
}

interface Answered {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** @param upstream an address in the clear */
export async function openFaultProxy(upstream: string, identity?: Identity): Promise<FaultProxy> {
  const requests: Passed[] = [];
  const planned: { readonly path: RegExp; readonly fault: LinkFault; left: number }[] = [];
  let dead = false;
  let etag: string | undefined;
  let bytes = 0;

  function planFor(path: string): LinkFault | undefined {
    const found = planned.find((item) => item.left > 0 && item.path.test(path));
    if (found !== undefined) found.left -= 1;
    return found?.fault;
  }

  async function serve(socket: Socket, asked: Asked): Promise<void> {
    const path = decodeURIComponent(new URL(asked.target, "http://x").pathname.slice(1));
    const { range, "if-range": ifRange } = asked.headers;
    const entry: Passed = { path, range, ifRange, sent: 0 };
    requests.push(entry);
    const fault = planFor(path);
    const answer = await ask(upstream, asked, fault);
    const tagged =
      etag === undefined ? answer : { ...answer, headers: { ...answer.headers, etag } };
    await respond(socket, asked, tagged, fault, entry);
  }

  const server: TestServer = await byteServer((socket) => {
    if (dead) {
      socket.resetAndDestroy();
      return;
    }
    let head = "";
    let turn = Promise.resolve();
    socket.on("data", (chunk) => {
      head += chunk.toString("latin1");
      for (;;) {
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) return;
        const asked = readHead(head.slice(0, end));
        head = head.slice(end + 4);
        turn = turn.then(() => serve(socket, asked)).catch(() => void socket.destroy());
      }
    });
    socket.on("close", () => (bytes += socket.bytesRead + socket.bytesWritten));
  }, identity);

  return {
    url: server.url,
    requests,
    connections: () => server.connections(),
    bytes: () => bytes,
    fail: (path, fault, left = 1) => void planned.push({ path, fault, left }),
    kill() {
      dead = true;
    },
    tag(value) {
      etag = value;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function readHead(head: string): Asked {
  const [line = "", ...rest] = head.split("\r\n");
  const [method = "GET", target = "/"] = line.split(" ");
  const headers: Record<string, string> = {};
  for (const item of rest) {
    const colon = item.indexOf(":");
    headers[item.slice(0, colon).toLowerCase()] = item.slice(colon + 1).trim();
  }
  return { method, target, headers };
}

/** What the server behind says, to a request that may have been changed on the way. */
function ask(
  upstream: string,
  { method, target, headers }: Asked,
  fault: LinkFault | undefined,
): Promise<Answered> {
  const changed = { ...headers };
  if (fault?.fault === "whole") delete changed["range"];
  if (fault?.fault === "other-bytes" || fault?.fault === "other-offset")
    changed["range"] =
      changed["range"]?.replace(/\d+/, (at) => String(Number(at) + 1)) ?? "bytes=1-";
  return new Promise((resolve, reject) => {
    const outgoing = plainRequest(new URL(target, upstream), { method, headers: changed });
    outgoing.once("error", reject);
    outgoing.once("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        const { statusCode: status = 0, headers: own } = response;
        resolve({ status, headers: own, body: Buffer.concat(chunks) });
      });
    });
    outgoing.end();
  });
}

/** Everything that an answer says of its body's length is written anew. */
const OWN: ReadonlySet<string> = new Set(["content-length", "transfer-encoding", "connection"]);

function headOf(
  status: number,
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  length: number | undefined,
): string {
  const lines = [`HTTP/1.1 ${status} x`];
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined && !OWN.has(name)) lines.push(`${name}: ${String(value)}`);
  lines.push(length === undefined ? "connection: close" : `content-length: ${length}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

async function respond(
  socket: Socket,
  asked: Asked,
  { status, headers, body }: Answered,
  fault: LinkFault | undefined,
  entry: Passed,
): Promise<void> {
  const head = headOf(status, headers, body.length);
  const send = async (content: Buffer): Promise<void> => {
    if (socket.destroyed || content.length === 0) return;
    entry.sent += content.length;
    // A write to a connection that breaks meanwhile never calls back.
    await new Promise<void>((resolve) => {
      socket.once("close", resolve);
      socket.write(content, () => {
        socket.removeListener("close", resolve);
        resolve();
      });
    });
  };
  const whole = async (first: string, content: Buffer): Promise<void> => {
    socket.write(first);
    await send(content);
  };
  switch (fault?.fault) {
    case undefined:
    case "whole":
    case "other-offset":
      return await whole(head, body);
    case "reset":
      await whole(head, body.subarray(0, fault.after));
      await fault.arrived?.();
      return void socket.resetAndDestroy();
    case "closed":
      await whole(head, body.subarray(0, fault.after));
      fault.before?.();
      return void socket.end();
    case "truncated": {
      const begin = body.subarray(0, fault.after);
      return await whole(headOf(status, headers, begin.length), begin);
    }
    case "stall":
      return await whole(head, body.subarray(0, fault.after));
    case "drip":
      socket.write(head);
      for (const byte of body) {
        await send(Buffer.of(byte));
        await pause(fault.everyMs, socket);
        if (socket.destroyed) return;
      }
      return;
    case "flip": {
      const copy = Buffer.from(body);
      copy[fault.at] = (copy[fault.at] ?? 0) ^ 1;
      return await whole(head, copy);
    }
    case "wrong-range":
    case "other-bytes": {
      const off = fault.fault === "wrong-range" ? 1 : -1;
      const range = headers["content-range"] ?? "";
      const shown = range.replace(/\d+/, (at) => String(Number(at) + off));
      return await whole(headOf(206, { ...headers, "content-range": shown }, body.length), body);
    }
    case "status":
      return await whole(headOf(fault.status, fault.headers ?? {}, 0), Buffer.alloc(0));
    case "endless":
      await whole(headOf(status, headers, undefined), body);
      while (!socket.destroyed) await send(Buffer.alloc(16_384));
      return;
    case "redirect-loop":
      return await whole(headOf(302, { location: `${asked.target}?again` }, 0), Buffer.alloc(0));
    case "redirect":
      return await whole(headOf(302, { location: fault.to }, 0), Buffer.alloc(0));
    case "gzip": {
      const packed = gzipSync(body, { level: 1 });
      const said = { ...headers, "content-encoding": "gzip" };
      return await whole(headOf(status, said, packed.length), packed);
    }
    case "large-headers":
      socket.write(`HTTP/1.1 200 x\r\nx-filler: ${"x".repeat(200_000)}\r\n\r\n`);
      return;
    case "closed-in-headers":
      return void socket.end(head.slice(0, head.length / 2));
    case "slow-headers":
      for (const letter of head) {
        socket.write(letter);
        await pause(fault.everyMs, socket);
        if (socket.destroyed) return;
      }
      return await send(body);
  }
}

/** Shorter when the other side goes away. */
function pause(ms: number, socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const over = (): void => {
      clearTimeout(timer);
      socket.removeListener("close", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    socket.once("close", over);
  });
}
