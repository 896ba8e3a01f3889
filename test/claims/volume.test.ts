import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { INITIAL } from "#core/update-state.ts";
import type { Bank, UpdateState } from "#core/update-state.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { faultyDisk } from "../update/support/faulty-disk.ts";
import { fencedDisk } from "../../sidecar/claim/disk.ts";
import { openFileLease } from "../../sidecar/claim/lease.ts";
import type { FileLease } from "../../sidecar/claim/lease.ts";
import { openOwnLink } from "../../sidecar/claim/link.ts";
import type { OwnLink } from "../../sidecar/claim/link.ts";
import { openPods } from "../../sidecar/claim/pods.ts";
import type { Pods } from "../../sidecar/claim/pods.ts";
import { leaderStore } from "../../sidecar/claim/store.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openStore } from "../../sidecar/payload/store.ts";
import type { Store } from "../../sidecar/payload/store.ts";

const LEASE_MS = 60_000;
const FORGET_MS = 900_000;
const crowd = (): Promise<boolean> => Promise.resolve(false);
let tokens = 0;

interface Pod {
  readonly pods: Pods;
  readonly own: OwnLink;
  readonly lease: FileLease;
  /** As its leader has it. */
  readonly disk: () => ReturnType<typeof fencedDisk>;
  readonly store: () => Promise<Store>;
}

interface Volume extends AsyncDisposable {
  readonly claim: string;
  readonly clock: ManualClock;
  readonly shared: Store;
  pod(name: string): Promise<Pod>;
  link(name: string): Promise<string>;
}

