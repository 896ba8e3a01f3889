import { once } from "node:events";
import { createServer as plainServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as tlsServer } from "node:https";
import { connect, createServer as rawServer } from "node:net";
import type { Server, Socket } from "node:net";
import { createServer as rawTlsServer } from "node:tls";
import type { Identity } from "./certificates.ts";

export interface TestServer extends AsyncDisposable {
  readonly port: number;
  /** `https://localhost:<port>` or `http://127.0.0.1:<port>`. */
  readonly url: string;
  /** Connections accepted so far. */
  connections(): number;
  /** Resolves when the other side has closed them all. */
  quiet(): Promise<void>;
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A real HTTP server on a free port of the loopback interface; over TLS when it has an identity. */
export function httpServer(answer: Answer, identity?: Identity): Promise<TestServer> {
  const server = identity === undefined ? plainServer(answer) : tlsServer({ ...identity }, answer);
  return serve(server, identity !== undefined);
}

/** A server that speaks bytes, for what a well-behaved one would not send. */
export function byteServer(
  talk: (socket: Socket) => void,
  identity?: Identity,
): Promise<TestServer> {
  const quiet = (socket: Socket): void => {
    // The other side resets and refuses; that is what these tests are about.
    socket.on("error", () => undefined);
    talk(socket);
  };
  const server = identity === undefined ? rawServer(quiet) : rawTlsServer({ ...identity }, quiet);
  server.on("tlsClientError", () => undefined);
  return serve(server, identity !== undefined);
}

async function serve(server: Server, secure: boolean): Promise<TestServer> {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on("connection", (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("no TCP address");
  const { port } = address;
  return {
    port,
    url: secure ? `https://localhost:${port}` : `http://127.0.0.1:${port}`,
    connections: () => connections,
    async quiet() {
      await Promise.all(Array.from(sockets, (socket) => once(socket, "close")));
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** A port of the loopback interface on which nobody listens. */
export async function closedPort(): Promise<number> {
  await using server = await byteServer(() => undefined);
  return server.port;
}

/** Whether somebody accepts connections on a port of the loopback interface. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
