import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { formatJournal, parseJournal } from "#core/journal.ts";
import { RESUMPTIONS, next, stepsOf } from "#core/update.ts";
import type { Event, Step } from "#core/update.ts";
import { ASTRAY_LIMIT, INITIAL, astray, banksOf, served } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import {
  CHANNEL,
  attentive,
  urgent,
  vetoed,
  held,
  all,
  bank,
  begun,
  follow,
  health,
  history,
  permitted,
  policy,
  restarted,
  seen,
  staged,
  started,
  target,
  unreached,
  withheld,
} from "./support/histories.ts";

/** The state after some events, and the steps of the last. */
function after(start: UpdateState, ...events: readonly Event[]): [UpdateState, readonly Step[]] {
  let state = start;
  let steps: readonly Step[] = [];
  for (const event of events) [state, steps] = next(state, event, policy);
  return [state, steps];
}

const awaitSwap: Step = { step: "await-swap", bank: bank(2), heldSince: null, undelivered: 0 };

const [installed] = after(INITIAL, seen(1), staged(1));
const [trial] = after(installed, seen(2), staged(2), permitted);
const [watching] = after(trial, restarted);

describe("a first installation", () => {
  test("is committed as soon as its bank is complete", () => {
    const [downloading, steps] = after(INITIAL, seen(1));
    assert.equal(downloading.phase, "downloading");
    assert.deepEqual(steps.at(-1), { step: "build", target: target(1), from: null });
    const [state, then] = after(downloading, staged(1));
    assert.deepEqual(state, {
      phase: "committed",
      bank: bank(1),
      previous: null,
      channels: { [CHANNEL]: { sequence: 1, blocked: null } },
    });
    assert.deepEqual(then, [
      { step: "activate", bank: bank(1) },
      { step: "sweep", keep: [bank(1).id] },
    ]);
  });

  test("that fails leaves nothing behind, and is begun again when the channel is seen", () => {
    const [idle] = after(INITIAL, seen(1), { event: "failed", code: "ORIGIN_UNAVAILABLE" });
    assert.equal(idle.phase, "idle");
    assert.equal(after(idle, seen(1))[0].phase, "downloading");
  });
});

describe("an update", () => {
  test("is staged, then tried: the new bank is served before the restart", () => {
    const [state, steps] = after(installed, seen(2), staged(2));
    assert.equal(state.phase, "staged");
    assert.deepEqual(steps, [{ step: "activate", bank: bank(1) }, awaitSwap]);
    const [tried, then] = after(state, permitted);
    assert.equal(tried.phase, "trial");
    assert.deepEqual(then, [
      { step: "activate", bank: bank(2), trial: true },
      { step: "restart", withinMs: 600_000 },
    ]);
  });

  test("that the application holds remembers since when, once, also after a restart", () => {
    const [state, steps] = after(installed, seen(2), staged(2), held);
    assert.deepEqual(steps.at(-1), { ...awaitSwap, heldSince: 1_000 });
    assert.equal(after(state, { event: "held", at: 2_000 })[0], state);
    assert.deepEqual(after(state, started(1, 2))[1], steps);
    assert.deepEqual(after(state, withheld(2), seen(2))[1], steps);
    assert.equal(after(watching, held)[0], watching);
  });

  test("is not begun for what is installed", () => {
    assert.deepEqual(after(installed, seen(1)), [installed, []]);
  });

  test("that waits for its swap gives way to a newer one, and to nothing else", () => {
    const [state] = after(installed, seen(2), staged(2));
    assert.deepEqual(after(state, seen(2)), [state, []]);
    assert.deepEqual(after(state, { event: "tick", passedMs: 9_999_999 })[0], state);
    const [newer, steps] = after(state, seen(3));
    assert.equal(newer.phase, "downloading");
    assert.deepEqual(steps.slice(1), [
      { step: "sweep", keep: [bank(1).id] },
      { step: "await-download", target: target(3), first: false },
      { step: "build", target: target(3), from: bank(1) },
    ]);
  });

  test("to the same tree under another number is adopted without a trial", () => {
    const same = { ...bank(2), tree: bank(1).tree };
    const [state] = after(installed, seen(2), { event: "staged", bank: same });
    assert.equal(state.phase, "committed");
    assert.deepEqual(served(state), { ...same, id: bank(1).id });
  });

  test("that cannot be had leaves the old release committed", () => {
    const [state] = after(installed, seen(2), { event: "failed", code: "DISK_FULL" });
    assert.equal(state.phase, "committed");
    assert.deepEqual(served(state), bank(1));
  });

  test("whose swap fails is staged still: the disk failed, not the release", () => {
    const [state, steps] = after(trial, { event: "failed", code: "DISK_FAILED" });
    assert.equal(state.phase, "staged");
    assert.deepEqual(steps, []);
    assert.equal(state.channels[CHANNEL]?.blocked, null);
  });
});

