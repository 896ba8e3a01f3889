/** Bounds of the servers: a stranger's idle connections must not keep those out who have something to ask. */
import { createServer } from "node:http";
import type { RequestListener, Server } from "node:http";
import type { Socket } from "node:net";

/** Milliseconds for a request to arrive; the kubelet needs one packet. */
const REQUEST_TIMEOUT_MS = 5_000;
const HEADER_LIMIT = 8 * 1024;

/** A server that gives requests five seconds to arrive, and the oldest connection up for a new one at the limit. */
export function boundedServer(connections: number, listener: RequestListener): Server {
  const server = createServer(
    {
      maxHeaderSize: HEADER_LIMIT,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: REQUEST_TIMEOUT_MS,
    },
    listener,
  );
  const open = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    // Were it the newest, idle connections of a stranger could keep the kubelet out, which would then restart the application.
    if (open.size >= connections) open.values().next().value?.destroy();
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  return server;
}

/** @throws NodeJS.ErrnoException when the port cannot be listened on */
export async function listenOn(server: Server, port: number, host?: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, ...(host !== undefined && { host }) }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

export async function closeServer(server: Server): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
}
