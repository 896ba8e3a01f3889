/**
 * What the pods of the test talk to, in a pod of its own and reached by its IP address: a publisher and its repository, which are the image's own
 * programs; a Vault, or the way to one elsewhere, over TLS; and ears for what applications tell. The test steers it through the API server.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, request as plainRequest } from "node:http";
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer, request as tlsRequest } from "node:https";
import { isIPv6 } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { json, text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { sleepBy } from "#core/clock.ts";
import { openDevBroker } from "../../../demo/vault/broker.ts";
import { openDevVault } from "../../../demo/vault/server.ts";
import { makeCertificate } from "../../../webhook/certificate.ts";
import { FILES, KEY_HEADER, PORTS } from "../protocol.ts";
import type { CommandResult, SiteState, Start, Told, Tree, VaultAnswer } from "../protocol.ts";
import { openTunnel } from "./tunnel.ts";

const DATA = "/data";
const PROGRAM = "/app/edgesync.mjs";

interface Upstream {
  readonly url: string;
  readonly token: string;
  /** PEM; the public authorities when absent. */
  readonly ca?: string;
}

/** The Vault behind the relay: the development one, unless there is a real one. */
async function openUpstream(env: NodeJS.ProcessEnv): Promise<Upstream> {
  const url = env["E2E_VAULT_ADDR"] ?? "";
  const ca = env["E2E_VAULT_CA"] ?? "";
  if (url !== "") return { url, token: env["E2E_VAULT_TOKEN"] ?? "", ...(ca !== "" && { ca }) };
  const clock = { now: Date.now, monotonic: () => performance.now(), sleep: sleepBy(sleep) };
  const vault = await openDevVault({ clock });
  return { url: vault.url, token: vault.rootToken };
}

function call(
  target: URL,
  options: { method?: string; headers?: IncomingMessage["headers"]; ca?: string },
): ReturnType<typeof plainRequest> {
  return (target.protocol === "https:" ? tlsRequest : plainRequest)(target, options);
}

/** Hands every request on to another server. */
function relay(upstream: () => Pick<Upstream, "url" | "ca">): RequestListener {
  return (incoming, response) => {
    const { url: to, ca } = upstream();
    const target = new URL(incoming.url ?? "/", to);
    const headers = { ...incoming.headers, host: target.host };
    const method = incoming.method ?? "GET";
    const outgoing = call(target, { method, headers, ...(ca !== undefined && { ca }) });
    outgoing.once("error", () => response.destroy());
    outgoing.once("response", (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    incoming.pipe(outgoing);
  };
}

async function listen(server: Server, port: number, host?: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
}

/** Bytes that do not compress, the same for every version but for a few places. */
function contents(version: string, bytes: number): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at < bytes; at += 32) {
    const seed = at % 262_144 === 0 ? `${at} ${version}` : `${at}`;
    blocks.push(createHash("sha256").update(seed).digest());
  }
  return Buffer.concat(blocks, bytes);
}

async function makeTree({ folder, version, healthy, bytes }: Tree): Promise<void> {
  const path = join(DATA, folder);
  await mkdir(path, { recursive: true });
  await copyFile(join(FILES, "app.mjs"), join(path, "app.mjs"));
  await writeFile(join(path, "version.txt"), `${version}\n`);
  await writeFile(join(path, "model.bin"), contents(version, bytes));
  if (!healthy) await writeFile(join(path, "broken"), "");
}

/** Runs the image's program in the data folder. */
async function run(args: readonly string[]): Promise<CommandResult> {
  const child = spawn(process.execPath, [PROGRAM, ...args], { cwd: DATA });
  const texts = { output: "", errors: "" };
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (texts.output += chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (texts.errors += chunk));
  const code = await new Promise<number>((resolve) => {
    child.once("error", () => resolve(-1));
    child.once("close", (status) => resolve(status ?? -1));
  });
  return { done: true, code, ...texts, at: Date.now() };
}

