/** What the TLS of an idle look costs: a connection for each, because nobody keeps one from poll to poll. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { describe, test } from "node:test";
import { authority } from "../support/certificates.ts";
import { byteServer, httpServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { openHttp, readBody } from "../../sidecar/network/http.ts";

const never = new AbortController().signal;

interface Wire extends TestServer {
  /** Bytes in both directions since the last time. */
  take(): number;
  /** Closes what is open, as an idle time-out does. */
  hangUp(): Promise<void>;
}

async function openWire(port: number): Promise<Wire> {
  let bytes = 0;
  const open = new Set<Socket>();
  const server = await byteServer((near) => {
    open.add(near);
    const far = connect(port, "127.0.0.1");
    far.on("error", () => near.destroy());
    near.on("close", () => {
      open.delete(near);
      far.destroy();
    });
    const carry = (from: Socket, to: Socket): void => {
      from.on("data", (chunk) => {
        bytes += chunk.length;
        to.write(chunk);
      });
      from.on("end", () => to.end());
    };
    carry(near, far);
    carry(far, near);
  });
  return {
    ...server,
    take() {
      const taken = bytes;
      bytes = 0;
      return taken;
    },
    async hangUp() {
      for (const near of open) near.end();
      await server.quiet();
    },
  };
}

describe("a look over TLS", () => {
  test("goes on with the session of the look before, on a new connection, for three quarters of the bytes", async (t) => {
    const ca = authority();
    const reused: boolean[] = [];
    await using server = await httpServer(
      (request, response) => {
        if (request.socket instanceof TLSSocket) reused.push(request.socket.isSessionReused());
        response.end("ok");
      },
      ca.issue(["localhost"]),
    );
    await using wire = await openWire(server.port);
    const http = openHttp({ ca: ca.cert, idleTimeoutMs: 5_000, unavailable: "ORIGIN_UNAVAILABLE" });
    const look = async (): Promise<number> => {
      for (const path of ["2.root.json", "timestamp.json"]) {
        const url = `https://localhost:${wire.port}/metadata/${path}`;
        await readBody(await http.request({ method: "GET", url }, never), 100, never);
      }
      await wire.hangUp();
      return wire.take();
    };
    try {
      const first = await look();
      const later = [await look(), await look()];
      t.diagnostic(`${first} bytes for the first look, ${later.join(" and ")} for those after it`);
      assert.deepEqual(reused, [false, false, true, true, true, true]);
      assert.equal(wire.connections(), 3);
      for (const bytes of later) assert.ok(bytes < first * 0.75, `${bytes} of ${first} bytes`);
    } finally {
      http.close();
    }
  });
});
