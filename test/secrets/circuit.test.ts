import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import {
  FAILURES_PER_HOUR,
  closedCircuit,
  mayAskAt,
  nextCircuit,
  recoveryMs,
} from "#core/circuit.ts";
import type { Ask, Circuit, CircuitEvent } from "#core/circuit.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

function failed(circuit: Circuit, at: number, ask: Ask = "again", random = 0.5): Circuit {
  const asked = nextCircuit(circuit, { kind: "asked", ask }, at, random);
  return nextCircuit(asked, { kind: "failed", ask }, at, random);
}

describe("a Vault that fails", () => {
  test("is tried once at a time, with growing pauses, by whoever waits", () => {
    let circuit = failed(closedCircuit, 0, "first");
    const pauses: number[] = [];
    for (let attempt = 0, now = 0; attempt < 12; attempt++) {
      const at = mayAskAt(circuit, "again");
      pauses.push(at - now);
      now = at;
      const trying = nextCircuit(circuit, { kind: "asked", ask: "again" }, at, 0.5);
      assert.equal(mayAskAt(trying, "again"), Number.POSITIVE_INFINITY, "one at a time");
      circuit = nextCircuit(trying, { kind: "failed", ask: "again" }, at, 0.5);
    }
    assert.ok((pauses[0] ?? 0) >= 1_000);
    assert.equal(pauses.at(-1), 150_000);
  });

  test("does not keep a first request waiting for longer than a second", () => {
    const long = Array.from({ length: 12 }).reduce<Circuit>((c) => failed(c, 0), closedCircuit);
    assert.ok(mayAskAt(long, "again") >= 2 * MINUTE);
    assert.ok(mayAskAt(long, "first") <= 1_000);
  });

  test("is not put off by first requests that fail as well", () => {
    const open = failed(closedCircuit, 0, "first", 0.999);
    assert.deepEqual(failed(open, 500, "first", 0.999), {
      ...open,
      askedAt: 500,
    });
  });

  test("is asked again when it said Retry-After, and within ten minutes whatever it said", () => {
    const after = (retryAfterMs: number): number => {
      const event = { kind: "failed", ask: "first", retryAfterMs } as const;
      return mayAskAt(nextCircuit(closedCircuit, event, 0, 0), "again");
    };
    assert.equal(after(2 * MINUTE), 2 * MINUTE);
    assert.equal(after(1_000 * HOUR), 10 * MINUTE);
    assert.equal(after(-HOUR), 1_000);
  });
});

describe("a credential that ends while Vault fails", () => {
  const share = fc.double({ min: 0, max: 0.999999, noNaN: true });
  const open = (random: number): Circuit =>
    Array.from({ length: 12 }).reduce<Circuit>((c) => failed(c, 0, "again", random), closedCircuit);

  test("is tried for once more before half of what is left is over, whatever the dice", () => {
    fc.assert(
      fc.property(share, fc.integer({ min: MINUTE, max: 4 * HOUR }), (random, endsAt) => {
        const at = mayAskAt(open(random), "again", endsAt);
        assert.ok(at <= Math.max(1_000, endsAt / 2));
        assert.ok(at >= 1_000);
      }),
    );
  });

  test("is tried for no more often than every half minute near its end, and after it like everything", () => {
    assert.equal(mayAskAt(open(0.5), "again", 10_000), 15_000);
    for (const random of [0, 0.3, 0.999])
      assert.equal(mayAskAt(open(random), "again", -1), mayAskAt(open(random), "again"));
  });

  test("does not wait beyond its end for the others once Vault is back", () => {
    fc.assert(
      fc.property(share, fc.integer({ min: 1, max: 4 * HOUR }), (random, left) => {
        assert.ok(recoveryMs(HOUR, left, random) <= left / 2);
      }),
    );
    assert.equal(recoveryMs(HOUR, -1, 0.5), 30_000);
  });
});

describe("a Vault that tells everybody the same time", () => {
  const told = (askedMs: number, random: number): Circuit =>
    nextCircuit(closedCircuit, { kind: "failed", ask: "first", retryAfterMs: askedMs }, 0, random);

  test("is not asked by all of them in that second: they come over as long again, within five minutes", () => {
    assert.equal(mayAskAt(told(MINUTE, 0), "again"), MINUTE);
    assert.equal(mayAskAt(told(MINUTE, 0.5), "again"), 1.5 * MINUTE);
    assert.equal(mayAskAt(told(10 * MINUTE, 0.5), "again"), 12.5 * MINUTE);
  });

  test("is not kept waiting by what ends soon after, and never asked before", () => {
    assert.equal(mayAskAt(told(10 * MINUTE, 0.5), "again", 12 * MINUTE), 10.5 * MINUTE);
    assert.equal(mayAskAt(told(10 * MINUTE, 0), "again", MINUTE), 10 * MINUTE);
  });
});

