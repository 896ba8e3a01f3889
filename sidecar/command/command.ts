/** `edgesync status` and `edgesync update …`: they ask the sidecar in whose container, or the agent on whose machine, they run. */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import type { Clock } from "#core/clock.ts";
import { CONTROL_COMMANDS, CONTROL_PORT, CONTROL_STATUSES } from "#core/control.ts";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import { HOLD_LIMIT_MS, OPERATOR, OWNER_FORM, isOwner } from "#core/hold.ts";
import { jsonObject } from "#core/json.ts";
import { nearName } from "#core/near-name.ts";
import { refusal } from "#core/refusal.ts";
import { duration, formatDuration, integer } from "#core/values.ts";
import type { Value } from "#core/values.ts";
import { openAgent } from "./ask.ts";
import type { Agent } from "./ask.ts";
import { whenOpen } from "./gate.ts";
import type { Progress } from "./gate.ts";
import {
  at,
  retriedLine,
  heldLine,
  holdLines,
  linesOf,
  listAt,
  summaryOf,
  updateLines,
  updatesIn,
} from "./words.ts";

export interface CommandDeps {
  /** What the environment says of the control port; `undefined` for nothing. */
  readonly port: number | undefined;
  readonly clock: Clock;
  print(text: string): void;
  /** Standard error. */
  readonly progress: Progress;
}

const portValue = integer(1, 65535);
const holdFor = duration("1s", formatDuration(HOLD_LIMIT_MS));
const waitFor = duration("1s", "8760h");

/** Milliseconds in which the look that was asked for is to be over, and between two glances at it. */
const LOOK_MS = 5_000;
const GLANCE_MS = 100;

type Command = (typeof CONTROL_COMMANDS)[number];

/**
 * @param args from the first word on: `status`, or `update` and what to do
 * @returns the exit status
 */
export async function runCommand(
  args: readonly string[],
  deps: CommandDeps,
  signal: AbortSignal,
): Promise<number> {
  try {
    await run(args, deps, signal);
    return 0;
  } catch (error) {
    const code = codeOf(error);
    const message = error instanceof Error ? error.message : String(error);
    const { exit, remedy } = ERRORS[code];
    deps.progress.write(`edgesync: ${code}: ${message}. ${remedy}\n`);
    return exit;
  }
}

async function run(args: readonly string[], deps: CommandDeps, signal: AbortSignal): Promise<void> {
  const { values, words } = read(args);
  const name = words.join(" ");
  const command = CONTROL_COMMANDS.find((one) => one.name === name);
  if (values["help"] === true)
    return deps.print(helpOf(command === undefined ? CONTROL_COMMANDS : [command]));
  if (command === undefined) throw new EdgeSyncError("USAGE", unknownCommand(name));
  for (const option of Object.keys(values))
    if (!command.synopsis.includes(`--${option}`))
      throw new EdgeSyncError(
        "USAGE",
        `${name} takes no --${option}; expected ${command.synopsis}`,
      );
  const text = (option: string): string | undefined => {
    const value = values[option];
    return typeof value === "string" ? value : undefined;
  };
  const { port, named, channel } = await addressOf(text("config"), text("port"), deps.port);
  const agent = openAgent(port, named, deps.clock);
  const owner = text("owner") ?? OPERATOR;
  if (!isOwner(owner)) throw new EdgeSyncError("USAGE", `--owner must be ${OWNER_FORM}`);
  const tell = (answer: unknown, lines: readonly string[]): void =>
    deps.print(
      values["json"] === true
        ? `${JSON.stringify(answer)}\n`
        : lines.map((line) => `${line}\n`).join(""),
    );
  switch (command.name) {
    case "status": {
      const timeoutMs = parsed("timeout", waitFor, text("timeout"));
      if (timeoutMs !== undefined && values["wait"] !== true)
        throw new EdgeSyncError("USAGE", "--timeout is for --wait");
      const status = await (values["wait"] === true
        ? whenOpen(agent, timeoutMs, deps, signal)
        : agent.status(signal));
      warnOther(status, channel, deps);
      return tell(status, [...summaryOf(status), "", linesOf(status).trimEnd()]);
    }
    case "update hold": {
      const forMs = parsed("for", holdFor, text("for") ?? "1h") ?? 0;
      const reason = text("reason");
      const asked = { seconds: Math.ceil(forMs / 1000), ...(reason !== undefined && { reason }) };
      const answer = await agent.hold(owner, asked, signal);
      // A trial that has begun goes on: who holds because of it sees that it does.
      tell(answer, [...holdLines([answer]), ...updateLines(await agent.status(signal))]);
      return warnUnsaved(answer, "forgets the hold", deps);
    }
    case "update release":
      return release(agent, owner, tell, deps, signal);
    case "update retry":
      return retry(agent, tell, signal);
    case "update look":
      return look(agent, tell, deps, signal);
    default:
      return command satisfies never;
  }
}