describe("a trial", () => {
  test("commits after trial-duration of health without a break, and only then removes the old bank", () => {
    const [early] = after(watching, health("healthy"), health("healthy", 59_999));
    assert.equal(early.phase, "trial");
    const [state, steps] = after(early, health("healthy", 1));
    assert.deepEqual(served(state), bank(2));
    assert.equal(state.phase, "committed");
    assert.deepEqual(steps.at(-1), { step: "sweep", keep: [bank(2).id] });
  });

  test("counts health anew after a check that was not healthy", () => {
    const [state] = after(
      watching,
      health("healthy"),
      health("healthy", 50_000),
      health("unknown"),
      health("healthy"),
      health("healthy", 50_000),
    );
    assert.equal(state.phase, "trial");
  });

  test("goes back after as many failed checks in a row as the threshold says", () => {
    const failing = health("unhealthy");
    const [before] = after(watching, health("healthy"), failing, failing);
    assert.equal(before.phase, "trial");
    const [state, steps] = after(before, failing);
    assert.equal(state.phase, "rolling-back");
    assert.equal(state.channels[CHANNEL]?.blocked?.reason, "health_failed");
    assert.deepEqual(steps, [
      { step: "activate", bank: bank(1) },
      { step: "restart", withinMs: null },
    ]);
    const [restored, then] = after(state, restarted);
    assert.deepEqual(served(restored), bank(1));
    assert.deepEqual(then.at(-1), { step: "sweep", keep: [bank(1).id] });
  });

  test("lets a program come up: failed checks do not count until it was healthy once or its grace is over", () => {
    const failing = health("unhealthy");
    const [coming] = after(watching, failing, failing, failing, failing, failing);
    assert.equal(coming.phase, "trial");
    const [state] = after(coming, failing, failing, failing);
    assert.equal(state.phase, "rolling-back");
  });

  test("goes back when the release was not healthy for long enough before trial-timeout", () => {
    const [before] = after(watching, health("unknown", 598_999));
    assert.equal(before.phase, "trial");
    const [state] = after(before, health("unknown", 1));
    assert.equal(state.channels[CHANNEL]?.blocked?.reason, "trial_timeout");
  });

  test("goes back when the container is not seen to start before trial-timeout", () => {
    const [state] = after(trial, { event: "tick", passedMs: 600_000 });
    assert.equal(state.phase, "rolling-back");
  });

  test("goes back when the container starts more often than trial-starts allows, the restart for it included", () => {
    const [once] = after(watching, health("healthy", 1_000, 1));
    assert.equal(once.phase, "trial");
    const [state] = after(once, health("healthy", 1_000, 1));
    assert.equal(state.channels[CHANNEL]?.blocked?.reason, "too_many_starts");
  });

  test("is resumed after a restart of the sidecar, with what was saved", () => {
    const [state, steps] = after(watching, started(1, 2));
    assert.deepEqual(steps, [
      { step: "activate", bank: bank(2), trial: true },
      { step: "watch", withinMs: 600_000, bank: bank(2), from: "1.1.0" },
    ]);
    assert.equal(state.phase === "trial" && state.resumed, 1);
    assert.equal(state.phase === "trial" && state.starts, 1);
  });

  test("is given up when the sidecar restarts again and again", () => {
    const restarts = Array.from({ length: RESUMPTIONS + 1 }, () => started(1, 2));
    const [state] = after(watching, ...restarts);
    assert.equal(state.channels[CHANNEL]?.blocked?.reason, "interrupted");
  });

  test("keeps the old bank after the commit when nobody is restarted for it, until the next release", () => {
    const lenient = { ...policy, restarts: false };
    const [first] = next(watching, health("healthy"), lenient);
    const [state, steps] = next(first, health("healthy", 60_000), lenient);
    assert.deepEqual(steps.at(-1), { step: "sweep", keep: [bank(2).id, bank(1).id] });
    const [, then] = next(state, seen(3), lenient);
    assert.deepEqual(then[1], { step: "sweep", keep: [bank(2).id] });
  });
});

