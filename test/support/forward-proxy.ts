/** A real proxy on loopback: CONNECT for what is behind TLS, requests in the clear passed on. It alone knows the hosts behind it. */
import { createServer, request as plainRequest } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import type { Identity } from "./certificates.ts";

export interface ForwardProxy extends AsyncDisposable {
  readonly port: number;
  /** What was asked for: `CONNECT host:port`, or the method and address of a request in the clear. */
  readonly asked: readonly string[];
  /** Values of `proxy-authorization`, one for each of `asked`. */
  readonly authorizations: readonly (string | undefined)[];
  /** Headers of the requests that were passed on in the clear. */
  readonly headers: readonly IncomingMessage["headers"][];
}

export interface ForwardProxyOptions {
  /** Ports of this machine by host, for hosts that nobody else knows; others are taken as they are. */
  readonly hosts?: Readonly<Record<string, number>>;
  /** What `proxy-authorization` must be. */
  readonly authorization?: string;
  readonly identity?: Identity;
  /** Answers every CONNECT with this status. */
  readonly status?: number;
}

export async function openForwardProxy(options: ForwardProxyOptions = {}): Promise<ForwardProxy> {
  const { hosts = {}, authorization, identity, status } = options;
  const asked: string[] = [];
  const authorizations: (string | undefined)[] = [];
  const headers: IncomingMessage["headers"][] = [];
  const sockets = new Set<Socket>();

  const note = (request: IncomingMessage): boolean => {
    asked.push(`${request.method} ${request.url}`);
    authorizations.push(request.headers["proxy-authorization"]);
    return authorization === undefined || request.headers["proxy-authorization"] === authorization;
  };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const allowed = note(request);
    headers.push(request.headers);
    if (!allowed) {
      response.writeHead(407, { "proxy-authenticate": "Basic" }).end();
      return;
    }
    const onward = plainRequest(request.url ?? "", { headers: request.headers, agent: false });
    onward.on("error", () => response.writeHead(502).end());
    onward.on("response", (from) => {
      response.writeHead(from.statusCode ?? 0, from.headers);
      from.pipe(response);
    });
    onward.end();
  };
  const server: Server =
    identity === undefined ? createServer(answer) : createTlsServer({ ...identity }, answer);
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).once("close", () => sockets.delete(socket));
  });
  server.on("connect", (request: IncomingMessage, client: Socket) => {
    client.on("error", () => undefined);
    const refused = note(request) ? status : 407;
    if (refused !== undefined) {
      client.end(`HTTP/1.1 ${refused} No\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    const [, host = "", port] = /^\[?([^\]]+)\]?:(\d+)$/.exec(request.url ?? "") ?? [];
    const mapped = hosts[host];
    const onward =
      mapped === undefined ? connect(Number(port), host) : connect(mapped, "127.0.0.1");
    sockets.add(onward);
    onward.once("close", () => sockets.delete(onward));
    onward.on("error", () => client.destroy());
    onward.once("connect", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.pipe(client).pipe(onward);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    authorizations,
    headers,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
