/** Carries bytes to a port of this machine and counts them, whatever they are: what a site pays for. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";

export interface Relay extends AsyncDisposable {
  readonly port: number;
  /** In both directions. */
  readonly bytes: () => number;
  readonly connections: () => number;
}

/** @param idleMs after so many milliseconds without a byte a connection is closed, as servers do; never when not given */
export async function openRelay(to: number, idleMs?: number): Promise<Relay> {
  let bytes = 0;
  let connections = 0;
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    connections += 1;
    const far = connect(to, "127.0.0.1");
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("data", (chunk: Buffer) => (bytes += chunk.length));
      socket.on("error", () => other.destroy());
      if (idleMs !== undefined) socket.setTimeout(idleMs, () => other.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    bytes: () => bytes,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