describe("a rollback that the application is not told of", () => {
  const [rolling, begin] = after(watching, vetoed("post-swap"));

  test("goes on being told, whatever the channel says of the release that failed", () => {
    assert.deepEqual(after(rolling, { event: "tick", passedMs: 1 })[1], begin);
    for (const event of [seen(2), withheld(2), withheld(3), health("unhealthy"), permitted])
      assert.equal(after(rolling, event)[0].phase, "rolling-back");
  });

  test("gives way to a newer release, built from what is in place again, and keeps what may run", () => {
    const [state, steps] = after(rolling, seen(3));
    assert.deepEqual(served(state), bank(1));
    assert.deepEqual(steps, [
      { step: "activate", bank: bank(1) },
      { step: "deliver" },
      { step: "sweep", keep: [bank(1).id, bank(2).id] },
      { step: "await-download", target: target(3), first: false },
      { step: "build", target: target(3), from: bank(1) },
    ]);
    const [, then] = after(state, staged(3));
    assert.deepEqual(then.slice(0, 2), [{ step: "activate", bank: bank(1) }, { step: "deliver" }]);
  });

  test("is over when the application hears of it at last, while the newer one is fetched or waits", () => {
    const plain = after(installed, seen(3));
    assert.deepEqual(after(rolling, seen(3), restarted)[1], plain[1]);
    const [ready, steps] = after(rolling, seen(3), staged(3), restarted);
    assert.deepEqual(astray(ready), []);
    assert.equal(
      steps.some(({ step }) => step === "deliver"),
      false,
    );
  });

  test("is over when the application hears of the newer one", () => {
    const [state] = after(rolling, seen(3), staged(3), permitted, restarted);
    assert.deepEqual([state.phase, served(state), astray(state)], ["trial", bank(3), []]);
    assert.deepEqual(banksOf(after(state, vetoed("post-swap"))[0]), [bank(1), bank(3)]);
  });

  test("is gone back to when the newer one cannot be had, is withheld, or is refused", () => {
    const failed: Event = { event: "failed", code: "DISK_FULL" };
    for (const events of [
      [failed],
      [withheld(3)],
      [vetoed("pre-download")],
      [staged(3), vetoed("pre-swap")],
      [staged(3), withheld(4)],
      [started(1, 2)],
    ]) {
      const [state] = after(rolling, seen(3), ...events);
      assert.deepEqual([state.phase, banksOf(state)], ["rolling-back", [bank(1), bank(2)]]);
    }
  });

  test("is gone back to also when the newer one is lost from the volume", () => {
    const waiting = after(rolling, seen(3), staged(3), started(1, 2))[0];
    assert.deepEqual([waiting.phase, banksOf(waiting)], ["rolling-back", [bank(1), bank(2)]]);
    const begun = after(rolling, seen(3), staged(3), permitted, started(1, 2))[0];
    assert.deepEqual([begun.phase, banksOf(begun)], ["rolling-back", [bank(1), bank(3), bank(2)]]);
  });

  test("is not followed by more and more releases that do not reach the application either", () => {
    let state = rolling;
    for (let number = 3; number < 20; number++)
      [state] = after(state, seen(number), staged(number), permitted, unreached(600_000));
    assert.equal(state.phase, "rolling-back");
    assert.deepEqual(
      banksOf(state).map(({ sequence }) => sequence),
      [1, 5, 4, 3, 2],
    );
    assert.equal(state.channels[CHANNEL]?.sequence, 19);
  });

  test("is forgotten by a person's word: the release that failed is tried again", () => {
    const [state, steps] = after(rolling, { event: "retry" }, seen(2));
    assert.equal(state.phase, "downloading");
    assert.deepEqual(steps.at(-1), { step: "build", target: target(2), from: bank(1) });
    const [ready] = after(state, staged(2));
    assert.deepEqual([ready.phase, astray(ready)], ["staged", [bank(2)]]);
    // It may run it still when something newer takes its place.
    const [newer, [, , swept]] = after(ready, seen(3));
    assert.deepEqual(
      [newer.phase, swept],
      ["downloading", { step: "sweep", keep: [bank(1).id, bank(2).id] }],
    );
  });
});

