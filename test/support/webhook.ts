/** The webhook as its real process, and a client that talks to it as an API server does. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import https from "node:https";
import type { IncomingHttpHeaders } from "node:http";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { TLSSocket } from "node:tls";
import { makeCertificate } from "../../webhook/certificate.ts";
import type { Identity } from "#core/serving-certificate.ts";
import { bareEnvironment } from "./process.ts";
import { temporaryFolder } from "./temporary.ts";

const BIN = new URL("../../bin/edgesync.ts", import.meta.url).pathname;

export interface LogLine {
  readonly msg?: string;
  readonly port?: number;
  readonly level?: string;
  readonly outcome?: string;
  readonly reason?: string;
  readonly [field: string]: unknown;
}

export interface RunningWebhook extends AsyncDisposable {
  readonly port: number;
  readonly metricsPort: number;
  readonly files: Identity;
  readonly lines: readonly LogLine[];
  /** Resolves with the first line, past or to come, that has this message `count` times. */
  logged(message: string, count?: number): Promise<LogLine>;
  /** Swaps the certificate as the kubelet does: a new folder, then one rename of a link. */
  publish(files: Identity): Promise<void>;
  terminate(): void;
  /** The exit status. */
  readonly exited: Promise<number | null>;
}

export const CERTIFICATE_NAMES = { service: "edgesync-webhook", namespace: "edgesync" } as const;

/** A CA and a leaf that also name this machine. @param ageMs how long ago they were made */
export function localCertificate(ageMs = 0): Promise<Identity> {
  const names = ["localhost", "127.0.0.1"];
  return makeCertificate({ ...CERTIFICATE_NAMES, names }, Date.now() - ageMs);
}

/** Starts `edgesync webhook` on free ports of the loopback and waits until it listens. */
export async function startWebhook(
  env: Readonly<Record<string, string>> = {},
  files?: Identity,
  program: string = BIN,
): Promise<RunningWebhook> {
  const webhook = await launchWebhook(env, files, program);
  try {
    await webhook.logged("serving certificate loaded");
  } catch (error) {
    await webhook[Symbol.asyncDispose]();
    throw error;
  }
  return webhook;
}

/** Does not wait for a certificate. */
export async function launchWebhook(
  env: Readonly<Record<string, string>> = {},
  files?: Identity,
  program: string = BIN,
): Promise<RunningWebhook> {
  const served = files ?? (await localCertificate());
  await using undo = new AsyncDisposableStack();
  const folder = undo.use(await temporaryFolder());
  let version = 0;
  const publish = async ({ certificate, key }: Identity): Promise<void> => {
    const data = join(folder.path, `..${version++}`);
    await mkdir(data);
    await writeFile(join(data, "tls.crt"), certificate);
    await writeFile(join(data, "tls.key"), key);
    await symlink(data, join(folder.path, "next"));
    await rename(join(folder.path, "next"), join(folder.path, "..data"));
  };
  await publish(served);
  for (const file of ["tls.crt", "tls.key"])
    await symlink(join("..data", file), join(folder.path, file));

  const child = spawn(process.execPath, [program, "webhook"], {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...bareEnvironment(),
      EDGESYNC_CERTIFICATES: "files",
      EDGESYNC_TLS_DIR: folder.path,
      EDGESYNC_TLS_PORT: "0",
      EDGESYNC_METRICS_PORT: "0",
      EDGESYNC_LISTEN_ADDRESS: "127.0.0.1",
      EDGESYNC_TLS_POLL_INTERVAL: "20ms",
      EDGESYNC_DRAIN_DELAY: "100ms",
      EDGESYNC_IMAGE: "edgesync:test",
      EDGESYNC_REPOSITORY: "https://releases.example",
      EDGESYNC_VAULT_ADDRESS: "https://vault.example",
      ...env,
    },
  });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  undo.defer(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const lines: LogLine[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout }).on("line", (text) => {
    lines.push(JSON.parse(text) as LogLine);
    for (const wake of waiting) wake();
  });
  void exited.then(() => {
    for (const wake of waiting) wake();
  });
  const logged = async (message: string, count = 1): Promise<LogLine> => {
    for (;;) {
      const found = lines.filter(({ msg }) => msg === message)[count - 1];
      if (found !== undefined) return found;
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`the webhook ended without ${JSON.stringify(message)}`);
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const wake = (): void => resolve(undefined);
      waiting.add(wake);
      await promise;
      waiting.delete(wake);
    }
  };
  const port = Number((await logged("admission server listening")).port);
  const metricsPort = Number((await logged("metrics server listening")).port);
  const owned = undo.move();
  return {
    port,
    metricsPort,
    files: served,
    lines,
    logged,
    publish,
    terminate: () => {
      child.kill("SIGTERM");
    },
    exited,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export interface Call {
  readonly port: number;
  readonly path: string;
  readonly ca: string;
  readonly method?: string;
  readonly body?: string;
  readonly type?: string;
  readonly agent?: https.Agent;
  /** Name that the certificate must have. */
  readonly host?: string;
  /** Called when the webhook has accepted the connection: from then on an answer is owed. */
  readonly accepted?: () => void;
}

/** One request over TLS, verified. */
export async function call(options: Call): Promise<Reply> {
  const { port, path, ca, body, type = "application/json", agent, host = "localhost" } = options;
  const request = https.request({
    host: "127.0.0.1",
    port,
    path,
    ca,
    servername: host,
    method: options.method ?? (body === undefined ? "GET" : "POST"),
    agent: agent ?? false,
    headers: {
      Host: host,
      ...(body === undefined
        ? {}
        : { "Content-Type": type, "Content-Length": Buffer.byteLength(body) }),
    },
  });
  request.on("socket", (socket) => {
    const accepted = (): void => options.accepted?.();
    // The agent may hand over one that it has opened for somebody else, and whose handshake is over.
    if (request.reusedSocket || (socket instanceof TLSSocket && socket.authorized)) accepted();
    else socket.once("secureConnect", accepted);
  });
  request.end(body);
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  request.on("error", reject);
  request.on("response", (response) => {
    const chunks: Buffer[] = [];
    response.on("data", (chunk: Buffer) => chunks.push(chunk));
    response.on("error", reject);
    response.on("end", () => {
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        text: Buffer.concat(chunks).toString(),
      });
    });
  });
  return promise;
}
