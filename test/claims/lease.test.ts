import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { mayAct, moveOf, openLease, renewed, sighted, taken } from "#core/claim-lease.ts";
import type { Lease, Move, Sight } from "#core/claim-lease.ts";

const LEASE_MS = 60;
const PODS = ["a", "b", "c"] as const;

interface Epoch {
  readonly holder: string;
  beat: number;
  released: boolean;
}

/** The volume: epochs whose folders are there, the highest of which is the last to have been made. */
interface Volume {
  readonly epochs: Map<number, Epoch>;
  readonly registered: Set<string>;
  /** Epochs of all that was written, in order. */
  readonly written: number[];
  /** The highest epoch whose holder has begun to read what its predecessors wrote. */
  readAt: number;
}

/** One process: a generator that stops wherever another may come between. */
interface Process {
  readonly pod: string;
  lease: Lease;
  run: Generator<void, void, void>;
}

interface World {
  readonly volume: Volume;
  readonly processes: Process[];
  /** Own monotonic time of a pod. */
  readonly clocks: Map<string, number>;
}

function sightOf({ epochs }: Volume): Sight | undefined {
  const epoch = Math.max(0, ...epochs.keys());
  const found = epochs.get(epoch);
  return found && { epoch, ...found };
}

function* life(world: World, process: Process): Generator<void, void, void> {
  const { volume, clocks } = world;
  const { pod } = process;
  const now = (): number => clocks.get(pod) ?? 0;
  /** A folder that nobody else ever has, in that of the epoch. */
  let own: Epoch | undefined;
  volume.registered.add(pod);
  for (;;) {
    yield;
    const begun = now();
    const alone = [...volume.registered].every((other) => other === pod);
    yield;
    const sight = sightOf(volume);
    yield;
    process.lease = sighted(process.lease, sight, begun, now());
    const move = moveOf(process.lease, true, alone, LEASE_MS);
    yield;
    if (move.move === "take") {
      if (volume.epochs.has(move.epoch)) continue;
      own = { holder: pod, beat: 0, released: false };
      volume.epochs.set(move.epoch, own);
      yield;
      if (sightOf(volume)?.epoch !== move.epoch) {
        volume.epochs.delete(move.epoch);
        continue;
      }
      for (const epoch of volume.epochs.keys()) {
        if (epoch < move.epoch) volume.epochs.delete(epoch);
        yield;
      }
      if (volume.epochs.get(move.epoch) !== own) continue;
      process.lease = taken(process.lease, move.epoch, begun);
      volume.readAt = Math.max(volume.readAt, move.epoch);
    } else if (move.move === "beat") {
      const epoch = volume.epochs.get(process.lease.held?.epoch ?? 0);
      if (epoch === undefined) continue;
      epoch.beat = move.beat;
      yield;
      process.lease = renewed(process.lease, begun, now(), LEASE_MS);
    } else if (move.move === "keep") {
      process.lease = renewed(process.lease, begun, now(), LEASE_MS);
    }
    yield;
    // An action: looked at whether it may be done, and done some time later, or not at all without the folder.
    const epoch = process.lease.held?.epoch;
    if (epoch === undefined || !mayAct(process.lease, now(), LEASE_MS)) continue;
    yield;
    if (volume.epochs.get(epoch) !== own) continue;
    assert.ok(epoch >= volume.readAt, "nothing is written behind the back of the next holder");
    volume.written.push(epoch);
  }
}

function start(world: World, pod: string): Process {
  const process: Process = { pod, lease: openLease(pod), run: (function* () {})() };
  process.run = life(world, process);
  return process;
}

function openWorld(): World {
  const volume: Volume = { epochs: new Map(), registered: new Set(), written: [], readAt: 0 };
  const world: World = { volume, processes: [], clocks: new Map(PODS.map((pod) => [pod, 0])) };
  for (const pod of PODS) world.processes.push(start(world, pod));
  return world;
}

function actors(world: World): readonly string[] {
  return world.processes
    .filter(({ lease, pod }) => mayAct(lease, world.clocks.get(pod) ?? 0, LEASE_MS))
    .map(({ pod }) => pod);
}

const which = fc.nat(PODS.length - 1);
const command = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant("step"), which, times: fc.nat(12) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("time"), ms: fc.nat(2 * LEASE_MS) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("crash"), which }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("release"), which }) },
  // Only where the test says so: a clock that goes on while the others stand still.
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("drift"), which, ms: fc.nat(3 * LEASE_MS) }),
  },
);
type Command = {
  readonly kind: string;
  readonly which?: number;
  readonly times?: number;
  readonly ms?: number;
};