describe("a release that did not reach the application", () => {
  const [rolling] = after(trial, unreached(600_000));
  const reasonOf = (state: UpdateState): unknown => {
    const { blocked } = state.channels[CHANNEL] ?? {};
    return blocked && [blocked.reason, blocked.tries, blocked.failure?.result];
  };

  test("was not tried: it waits for another trial once the application has what it had", () => {
    assert.deepEqual(
      [rolling.phase, reasonOf(rolling)],
      ["rolling-back", ["not_delivered", 1, "ECONNREFUSED"]],
    );
    const [state, steps] = after(rolling, restarted);
    assert.equal(state.phase, "staged");
    assert.deepEqual(steps.at(-1), { ...awaitSwap, undelivered: 1 });
    assert.deepEqual(after(state, started(1, 2))[1], steps);
    const [again] = after(state, permitted, unreached(600_000), restarted);
    assert.deepEqual(
      [again.phase, reasonOf(again)],
      ["staged", ["not_delivered", 2, "ECONNREFUSED"]],
    );
    const [delivered] = after(again, permitted, restarted);
    assert.deepEqual([delivered.phase, reasonOf(delivered)], ["trial", null]);
  });

  test("is tried at once when a person says so, and gives way to what is newer", () => {
    const [state] = after(rolling, restarted);
    const [forgiven] = after(state, { event: "retry" });
    assert.deepEqual(after(forgiven, { event: "tick", passedMs: 1 })[1].at(-1), awaitSwap);
    assert.equal(after(state, seen(3))[0].phase, "downloading");
  });

  test("may have when the sidecar was restarted meanwhile, or anything was answered", () => {
    const [resumed] = after(trial, started(1, 2), unreached(600_000));
    assert.equal(resumed.channels[CHANNEL]?.blocked?.reason, "trial_timeout");
    const [answered] = after(trial, { event: "tick", passedMs: 600_000 });
    assert.equal(answered.channels[CHANNEL]?.blocked?.reason, "trial_timeout");
    const [late] = after(watching, unreached(600_000));
    assert.equal(late.channels[CHANNEL]?.blocked?.reason, "trial_timeout");
  });
});

describe("a channel", () => {
  const [blocked] = after(trial, { event: "tick", passedMs: 600_000 }, restarted);

  test("that goes back in sequence is refused, and nothing is adopted", () => {
    const [up] = after(installed, seen(5), { event: "failed", code: "ORIGIN_UNAVAILABLE" });
    const [state, steps] = after(up, seen(4));
    assert.equal(state, up);
    assert.deepEqual(steps, [
      { step: "refuse", code: "RELEASE_ROLLBACK", target: target(4), floor: 5 },
    ]);
  });

  test("is not followed to a release that was rolled back", () => {
    assert.equal(blocked.phase, "committed");
    assert.deepEqual(after(blocked, seen(2)), [blocked, []]);
  });

  test("that was set anew is followed, also to what was rolled back", () => {
    const again = { ...target(3), version: "1.2.0" };
    const [state] = after(blocked, { event: "seen", target: again });
    assert.equal(state.phase, "downloading");
    assert.equal(state.channels[CHANNEL]?.blocked, null);
  });

  test("that goes on during a trial is looked at again when the trial is over", () => {
    const [state] = after(watching, seen(3), health("healthy"), health("healthy", 60_000));
    assert.deepEqual(served(state), bank(2));
    assert.equal(after(state, seen(3))[0].phase, "downloading");
  });

  test("that goes on during a trial is not blocked with the release that fails", () => {
    const [state] = after(watching, seen(3), { event: "tick", passedMs: 600_000 }, restarted);
    assert.equal(state.channels[CHANNEL]?.sequence, 3);
    assert.equal(after(state, seen(3))[0].phase, "downloading");
  });

  test("has numbers of its own", () => {
    const other = { channel: "web/edge", sequence: 1, version: "9.0.0" };
    const [state] = after(blocked, { event: "seen", target: other });
    assert.equal(state.phase, "downloading");
    assert.equal(state.channels[CHANNEL]?.sequence, 2);
  });
});

