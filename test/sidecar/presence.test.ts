import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import * as fc from "../support/property.ts";
import { hasEnded, seen, socketsOf, unseen } from "#core/presence.ts";
import type { Network, Presence, Socket } from "#core/presence.ts";
import { fromEnv } from "#core/settings.ts";
import { openPresence } from "../../sidecar/application/presence.ts";
import { realClock } from "../support/real-clock.ts";
import { recordedLog } from "../vault/sidecar.ts";

const OWN: Network = { ports: new Set([8080, 9090]), isShared: false };
const SHARED: Network = { ...OWN, isShared: true };
const LISTENER: Socket = { inode: 1, port: 8080, isListening: true };
const REQUEST: Socket = { inode: 2, port: 8080, isListening: false };
const DATABASE: Socket = { inode: 3, port: 40_001, isListening: false };
const MESH: Socket = { inode: 4, port: 15_006, isListening: true };

function after(looks: readonly (readonly Socket[])[], network: Network): Presence {
  return looks.reduce<Presence>((presence, look) => seen(presence, look, network), unseen);
}

describe("the end of the application", () => {
  test("is known when its listener is gone, and not while a request goes on", () => {
    for (const network of [OWN, SHARED]) {
      const presence = after([[], [LISTENER], [LISTENER, REQUEST]], network);
      assert.equal(hasEnded(presence, [LISTENER], network), false);
      assert.equal(hasEnded(presence, [REQUEST], network), false);
      assert.equal(hasEnded(presence, [], network), true);
    }
  });

  test("is known of a worker that has had a connection all along, and only of such a one", () => {
    assert.equal(hasEnded(after([[], [DATABASE], [DATABASE]], OWN), [], OWN), true);
    assert.equal(hasEnded(after([[DATABASE], [], [DATABASE]], OWN), [], OWN), false);
    assert.equal(hasEnded(after([[], []], OWN), [], OWN), false);
  });

  test("is known beside a mesh's proxy by the application's own ports, and by nothing else", () => {
    assert.equal(hasEnded(after([[LISTENER, MESH]], SHARED), [MESH], SHARED), true);
    assert.equal(hasEnded(after([[DATABASE, MESH]], SHARED), [MESH], SHARED), false);
    assert.equal(hasEnded(after([[DATABASE]], SHARED), [], SHARED), false);
  });

  test("is never said of one that is there, or that nobody has seen, whatever was seen before", () => {
    const socket = fc.constantFrom(LISTENER, REQUEST, DATABASE, MESH);
    const look = fc.uniqueArray(socket);
    fc.assert(
      fc.property(fc.array(look), look, fc.boolean(), (looks, now, isShared) => {
        const network = { ...OWN, isShared };
        const ended = hasEnded(after(looks, network), now, network);
        if (now.includes(LISTENER) || now.includes(REQUEST)) assert.equal(ended, false);
        if (!isShared && now.length > 0) assert.equal(ended, false);
        if (looks.flat().length === 0) assert.equal(ended, false);
      }),
    );
  });

  test("is not known where nothing can be seen", async () => {
    const presence = openPresence({
      settings: fromEnv({ EDGESYNC_POD_NAME: "web-0" }),
      clock: realClock,
      log: recordedLog(),
      look: () => {
        throw new Error("no /proc/net");
      },
    });
    const stop = new AbortController();
    const running = presence.run(stop.signal).catch(() => undefined);
    assert.equal(await presence.ended(AbortSignal.timeout(5_000)), false);
    stop.abort();
    await running;
  });

  test("is seen in a network of the pod's own, unless it never had a socket", async (t) => {
    const run = promisify(execFile);
    const program = join(import.meta.dirname, "presence-process.ts");
    const node = [process.execPath, "--disable-warning=ExperimentalWarning", program];
    const inside = ["--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"];
    try {
      await run("unshare", ["--net", "true"]);
    } catch {
      t.diagnostic("not tried: it takes root");
      return;
    }
    const { stdout } = await run("unshare", [...inside, ...node]);
    assert.deepEqual(JSON.parse(stdout), {
      server: [false, true],
      worker: [false, true],
      batch: [false, false],
    });
  });
});

describe("the sockets that Linux lists", () => {
  test("are read with their ports and states; those that no process holds are left out", () => {
    const tcp = [
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21034 1 000000 100 0 0 10 0",
      "   1: 0100007F:9C41 0100007F:1538 01 00000000:00000000 00:00000000 00000000  1000        0 21035 1 000000 20 4 30 10 -1",
      "   2: 0100007F:1F90 0100007F:9C42 06 00000000:00000000 03:00000C1D 00000000     0        0 0 3 000000",
    ];
    assert.deepEqual(socketsOf("tcp", tcp.join("\n")), [
      { inode: 21_034, port: 8080, isListening: true },
      { inode: 21_035, port: 40_001, isListening: false },
    ]);
    const tcp6 = [
      "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 000000 100 0 0 10 0",
    ];
    assert.deepEqual(socketsOf("tcp", tcp6.join("\n")), [
      { inode: 77, port: 8080, isListening: true },
    ]);
    const unix = [
      "Num       RefCount Protocol Flags    Type St Inode Path",
      "ffff9c3e81b4c400: 00000002 00000000 00010000 0001 01 16033 /run/app with a space.sock",
      "ffff9c3e81b4c800: 00000003 00000000 00000000 0001 03 16034",
    ];
    assert.deepEqual(socketsOf("unix", unix.join("\n")), [{ inode: 16_033 }, { inode: 16_034 }]);
  });

  test("are read of any text without a failure, and have an inode", () => {
    fc.assert(
      fc.property(fc.constantFrom("tcp", "udp", "unix"), fc.string(), (kind, text) => {
        for (const { inode } of socketsOf(kind, text)) assert.ok(inode > 0);
      }),
    );
  });
});