function perform(world: World, command: Command, drift: boolean): void {
  const { kind, which: index = 0, times = 0, ms = 0 } = command;
  const process = world.processes[index];
  if (process === undefined) return;
  const { pod } = process;
  const { clocks, volume } = world;
  if (kind === "step") for (let turn = 0; turn <= times; turn++) process.run.next();
  else if (kind === "time") for (const [name, time] of clocks) clocks.set(name, time + ms);
  else if (kind === "drift" && drift) clocks.set(pod, (clocks.get(pod) ?? 0) + ms);
  else if (kind === "crash") world.processes[index] = start(world, pod);
  else if (kind === "release") {
    const epoch = process.lease.held?.epoch ?? 0;
    process.lease = { ...process.lease, held: undefined };
    const found = volume.epochs.get(epoch);
    if (found !== undefined) found.released = true;
  }
}

const history = fc.array(command, { maxLength: 300, size: "max" });

describe("a lease on a shared volume", () => {
  test("lets at most one act at any time, whatever is stopped for however long, killed or given back", () => {
    fc.assert(
      fc.property(history, (commands) => {
        const world = openWorld();
        for (const command of commands) {
          perform(world, command, false);
          assert.ok(actors(world).length <= 1, `${actors(world).join(" and ")} may act`);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("lets nothing be written behind the next holder's back, however the clocks run", () => {
    fc.assert(
      fc.property(history, (commands) => {
        const world = openWorld();
        for (const command of commands) perform(world, command, true);
        const { written } = world.volume;
        assert.deepEqual(
          written,
          written.toSorted((a, b) => a - b),
        );
      }),
      { numRuns: 2_000 },
    );
  });

  test("is held by somebody again soon after any history", () => {
    fc.assert(
      fc.property(history, which, (commands, survivor) => {
        const world = openWorld();
        for (const command of commands) perform(world, command, true);
        const process = world.processes[survivor];
        assert.ok(process !== undefined);
        let rounds = 0;
        while (!actors(world).includes(process.pod) && rounds < 40) {
          rounds += 1;
          for (let turn = 0; turn < 10; turn++) process.run.next();
          perform(world, { kind: "time", ms: LEASE_MS / 6 }, false);
        }
        assert.ok(rounds < 40, "the only process that lives holds it in the end");
      }),
    );
  });

  const SEEN: Sight = { epoch: 4, holder: "b", beat: 7, released: false };

  test("is waited for until the same beat was seen for the whole lease", () => {
    const lease = sighted(openLease("a"), SEEN, 90, 100);
    const move = (lookedAt: number, seen: Sight): Move =>
      moveOf(sighted(lease, seen, lookedAt, 500), true, false, LEASE_MS);
    assert.deepEqual(move(159, SEEN), { move: "wait" });
    assert.deepEqual(move(160, SEEN), { move: "take", epoch: 5 });
    assert.deepEqual(move(160, { ...SEEN, beat: 8 }), { move: "wait" });
  });

  test("is taken at once when it was given back, or was the same pod's", () => {
    for (const seen of [
      { ...SEEN, released: true },
      { ...SEEN, holder: "a" },
    ])
      assert.deepEqual(moveOf(sighted(openLease("a"), seen, 0, 0), true, false, LEASE_MS), {
        move: "take",
        epoch: 5,
      });
  });

  test("is not written to while nobody else is there, and does not end for it", () => {
    const lease = taken(openLease("a"), 5, 0);
    assert.deepEqual(moveOf(lease, true, true, LEASE_MS), { move: "keep" });
    assert.deepEqual(moveOf(lease, true, false, LEASE_MS), { move: "beat", beat: 1 });
    const later = renewed(lease, 30, 31, LEASE_MS);
    assert.equal(mayAct(later, 69, LEASE_MS), true);
    assert.equal(mayAct(later, 70, LEASE_MS), false);
  });

  test("is lost when its renewal took too long, because somebody may be on the way to take it", () => {
    const lease = taken(openLease("a"), 5, 0);
    assert.equal(mayAct(renewed(lease, 59, 60, LEASE_MS), 60, LEASE_MS), false);
    assert.equal(mayAct(renewed(lease, 58, 59, LEASE_MS), 60, LEASE_MS), true);
  });

  test("is lost when a higher epoch is there, or its own is not", () => {
    const lease = taken(openLease("a"), 4, 0);
    for (const seen of [{ ...SEEN, epoch: 5 }, undefined])
      assert.equal(mayAct(sighted(lease, seen, 1, 1), 1, LEASE_MS), false);
  });
});