describe("a release that is withheld", () => {
  test("is not fetched, and its number is remembered all the same", () => {
    const [state, steps] = after(installed, withheld(2));
    assert.deepEqual([served(state), steps], [bank(1), []]);
    assert.equal(state.channels[CHANNEL]?.sequence, 2);
    assert.equal(after(state, seen(1))[1][0]?.step, "refuse");
    assert.equal(after(state, withheld(1))[1][0]?.step, "refuse");
    assert.equal(after(state, seen(2))[0].phase, "downloading");
  });

  test("is not fetched any further, and nothing of it is removed", () => {
    const [state, steps] = after(installed, begun(2, "2"), withheld(2));
    assert.deepEqual([state.phase, steps], ["committed", []]);
    assert.deepEqual(after(INITIAL, begun(2, "2"), withheld(2)), [
      { phase: "idle", channels: { [CHANNEL]: { sequence: 2, blocked: null } } },
      [],
    ]);
  });

  test("stays staged and is not swapped, also after a restart, until the channel goes on", () => {
    const [state, steps] = after(installed, begun(2, "2"), staged(2), withheld(2));
    assert.equal(state.phase, "staged");
    assert.deepEqual(steps, [{ step: "activate", bank: bank(1) }]);
    for (const event of [permitted, withheld(2), { event: "tick", passedMs: 1 } as const])
      assert.equal(after(state, event)[0], state);
    assert.deepEqual(after(state, started(1, 2))[1], steps);
    const [freed, then] = after(state, begun(2, "2"));
    assert.deepEqual(then.at(-1), awaitSwap);
    assert.equal(after(freed, permitted)[0].phase, "trial");
  });

  test("under a grown number stays staged too", () => {
    const again: Target = { ...target(3), version: target(2).version };
    const [state] = after(installed, seen(2), staged(2), { event: "withheld", target: again });
    assert.equal(state.phase === "staged" && state.withheld, true);
    const [freed, then] = after(state, { event: "seen", target: again });
    assert.equal(freed.phase, "staged");
    assert.deepEqual(then.at(-1), awaitSwap);
  });

  test("takes the place of what was staged for an earlier state of the channel", () => {
    const [state, steps] = after(installed, seen(2), staged(2), withheld(3));
    assert.equal(state.phase, "committed");
    assert.deepEqual(steps.at(-1), { step: "sweep", keep: [bank(1).id] });
  });

  test("goes on with its trial once it has been swapped", () => {
    assert.equal(after(watching, withheld(2))[0].phase, "trial");
  });

  test("has not begun any more; one that was only interrupted has", () => {
    const [state] = after(installed, begun(2, "2"), { event: "failed", code: "DISK_FULL" });
    assert.equal(state.channels[CHANNEL]?.begun, "2");
    assert.equal(after(state, withheld(2))[0].channels[CHANNEL]?.begun, undefined);
  });
});

describe("a download that waits", () => {
  const [waiting, begin] = after(installed, seen(2));

  test("asks first whether it may go on", () => {
    assert.deepEqual(begin.slice(-2), [
      { step: "await-download", target: target(2), first: false },
      { step: "build", target: target(2), from: bank(1) },
    ]);
    assert.deepEqual(after(waiting, { event: "tick", passedMs: 1 })[1], begin);
    assert.deepEqual(after(waiting, seen(2)), [waiting, []]);
  });

  test("gives way to what is newer", () => {
    const [state, steps] = after(waiting, seen(3));
    assert.deepEqual(state.phase === "downloading" && state.target, target(3));
    assert.deepEqual(steps.at(-1), { step: "build", target: target(3), from: bank(1) });
    assert.equal(after(state, staged(2))[0], state);
  });

  test("and what it waits for learn from the channel that it is urgent, or is not any more", () => {
    const [state] = after(waiting, urgent(2));
    assert.equal(state.channels[CHANNEL]?.urgent, true);
    assert.deepEqual(parseJournal(Buffer.from(formatJournal(state))), state);
    const [ready] = after(state, staged(2));
    assert.equal(ready.channels[CHANNEL]?.urgent, true);
    assert.equal(after(ready, seen(2))[0].channels[CHANNEL]?.urgent, undefined);
  });
});

