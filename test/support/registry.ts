/**
 * A small registry after the OCI distribution specification 1.1: blobs by digest with Range, uploads by POST and PUT, manifests by tag
 * and digest, logins by basic or token, and blobs that lie with a storage of their own.
 */
import { createHash, randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import type { Identity } from "./certificates.ts";
import { httpServer } from "./server.ts";

export interface RegistryRequest {
  readonly to: "registry" | "storage" | "login";
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  status: number;
}

export interface TestRegistry extends AsyncDisposable {
  /** `localhost:<port>` or `127.0.0.1:<port>`. */
  readonly host: string;
  /** Where an address in it begins: `oci://<host>` or `oci+http://<host>`. */
  readonly url: string;
  readonly requests: RegistryRequest[];
  readonly blobs: Map<string, Buffer>;
  /** Manifests by digest. */
  readonly manifests: Map<string, Buffer>;
  /** Digests by `<name>:<tag>`, in the order in which they were set. */
  readonly tags: Map<string, string>;
  /** Makes the next answer of the storage that is longer break off after so many bytes. */
  breakAfter: number | undefined;
  /** Path of the answer that broke off. */
  readonly broken: string | undefined;
  /** No token that was given is good any more. */
  revoke(): void;
  /** Called before each answer; a status that it returns is the answer. */
  intercept: (request: RegistryRequest) => number | undefined;
}

export interface TestRegistryOptions {
  readonly identity?: Identity;
  readonly login?: "basic" | "token" | "anonymous-token";
  /** `<username>:<password>` that a login needs. */
  readonly account?: string;
  /** Whether blobs are to be had from the storage only. */
  readonly storage?: true;
  readonly tokenLifeS?: number;
}

const digestOf = (bytes: Buffer): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

export async function openTestRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const { identity, login, account = "robot:secret" } = options;
  const requests: RegistryRequest[] = [];
  const blobs = new Map<string, Buffer>();
  const manifests = new Map<string, Buffer>();
  const tags = new Map<string, string>();
  const uploads = new Set<string>();
  const tokens = new Map<string, { readonly scope: string; readonly until: number }>();
  const basic = `Basic ${Buffer.from(account).toString("base64")}`;

  let broken: string | undefined;

  const note = (
    to: RegistryRequest["to"],
    { method = "", url: path = "", headers }: IncomingMessage,
    response: ServerResponse,
  ): number | undefined => {
    const { authorization, range } = headers;
    const entry: RegistryRequest = { to, method, path, authorization, range, status: 0 };
    requests.push(entry);
    response.on("finish", () => (entry.status = response.statusCode));
    return registry.intercept(entry);
  };

  const storage = await httpServer((request, response) => {
    const status = note("storage", request, response);
    const bytes = blobs.get(
      /^\/(sha256:[0-9a-f]+)\?signature=x$/.exec(request.url ?? "")?.[1] ?? "",
    );
    if (status !== undefined) response.writeHead(status).end();
    // As object stores do when both a signature and a header ask for the same.
    else if (request.headers.authorization !== undefined) response.writeHead(400).end();
    else if (bytes !== undefined && bytes.length > (registry.breakAfter ?? Infinity)) {
      broken = request.url;
      // In good order, so that all of them arrive: a reset may take bytes back that are on their way.
      response.writeHead(200).end(bytes.subarray(0, registry.breakAfter));
      registry.breakAfter = undefined;
    } else sendBytes(bytes, request, response);
  }, identity);

  const tokenServer = await httpServer((request, response) => {
    const status = note("login", request, response);
    const url = new URL(request.url ?? "", "http://x");
    const { authorization } = request.headers;
    if (status !== undefined) response.writeHead(status).end();
    else if (login === "token" && authorization !== basic) response.writeHead(401).end();
    else if (url.searchParams.get("service") !== "test registry") response.writeHead(400).end();
    else {
      const token = randomUUID();
      const life = options.tokenLifeS ?? 300;
      const until = Date.now() + life * 1000;
      tokens.set(token, { scope: url.searchParams.get("scope") ?? "", until });
      response.end(JSON.stringify({ token, expires_in: life }));
    }
  }, identity);

  function allowed(request: IncomingMessage, name: string): boolean {
    const { authorization = "" } = request.headers;
    if (login === undefined) return true;
    if (login === "basic") return authorization === basic;
    const held = tokens.get(authorization.replace(/^Bearer /, ""));
    const action = request.method === "GET" || request.method === "HEAD" ? "pull" : "push";
    const [, of, actions = ""] = /^repository:([^:]+):(.*)$/.exec(held?.scope ?? "") ?? [];
    return (
      held !== undefined &&
      Date.now() < held.until &&
      of === name &&
      actions.split(",").includes(action)
    );
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", "http://x");
    const [, name = "", kind, reference = ""] =
      /^\/v2\/(.+?)\/(blobs|manifests)\/(.+)$/.exec(url.pathname) ?? [];
    const body = await buffer(request);
    if (!allowed(request, name)) {
      const challenge =
        login === "basic"
          ? 'Basic realm="test"'
          : `Bearer realm="${tokenServer.url}/token",service="test registry",scope="repository:${name}:pull"`;
      response.writeHead(401, { "www-authenticate": challenge });
      response.end(JSON.stringify({ errors: [{ code: "UNAUTHORIZED" }] }));
    } else if (kind === "blobs") answerBlob({ name, reference, url, body }, request, response);
    else if (kind === "manifests") answerManifest({ name, reference, body }, request, response);
    else response.writeHead(404).end();
  }

  function answerBlob(
    { name, reference, url, body }: { name: string; reference: string; url: URL; body: Buffer },
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const { method } = request;
    if (method === "POST" && reference === "uploads/") {
      const id = randomUUID();
      uploads.add(id);
      // Relative, and with a state that is to be kept: both are allowed, and both occur.
      response.writeHead(202, { location: `/v2/${name}/blobs/uploads/${id}?_state=a%2Bb` }).end();
      return;
    }
    if (method === "PUT") {
      const id = reference.replace("uploads/", "");
      const digest = url.searchParams.get("digest") ?? "";
      if (!uploads.delete(id) || url.searchParams.get("_state") !== "a+b")
        fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
      else if (digestOf(body) !== digest) fail(response, 400, "DIGEST_INVALID");
      else {
        blobs.set(digest, body);
        response.writeHead(201, { location: `/v2/${name}/blobs/${digest}` }).end();
      }
      return;
    }
    const bytes = blobs.get(reference);
    if (bytes === undefined) fail(response, 404, "BLOB_UNKNOWN");
    else if (method === "HEAD") response.writeHead(200, { "content-length": bytes.length }).end();
    else if (options.storage) {
      const location = `${storage.url}/${reference}?signature=x`;
      response.writeHead(307, { location }).end();
    } else sendBytes(bytes, request, response);
  }

  function answerManifest(
    { name, reference, body }: { name: string; reference: string; body: Buffer },
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    if (request.method === "PUT") {
      const { config, layers } = JSON.parse(body.toString()) as {
        config: { digest: string };
        layers: { digest: string; size: number }[];
      };
      const missing = [config, ...layers].some(({ digest }) => !blobs.has(digest));
      const wrong = layers.some(({ digest, size }) => blobs.get(digest)?.length !== size);
      if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(reference))
        fail(response, 400, "TAG_INVALID");
      else if (missing || wrong) fail(response, 400, "MANIFEST_BLOB_UNKNOWN");
      else {
        const digest = digestOf(body);
        manifests.set(digest, body);
        tags.delete(`${name}:${reference}`);
        tags.set(`${name}:${reference}`, digest);
        response.writeHead(201, { "docker-content-digest": digest }).end();
      }
      return;
    }
    const digest = reference.startsWith("sha256:") ? reference : tags.get(`${name}:${reference}`);
    const bytes = manifests.get(digest ?? "");
    if (digest === undefined || bytes === undefined) fail(response, 404, "MANIFEST_UNKNOWN");
    else if (request.headers["if-none-match"] === `"${digest}"`)
      response.writeHead(304, { etag: `"${digest}"` }).end();
    else {
      const type = "application/vnd.oci.image.manifest.v1+json";
      const accepted = (request.headers.accept ?? "").includes(type);
      if (!accepted) fail(response, 404, "MANIFEST_UNKNOWN");
      else {
        const headers = { etag: `"${digest}"`, "docker-content-digest": digest };
        response.writeHead(200, {
          ...headers,
          "content-type": type,
          "content-length": bytes.length,
        });
        response.end(request.method === "HEAD" ? undefined : bytes);
      }
    }
  }

  const server = await httpServer((request, response) => {
    const status = note("registry", request, response);
    if (status !== undefined) {
      request.resume();
      response.writeHead(status).end();
    } else answer(request, response).catch(() => response.destroy());
  }, identity);
  const host = new URL(server.url).host;
  const registry: TestRegistry = {
    host,
    url: `${identity === undefined ? "oci+http" : "oci"}://${host}`,
    requests,
    blobs,
    manifests,
    tags,
    breakAfter: undefined,
    get broken() {
      return broken;
    },
    revoke: () => tokens.clear(),
    intercept: () => undefined,
    async [Symbol.asyncDispose]() {
      for (const one of [server, storage, tokenServer]) await one[Symbol.asyncDispose]();
    },
  };
  return registry;
}

function fail(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] }));
}

function sendBytes(
  bytes: Buffer | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  if (bytes === undefined) {
    response.writeHead(404).end();
    return;
  }
  const asked = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (asked === null) {
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return;
  }
  const start = Number(asked[1]);
  const end = asked[2] ? Math.min(Number(asked[2]) + 1, bytes.length) : bytes.length;
  if (start >= bytes.length)
    response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
  else {
    response.writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${bytes.length}` });
    response.end(bytes.subarray(start, end));
  }
}