type Tell = (answer: unknown, lines: readonly string[]) => void;

function warnUnsaved(answer: unknown, what: string, { progress }: CommandDeps): void {
  if (at(answer, "saved") === false)
    progress.write(
      `edgesync: warning: the payload volume does not take it (is it full?), so a restart of the agent ${what}\n`,
    );
}

/** Of two agents with the same control-port the first has it, and the second is not heard of. */
function warnOther(status: unknown, channel: unknown, { progress }: CommandDeps): void {
  const followed = at(status, "update", "channel");
  if (typeof channel === "string" && typeof followed === "string" && channel !== followed)
    progress.write(
      `edgesync: warning: who answers follows ${followed}, and the configuration names ${channel}: is it another agent with the same control-port, or has it not been restarted?\n`,
    );
}

/** @throws EdgeSyncError NOTHING_TO_DO */
async function release(
  agent: Agent,
  owner: string,
  tell: Tell,
  deps: CommandDeps,
  signal: AbortSignal,
): Promise<void> {
  const answer = await agent.release(owner, signal);
  const holds = listAt(await agent.holds(signal), "holds");
  const others = heldLine(holds);
  // What is released and holds all the same is a file.
  const isFile = holds.some((hold) => at(hold, "owner") === owner);
  const file = isFile
    ? `${owner} holds by a file, ${owner}.hold or one that names it: remove that`
    : "";
  if (at(answer, "released") !== true)
    throw new EdgeSyncError(
      "NOTHING_TO_DO",
      isFile ? file : [`there is no hold of ${owner}`, ...others].join("; "),
    );
  tell(answer, [
    [`the hold of ${owner} is released`, ...(isFile ? [file] : []), ...others].join("; "),
  ]);
  warnUnsaved(answer, "brings the hold back", deps);
}

/** @throws EdgeSyncError NOTHING_TO_DO */
async function retry(agent: Agent, tell: Tell, signal: AbortSignal): Promise<void> {
  const answer = await agent.order("retry", signal);
  const status = await agent.status(signal);
  const blocked = listAt(answer, "payloads").flatMap((one) => at(one, "blocked") ?? []);
  const failing = updatesIn(status).some(([, update]) => at(update, "error") !== undefined);
  if (blocked.length === 0 && !failing)
    throw new EdgeSyncError(
      "NOTHING_TO_DO",
      ["nothing was blocked", ...updateLines(status)].join("; "),
    );
  tell(
    answer,
    blocked.length === 0
      ? ["nothing was blocked; what failed is tried again now", ...updateLines(status)]
      : blocked.map((one) => retriedLine(one)),
  );
}