describe("a release that the application refuses", () => {
  const reasonOf = (state: UpdateState): unknown => {
    const { blocked } = state.channels[CHANNEL] ?? {};
    return blocked && [blocked.sequence, blocked.reason, blocked.detail];
  };
  const refused = [2, "hook_refused", "not now"];

  test("before it is fetched is not fetched, and the site stays on what it has", () => {
    const [state] = after(installed, seen(2), vetoed("pre-download"));
    assert.deepEqual(
      [state.phase, served(state), reasonOf(state)],
      ["committed", bank(1), refused],
    );
    assert.equal(state.channels[CHANNEL]?.blocked?.tree, null);
    assert.equal(after(state, seen(2))[0].phase, "committed");
    assert.equal(after(state, seen(3))[0].phase, "downloading");
  });

  test("before it is swapped is thrown away", () => {
    const [state, steps] = after(installed, seen(2), staged(2), vetoed("pre-swap"));
    assert.deepEqual(
      [state.phase, served(state), reasonOf(state)],
      ["committed", bank(1), refused],
    );
    assert.deepEqual(steps.at(-1), { step: "sweep", keep: [bank(1).id] });
  });

  test("when it runs with it is rolled back", () => {
    const [state, steps] = after(watching, vetoed("post-swap"));
    assert.deepEqual([state.phase, reasonOf(state)], ["rolling-back", refused]);
    assert.deepEqual(steps.at(-1), { step: "restart", withinMs: null });
  });

  test("as the first of all leaves the site without one until there is another", () => {
    const [state] = after(INITIAL, seen(1), vetoed("pre-download"));
    assert.equal(state.phase, "idle");
    assert.equal(after(state, seen(1))[0].phase, "idle");
    assert.equal(after(state, seen(2))[0].phase, "downloading");
  });

  test("at another time than it is at is not refused", () => {
    const [ready] = after(installed, seen(2), staged(2));
    for (const state of [installed, ready, watching])
      assert.equal(after(state, vetoed("pre-download"))[0], state);
    for (const state of [installed, ready])
      assert.equal(after(state, vetoed("post-swap"))[0], state);
  });

  test("is not held against a newer one that the channel names meanwhile", () => {
    const [state] = after(installed, seen(2), staged(2), withheld(2), seen(3), vetoed("pre-swap"));
    assert.equal(state.phase, "downloading");
  });
});

describe("a person who wants what is blocked tried again", () => {
  const [blocked] = after(trial, { event: "tick", passedMs: 600_000 }, restarted);

  test("is obeyed at the next look, and nothing else changes", () => {
    const [state, steps] = after(blocked, { event: "retry" });
    assert.deepEqual([state.phase, served(state), steps], ["committed", bank(1), []]);
    assert.equal(state.channels[CHANNEL]?.sequence, 2);
    assert.equal(after(state, seen(2))[0].phase, "downloading");
    assert.equal(after(state, seen(1))[1][0]?.step, "refuse");
  });

  test("changes nothing where nothing is blocked", () => {
    for (const state of [INITIAL, installed, watching])
      assert.deepEqual(after(state, { event: "retry" }), [state, []]);
  });
});

describe("an application that wants to be told", () => {
  const told = (state: UpdateState, event: Event): readonly [UpdateState, readonly Step[]] =>
    next(state, event, attentive);

  test("is told of the first release, of a commit and of a rollback, and by whom it follows", () => {
    const [first] = told(after(INITIAL, seen(1))[0], staged(1));
    assert.deepEqual(first.phase === "committed" && first.notice, {
      hook: "post-commit",
      from: null,
    });
    const [healthy] = told(watching, health("healthy"));
    const [state, steps] = told(healthy, health("healthy", 60_000));
    const notice = { hook: "post-commit", from: "1.1.0" };
    assert.deepEqual(steps.at(-1), { step: "notify", bank: bank(2), notice });
    const [rolling] = told(watching, vetoed("post-swap"));
    const [back] = told(rolling, restarted);
    assert.deepEqual(back.phase === "committed" && back.notice, {
      hook: "post-rollback",
      from: "1.2.0",
    });
    assert.deepEqual(told(state, started(2))[1].at(-1), steps.at(-1));
    assert.deepEqual(told(state, { event: "notified" })[0], {
      phase: "committed",
      bank: bank(2),
      previous: null,
      channels: state.channels,
    });
  });

  test("is not waited for when there is something newer", () => {
    const [healthy] = told(watching, health("healthy"));
    const [state] = told(healthy, health("healthy", 60_000));
    assert.equal(told(state, seen(3))[0].phase, "downloading");
  });
});

