/** `edgesync status` and `edgesync update …`: they ask the sidecar in whose container, or the agent on whose machine, they run. */
import { request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { CONTROL_COMMANDS, HOLDS_PATH, STATUS_PATH, UPDATE_ORDERS } from "#core/control.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { HOLD_LIMIT_MS, OWNER_FORM, isOwner } from "#core/hold.ts";
import { isObject } from "#core/json.ts";
import { duration, formatDuration, integer } from "#core/values.ts";

export interface ClientDeps {
  /** Where the sidecar listens unless the command line says otherwise. */
  readonly port: number;
  print(text: string): void;
}

const HOST = "127.0.0.1";

/** Who holds updates from the command line, unless told otherwise. */
const OWNER = "operator";

/** Milliseconds. The sidecar answers from memory, but for a disk that takes its time. */
const TIMEOUT_MS = 10_000;

/** Bytes; a status has a few thousand. */
const ANSWER_LIMIT = 4 * 2 ** 20;

const holdFor = duration("1s", formatDuration(HOLD_LIMIT_MS));
const portValue = integer(1, 65535);

/**
 * @param args from the first word on: `status`, or `update` and what to do
 * @throws EdgeSyncError USAGE, or AGENT_UNAVAILABLE when nobody answers or the answer is no
 */
export async function runControl(
  args: readonly string[],
  deps: ClientDeps,
  signal: AbortSignal,
): Promise<void> {
  const { values, positionals } = read(args);
  const name = positionals.join(" ");
  const command = CONTROL_COMMANDS.find((one) => one.name === name);
  if (values.help === true || (name === "" && args.length === 0))
    return deps.print(helpOf(command === undefined ? CONTROL_COMMANDS : [command]));
  if (command === undefined)
    throw new EdgeSyncError(
      "USAGE",
      `${JSON.stringify(name)} is not a command; expected ${CONTROL_COMMANDS.map((one) => one.name).join(", ")}`,
    );
  const port = values.port === undefined ? deps.port : portValue.parse(values.port);
  if (port === undefined) throw new EdgeSyncError("USAGE", `--port must be ${portValue.allowed}`);
  const ask = (method: string, path: string, body?: unknown): Promise<unknown> =>
    call({ port, method, path, body }, signal);
  const owner = values.owner ?? OWNER;
  if (!isOwner(owner)) throw new EdgeSyncError("USAGE", `--owner must be ${OWNER_FORM}`);
  const order = UPDATE_ORDERS.find((one) => name === `update ${one}`);
  if (order !== undefined) await ask("POST", `/v1/update/${order}`);
  else if (name === "update release") {
    await ask("DELETE", `${HOLDS_PATH}/${owner}`);
  } else if (name === "update hold") {
    const ms = holdFor.parse(values.for ?? "1h");
    if (ms === undefined) throw new EdgeSyncError("USAGE", `--for must be ${holdFor.allowed}`);
    const { reason } = values;
    const asked = { seconds: Math.ceil(ms / 1000), ...(reason !== undefined && { reason }) };
    deps.print(linesOf(await ask("PUT", `${HOLDS_PATH}/${owner}`, asked)));
  } else {
    const once = (): Promise<unknown> => ask("GET", STATUS_PATH);
    const status = await (values.wait === true ? whenOpen(once, signal) : once());
    deps.print(values.json === true ? `${JSON.stringify(status)}\n` : linesOf(status));
  }
}

/** Milliseconds between two looks at the gate. */
const WAIT_PERIOD_MS = 500;

/** The status as soon as the start gate is open, however long that takes: a machine may be cut off for days. */
async function whenOpen(status: () => Promise<unknown>, signal: AbortSignal): Promise<unknown> {
  for (;;) {
    try {
      const document = await status();
      if (isObject(document) && isObject(document["start"]) && document["start"]["reason"] === "ok")
        return document;
    } catch (error) {
      signal.throwIfAborted();
      // It may not be up yet.
      if (codeOf(error) !== "AGENT_UNAVAILABLE") throw error;
    }
    await sleep(WAIT_PERIOD_MS, undefined, { signal });
  }
}

interface Values {
  readonly json?: boolean;
  readonly wait?: boolean;
  readonly help?: boolean;
  readonly port?: string;
  readonly for?: string;
  readonly owner?: string;
  readonly reason?: string;
}

function read(args: readonly string[]): {
  readonly values: Values;
  readonly positionals: readonly string[];
} {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: flag,
        wait: flag,
        help: { ...flag, short: "h" },
        port: text,
        for: text,
        owner: text,
        reason: text,
      },
    });
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : "the options cannot be read";
    throw new EdgeSyncError("USAGE", problem.replace(/\.$/, ""), { cause });
  }
}

function helpOf(commands: readonly (typeof CONTROL_COMMANDS)[number][]): string {
  return commands.map(({ synopsis, summary }) => `${synopsis}\n  ${summary}\n`).join("");
}

interface Call {
  readonly port: number;
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

async function call(what: Call, signal: AbortSignal): Promise<unknown> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  let status: number;
  let body: unknown;
  try {
    const answer = await exchange(what, bounded);
    ({ status } = answer);
    // Not JSON: somebody else listens on the port.
    body = JSON.parse(answer.text);
  } catch (cause) {
    signal.throwIfAborted();
    throw new EdgeSyncError("AGENT_UNAVAILABLE", `nobody answers at ${HOST}:${what.port}`, {
      cause,
    });
  }
  if (status < 300) return body;
  throw new EdgeSyncError("AGENT_UNAVAILABLE", `the answer was ${status}: ${JSON.stringify(body)}`);
}

function exchange(
  { port, method, path, body }: Call,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
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
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
      );
    });
    asked.end(text);
  });
}

/** A document as lines for people; what is empty, or not so, is left out. */
function linesOf(value: unknown, indent = ""): string {
  if (typeof value !== "object" || value === null) return `${indent}${String(value)}\n`;
  return Object.entries(value)
    .filter(([, item]) => !isEmpty(item))
    .map(([key, item]) => {
      const label = Array.isArray(value) ? "-" : `${key}:`;
      if (typeof item !== "object") return `${indent}${label} ${String(item)}\n`;
      return `${indent}${label}\n${linesOf(item, `${indent}  `)}`;
    })
    .join("");
}

function isEmpty(item: unknown): boolean {
  if (item === null || item === undefined) return true;
  return typeof item === "object" && Object.values(item).every((inner) => isEmpty(inner));
}
