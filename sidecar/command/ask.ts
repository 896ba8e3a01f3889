/** Asks the control port of the sidecar, or agent, of this pod or machine. */
import { request } from "node:http";
import type { Clock } from "#core/clock.ts";
import { HOLDS_PATH, STATUS_PATH } from "#core/control.ts";
import type { UpdateOrder } from "#core/control.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { isObject } from "#core/json.ts";

export interface Agent {
  status(signal: AbortSignal): Promise<unknown>;
  order(what: UpdateOrder, signal: AbortSignal): Promise<unknown>;
  holds(signal: AbortSignal): Promise<unknown>;
  hold(owner: string, asked: object, signal: AbortSignal): Promise<unknown>;
  release(owner: string, signal: AbortSignal): Promise<unknown>;
}

const HOST = "127.0.0.1";

/** Milliseconds. The sidecar answers from memory, but for a disk that takes its time. */
const TIMEOUT_MS = 10_000;

/** Milliseconds after which it is worth asking again for who has asked too often, and how often. */
const RETRY_MS = 5_000;
const RETRIES = 2;

/** Bytes; a status has a few thousand. */
const ANSWER_LIMIT = 4 * 2 ** 20;

/**
 * What it asks rejects with AGENT_UNAVAILABLE, or with ORDER_REFUSED when the answer is no.
 *
 * @param named where the port comes from, for messages
 */
export function openAgent(port: number, named: string, clock: Clock): Agent {
  const where = `${HOST}:${port}, ${named}`;

  async function ask(
    method: string,
    path: string,
    signal: AbortSignal,
    body?: object,
    attempt = 0,
  ): Promise<unknown> {
    const late = AbortSignal.timeout(TIMEOUT_MS);
    let answer: Answer;
    try {
      answer = await exchange({ port, method, path, body }, AbortSignal.any([signal, late]));
    } catch (cause) {
      signal.throwIfAborted();
      const problem = late.aborted
        ? `no answer in ${TIMEOUT_MS / 1000} s from ${where}`
        : `nobody answers at ${where}`;
      throw new EdgeSyncError("AGENT_UNAVAILABLE", problem, { cause });
    }
    const { status, text, afterMs } = answer;
    // Orders of a kind are taken in every five seconds, and this one is wanted.
    if (status === 429 && afterMs <= RETRY_MS && attempt < RETRIES) {
      await clock.sleep(afterMs, signal);
      return await ask(method, path, signal, body, attempt + 1);
    }
    const json = jsonOf(text);
    // Of the answers that are no, all say why.
    const detail = isObject(json) ? json["detail"] : undefined;
    if (json === undefined || (status >= 300 && typeof detail !== "string"))
      throw new EdgeSyncError(
        "AGENT_UNAVAILABLE",
        `what listens at ${where}, is no control port of edgesync`,
      );
    if (status >= 300) throw new EdgeSyncError("ORDER_REFUSED", String(detail));
    return json;
  }

  return {
    status: (signal) => ask("GET", STATUS_PATH, signal),
    order: (what, signal) => ask("POST", `/v1/update/${what}`, signal),
    holds: (signal) => ask("GET", HOLDS_PATH, signal),
    hold: (owner, asked, signal) => ask("PUT", `${HOLDS_PATH}/${owner}`, signal, asked),
    release: (owner, signal) => ask("DELETE", `${HOLDS_PATH}/${owner}`, signal),
  };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Somebody else listens on the port.
    return undefined;
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
  /** Milliseconds; Infinity where nothing is said. */
  readonly afterMs: number;
}

function exchange(
  {
    port,
    method,
    path,
    body,
  }: {
    readonly port: number;
    readonly method: string;
    readonly path: string;
    readonly body: object | undefined;
  },
  signal: AbortSignal,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? "" : JSON.stringify(body);
    const headers = {
      "content-length": Buffer.byteLength(text),
      ...(body !== undefined && { "content-type": "application/json" }),
    };
    const asked = request({ host: HOST, port, method, path, headers, signal, agent: false });
    asked.once("error", reject);
    asked.once("close", () => reject(new Error("closed without an answer")));
    asked.once("response", (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("error", reject);
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.byteLength;
        if (size > ANSWER_LIMIT) asked.destroy(new Error("the answer is too long"));
      });
      response.once("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          text: Buffer.concat(chunks).toString(),
          afterMs: Number(response.headers["retry-after"] ?? Infinity) * 1000,
        }),
      );
    });
    asked.end(text);
  });
}
