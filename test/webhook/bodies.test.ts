import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { sleepBy } from "#core/clock.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { BODY_LIMIT_BYTES, openBodies } from "../../webhook/bodies.ts";
import type { Bodies, Read } from "../../webhook/bodies.ts";
import { manualClock } from "../support/clock.ts";
import { eventually } from "../support/process.ts";

const MIB = 2 ** 20;
const clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  sleep: sleepBy(sleep),
};

interface Sent {
  readonly request: http.ClientRequest;
  readonly answer: Promise<string>;
}

interface Reader extends AsyncDisposable {
  /** The greatest number of bytes that was ever held. */
  readonly most: () => number;
  readonly now: () => number;
  /** Begins a request with a body of a stated length; nothing of the body is sent. */
  begin(length: number | undefined): Sent;
}

async function openReader(bodies: (held: (bytes: number) => void) => Bodies): Promise<Reader> {
  let now = 0;
  let most = 0;
  const reader = bodies((bytes) => {
    now = bytes;
    most = Math.max(most, bytes);
  });
  const told = (read: Read): string => (read.ok ? String(read.text.length) : read.problem);
  const server = http.createServer((request, response) => {
    void reader.read(request, (read) => {
      response.end(told(read));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    most: () => most,
    now: () => now,
    begin(length) {
      const headers = length === undefined ? {} : { "Content-Length": length };
      const request = http.request({
        host: "127.0.0.1",
        port,
        method: "POST",
        agent: false,
        headers,
      });
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      request.on("error", reject);
      request.on("response", (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => (text += chunk));
        response.on("end", () => resolve(text));
      });
      // Whoever does not look at it does not want it.
      promise.catch(() => {});
      request.flushHeaders();
      return { request, answer: promise };
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      const closed = once(server, "close");
      server.close();
      await closed;
    },
  };
}

describe("the bodies in flight", () => {
  test("never hold more than the budget, and all are read", async () => {
    const budgetBytes = 8 * MIB;
    await using reader = await openReader((held) =>
      openBodies({ budgetBytes, patienceMs: 60_000, clock, held }),
    );
    const size = 1.5 * MIB;
    const sent = Array.from({ length: 12 }, () => reader.begin(size));
    for (const { request } of sent) request.end("x".repeat(size));
    for (const { answer } of sent) assert.equal(await answer, String(size));
    assert.ok(reader.most() > size && reader.most() <= budgetBytes, String(reader.most()));
    await eventually(
      () => (reader.now() === 0 ? true : undefined),
      () => `${reader.now()} bytes are still held`,
    );
  });

  test("that are large and slow hold up no small one, and are cut off for the next", async () => {
    const slow = manualClock();
    await using reader = await openReader((held) =>
      openBodies({ budgetBytes: 0, patienceMs: 2_000, clock: slow, held }),
    );
    const stalled = reader.begin(BODY_LIMIT_BYTES);
    await eventually(
      () => (reader.now() > 0 ? true : undefined),
      () => "nothing is set aside",
    );
    const waiting = reader.begin(2 * MIB);
    const small = reader.begin(5);
    small.request.end("hello");
    assert.equal(await small.answer, "5");
    await slow.advance(1_000);
    waiting.request.end("x".repeat(2 * MIB));
    await slow.advance(1_000);
    await assert.rejects(stalled.answer);
    assert.match(await waiting.answer, /^(?:2097152|busy)$/);
  });

  test("are refused when their turn does not come in time", async () => {
    const slow = manualClock();
    await using reader = await openReader((held) =>
      openBodies({ budgetBytes: 0, patienceMs: 2_000, clock: slow, held }),
    );
    reader.begin(BODY_LIMIT_BYTES);
    await eventually(
      () => (reader.now() > 0 ? true : undefined),
      () => "nothing is set aside",
    );
    await slow.advance(500);
    const late = reader.begin(2 * MIB);
    const another = reader.begin(4);
    another.request.end("done");
    await another.answer;
    // The first is cut off, and the next has its turn.
    await slow.advance(1_500);
    late.request.end("x".repeat(2 * MIB));
    assert.equal(await late.answer, String(2 * MIB));
  });

  test("take nothing for one that has gone while it waited for its turn", async () => {
    await using reader = await openReader((held) =>
      openBodies({ budgetBytes: 0, patienceMs: 10_000, clock, held }),
    );
    const first = reader.begin(BODY_LIMIT_BYTES);
    await eventually(
      () => (reader.now() > 0 ? true : undefined),
      () => "nothing is set aside",
    );
    const answered = async (): Promise<void> => {
      const small = reader.begin(4);
      small.request.end("done");
      await small.answer;
    };
    const gone = reader.begin(2 * MIB);
    await answered();
    gone.request.destroy();
    await answered();
    first.request.destroy();
    const next = reader.begin(2 * MIB);
    next.request.end("x".repeat(2 * MIB));
    assert.equal(await next.answer, String(2 * MIB));
    await eventually(
      () => (reader.now() === 0 ? true : undefined),
      () => `${reader.now()} bytes are still held`,
    );
  });

  const refused: readonly (readonly [string, number | undefined, Buffer, string])[] = [
    ["declare more than the limit", BODY_LIMIT_BYTES + 1, Buffer.alloc(0), "too-large"],
    [
      "are more than the limit undeclared",
      undefined,
      Buffer.alloc(BODY_LIMIT_BYTES + 1),
      "too-large",
    ],
    ["are no UTF-8", 2, Buffer.from([0xc3, 0x28]), "not-utf8"],
  ];
  for (const [what, length, body, problem] of refused)
    test(`are refused with an answer when they ${what}`, async () => {
      await using reader = await openReader((held) =>
        openBodies({ budgetBytes: 0, patienceMs: 60_000, clock, held }),
      );
      const { request, answer } = reader.begin(length);
      if (length === undefined || length <= BODY_LIMIT_BYTES) request.end(body);
      assert.equal(await answer, problem);
    });
});
