/** Whatever a link or a server does to a release on its way: it arrives whole in the end, or the old one runs on and the site says why. */
import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { cp, readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import type { Clock } from "#core/clock.ts";
import type { ErrorCode } from "#core/errors.ts";
import { openFaultProxy } from "../support/fault-proxy.ts";
import type { FaultProxy, LinkFault } from "../support/fault-proxy.ts";
import { realClock } from "../support/real-clock.ts";
import { checkVolume } from "../update/support/invariants.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site } from "../update/support/site.ts";
import { noise, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";

/** Pauses are those of real sites, in a time that goes faster. */
const SPEED = 500;
const fast: Clock = {
  now: () => realClock.now(),
  monotonic: () => performance.now() * SPEED,
  sleep: (ms, signal) => realClock.sleep(ms / SPEED, signal),
};
const MINUTE_MS = 60_000;
const settings = {
  pollInterval: MINUTE_MS,
  trialDuration: 1_000,
  trialTimeout: 3_600_000,
  fullFallback: { kind: "always" },
} as const;

const SIZE = 400_000;
const files = (version: string, seed: number): Record<string, string | Buffer> => ({
  health: "good",
  version,
  "model.bin": noise(seed, SIZE),
});

let world: World;
let base: string;
/** Path of the large blob of the second release. */
let blob: RegExp;
let count = 0;

const blobsOf = (repository: string): readonly string[] =>
  readdirSync(join(repository, "blobs/sha256")).filter(
    (name) => statSync(join(repository, "blobs/sha256", name)).size >= SIZE,
  );

before(async () => {
  world = await openWorld();
  await world.publish("1.0.0", files("1.0.0", 1));
  base = join(world.folder, "base");
  {
    await using site = await openSite({ payload: base, url: world.origin.url, root: world.root });
    await site.until("the first release", committed("1.0.0"));
    await site.looked();
  }
  const old = new Set(blobsOf(world.repository));
  await world.publish("2.0.0", files("2.0.0", 2));
  const [name = ""] = blobsOf(world.repository).filter((item) => !old.has(item));
  assert.notEqual(name, "");
  blob = new RegExp(`^blobs/sha256/${name}$`);
});
after(() => world[Symbol.asyncDispose]());

interface Line extends AsyncDisposable {
  readonly proxy: FaultProxy;
  readonly payload: string;
  /** Starts, or starts again, the site that has the first release. */
  open(): Promise<Site>;
  /** Requests for the large blob. */
  asked(): FaultProxy["requests"];
  /** Bytes that were sent of it. */
  sent(): number;
}

async function openLine(): Promise<Line> {
  const proxy = await openFaultProxy(world.origin.url);
  const payload = join(world.folder, `site-${count++}`);
  await cp(base, payload, { recursive: true, verbatimSymlinks: true });
  const asked = (): FaultProxy["requests"] => proxy.requests.filter(({ path }) => blob.test(path));
  return {
    proxy,
    payload,
    open: () =>
      openSite({ payload, url: proxy.url, root: world.root, settings, clock: fast, idleMs: 400 }),
    asked,
    sent: () => asked().reduce((sum, { sent }) => sum + sent, 0),
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  };
}

const cut = { fault: "closed", after: 150_000 } as const;
const retryAt = (): string => new Date(Date.now() + 20_000).toUTCString();

interface Case {
  /** What happens to the requests for the blob, one after the other; then all is well. */
  readonly faults: readonly LinkFault[];
  /** What the site says meanwhile. */
  readonly code: ErrorCode;
  /** Bytes that may be sent in vain. */
  readonly waste: number;
}

const PASSING: Readonly<Record<string, Case>> = {
  "resets the connection five times": {
    faults: Array.from({ length: 5 }, (): LinkFault => ({ fault: "closed", after: 60_000 })),
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "resets the connection before the first byte": {
    // The first one may meet a kept connection, and is sent again at once.
    faults: Array.from({ length: 3 }, (): LinkFault => ({ fault: "reset", after: 0 })),
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  stalls: { faults: [{ fault: "stall", after: 90_000 }], code: "ORIGIN_UNAVAILABLE", waste: 0 },
  "sends a byte at a time": {
    faults: [{ fault: "drip", everyMs: 10 }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "flips a bit": {
    faults: [{ fault: "flip", at: 222_222 }],
    code: "DIGEST_MISMATCH",
    waste: SIZE,
  },
  "ends too early, in good order": {
    faults: [{ fault: "truncated", after: 100_000 }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "says a wrong Content-Range": {
    faults: [cut, { fault: "wrong-range" }],
    code: "ORIGIN_REFUSED",
    waste: SIZE - 150_000,
  },
  "sends another range than was asked for": {
    faults: [cut, { fault: "other-offset" }],
    code: "ORIGIN_REFUSED",
    waste: SIZE - 150_000,
  },
  "sends bytes of another range than it says": {
    faults: [cut, { fault: "other-bytes" }],
    code: "ORIGIN_UNAVAILABLE",
    waste: SIZE,
  },
  "sends the whole file for a range": {
    faults: [cut, { fault: "whole" }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 150_000,
  },
  "answers 416 to a range that there is": {
    faults: [cut, { fault: "status", status: 416 }],
    code: "DIGEST_MISMATCH",
    waste: 150_000,
  },
  "asks for rest in seconds": {
    faults: [{ fault: "status", status: 503, headers: { "retry-after": "20" } }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "asks for rest until a date": {
    faults: [{ fault: "status", status: 503, headers: { "retry-after": retryAt() } }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "does not have the file, for now": {
    faults: [{ fault: "status", status: 404 }],
    code: "ORIGIN_REFUSED",
    waste: 0,
  },
  "says that the file is gone, for now": {
    faults: [{ fault: "status", status: 410 }],
    code: "ORIGIN_REFUSED",
    waste: 0,
  },
  "goes on for ever": { faults: [{ fault: "endless" }], code: "RESPONSE_TOO_LARGE", waste: 3e7 },
  "redirects in a circle": {
    faults: Array.from({ length: 6 }, (): LinkFault => ({ fault: "redirect-loop" })),
    code: "ORIGIN_REFUSED",
    waste: 0,
  },
  "redirects to plain HTTP": {
    faults: [{ fault: "redirect", to: "http://192.0.2.1/x" }],
    code: "ORIGIN_REFUSED",
    waste: 0,
  },
  "packs with gzip what nobody asked to be packed": {
    faults: [{ fault: "gzip" }],
    code: "ORIGIN_REFUSED",
    waste: 2 * SIZE,
  },
  "sends headers without end": {
    faults: [{ fault: "large-headers" }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "closes the connection in the headers": {
    faults: Array.from({ length: 3 }, (): LinkFault => ({ fault: "closed-in-headers" })),
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
  "sends a byte of the headers at a time": {
    faults: [{ fault: "slow-headers", everyMs: 20 }],
    code: "ORIGIN_UNAVAILABLE",
    waste: 0,
  },
};

async function assertOld(line: Line): Promise<void> {
  assert.match(await readlink(join(line.payload, "current")), /^banks\/1\.0\.0-/);
  await checkVolume(line.payload);
}

describe("a link that passes its fault", { concurrency: 3 }, () => {
  for (const [what, { faults, code, waste }] of Object.entries(PASSING))
    test(`and ${what} costs a site time, and at most ${waste} bytes`, async () => {
      await using line = await openLine();
      for (const fault of faults) line.proxy.fail(blob, fault);
      let said: readonly unknown[];
      {
        await using site = await line.open();
        await site.until("the second release", committed("2.0.0"));
        said = site.log.flatMap(({ fields }) => ("code" in fields ? [fields["code"]] : []));
      }
      await checkVolume(line.payload);
      assert.deepEqual(readFileSync(join(line.payload, "current/model.bin")), noise(2, SIZE));
      assert.ok(said.includes(code), `${code} is said: ${said.join()}`);
      assert.ok(line.asked().length <= faults.length + 3, `${line.asked().length} requests`);
      assert.ok(line.sent() <= SIZE + 200 + waste, `${line.sent()} bytes sent`);
    });
});

const LASTING: Readonly<Record<string, { fault: LinkFault; code: ErrorCode; attempts: number }>> = {
  "resets each connection": {
    fault: { fault: "reset", after: 0 },
    code: "ORIGIN_UNAVAILABLE",
    attempts: 0,
  },
  "flips a bit": { fault: { fault: "flip", at: 9 }, code: "DIGEST_MISMATCH", attempts: 7 },
  "is overloaded": {
    fault: { fault: "status", status: 503 },
    code: "ORIGIN_UNAVAILABLE",
    attempts: 0,
  },
  "does not have the file": {
    fault: { fault: "status", status: 404 },
    code: "ORIGIN_REFUSED",
    attempts: 0,
  },
  "says that the file is gone": {
    fault: { fault: "status", status: 410 },
    code: "ORIGIN_REFUSED",
    attempts: 0,
  },
  "answers 416": { fault: { fault: "status", status: 416 }, code: "DIGEST_MISMATCH", attempts: 0 },
  "packs with gzip": { fault: { fault: "gzip" }, code: "ORIGIN_REFUSED", attempts: 7 },
  "redirects in a circle": {
    fault: { fault: "redirect-loop" },
    code: "ORIGIN_REFUSED",
    attempts: 0,
  },
};

describe("a server that", { concurrency: 3 }, () => {
  for (const [what, { fault, code, attempts }] of Object.entries(LASTING))
    test(`always ${what} leaves the old release running, and is asked seldom`, async () => {
      await using line = await openLine();
      line.proxy.fail(blob, fault, Number.POSITIVE_INFINITY);
      let from: number;
      {
        await using site = await line.open();
        await site.until(code, (status) => status.error?.code === code);
        from = line.proxy.requests.length;
        await delay((10 * MINUTE_MS) / SPEED);
        assert.equal(site.agent.status().release?.version, "1.0.0");
      }
      await assertOld(line);
      // Two requests for each look, and those of attempts.
      const requests = line.proxy.requests.length - from;
      assert.ok(requests < 100, `${requests} requests in ten minutes`);
      // What rests is left alone for one minute, then two, then four.
      if (code !== "ORIGIN_UNAVAILABLE" && fault.fault !== "redirect-loop")
        assert.ok(line.asked().length <= 5, `${line.asked().length} attempts`);
      assert.ok(line.sent() <= attempts * (SIZE + 1_000), `${line.sent()} bytes sent`);
    });
});

describe("a dead server", () => {
  test("meets each site at times of its own, some minutes apart and never in a storm", async () => {
    const PAUSES = 60;
    const speed = 40_000;
    await using line = await openLine();
    line.proxy.kill();
    const pauses: number[] = [];
    let state = 11;
    const random = (): number => {
      state = (state * 48_271) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    const clock: Clock = {
      now: () => realClock.now(),
      monotonic: () => performance.now() * speed,
      sleep(ms, signal) {
        // Every minute it sees to what it has.
        if (ms !== 60_000) pauses.push(ms);
        return realClock.sleep(ms / speed, signal);
      },
    };
    {
      await using site = await openSite({
        payload: line.payload,
        url: line.proxy.url,
        root: world.root,
        settings: { ...settings, pollInterval: 900_000, scrubInterval: 0 },
        clock,
        random,
      });
      await site.until("an error", (status) => status.error?.code === "ORIGIN_UNAVAILABLE");
      for (let turn = 0; turn < 5_000 && pauses.length < PAUSES; turn++) await delay(5);
      assert.equal(site.agent.status().release?.version, "1.0.0");
    }
    await assertOld(line);
    assert.ok(pauses.length >= PAUSES, `${pauses.length} pauses`);
    const connections = line.proxy.connections();
    assert.ok(connections <= pauses.length + 5, `${connections} connections`);
    // Full jitter: from nothing up to five minutes, and not about five minutes.
    const late = pauses.slice(10);
    assert.ok(Math.max(...late) <= 300_000);
    assert.ok(late.some((ms) => ms < 100_000) && late.some((ms) => ms > 200_000), late.join());
    const mean = late.reduce((sum, ms) => sum + ms, 0) / late.length;
    assert.ok(mean > 90_000, `${mean} ms between two attempts`);
  });
});

describe("a file that is another than the one that was begun", () => {
  test("is begun anew at once where the server says so by its ETag, and once only", async () => {
    await using line = await openLine();
    line.proxy.tag('"first"');
    line.proxy.fail(blob, { ...cut, before: () => line.proxy.tag('"second"') });
    line.proxy.fail(blob, cut);
    {
      await using site = await line.open();
      await site.until("the second release", committed("2.0.0"));
    }
    await checkVolume(line.payload);
    const asked = line.asked().map(({ range, ifRange }) => [range, ifRange]);
    assert.deepEqual(asked, [
      [undefined, undefined],
      ["bytes=150000-", '"first"'],
      ["bytes=150000-", undefined],
    ]);
  });
});