async function openVolume(): Promise<Volume> {
  const folder = await temporaryFolder();
  const claim = join(folder.path, "claim");
  await mkdir(claim);
  for (const name of ["leader", "pods"]) await mkdir(join(claim, name));
  const clock = manualClock();
  const shared = await openStore(claim, nodeDisk);
  return {
    claim,
    clock,
    shared,
    link: (name) => readlink(join(folder.path, name, "current")),
    async pod(name) {
      const place = join(folder.path, name);
      await mkdir(place, { recursive: true });
      const common = { uid: name, disk: nodeDisk, clock };
      const pods = openPods({ ...common, folder: join(claim, "pods"), forgetMs: FORGET_MS });
      const own = await openOwnLink({
        folder: place,
        root: claim,
        podName: name,
        store: shared,
        pods,
        disk: nodeDisk,
        keepsOld: false,
      });
      const lease = openFileLease({
        ...common,
        name,
        folder: join(claim, "leader"),
        leaseMs: LEASE_MS,
        token: () => `token-${tokens++}`,
      });
      const disk = (): ReturnType<typeof fencedDisk> =>
        fencedDisk(nodeDisk, claim, lease.work() ?? "", () => true);
      const store = async (): Promise<Store> =>
        leaderStore(await openStore(claim, disk()), { own, pods, catchesUp: () => false });
      return { pods, own, lease, disk, store };
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** A complete bank, and what the journal says of it. */
async function bankOn({ claim }: Volume, version: string): Promise<Bank> {
  const id = `${version}-${"0".repeat(12)}`;
  await mkdir(join(claim, "banks", id));
  await writeFile(join(claim, "banks", id, "file"), version);
  await writeFile(join(claim, "banks", `${id}.json`), version);
  return { channel: "web/stable", sequence: 1, version, id, tree: "0".repeat(64) };
}

const committed = (bank: Bank): UpdateState => ({
  ...INITIAL,
  phase: "committed",
  bank,
  previous: null,
});
const onTrial = (bank: Bank, fallback: Bank): UpdateState => ({
  ...INITIAL,
  phase: "trial",
  bank,
  fallback,
  stage: "watching",
  resumed: 0,
  starts: 1,
  watch: { spentMs: 0, healthyMs: null, failures: 0, settlingMs: 0 },
});

describe("the lead", () => {
  test("is one pod's, and another's when that one has not beaten for the lease", async () => {
    await using volume = await openVolume();
    const [a, b] = [await volume.pod("a"), await volume.pod("b")];
    await Promise.all([a.lease.tend(true, crowd), b.lease.tend(true, crowd)]);
    const [holder, other] = a.lease.mayAct() ? [a, b] : [b, a];
    assert.equal(other.lease.mayAct(), false);
    for (let period = 0; period < 20; period++) {
      await volume.clock.advance(LEASE_MS / 6);
      await holder.lease.tend(true, crowd);
      await other.lease.tend(true, crowd);
      assert.deepEqual([holder.lease.mayAct(), other.lease.mayAct()], [true, false]);
    }
    for (let period = 0; period < 7; period++) {
      await volume.clock.advance(LEASE_MS / 6);
      await other.lease.tend(true, crowd);
    }
    assert.deepEqual([holder.lease.mayAct(), other.lease.mayAct()], [false, true]);
    await holder.lease.tend(true, crowd);
    assert.equal(holder.lease.mayAct(), false, "who was gone for long finds another in its place");
  });

  test("is one pod's when several take it at once, and a failure of none", async () => {
    for (let seed = 1; seed <= 120; seed++) {
      await using folder = await temporaryFolder(MEMORY);
      let state = seed;
      // Others come between any two operations.
      await using disk = faultyDisk(async () => {
        state = (state * 48_271) % 2_147_483_647;
        for (let turn = state % 23; turn > 0; turn--)
          await new Promise((resolve) => setImmediate(resolve));
      });
      const leases = ["a", "b", "c"].map((uid) =>
        openFileLease({
          uid,
          name: uid,
          disk: disk.disk,
          folder: folder.path,
          leaseMs: LEASE_MS,
          clock: manualClock(),
          token: () => `token-${tokens++}`,
        }),
      );
      await Promise.all(leases.map((lease) => lease.tend(true, crowd)));
      assert.equal(leases.filter((lease) => lease.mayAct()).length, 1, `seed ${seed}`);
    }
  });

  test("that is given back is taken at once", async () => {
    await using volume = await openVolume();
    const [a, b] = [await volume.pod("a"), await volume.pod("b")];
    await a.lease.tend(true, crowd);
    await a.lease.release();
    await b.lease.tend(true, crowd);
    assert.deepEqual([a.lease.mayAct(), b.lease.mayAct()], [false, true]);
  });

  test("leaves no trace of what its last holder had not finished", async () => {
    await using volume = await openVolume();
    const [a, b] = [await volume.pod("a"), await volume.pod("b")];
    await a.lease.tend(true, crowd);
    await (await a.store()).beginBank("1.0.0-000000000000");
    await a.lease.release();
    await b.lease.tend(true, crowd);
    assert.deepEqual(readdirSync(join(volume.claim, "leader")), ["2"]);
    assert.deepEqual(readdirSync(b.lease.work() ?? ""), []);
  });
});

describe("a leader that wakes up when another has taken its place", () => {
  /** Everything that it does next comes from before: its clock has not told it anything. */
  async function deposed(volume: Volume, begin: (store: Store) => Promise<void>): Promise<Store> {
    const [a, b] = [await volume.pod("a"), await volume.pod("b")];
    await a.lease.tend(true, crowd);
    const store = await a.store();
    await store.loadState();
    await begin(store);
    for (let period = 0; period < 8; period++) {
      await b.lease.tend(true, crowd);
      await volume.clock.advance(LEASE_MS / 6);
    }
    assert.equal(b.lease.mayAct(), true);
    return store;
  }

  test("cannot write the journal any more", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const store = await deposed(volume, (first) => first.saveState(committed(one)));
    const before = await readFile(join(volume.claim, "state.json"), "utf8");
    await assert.rejects(store.saveState(committed(two)), { code: "DISK_FAILED" });
    assert.equal(await readFile(join(volume.claim, "state.json"), "utf8"), before);
  });

  test("cannot move current any more", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const store = await deposed(volume, async (first) => {
      await first.saveState(committed(one));
      await first.activate(one.id);
      await first.saveState(onTrial(two, one));
    });
    await assert.rejects(store.saveState(committed(two)), { code: "DISK_FAILED" });
    assert.equal(await volume.shared.current(), one.id);
  });

  test("cannot remove a bank any more", async () => {
    await using volume = await openVolume();
    const one = await bankOn(volume, "1.0.0");
    const store = await deposed(volume, () => Promise.resolve());
    await assert.rejects(store.sweep([]), { code: "DISK_FAILED" });
    assert.ok(existsSync(join(volume.claim, "banks", one.id, "file")));
  });

  test("cannot finish a bank any more", async () => {
    await using volume = await openVolume();
    const id = "1.0.0-000000000000";
    let folder = "";
    const store = await deposed(volume, async (first) => {
      folder = await first.beginBank(id);
      await writeFile(join(volume.claim, "partial", "manifest"), "");
    });
    const manifest = join(volume.claim, "partial", "manifest");
    await assert.rejects(store.completeBank(folder, id, manifest), { code: "DISK_FAILED" });
    assert.equal(existsSync(join(volume.claim, "banks", id)), false);
  });
});

describe("the leader's store", () => {
  test("shows what is on trial to its own workload and to no other, and moves current at the verdict", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const pod = await volume.pod("a");
    await pod.lease.tend(true, crowd);
    const store = await pod.store();
    await store.loadState();
    await store.saveState(committed(one));
    await store.activate(one.id);
    await store.saveState(onTrial(two, one));
    await store.activate(two.id);
    assert.equal(await volume.shared.current(), one.id);
    assert.match(await volume.link("a"), /banks\/1\.1\.0-/);
    // The journal is not there yet, and the commit has been made: both banks are in it still.
    await mkdir(join(pod.lease.work() ?? "", "state.json.new"));
    await assert.rejects(store.saveState(committed(two)));
    assert.equal(await volume.shared.current(), two.id);
    const next = await volume.pod("b");
    await pod.lease.release();
    await next.lease.tend(true, crowd);
    const inherited = await (await next.store()).loadState();
    assert.deepEqual(
      [inherited.phase, "bank" in inherited && inherited.bank.id],
      ["committed", two.id],
    );
  });

  test("begins the trial of another pod anew, because this one's workload has not seen it", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    await volume.shared.saveState(onTrial(two, one));
    await volume.shared.activate(one.id);
    const pod = await volume.pod("b");
    await pod.own.link(one.id);
    await pod.lease.tend(true, crowd);
    const state = await (await pod.store()).loadState();
    assert.equal(state.phase === "trial" && state.stage, "restarting");
  });
});

