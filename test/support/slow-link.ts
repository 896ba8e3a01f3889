import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { once } from "node:events";

export interface SlowLink extends AsyncDisposable {
  readonly url: string;
}

/** A TCP proxy that lets every byte arrive later, as a satellite link does. It has no limit on the rate. */
export async function openSlowLink(to: string, roundTripMs: number): Promise<SlowLink> {
  const { hostname, port } = new URL(to);
  const sockets = new Set<Socket>();
  const carry = (from: Socket, into: Socket): void => {
    sockets.add(from);
    const later = (act: () => void): void => void setTimeout(act, roundTripMs / 2);
    from.on("data", (bytes) => later(() => into.writable && into.write(bytes)));
    from.on("end", () => later(() => into.end()));
    from.on("error", () => into.destroy());
    from.on("close", () => {
      sockets.delete(from);
      later(() => into.destroy());
    });
  };
  const server = createServer((near) => {
    // The connection itself costs a round trip too; here it is the far end's, when the first bytes have arrived.
    const far = connect(Number(port), hostname);
    carry(near, far);
    carry(far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port: own } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${own}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
