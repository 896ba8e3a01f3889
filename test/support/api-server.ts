/**
 * A part of the Kubernetes API server, over real TLS: objects that can be read, listed, patched and watched, and Events that can be made, with resource versions, conflicts and
 * bearer tokens, and what goes wrong with one: refusals, outages and a clock of its own.
 */
import { createServer } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import patches from "fast-json-patch";
import { localCertificate } from "./webhook.ts";

export interface Stored {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly resourceVersion?: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

export interface Asked {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly watch: boolean;
}

export interface Refusal {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ApiServer extends AsyncDisposable {
  /** Puts an object at a path such as `/api/v1/namespaces/edgesync/secrets/tls`, as somebody else would. */
  put(path: string, object: Stored): void;
  get(path: string): Stored;
  /** Deletes an object, as somebody else would. */
  delete(path: string): void;
  /** Bodies of what was made by POST, oldest first. */
  readonly made: readonly unknown[];
  /** Every object that was ever at a path, oldest first. */
  history(path: string): readonly Stored[];
  readonly requests: readonly Asked[];
  /** Asked before each request is answered. */
  refuse: (asked: Asked) => Refusal | undefined;
  /** While true, no request is answered and no connection lives. */
  setDown(down: boolean): void;
  /** Milliseconds that its clock is ahead of ours. */
  skewMs: number;
  /** Milliseconds that each request takes. */
  delayMs: number;
  /** Writes a kubeconfig; its user has the one token that is accepted. */
  kubeconfig(folder: string): Promise<string>;
}

const TOKEN = "the-token-of-the-test";

export async function openApiServer(): Promise<ApiServer> {
  const { ca, certificate, key } = await localCertificate();
  const objects = new Map<string, Stored[]>();
  const watchers = new Set<{ path: string; name: string | null; response: ServerResponse }>();
  const sockets = new Set<Socket>();
  const requests: Asked[] = [];
  const made: unknown[] = [];
  let version = 100;
  let down = false;

  const latest = (path: string): Stored | undefined => objects.get(path)?.at(-1);
  const store = (path: string, object: Stored): Stored => {
    const type = objects.has(path) ? "MODIFIED" : "ADDED";
    const metadata = { ...object.metadata, resourceVersion: String(++version) };
    const stored = { ...object, metadata };
    objects.set(path, [...(objects.get(path) ?? []), stored]);
    for (const watcher of watchers)
      if (watches(watcher, path)) send(watcher.response, type, stored);
    return stored;
  };

  const server = createServer({ cert: certificate, key }, (request, response) => {
    void answer(request, response).catch(() => response.destroy());
  });
  const api: ApiServer = {
    put: (path, object) => void store(path, object),
    get(path) {
      const object = latest(path);
      if (object === undefined) throw new Error(`there is no ${path}`);
      return object;
    },
    delete(path) {
      const object = latest(path);
      objects.delete(path);
      for (const watcher of watchers)
        if (object !== undefined && watches(watcher, path))
          send(watcher.response, "DELETED", object);
    },
    made,
    history: (path) => objects.get(path) ?? [],
    requests,
    refuse: () => undefined,
    setDown(now) {
      down = now;
      if (down) for (const socket of sockets) socket.destroy();
    },
    skewMs: 0,
    delayMs: 0,
    async kubeconfig(folder) {
      const path = join(folder, "kubeconfig.json");
      const { port } = server.address() as AddressInfo;
      const data = Buffer.from(ca).toString("base64");
      const config = {
        apiVersion: "v1",
        kind: "Config",
        clusters: [
          {
            name: "test",
            cluster: {
              server: `https://127.0.0.1:${port}`,
              "certificate-authority-data": data,
            },
          },
        ],
        users: [{ name: "test", user: { token: TOKEN } }],
        contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
        "current-context": "test",
      };
      await writeFile(path, JSON.stringify(config));
      return path;
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const { pathname: path, searchParams } = new URL(request.url ?? "/", "https://localhost");
    const asked = { method: request.method ?? "", path, watch: searchParams.has("watch") };
    requests.push(asked);
    if (api.delayMs > 0) await sleep(api.delayMs);
    response.setHeader("Date", new Date(Date.now() + api.skewMs).toUTCString());
    const refusal =
      request.headers.authorization === `Bearer ${TOKEN}` ? api.refuse(asked) : { status: 401 };
    if (refusal !== undefined) {
      for (const [name, value] of Object.entries(refusal.headers ?? {}))
        response.setHeader(name, value);
      return status(response, refusal.status);
    }
    if (asked.watch) {
      const selected = searchParams.get("fieldSelector")?.replace(/^metadata\.name=/, "");
      const watcher = { path, name: selected ?? null, response };
      response.writeHead(200, { "Content-Type": "application/json" });
      response.flushHeaders();
      for (const at of objects.keys())
        if (watches(watcher, at)) send(response, "ADDED", api.get(at));
      watchers.add(watcher);
      response.once("close", () => watchers.delete(watcher));
      return;
    }
    if (asked.method === "POST" && path.endsWith("/events")) {
      made.push(JSON.parse(body));
      return reply(response, 201, JSON.parse(body) as object);
    }
    const object = latest(path);
    if (object === undefined && asked.method === "GET" && /\/(nodes|configmaps)$/.test(path)) {
      const selected = searchParams.get("fieldSelector")?.replace(/^metadata\.name=/, "");
      const items = [...objects.keys()]
        .filter((at) => watches({ path, name: selected ?? null }, at))
        .map((at) => latest(at));
      return reply(response, 200, { apiVersion: "v1", kind: "List", metadata: {}, items });
    }
    if (object === undefined) return status(response, 404);
    if (asked.method === "GET") return reply(response, 200, object);
    if (asked.method !== "PATCH") return status(response, 405);
    const patched = apply(object, request.headers["content-type"], JSON.parse(body));
    if (patched === undefined) return status(response, 415);
    const { resourceVersion } = patched.metadata;
    if (resourceVersion !== object.metadata.resourceVersion) return status(response, 409);
    return reply(response, 200, store(path, patched));
  }

  server.on("connection", (socket) => {
    if (down) socket.destroy();
    sockets.add(socket);
    socket.on("error", () => {
      // Its close says enough.
    });
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return api;
}

function watches(watcher: { path: string; name: string | null }, path: string): boolean {
  // Of all namespaces: the kind alone, as in /api/v1/configmaps.
  const [, base, kind] = /^(.*)\/([a-z]+)$/.exec(watcher.path) ?? [];
  const inner = path.replace(/\/namespaces\/[^/]+\/(?=[^/]+\/[^/]+$)/, "/");
  const candidates = inner.startsWith(`${base}/${kind}/`) ? [path, inner] : [path];
  return candidates.some(
    (at) =>
      at.startsWith(`${watcher.path}/`) &&
      (watcher.name === null || watcher.name === at.slice(watcher.path.length + 1)),
  );
}

function send(response: ServerResponse, type: string, object: Stored): void {
  response.write(`${JSON.stringify({ type, object })}\n`);
}

function reply(response: ServerResponse, code: number, object: object): void {
  response.writeHead(code, { "Content-Type": "application/json" });
  response.end(JSON.stringify(object));
}

function status(response: ServerResponse, code: number): void {
  reply(response, code, { kind: "Status", apiVersion: "v1", status: "Failure", code });
}

function apply(object: Stored, type: string | undefined, patch: unknown): Stored | undefined {
  const copy = structuredClone(object);
  if (type === "application/json-patch+json")
    return patches.applyPatch(copy, patch as patches.Operation[], true).newDocument;
  if (type === "application/merge-patch+json") return merge(copy, patch) as Stored;
  return undefined;
}

/** RFC 7386. */
function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged: Record<string, unknown> = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  return merged;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