describe("a secret that Vault refuses", () => {
  test("opens nothing, whatever others do", () => {
    for (const ask of ["first", "again"] as const) {
      const refused = nextCircuit(closedCircuit, { kind: "refused", ask }, 0, 0);
      assert.equal(refused.openSince, undefined);
      assert.equal(mayAskAt(refused, "again") <= 0, true);
    }
  });

  test("shows that Vault is there", () => {
    const open = failed(closedCircuit, 0);
    assert.equal(nextCircuit(open, { kind: "refused", ask: "first" }, 9, 0).openSince, undefined);
  });
});

describe("a Vault that works again", () => {
  test("closes the circuit with its first success", () => {
    const open = failed(failed(closedCircuit, 0), 0);
    const back = nextCircuit(open, { kind: "succeeded", ask: "again" }, 5_000, 0);
    assert.ok(mayAskAt(back, "again") <= 5_000);
  });

  test("is not asked by all at once, and not later than a minute after", () => {
    assert.equal(recoveryMs(HOUR, undefined, 0), 0);
    assert.equal(recoveryMs(HOUR, undefined, 0.5), 30_000);
    assert.ok(recoveryMs(1_000, undefined, 0.999) < 1_000);
    assert.equal(recoveryMs(-5, undefined, 0.999), 0);
  });

  test("is held to no allowance: what succeeds is not counted", () => {
    let circuit = closedCircuit;
    for (let n = 0; n < 10_000; n++) {
      assert.ok(mayAskAt(circuit, "again") <= n);
      circuit = nextCircuit(circuit, { kind: "asked", ask: "again" }, n, 0);
      circuit = nextCircuit(circuit, { kind: "succeeded", ask: "again" }, n, 0);
    }
  });
});

describe("any sequence of answers", () => {
  const step = fc.record({
    pauseMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 600_000 })),
    ask: fc.constantFrom<Ask>("first", "again"),
    kind: fc.constantFrom("failed", "failed", "refused", "succeeded", "skipped"),
    retryAfterMs: fc.option(fc.double({ noNaN: true }), { nil: undefined }),
    random: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 0.999999, noNaN: true })),
    overlaps: fc.boolean(),
  });

  test("leaves the tries that fail again under 660 an hour, and something to wait for", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        let circuit = closedCircuit;
        let now = 0;
        const failures: number[] = [];
        const open: CircuitEvent[] = [];
        const end = (): void => {
          for (const event of open.splice(0)) circuit = nextCircuit(circuit, event, now, 0);
        };
        // The same again and again, as a broken server does: long enough for the allowance to matter.
        for (let turn = 0; turn < 1_500; turn++) {
          const { pauseMs, ask, kind, retryAfterMs, random, overlaps } =
            steps[turn % steps.length] ?? assert.fail();
          now += pauseMs;
          if (mayAskAt(circuit, ask) === Number.POSITIVE_INFINITY) end();
          const at = mayAskAt(circuit, ask);
          assert.ok(at < Number.POSITIVE_INFINITY, "nothing waits for ever");
          assert.ok(at - now <= HOUR, "nor for an hour");
          now = Math.max(now, at);
          circuit = nextCircuit(circuit, { kind: "asked", ask }, now, random);
          if (ask === "again" && (kind === "failed" || kind === "refused")) failures.push(now);
          const event: CircuitEvent =
            kind === "failed" ? { kind, ask, retryAfterMs } : { kind, ask };
          if (overlaps) open.push(event);
          else circuit = nextCircuit(circuit, event, now, random);
        }
        for (const [index, at] of failures.entries()) {
          const inHour = failures.findIndex((other, n) => n > index && other >= at + HOUR);
          const count = (inHour === -1 ? failures.length : inHour) - index;
          assert.ok(count <= FAILURES_PER_HOUR, `${count} in an hour`);
        }
      }),
      { numRuns: 60 },
    );
  });
});