describe("recovery", () => {
  test("drops a download, which goes on when the channel is seen", () => {
    const [downloading] = after(installed, seen(2));
    assert.deepEqual(served(after(downloading, started(1))[0]), bank(1));
  });

  test("goes on with a staged release", () => {
    const [state] = after(installed, seen(2), staged(2));
    assert.deepEqual(after(state, started(1, 2))[1].at(-1), awaitSwap);
  });

  test("tells the application of the fallback when the release on trial is gone, and blames nobody", () => {
    const [rolling, steps] = after(watching, started(1));
    assert.deepEqual(steps.at(-1), { step: "restart", withinMs: null });
    assert.equal(rolling.channels[CHANNEL]?.blocked, null);
    const [state] = after(rolling, restarted, seen(2));
    assert.deepEqual([state.phase, served(state)], ["downloading", bank(1)]);
  });

  test("ends a rollback", () => {
    const [rolling] = after(trial, { event: "tick", passedMs: 600_000 });
    assert.deepEqual(after(rolling, started(1, 2))[1], stepsOf(rolling, policy));
  });

  for (const [name, state, left, expected] of [
    ["a committed bank that is gone", installed, [], null],
    ["a trial whose bank is gone", watching, [1], 1],
    ["a trial whose fallback is gone", watching, [2], 2],
    [
      "a rollback to a bank that is gone",
      after(trial, { event: "tick", passedMs: 600_000 })[0],
      [2],
      2,
    ],
    ["everything gone", watching, [], null],
  ] as const)
    test(`serves what is left after ${name}`, () => {
      const [recovered] = after(state, started(...left));
      assert.deepEqual(served(recovered), expected === null ? null : bank(expected));
    });
});

const RUNS = { numRuns: 300 };