/** Asks for a look, and waits a little for what comes of it. */
async function look(
  agent: Agent,
  tell: Tell,
  { clock }: CommandDeps,
  signal: AbortSignal,
): Promise<void> {
  const marks = (status: unknown): readonly string[] =>
    updatesIn(status).map(([, update]) =>
      JSON.stringify([at(update, "lastLook"), at(update, "error")]),
    );
  const before = marks(await agent.status(signal));
  const answer = await agent.order("look", signal);
  const end = clock.monotonic() + LOOK_MS;
  for (;;) {
    const status = await agent.status(signal);
    const isOver = marks(status).every((mark, index) => mark !== before[index]);
    if (isOver || clock.monotonic() >= end) {
      const asked = isOver ? [] : ["a look has been asked for, and none has gone well since"];
      return tell(answer, [...asked, ...updateLines(status)]);
    }
    await clock.sleep(GLANCE_MS, signal);
  }
}

/** @throws EdgeSyncError USAGE, CONFIG_INVALID */
async function addressOf(
  config: string | undefined,
  stated: string | undefined,
  environment: number | undefined,
): Promise<{ readonly port: number; readonly named: string; readonly channel?: unknown }> {
  if (stated !== undefined && config !== undefined)
    throw new EdgeSyncError("USAGE", "--config and --port both say where to ask; give one of them");
  const port = parsed("port", portValue, stated);
  if (port !== undefined) return { port, named: "as --port says" };
  if (config !== undefined)
    return { ...(await agentIn(config)), named: `the control-port of ${config}` };
  return environment === undefined
    ? { port: CONTROL_PORT, named: "the port of an agent whose configuration names none" }
    : { port: environment, named: "as EDGESYNC_CONTROL_PORT says" };
}

/** Of a daemon's configuration nothing else counts here, nor who has written it. @throws EdgeSyncError CONFIG_INVALID */
async function agentIn(
  path: string,
): Promise<{ readonly port: number; readonly channel: unknown }> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const why = cause instanceof Error ? `: ${cause.message}` : "";
    throw new EdgeSyncError("CONFIG_INVALID", `${path} cannot be read${why}`, { cause });
  }
  const object = jsonObject(text);
  if (object === undefined)
    throw new EdgeSyncError("CONFIG_INVALID", `${path} is not the JSON object of a daemon`);
  const { "control-port": stated = CONTROL_PORT } = object;
  const isText = typeof stated === "string" || typeof stated === "number";
  const port = isText ? portValue.parse(String(stated)) : undefined;
  if (port !== undefined) return { port, channel: object["channel"] };
  throw new EdgeSyncError("CONFIG_INVALID", `${path}: control-port must be ${portValue.allowed}`);
}

/** @throws EdgeSyncError USAGE */
function parsed<T>(option: string, value: Value<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined;
  const found = value.parse(text);
  if (found === undefined)
    throw new EdgeSyncError(
      "USAGE",
      `--${option} is ${JSON.stringify(text)}; ${refusal(value, text)}`,
    );
  return found;
}

function read(args: readonly string[]): {
  readonly values: Readonly<Record<string, string | boolean | undefined>>;
  readonly words: readonly string[];
} {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    const { values, positionals: words } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: flag,
        wait: flag,
        help: { ...flag, short: "h" },
        config: text,
        port: text,
        timeout: text,
        for: text,
        owner: text,
        reason: text,
      },
    });
    return { values, words };
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : "the options cannot be read";
    throw new EdgeSyncError("USAGE", problem.replace(/\.$/, ""), { cause });
  }
}

function unknownCommand(name: string): string {
  const names = CONTROL_COMMANDS.map((one) => one.name);
  const near = nearName(name, names);
  return `${JSON.stringify(name)} is not a command; ${near === undefined ? `expected ${names.join(", ")}` : `perhaps ${near} is meant`}`;
}

function helpOf(commands: readonly Command[]): string {
  const statuses = CONTROL_STATUSES.map(([status, means]) => `  ${status}  ${means}\n`).join("");
  return `${commands.map(({ synopsis, summary }) => `${synopsis}\n  ${summary}\n`).join("")}
Without --config and --port, EDGESYNC_CONTROL_PORT or else ${CONTROL_PORT} is asked. Exit status:
${statuses}`;
}
