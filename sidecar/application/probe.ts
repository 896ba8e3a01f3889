/**
 * Carries out one probe of the application as the kubelet would (pkg/probe). The containers of a pod share their network, so
 * the application is at 127.0.0.1.
 */
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { connect } from "node:net";
import { unreachable } from "#core/errors.ts";
import { resultOf } from "#core/failure.ts";
import type { ProbeHandler } from "#core/probe.ts";

/** `refused`: nobody listens on the port, so nothing of the application runs there. */
export type ProbeResult = "passed" | "failed" | "refused";

const HOST = "127.0.0.1";

/** Bytes of a response that are read, and of headers too; the kubelet stops at the same. */
const BODY_LIMIT = 10 * 1024;

/** Applications leave probes out of their logs and their authentication by the kubelet's name. */
const HEADERS = { "user-agent": "kube-probe/edgesync", accept: "*/*", connection: "close" };

/** Never rejects, except with the reason of `signal`. */
export async function carryOut(
  handler: ProbeHandler,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ProbeResult> {
  return (await examine(handler, timeoutMs, signal)).result;
}

/** The same, with what came of it for people: a status, `timeout`, or the code of an error, and nothing that was answered. */
export async function examine(
  handler: ProbeHandler,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<{ readonly result: ProbeResult; readonly detail: string }> {
  const late = AbortSignal.timeout(Math.max(1, timeoutMs));
  try {
    const problem = await attempt(handler, AbortSignal.any([signal, late]));
    return { result: problem === null ? "passed" : "failed", detail: problem ?? "passed" };
  } catch (error) {
    signal.throwIfAborted();
    const detail = late.aborted ? "timeout" : resultOf(error);
    return { result: isRefusal(error) ? "refused" : "failed", detail };
  }
}

/** HTTP/2 reports it as the cause of a cancelled stream. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && error.code === "ECONNREFUSED") || isRefusal(error.cause);
}

/** What is wrong; null when nothing is. */
type Problem = string | null;

function attempt(handler: ProbeHandler, signal: AbortSignal): Promise<Problem> {
  switch (handler.kind) {
    case "http":
      return http(handler, signal);
    case "tcp":
      return tcp(handler.port, signal);
    case "grpc":
      return grpc(handler, signal);
    default:
      return unreachable(handler);
  }
}

/** 200 to 399 is success: a redirect is not followed and counts as an answer. */
function http(
  { scheme, port, path, headers }: Extract<ProbeHandler, { kind: "http" }>,
  signal: AbortSignal,
): Promise<Problem> {
  // Escapes what a request may not hold and leaves what is escaped already.
  const url = new URL(`${scheme}://${HOST}:${port}${path.startsWith("/") ? "" : "/"}${path}`);
  const init = {
    signal,
    agent: false as const,
    maxHeaderSize: BODY_LIMIT,
    headers: { ...HEADERS, ...lowerCased(headers) },
  };
  return new Promise((resolve, reject) => {
    const request =
      scheme === "https"
        ? // As the kubelet does: a probe asks whether the application answers, its certificate names a service and not 127.0.0.1.
          tlsRequest(url, { ...init, rejectUnauthorized: false })
        : plainRequest(url, init);
    // An answer 101 is neither a response nor an error to Node: only the end of its connection is told.
    const unanswered = (): void => resolve("no answer");
    request.once("response", (response) => {
      request.off("close", unanswered);
      const status = response.statusCode ?? 0;
      const settle = (): void =>
        resolve(status >= 200 && status < 400 ? null : `HTTP status ${status}`);
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.byteLength;
        if (size <= BODY_LIMIT) return;
        settle();
        response.destroy();
      });
      response.once("end", settle);
      response.on("error", reject);
    });
    request.on("error", reject);
    request.once("close", unanswered);
    request.end();
  });
}

function lowerCased(
  headers: Extract<ProbeHandler, { kind: "http" }>["headers"],
): Readonly<Record<string, string>> {
  return Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value]));
}

function tcp(port: number, signal: AbortSignal): Promise<Problem> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: HOST, port, signal });
    socket.once("connect", () => {
      socket.destroy();
      resolve(null);
    });
    socket.once("error", reject);
  });
}

/** The status that says that a service takes requests (grpc.health.v1.HealthCheckResponse). */
const SERVING = 1;

/** grpc.health.v1.Health/Check over HTTP/2 without TLS, by hand: one short message each way. */
async function grpc(
  { port, service }: Extract<ProbeHandler, { kind: "grpc" }>,
  signal: AbortSignal,
): Promise<Problem> {
  // Few pods have such a probe; the others do not pay for HTTP/2.
  const { connect: open } = await import("node:http2");
  const session = open(`http://${HOST}:${port}`);
  try {
    return await new Promise<Problem>((resolve, reject) => {
      session.on("error", reject);
      const stream = session.request(
        {
          ":method": "POST",
          ":path": "/grpc.health.v1.Health/Check",
          "content-type": "application/grpc",
          "user-agent": HEADERS["user-agent"],
          te: "trailers",
        },
        { signal },
      );
      const chunks: Buffer[] = [];
      let status: unknown;
      // An error without a message comes with its status in the headers.
      stream.on("response", (headers) => (status = headers["grpc-status"]));
      stream.on("trailers", (trailers) => (status = trailers["grpc-status"] ?? status));
      stream.on("data", (chunk: Buffer) => {
        if (chunks.length < 16) chunks.push(chunk);
      });
      stream.on("error", reject);
      stream.once("end", () => {
        const serving = statusIn(Buffer.concat(chunks));
        const code = typeof status === "string" && /^\d{1,3}$/.test(status) ? status : "none";
        if (code !== "0") resolve(`gRPC status ${code}`);
        else resolve(serving === SERVING ? null : `gRPC health ${serving}`);
      });
      stream.end(healthRequest(service));
    });
  } finally {
    session.destroy();
  }
}

/** A frame (no compression, length) around a message whose only field, number 1, is the service's name. */
function healthRequest(service: string): Buffer {
  const name = Buffer.from(service);
  const message =
    name.byteLength === 0 ? name : Buffer.concat([Buffer.of(0x0a), varint(name.byteLength), name]);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([frame, message]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}

/** Field 1 of the response's message, a one-byte enum; a message without it means 0, unknown. */
function statusIn(frame: Buffer): number {
  return frame.byteLength >= 7 && frame[0] === 0 && frame[5] === 0x08 ? (frame[6] ?? 0) : 0;
}
