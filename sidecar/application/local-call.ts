/** A POST to the application: the containers of a pod share their network, so it is at 127.0.0.1. */
import { request } from "node:http";
import { resultOf } from "#core/failure.ts";
import type { HookReply } from "#core/hook.ts";
import type { HttpTarget } from "#core/http-target.ts";

const HOST = "127.0.0.1";

/** Bytes of an answer that are read, and of its headers. */
const BODY_LIMIT = 4 * 1024;
const HEADER_LIMIT = 8 * 1024;

/** Errors of a connection that never was: nothing of the request can have been read. */
const UNREACHED = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EADDRNOTAVAIL"]);

/** `silent` when there is no answer in time, or none that is HTTP. Rejects with the signal's reason and with nothing else. */
export async function postJson(
  { port, path }: Omit<HttpTarget, "kind">,
  body: unknown,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<HookReply> {
  const late = AbortSignal.timeout(timeoutMs);
  const bounded = AbortSignal.any([signal, late]);
  try {
    return await post(port, path, Buffer.from(`${JSON.stringify(body)}\n`), bounded);
  } catch (error) {
    signal.throwIfAborted();
    // Refused, reset, too late: whatever it was, nobody has answered.
    const text = late.aborted ? "timeout" : resultOf(error);
    return { kind: "silent", text, reached: !UNREACHED.has(text) };
  }
}

function post(port: number, path: string, body: Buffer, signal: AbortSignal): Promise<HookReply> {
  return new Promise((resolve, reject) => {
    const asked = request({
      host: HOST,
      port,
      path,
      method: "POST",
      agent: false,
      signal,
      maxHeaderSize: HEADER_LIMIT,
      headers: {
        "content-type": "application/json",
        "content-length": body.byteLength,
        "user-agent": "edgesync",
        connection: "close",
      },
    });
    // Of some answers Node tells only the end of their connection.
    asked.once("close", () => reject(new Error("closed without an answer")));
    asked.once("error", reject);
    asked.once("response", (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      const settle = (): void =>
        resolve({
          kind: "http",
          status: response.statusCode ?? 0,
          retryAfter: response.headers["retry-after"],
          text: Buffer.concat(chunks).subarray(0, BODY_LIMIT).toString(),
        });
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.byteLength;
        if (size < BODY_LIMIT) return;
        settle();
        response.destroy();
      });
      response.once("end", settle);
      // The status has been said; what is missing is for people only.
      response.once("close", settle);
      response.on("error", settle);
    });
    asked.end(body);
  });
}
