import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { STALE_MS, UNKNOWN_MS, ask, follow, initialTurns } from "#core/turn.ts";
import type { Turns } from "#core/turn.ts";

const LIMIT_MS = 3_600_000;
const NAMES = ["main", "models", "rules"] as const;

/** Everybody's journal has been read, and nothing was under way. */
function quiet(at = 0): Turns {
  return NAMES.reduce(
    (turns, name) => follow(turns, name, false, at),
    initialTurns(NAMES, at, LIMIT_MS),
  );
}

describe("the turn of a pod's payloads", () => {
  test("is given to who asks first, and to the next when it is given back", () => {
    let turns = quiet();
    let mine: boolean;
    [turns, mine] = ask(turns, "rules", 1);
    assert.ok(mine);
    [turns, mine] = ask(turns, "models", 2);
    assert.ok(!mine);
    [turns, mine] = ask(turns, "main", 3);
    assert.ok(!mine);
    turns = follow(turns, "rules", true, 4);
    [turns, mine] = ask(turns, "main", 5);
    assert.ok(!mine);
    turns = follow(turns, "rules", false, 6);
    [turns, mine] = ask(turns, "main", 7);
    assert.ok(!mine, "it came later");
    [, mine] = ask(turns, "models", 8);
    assert.ok(mine);
  });

  test("is not kept for who does not ask any more", () => {
    let turns = follow(quiet(), "rules", true, 0);
    [turns] = ask(turns, "models", 1);
    turns = follow(turns, "rules", false, 2);
    assert.ok(!ask(turns, "main", 1 + STALE_MS)[1]);
    assert.ok(ask(turns, "main", 2 + STALE_MS)[1]);
  });

  test("waits after a start until it is known whether a swap was under way, but not for ever", () => {
    const fresh = initialTurns(NAMES, 100, LIMIT_MS);
    const some = follow(follow(fresh, "main", false, 100), "models", false, 100);
    assert.ok(!ask(some, "main", 101)[1], "rules may be in its trial");
    assert.ok(ask(some, "main", 100 + UNKNOWN_MS)[1]);
    assert.ok(ask(follow(some, "rules", false, 102), "main", 103)[1]);
    assert.ok(!ask(follow(some, "rules", true, 102), "main", 103)[1]);
  });

  test("is lost by who holds it for longer than any trial", () => {
    const turns = follow(quiet(), "rules", true, 0);
    assert.ok(!ask(turns, "main", LIMIT_MS - 1)[1]);
    assert.ok(ask(turns, "main", LIMIT_MS)[1]);
  });

  const event = fc.record({
    name: fc.constantFrom(...NAMES),
    kind: fc.constantFrom("ask", "ask", "swap", "rest"),
    afterMs: fc.nat(STALE_MS),
  });

  test("is never given to two, and always to somebody in the end", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        let turns = initialTurns(NAMES, 0, LIMIT_MS);
        let at = 0;
        let holder: string | undefined;
        for (const name of NAMES) turns = follow(turns, name, false, at);
        for (const { name, kind, afterMs } of events) {
          at += afterMs;
          if (kind === "ask") {
            const [after, mine] = ask(turns, name, at);
            turns = after;
            if (mine && holder !== undefined) assert.equal(name, holder);
            if (mine) holder = name;
          } else if (kind === "swap" && holder === name) turns = follow(turns, name, true, at);
          else if (kind === "rest" && holder === name) {
            turns = follow(turns, name, false, at);
            holder = undefined;
          }
          // The limit is another test's.
          turns = { ...turns, holders: turns.holders.map((one) => ({ ...one, since: at })) };
        }
        if (holder !== undefined) turns = follow(turns, holder, false, at);
        const given = NAMES.filter(() => true).some((name) => ask(turns, name, at)[1]);
        assert.ok(given || turns.queue.length > 0);
        const first = turns.queue.find(({ askedAt }) => at - askedAt <= STALE_MS)?.name;
        if (first !== undefined) assert.ok(ask(turns, first, at)[1]);
      }),
      { numRuns: 300 },
    );
  });
});