async function askVault(
  { url, token, ca }: Upstream,
  { method, path, body }: { method: string; path: string; body?: object },
): Promise<VaultAnswer> {
  const target = new URL(`/v1/${path}`, url);
  const headers = { "x-vault-token": token, "content-type": "application/json" };
  return await new Promise((resolve, reject) => {
    const outgoing = call(target, { method, headers, ...(ca !== undefined && { ca }) });
    outgoing.setTimeout(10_000, () => outgoing.destroy(new Error("no answer within 10 s")));
    outgoing.once("error", reject);
    outgoing.once("response", (answer) => {
      text(answer).then((said) => resolve({ status: answer.statusCode ?? 0, body: said }), reject);
    });
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Status of a URL, or why there is none: whether a pod reaches an API server. */
async function reach(url: string): Promise<{ status: number; error?: string }> {
  const ca = await readFile("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "utf8");
  return await new Promise((resolve) => {
    const outgoing = call(new URL(url), { ca });
    outgoing.setTimeout(5_000, () => outgoing.destroy(new Error("no answer within 5 s")));
    outgoing.once("error", ({ message }) => resolve({ status: 0, error: message }));
    outgoing.once("response", (answer) => {
      answer.resume();
      resolve({ status: answer.statusCode ?? 0 });
    });
    outgoing.end();
  });
}

async function main(env: NodeJS.ProcessEnv): Promise<void> {
  const ip = env["E2E_POD_IP"] ?? "";
  const host = isIPv6(ip) ? `[${ip}]` : ip;
  const names = { service: "site", namespace: "e2e", names: [ip] };
  const { ca, certificate: cert, key } = await makeCertificate(names, Date.now());
  await writeFile(join(DATA, "tls.crt"), cert);
  await writeFile(join(DATA, "tls.key"), key, { mode: 0o600 });
  const broker = await openDevBroker();
  let upstream = await openUpstream(env);
  const tunnel = openTunnel();
  await listen(
    createTlsServer(
      { cert, key },
      relay(() => upstream),
    ),
    PORTS.vault,
  );
  await listen(createServer(relay(() => broker)), PORTS.broker);
  await listen(createServer(tunnel.listener), PORTS.tunnel, "127.0.0.1");

  const platform = `${process.platform}-${process.arch}`;
  const starts: Start[] = [];
  const commands: CommandResult[] = [];
  // One after the other: they change one repository.
  let last: Promise<unknown> = Promise.resolve();
  const queue = (args: readonly string[]): { id: number } => {
    const id = commands.push({ done: false }) - 1;
    last = last.then(async () => {
      commands[id] = await run(args);
    });
    return { id };
  };
  const routes: Readonly<Record<string, (body: never, id: number) => unknown>> = {
    "GET /state": (): SiteState => ({ host, platform, ca, now: Date.now(), starts }),
    "POST /run": ({ args }: { args: readonly string[] }) => queue(args),
    "GET /run": (_, id) => commands[id],
    "POST /serve": () => {
      const where = ["--host", isIPv6(ip) ? "::" : "0.0.0.0", "--port", String(PORTS.repository)];
      const pair = ["--tls-cert", "tls.crt", "--tls-key", "tls.key"];
      // For as long as the pod.
      void run(["serve", "repository", ...where, ...pair]).then(({ errors }) =>
        process.stderr.write(`serve has ended: ${errors}\n`),
      );
      return {};
    },
    "GET /root": () => readFile(join(DATA, "repository", "metadata", "1.root.json"), "utf8"),
    "POST /tree": (tree: Tree) => makeTree(tree),
    "POST /vault": (ask: { method: string; path: string }) => askVault(upstream, ask),
    // From now on Vault is where the test is.
    "POST /tunnel": () => {
      upstream = { url: `http://127.0.0.1:${PORTS.tunnel}`, token: upstream.token };
    },
    "GET /asked": () => tunnel.take(),
    "POST /told": (told: Told) => tunnel.give(told),
    "POST /reach": ({ url }: { url: string }) => reach(url),
    "GET /broker": () => ({ ...broker.admin, url: broker.url, users: [...broker.users.keys()] }),
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [path = "", id = ""] = (request.url ?? "").slice(1).split("/");
    const body = request.method === "POST" ? await json(request) : {};
    if (path === "started") {
      const { lateMs, ...start } = body as Start & { lateMs: number };
      starts.push({ ...start, at: Date.now() - lateMs });
      response.writeHead(204).end();
      return;
    }
    const route = routes[`${request.method} /${path}`];
    if (route === undefined || request.headers[KEY_HEADER] !== env["E2E_KEY"]) {
      response.writeHead(404).end();
      return;
    }
    const result = await route(body as never, Number(id));
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(result ?? {}));
  };
  const control = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
      if (!response.headersSent) response.writeHead(500).end(why);
    });
  });
  await listen(control, PORTS.control);
}

process.once("SIGTERM", () => process.exit(0));
await main(process.env);
