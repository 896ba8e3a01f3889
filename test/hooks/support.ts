import { chmod, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import process from "node:process";
import type { Clock } from "#core/clock.ts";
import type { HookName, HookTarget } from "#core/hook.ts";
import { eventually, startProgram } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { realClock } from "../support/real-clock.ts";
import { httpServer } from "../support/server.ts";

export interface Call {
  readonly hook: string;
  readonly version: string;
  readonly sequence: number;
  readonly from: string | null;
}

export type Answer = (call: Call) => Promise<Reply> | Reply;
export interface Reply {
  readonly status: number;
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An application that is asked and told on the way of a release, over real HTTP. */
export interface Asked extends AsyncDisposable {
  readonly port: number;
  readonly calls: Call[];
  /** Where its hooks are. */
  readonly target: HookTarget;
  of(hook: HookName | "reload"): readonly Call[];
  /** How it answers from now on; 204 to begin with. */
  answer: Answer;
}

export async function openAsked(): Promise<Asked> {
  const calls: Call[] = [];
  const server = await httpServer((request, response) => {
    void bodyOf(request).then(async (call) => {
      calls.push(call);
      const { status, text = "", headers = {} } = await asked.answer(call);
      response.writeHead(status, headers).end(text);
    });
  });
  const { port } = server;
  const asked: Asked = {
    port,
    calls,
    target: { kind: "http", port, path: "/hooks" },
    of: (hook) => calls.filter((call) => call.hook === hook),
    answer: () => ({ status: 204 }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
  return asked;
}

async function bodyOf(request: IncomingMessage): Promise<Call> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return JSON.parse(text) as Call;
}

/** The machine's own time, so many times faster: ten minutes are over in a moment. */
export function fastClock(factor: number): Clock {
  const start = realClock.now();
  const begun = realClock.monotonic();
  const monotonic = (): number => (realClock.monotonic() - begun) * factor;
  return {
    now: () => start + monotonic(),
    monotonic,
    sleep: (ms, signal) => realClock.sleep(ms / factor, signal),
  };
}

/** A program of an own name, with a child of the same name, that says when it is told to load anew. */
export async function startReloading(folder: string): Promise<{ name: string; program: Program }> {
  const name = `es-${process.pid}-${Math.random().toString(36).slice(2, 6)}`;
  const path = join(folder, name);
  const script = `#!/bin/sh
trap 'echo reloaded' HUP
( trap 'echo the child was told' HUP; while :; do sleep 0.02; done ) &
trap "kill -9 $!" EXIT
trap 'exit 0' TERM
echo ready
while :; do sleep 0.02; done
`;
  await writeFile(path, script);
  await chmod(path, 0o755);
  const program = startProgram(path, []);
  await eventually(
    () => program.output().includes("ready") || undefined,
    () => program.output(),
  );
  return { name, program };
}
