import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { gates } from "#core/gate.ts";
import type { GateFacts } from "#core/gate.ts";

const both = { gate: ["payload", "secrets"], readyGrace: 1000 } as const;
const good: GateFacts = {
  settings: both,
  payload: { recovered: true, installed: true },
  secrets: { published: true, expiredSince: undefined },
  now: 5000,
};

describe("the start gate", () => {
  test("opens when payload and credentials are in order", () => {
    assert.deepEqual(gates(good), { start: "ok", ready: "ok" });
  });

  test("names what is missing", () => {
    const missing = { recovered: true, installed: false };
    assert.equal(gates({ ...good, payload: missing }).start, "payload_missing");
    const unpublished = { published: false, expiredSince: undefined };
    assert.equal(gates({ ...good, secrets: unpublished }).start, "secrets_missing");
  });

  test("waits only for what it is told to, and for nothing that the pod does not have", () => {
    const nothing: GateFacts = {
      ...good,
      payload: { recovered: true, installed: false },
      secrets: { published: false, expiredSince: undefined },
      settings: { ...both, gate: [] },
    };
    assert.equal(gates(nothing).start, "ok");
    assert.equal(gates({ ...good, payload: undefined, secrets: undefined }).start, "ok");
  });

  test("stays closed until recovery is over, whatever it waits for", () => {
    const recovering: GateFacts = {
      ...good,
      payload: { recovered: false, installed: true },
      settings: { ...both, gate: [] },
    };
    assert.equal(gates(recovering).start, "starting");
  });
});

describe("readiness", () => {
  test("outlives expired credentials by the grace, and no longer", () => {
    const expired = { published: true, expiredSince: 5000 };
    assert.equal(gates({ ...good, secrets: expired, now: 5999 }).ready, "ok");
    assert.deepEqual(gates({ ...good, secrets: expired, now: 6000 }), {
      start: "ok",
      ready: "secrets_expired",
    });
  });

  test("is never better than the start gate", () => {
    fc.assert(
      fc.property(
        fc.record({
          settings: fc.record({
            gate: fc.subarray(["payload", "secrets"] as const),
            readyGrace: fc.nat(10),
          }),
          payload: fc.option(fc.record({ recovered: fc.boolean(), installed: fc.boolean() }), {
            nil: undefined,
          }),
          secrets: fc.option(
            fc.record({
              published: fc.boolean(),
              expiredSince: fc.option(fc.nat(20), { nil: undefined }),
            }),
            { nil: undefined },
          ),
          now: fc.nat(20),
        }),
        (facts) => {
          const { start, ready } = gates(facts);
          if (start !== "ok") assert.equal(ready, start);
          else assert.ok(ready === "ok" || ready === "secrets_expired");
        },
      ),
    );
  });
});
