import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { heldBackSince, initialLever, nextLever } from "#core/lever.ts";
import type { Answer, Lever, LeverEvent } from "#core/lever.ts";
import type { AppProbes, Probe } from "#core/probe.ts";

const own: Probe = {
  handler: { kind: "tcp", port: 80 },
  initialDelayMs: 0,
  periodMs: 1_000,
  timeoutMs: 1_000,
  successThreshold: 1,
  failureThreshold: 3,
};
const window = { periodMs: 1_000, failureThreshold: 4 };
const plain: AppProbes = { container: "main", startupWindow: window };
const probing: AppProbes = { ...plain, startup: own, liveness: own };

/** Answers to a sequence of events one second apart, and the lever after them. */
function play(
  probes: AppProbes,
  kinds: readonly ("startup" | "liveness" | "restart" | "withdraw" | "up" | "down")[],
  from: Lever = initialLever,
): { answers: Answer[]; lever: Lever } {
  let lever = from;
  let at = Math.max(lever.since, lever.lastStartup);
  const answers: Answer[] = [];
  for (const kind of kinds) {
    at += 1_000;
    const event: LeverEvent =
      kind === "up" || kind === "down"
        ? {
            kind: "probed",
            probe: lever.phase === "starting" ? "startup" : "liveness",
            instance: lever.starts,
            passed: kind === "up",
          }
        : kind === "withdraw"
          ? { kind }
          : { kind, at };
    const [next, answer] = nextLever(lever, event, probes);
    lever = next;
    if (answer !== undefined) answers.push(answer);
  }
  return { answers, lever };
}

describe("a lever that is not pulled", () => {
  test("passes everything when the application has no probes of its own", () => {
    const { answers, lever } = play(plain, ["startup", "liveness", "liveness", "liveness"]);
    assert.deepEqual(answers, [200, 200, 200, 200]);
    assert.equal(lever.starts, 1);
  });

  test("passes the application's startup probe on", () => {
    const { answers } = play(probing, ["startup", "down", "startup", "up", "startup", "liveness"]);
    assert.deepEqual(answers, [503, 503, 200, 200]);
  });

  test("fails liveness only after as many failures in a row as the application's threshold", () => {
    const up = ["startup", "up", "startup", "liveness"] as const;
    const { answers } = play(probing, [
      ...up,
      "down",
      "down",
      "liveness",
      "up",
      "liveness",
      "down",
      "down",
      "down",
      "liveness",
      "up",
      "liveness",
    ]);
    assert.deepEqual(answers.slice(3), [200, 200, 503, 200]);
  });

  test("answers 200 after the sidecar alone has restarted", () => {
    const { answers, lever } = play(probing, ["liveness", "liveness"]);
    assert.deepEqual(answers, [200, 200]);
    assert.equal(lever.starts, 0);
  });

  test("counts an instance that the kubelet killed because it did not start in its window", () => {
    const { lever } = play(probing, ["startup", "startup", "startup", "startup", "startup"]);
    assert.equal(lever.starts, 2);
  });

  test("asks the application anew when a startup probe comes again at once", () => {
    const { answers, lever } = play(probing, [
      "startup",
      "up",
      "startup",
      "startup",
      "up",
      "startup",
    ]);
    assert.deepEqual(answers, [503, 200, 503, 200]);
    assert.equal(lever.starts, 1);
  });

  test("ignores a result that belongs to an earlier instance", () => {
    const { lever } = play(probing, ["startup", "up", "startup", "liveness"]);
    const late = { kind: "probed", probe: "liveness", instance: 0, passed: false } as const;
    assert.deepEqual(nextLever(lever, late, probing)[0], lever);
  });
});