describe("the leader's disk", () => {
  test("leaves the files of a release where they are, whatever their names are", async () => {
    await using volume = await openVolume();
    const { id } = await bankOn(volume, "1.0.0");
    const pod = await volume.pod("a");
    await pod.lease.tend(true, crowd);
    for (const name of ["notes.new", "site.building-1"]) {
      const path = join(volume.claim, "banks", id, name);
      await writeFile(path, "part of the release");
      assert.equal((await pod.disk().stat(path))?.kind, "file");
    }
    const items = await pod.disk().list(join(volume.claim, "banks", id));
    assert.deepEqual(items.map(({ name }) => name).toSorted(), [
      "file",
      "notes.new",
      "site.building-1",
    ]);
  });
});

describe("a sweep", () => {
  test("goes on when the disk has lost what a pod that is there has said", async () => {
    await using volume = await openVolume();
    const [leader, other] = [await volume.pod("a"), await volume.pod("b")];
    await leader.lease.tend(true, crowd);
    const one = await bankOn(volume, "1.0.0");
    await other.own.link(one.id);
    for (const name of readdirSync(join(volume.claim, "pods")))
      if (name.startsWith("b.")) await writeFile(join(volume.claim, "pods", name), "");
    const store = await leader.store();
    await assert.rejects(store.sweep([]), { code: "DISK_FAILED" });
    await other.own.beat();
    await store.sweep([]);
    assert.deepEqual(await store.banks(), [one.id]);
  });

  test("spares what a pod uses, also between its registration and its link", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const [leader, other] = [await volume.pod("a"), await volume.pod("b")];
    await leader.lease.tend(true, crowd);
    await volume.shared.activate(two.id);
    await other.own.link(one.id);
    const store = await leader.store();
    await store.sweep([two.id]);
    assert.deepEqual([...(await store.banks())].toSorted(), [one.id, two.id]);
    await other.own.link(two.id);
    await store.sweep([two.id]);
    assert.equal((await store.banks()).length, 2, "its workload has not been seen to restart");
    await other.own.started();
    await store.sweep([two.id]);
    assert.deepEqual(await store.banks(), [two.id]);
  });

  test("takes the banks of a pod that has not been heard of for long, and of no other", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const [leader, gone] = [await volume.pod("a"), await volume.pod("b")];
    const third = await bankOn(volume, "1.2.0");
    const there = await volume.pod("c");
    await leader.lease.tend(true, crowd);
    await volume.shared.activate(two.id);
    await gone.own.link(one.id);
    await there.own.link(third.id);
    const store = await leader.store();
    await store.sweep([two.id]);
    for (let minutes = 0; minutes < 20; minutes += 5) {
      await volume.clock.advance(300_000);
      await there.own.beat();
      await store.sweep([two.id]);
    }
    assert.deepEqual([...(await store.banks())].toSorted(), [two.id, third.id]);
    assert.equal(await gone.own.current(), undefined, "which then has to go to current");
    await gone.own.beat();
    assert.equal(await gone.pods.count(), 3, "and is known again when it comes back");
  });

  test("leaves a pod that reads current too late where it is", async () => {
    await using volume = await openVolume();
    const [one, two] = [await bankOn(volume, "1.0.0"), await bankOn(volume, "1.1.0")];
    const late = await volume.pod("b");
    await volume.shared.activate(two.id);
    // It had read 1.0.0, and looks again when that is registered.
    const still = async (): Promise<boolean> => (await volume.shared.current()) === one.id;
    assert.equal(await late.own.link(one.id, still), false);
    await assert.rejects(volume.link("b"));
  });
});