describe("in any history", () => {
  test("every state survives the journal", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (_before, _event, state) => {
          const text = formatJournal(state);
          const back = parseJournal(Buffer.from(text));
          assert.equal(formatJournal(back), text);
          assert.deepEqual({ ...back, watch: 0 }, { ...state, watch: 0 });
        }),
      ),
      RUNS,
    );
  });

  test("what is served is known, made so first, and never swept away", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (_before, _event, state) => {
          const now = served(state);
          const [first, ...rest] = stepsOf(state, attentive);
          const trial = state.phase === "trial" && { trial: true };
          if (now !== null) assert.deepEqual(first, { step: "activate", bank: now, ...trial });
          for (const step of rest)
            if (step.step === "sweep" && now !== null) assert.ok(step.keep.includes(now.id));
        }),
      ),
      RUNS,
    );
  });

  test("sequence numbers only grow", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (before, _event, state) => {
          const known = before.channels[CHANNEL]?.sequence ?? 0;
          assert.ok((state.channels[CHANNEL]?.sequence ?? 0) >= known);
        }),
      ),
      RUNS,
    );
  });

  test("a committed release is left only for a trial of what the channel names, and that comes back to it or is committed", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (before, event, state) => {
          const was = served(before);
          const is = served(state);
          if (was === null || is === null || was.id === is.id) return;
          if (before.phase === "staged" && state.phase === "trial")
            assert.deepEqual([state.fallback, state.bank], [before.from, before.bank]);
          else if (before.phase === "trial" && state.phase === "rolling-back")
            assert.deepEqual([state.to, state.failed], [before.fallback, before.bank]);
          else if (before.phase === "trial" && state.phase === "staged")
            assert.deepEqual([event.event, state.from], ["failed", before.fallback]);
          else assert.fail(`${before.phase} to ${state.phase} on ${event.event}`);
        }),
      ),
      RUNS,
    );
  });

  test("what was rolled back or refused is not fetched again under its number, unless a person says so", () => {
    fc.assert(
      fc.property(history, (events) => {
        const rolledBack = new Set<number>();
        follow(events, (before, event, state, steps) => {
          if (event.event === "retry") rolledBack.clear();
          // On the way in only: who says "retry" while it goes back means it.
          if (
            state.phase === "rolling-back" &&
            before.phase === "trial" &&
            event.event !== "started"
          )
            rolledBack.add(state.failed.sequence);
          const blocked = state.channels[CHANNEL]?.blocked;
          if (blocked && blocked !== before.channels[CHANNEL]?.blocked)
            rolledBack.add(blocked.sequence);
          for (const step of steps)
            if (step.step === "build") assert.ok(!rolledBack.has(step.target.sequence));
        });
      }),
      RUNS,
    );
  });

  test("a trial is bounded in time, in starts and in restarts of the sidecar", () => {
    fc.assert(
      fc.property(history, (events) => {
        let [spent, starts, resumed] = [0, 0, 0];
        follow(events, (before, event, state) => {
          if (before.phase !== "trial") [spent, starts, resumed] = [0, 0, 0];
          if (event.event === "started") spent = 0;
          else if ("passedMs" in event && before.phase === "trial" && concerns(before, event))
            spent += event.passedMs;
          if (event.event === "health" && before.phase === "trial" && concerns(before, event))
            starts += event.starts;
          if (event.event === "started" && before.phase === "trial") resumed += 1;
          if (state.phase !== "trial") return;
          assert.ok(spent < policy.trialTimeoutMs, `${spent} ms`);
          assert.ok(starts < policy.trialStarts, `${starts} starts beside the restart`);
          assert.ok(resumed <= RESUMPTIONS);
        });
      }),
      RUNS,
    );
  });

  test("of every trial's end the application is told, until it has heard or the next release is begun", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (before, event, state, steps) => {
          if (state.phase !== "committed") return;
          const ended = before.phase === "trial" || before.phase === "rolling-back";
          if (ended && event.event !== "started") {
            const hook = before.phase === "trial" ? "post-commit" : "post-rollback";
            const from = before.phase === "trial" ? before.fallback : before.failed;
            assert.deepEqual(state.notice, { hook, from: from.version });
            assert.equal(steps.at(-1)?.step, "notify");
          }
          const was = before.phase === "committed" ? before.notice : undefined;
          if (was === undefined || event.event === "notified") return;
          // What is left of its bank is not told of: a site that lost it has other worries.
          if (event.event !== "started") assert.deepEqual(state.notice, was);
        }),
      ),
      RUNS,
    );
  });

  test("what the application may run is never swept away", () => {
    fc.assert(
      fc.property(history, (events) => {
        let running = new Set<string>();
        follow(events, (before, event, state, steps) => {
          const now = served(state)?.id;
          // Whatever `current` names it may start from by itself; what it is told of it runs, and nothing else.
          if (now !== undefined) running.add(now);
          const heard = before.phase === "trial" && before.stage === "restarting";
          // The swap itself failed, so nothing was tried.
          if (heard && event.event === "failed") running.delete(before.bank.id);
          if (
            event.event === "restarted" &&
            (heard || before.phase === "rolling-back" || astray(before).length > 0)
          )
            running = new Set([served(before)?.id ?? ""]);
          if (state.phase === "committed" && before.phase === "downloading" && before.from === null)
            running = new Set([state.bank.id]);
          for (const step of steps)
            if (step.step === "sweep")
              for (const id of running) assert.ok(step.keep.includes(id), `${id} may run`);
        });
      }),
      RUNS,
    );
  });

  test("bytes are fetched only after it was asked whether they may be", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (_before, _event, _state, steps) => {
          const build = steps.findIndex(({ step }) => step === "build");
          if (build !== -1) assert.equal(steps[build - 1]?.step, "await-download");
        }),
      ),
      RUNS,
    );
  });

  test("recovery from recovery is the same recovery", () => {
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (_before, _event, state) => {
          const restart = started(...all);
          const [once, steps] = next(state, restart, attentive);
          const [twice, again] = next(once, restart, attentive);
          if (twice.phase === "rolling-back" && once.phase === "trial") return;
          assert.deepEqual(served(twice), served(once));
          assert.deepEqual(again, steps);
        }),
      ),
      RUNS,
    );
  });

  test("the histories of these tests get everywhere", () => {
    const phases = new Set<string>();
    const reasons = new Set<string>();
    fc.assert(
      fc.property(history, (events) =>
        follow(events, (_before, _event, state) => {
          phases.add(state.phase);
          reasons.add(state.channels[CHANNEL]?.blocked?.reason ?? "none");
          assert.ok(banksOf(state).length <= 3 + ASTRAY_LIMIT);
        }),
      ),
      { numRuns: 2_000, seed: 1 },
    );
    assert.deepEqual([...phases].toSorted(), [
      "committed",
      "downloading",
      "idle",
      "rolling-back",
      "staged",
      "trial",
    ]);
    assert.deepEqual([...reasons].toSorted(), [
      "health_failed",
      "hook_refused",
      "interrupted",
      "none",
      "not_delivered",
      "too_many_starts",
      "trial_timeout",
    ]);
  });
});

/** Whether an event of a kind that has another meaning elsewhere is about a trial in this stage. */
function concerns(trial: Extract<UpdateState, { phase: "trial" }>, event: Event): boolean {
  if (event.event === "health") return trial.stage === "watching";
  return event.event === "tick" || (event.event === "restarted" && trial.stage === "restarting");
}