describe("a pulled lever", () => {
  const live = ["startup", "liveness"] as const;

  test("fails liveness until the container starts again, then passes", () => {
    const { answers, lever } = play(plain, [
      ...live,
      "restart",
      "liveness",
      "liveness",
      "liveness",
      "startup",
      "liveness",
    ]);
    assert.deepEqual(answers.slice(2), [503, 503, 503, 200, 200]);
    assert.equal(lever.request, undefined);
    assert.equal(lever.starts, 2);
    assert.equal(lever.pulls.length, 1);
  });

  test("is one pull however often the restart is asked for", () => {
    const { lever } = play(plain, [...live, "restart", "liveness", "restart", "liveness"]);
    assert.equal(lever.pulls.length, 1);
  });

  test("is done without a pull when the container starts before the next probe", () => {
    const { lever } = play(plain, [...live, "restart", "startup"]);
    assert.equal(lever.request, undefined);
    assert.equal(lever.pulls.length, 0);
  });

  test("is done by the first start when the sidecar had seen none", () => {
    const { answers, lever } = play(plain, ["restart", "startup", "liveness"]);
    assert.deepEqual(answers, [200, 200]);
    assert.equal(lever.request, undefined);
  });

  test("fails the startup probe of a container that is still starting, until it must have been killed", () => {
    const { answers, lever } = play(probing, [
      "startup",
      "restart",
      "up",
      "startup",
      "startup",
      "startup",
      "startup",
      "up",
      "startup",
    ]);
    // The window allows four failures; the fifth probe is of the new instance, whose own startup probe then counts.
    assert.deepEqual(answers, [503, 503, 503, 503, 503, 200]);
    assert.equal(lever.starts, 2);
    assert.equal(lever.request, undefined);
  });

  test("takes a pause between startup probes for a new instance", () => {
    const { lever } = play(probing, ["startup", "restart", "startup"]);
    const [later, answer] = nextLever(
      lever,
      { kind: "startup", at: lever.lastStartup + 5_001 },
      plain,
    );
    assert.equal(answer, 200);
    assert.equal(later.request, undefined);
    assert.equal(later.starts, 2);
    const [same] = nextLever(lever, { kind: "startup", at: lever.lastStartup + 5_000 }, plain);
    assert.equal(same.starts, 1);
  });

  test("lets go when nobody waits for the restart any more", () => {
    const { answers } = play(plain, [...live, "restart", "liveness", "withdraw", "liveness"]);
    assert.deepEqual(answers.slice(2), [503, 200]);
  });

  test("waits for the liveness probe when the startup probe was just answered", () => {
    const { answers } = play(plain, ["startup", "restart", "startup", "liveness", "startup"]);
    assert.deepEqual(answers, [200, 200, 503, 200]);
  });
});

describe("a lever after a restart of the sidecar alone", () => {
  const inherited: Lever = { ...initialLever, inherited: true };

  test("pulls although the container is starting: it may have started with the old release", () => {
    const { answers, lever } = play(
      plain,
      ["restart", "startup", "startup", "startup", "startup", "startup", "liveness"],
      inherited,
    );
    assert.deepEqual(answers, [503, 503, 503, 503, 200, 200]);
    assert.equal(lever.starts, 1);
    assert.equal(lever.request, undefined);
  });

  test("pulls when the container is live", () => {
    const { answers, lever } = play(
      plain,
      ["restart", "liveness", "liveness", "startup", "liveness"],
      inherited,
    );
    assert.deepEqual(answers, [503, 503, 200, 200]);
    assert.equal(lever.starts, 1);
  });

  test("counts no start that it has not seen, and passes the application's own probes on", () => {
    const { answers, lever } = play(
      probing,
      ["startup", "up", "startup", "liveness", "liveness"],
      inherited,
    );
    assert.deepEqual(answers, [503, 200, 200, 200]);
    assert.equal(lever.starts, 0);
    assert.equal(play(probing, ["startup"], lever).lever.starts, 1);
  });

  test("never takes the instance that was there before the request for a new one", () => {
    const kinds = fc.constantFrom("startup", "liveness", "up", "down");
    fc.assert(
      fc.property(
        fc.array(kinds, { maxLength: 3 }),
        fc.boolean(),
        fc.boolean(),
        (before, ownProbes, early) => {
          const probes = ownProbes ? probing : plain;
          // Of one instance: startup probes come first, and never after a liveness probe.
          const order = before.toSorted(
            (a, b) => Number(a === "liveness") - Number(b === "liveness"),
          );
          const asked = early ? ["restart" as const, ...order] : [...order, "restart" as const];
          const { lever } = play(probes, asked, inherited);
          assert.notEqual(lever.request, undefined);
          assert.equal(lever.starts, 0);
        },
      ),
    );
  });
});

describe("a container that the kubelet holds back", () => {
  const windowMs = 30_000;

  test("is one whose lever was pulled and that is not probed any more", () => {
    const { lever } = play(plain, ["startup", "liveness", "restart", "liveness"]);
    const last = lever.lastProbe ?? 0;
    assert.equal(heldBackSince(lever, windowMs, last + 40_000), undefined);
    assert.equal(heldBackSince(lever, windowMs, last + 40_001), last);
    const started = play(plain, ["startup"], lever).lever;
    assert.equal(heldBackSince(started, windowMs, last + 1e6), undefined);
  });

  test("is none that is only not probed", () => {
    const idle = play(plain, ["startup", "liveness"]).lever;
    assert.equal(heldBackSince(idle, windowMs, 1e9), undefined);
    const asked = play(plain, ["startup", "liveness", "restart"]).lever;
    assert.equal(heldBackSince(asked, windowMs, 1e9), undefined);
  });
});

/** The kubelet's side: one container with both probes going through the lever, and no probe lost on the way. */
interface Kubelet {
  lever: Lever;
  at: number;
  started: boolean;
  startupFailures: number;
  livenessFailures: number;
  instances: number;
  /** Instances that were probed at least once, and whether the present one is among them. */
  probed: number;
  seen: boolean;
  kills: number;
}

function tick(kubelet: Kubelet, probes: AppProbes, livenessThreshold: number): void {
  kubelet.at += probes.startupWindow.periodMs;
  if (!kubelet.seen) kubelet.probed++;
  kubelet.seen = true;
  const kind = kubelet.started ? "liveness" : "startup";
  const [lever, answer] = nextLever(kubelet.lever, { kind, at: kubelet.at }, probes);
  kubelet.lever = lever;
  if (answer === 200) {
    kubelet.started = true;
    kubelet.startupFailures = 0;
    kubelet.livenessFailures = 0;
    return;
  }
  if (kind === "startup") kubelet.startupFailures++;
  else kubelet.livenessFailures++;
  const killed =
    kubelet.startupFailures >= probes.startupWindow.failureThreshold ||
    kubelet.livenessFailures >= livenessThreshold;
  if (killed) {
    kubelet.kills++;
    restart(kubelet);
  }
}

function restart(kubelet: Kubelet): void {
  kubelet.instances++;
  kubelet.seen = false;
  kubelet.started = false;
  kubelet.startupFailures = 0;
  kubelet.livenessFailures = 0;
}

describe("with any kubelet", () => {
  const action = fc.constantFrom("tick", "tick", "tick", "restart", "crash", "up");
  const scenario = {
    actions: fc.array(action, { maxLength: 60 }),
    startupThreshold: fc.integer({ min: 1, max: 5 }),
    livenessThreshold: fc.integer({ min: 1, max: 5 }),
    ownStartup: fc.boolean(),
  };

  function run({
    actions,
    startupThreshold,
    livenessThreshold,
    ownStartup,
  }: {
    actions: readonly string[];
    startupThreshold: number;
    livenessThreshold: number;
    ownStartup: boolean;
  }): { kubelet: Kubelet; asked: number; probes: AppProbes } {
    const probes: AppProbes = {
      container: "main",
      startupWindow: { periodMs: 1_000, failureThreshold: startupThreshold },
      ...(ownStartup ? { startup: own } : {}),
    };
    const kubelet: Kubelet = {
      lever: initialLever,
      at: 0,
      started: false,
      startupFailures: 0,
      livenessFailures: 0,
      instances: 1,
      probed: 0,
      seen: false,
      kills: 0,
    };
    let asked = 0;
    for (const what of actions) {
      if (what === "tick") tick(kubelet, probes, livenessThreshold);
      else if (what === "crash") {
        // Long enough after the last probe to be noticed, as a back-off is.
        restart(kubelet);
        kubelet.at += 10_000;
      } else if (what === "up") {
        const { starts: instance } = kubelet.lever;
        const event = { kind: "probed", probe: "startup", instance, passed: true } as const;
        [kubelet.lever] = nextLever(kubelet.lever, event, probes);
      } else {
        if (kubelet.lever.request === undefined) asked++;
        [kubelet.lever] = nextLever(kubelet.lever, { kind: "restart", at: kubelet.at }, probes);
      }
    }
    return { kubelet, asked, probes };
  }

  test("a container without probes of its own is killed at most once for each request, and never without one", () => {
    fc.assert(
      fc.property(fc.record(scenario), (input) => {
        const { kubelet, asked } = run({ ...input, ownStartup: false });
        assert.ok(kubelet.kills <= asked, `${kubelet.kills} kills for ${asked} requests`);
        assert.ok(kubelet.lever.pulls.length <= asked);
      }),
    );
  });

  test("every request ends in a restart, as long as the kubelet goes on probing", () => {
    fc.assert(
      fc.property(fc.record(scenario), (input) => {
        const { kubelet, probes } = run(input);
        if (kubelet.lever.request === undefined) return;
        const { instances } = kubelet;
        for (let turn = 0; turn < 12; turn++) tick(kubelet, probes, input.livenessThreshold);
        assert.equal(kubelet.lever.request, undefined);
        // Either it was killed for the request or it had just started by itself.
        assert.ok(kubelet.instances >= instances);
        assert.ok(kubelet.lever.starts > 0);
      }),
    );
  });

  test("as many starts are counted as instances were probed", () => {
    fc.assert(
      fc.property(fc.record(scenario), (input) => {
        const { kubelet } = run(input);
        assert.equal(kubelet.lever.starts, kubelet.probed);
      }),
    );
  });
});
