/** Plays a scenario, cuts the power at each of its operations, and recovers each image that may be found then. */
import assert from "node:assert/strict";
import process from "node:process";
import type { CrashDisk, Image, Node } from "../../support/crash-model.ts";
import { crashDisk } from "../../support/crash-model.ts";
import type { Disk } from "../../../sidecar/disk/durable.ts";
import {
  assertNotBelow,
  assertReliable,
  checkRecovered,
  checkVolume,
  complaintOf,
  floorsOf,
} from "../../update/support/invariants.ts";
import { lyingDisk } from "./lying-disk.ts";
import { imagesAt } from "./images.ts";
import type { Sample } from "./images.ts";
import { PAYLOAD, emptyVolume, play, playUntilKilled } from "./play.ts";
import type { Goal, Repository, Witness } from "./play.ts";

export interface Scenario {
  readonly name: string;
  /** What the agent finds: an image, or what another agent left when it was killed. */
  readonly begin: () => Promise<Image | CrashDisk>;
  readonly goal: Goal;
  /** Whether an application runs when it begins. */
  readonly installed: boolean;
  /** What the disk does to the agent meanwhile. */
  readonly between?: (disk: Disk) => Disk;
  /** What must hold at any instant, where it is less than of other volumes. Returns the bank that is served. */
  readonly check?: (disk: Disk) => Promise<string | undefined>;
}

const FIRST: Goal = { offered: "1.0.0", committed: "1.0.0", blocked: undefined };
const UPDATE: Goal = { offered: "1.1.0", committed: "1.1.0", blocked: undefined };
const REPAIR: Goal = { ...FIRST, scrubbed: true };
const ROLLBACK: Goal = { offered: "1.2.0", committed: "1.0.0", blocked: "1.2.0" };

/** Before which operation another agent was killed: a name, what it did there, on what, for the how manieth time. */
const KILLS = [
  ["a kill in the first swap", FIRST, "syncDirectory", /payload$/, 6],
  ["a kill before the swap", UPDATE, "rename", /current$/, 1],
  ["a kill in the swap", UPDATE, "syncDirectory", /payload$/, 6],
  ["a kill before the swap back", ROLLBACK, "rename", /current$/, 2],
  ["a kill in the sweep", UPDATE, "removeTree", /model.bin$/, 1],
] as const;

/** A first installation, an update, a rollback, and recoveries, in which the power may be cut as well. */
export async function scenariosOf(repository: Repository): Promise<readonly Scenario[]> {
  const empty = emptyVolume(repository);
  const { model } = await play({ repository, start: empty, goal: FIRST });
  const start = model.image();
  const begun = await playUntilKilled(
    { repository, start: empty, goal: FIRST },
    { operation: "create", path: /root.json.new$/, nth: 1 },
  );
  const found = (image: Image) => (): Promise<Image> => Promise.resolve(image);
  return [
    { name: "install", begin: found(empty), goal: FIRST, installed: false },
    { name: "update", begin: found(start), goal: UPDATE, installed: true },
    { name: "rollback", begin: found(start), goal: ROLLBACK, installed: true },
    {
      name: "update without stored trust",
      begin: found(withoutTrust(start)),
      goal: UPDATE,
      installed: true,
    },
    {
      name: "install without stored trust",
      begin: found(withoutTrust(begun.image())),
      goal: FIRST,
      installed: false,
    },
    {
      name: "install on a disk that fails once in the swap",
      begin: found(empty),
      goal: FIRST,
      installed: false,
      between: failingInTheSwap,
    },
    repairOf(start),
    ...KILLS.map(([what, goal, operation, path, nth]) => ({
      name: `after ${what}`,
      begin: () =>
        playUntilKilled(
          { repository, start: goal === FIRST ? empty : start, goal },
          { operation, path, nth },
        ),
      goal,
      installed: goal !== FIRST,
    })),
  ];
}

/** A release of which something of each kind is damaged: bytes, lengths, modes, links, names that are missing or too many. */
function repairOf(sound: Image): Scenario {
  const bank = [...sound.keys()].find((path) => /\/banks\/[^/]*-[0-9a-f]{12}$/.test(path)) ?? "";
  const id = bank.slice(`${PAYLOAD}/banks/`.length);
  const damaged = new Map(sound);
  const change = (name: string, to: (node: Node) => Node): void => {
    const node = sound.get(`${bank}/${name}`);
    assert.ok(node !== undefined, name);
    damaged.set(`${bank}/${name}`, to(node));
  };
  change("lib/model.bin", (node) => {
    const bytes = Buffer.from(node.bytes);
    bytes.writeUInt8((bytes.readUInt8(1_234) + 1) % 256, 1_234);
    return { ...node, bytes };
  });
  change("lib/fresh.bin", (node) => ({ ...node, bytes: node.bytes.subarray(0, 70_000) }));
  change("bin/run", (node) => ({ ...node, mode: 0o400 }));
  change("bin/start", (node) => ({ ...node, bytes: Buffer.from("../mark") }));
  damaged.delete(`${bank}/mark`);
  damaged.set(`${bank}/lib/more`, { kind: "file", bytes: Buffer.from("more"), mode: 0o644 });

  const equals = (a: Node | undefined, b: Node | undefined): boolean =>
    a === undefined || b === undefined
      ? a === b
      : a.kind === b.kind && a.mode === b.mode && a.bytes.equals(b.bytes);
  /** Each name in the bank is as it was or as it shall be, and nothing between. */
  const check = async (disk: Disk): Promise<string | undefined> => {
    assert.equal(await disk.readLink(`${PAYLOAD}/current`), `banks/${id}`);
    const inBank = (path: string): boolean => path.startsWith(`${bank}/`);
    for (const path of new Set([...sound.keys(), ...damaged.keys()]).values().filter(inBank)) {
      const found = await nodeOn(disk, path);
      const as = [damaged.get(path), sound.get(path)].filter((node) => equals(node, found));
      assert.ok(as.length > 0, `${path} is as it was, or as it shall be`);
    }
    return id;
  };
  return {
    name: "repair",
    begin: () => Promise.resolve(damaged),
    goal: REPAIR,
    installed: true,
    check,
  };
}

/** What lies at a path, as in an image. */
async function nodeOn(disk: Disk, path: string): Promise<Node | undefined> {
  const stat = await disk.stat(path);
  if (stat === undefined) return undefined;
  const { kind, mode } = stat;
  if (kind === "symlink")
    return { kind, mode, bytes: Buffer.from((await disk.readLink(path)) ?? "") };
  if (kind === "directory") return { kind, mode, bytes: Buffer.alloc(0) };
  await using file = await disk.openRead(path);
  const bytes = file === undefined ? Buffer.alloc(0) : await file.read(0, file.size);
  return { kind, mode, bytes: Buffer.from(bytes) };
}

/** As a person may leave a volume, or a version that had no such folder. */
function withoutTrust(image: Image): Image {
  return new Map([...image].filter(([path]) => !path.startsWith(`${PAYLOAD}/trust`)));
}

function failingInTheSwap(disk: Disk): Disk {
  let failed = false;
  return lyingDisk(disk, ({ after }) => {
    if (failed || !after.endsWith("/current")) return "made";
    failed = true;
    return "failed";
  });
}

/** An image to be judged, and what was relied on when the power went. */
export interface Cut {
  readonly scenario: Scenario;
  readonly image: Image;
  readonly witness: Witness;
  /** What was about to be done. */
  readonly operation: string;
  /** Of the image: it is found again by this name, with the same seed. */
  readonly name: string;
}

export interface CutOptions {
  readonly repository: Repository;
  readonly sample: Sample;
  /** Puts something between the agent and the disk. */
  readonly between?: (disk: Disk) => Disk;
  /** Whether the images of an operation are wanted. */
  readonly wanted?: () => boolean;
}

export interface Cuts {
  readonly cuts: readonly Cut[];
  readonly operations: number;
  /** Bytes of blobs that it takes, by path, when nothing goes wrong. */
  readonly needed: ReadonlyMap<string, number>;
}

const REST = ["look at", PAYLOAD] as const;
const AT_REST = REST.join(" ");

/** Every image of a scenario that is in the sample, each once. */
export async function cutsOf(scenario: Scenario, options: CutOptions): Promise<Cuts> {
  const { repository, sample } = options;
  const { name, goal } = scenario;
  const start = await scenario.begin();
  const known = new Set<string>();
  const cuts: Cut[] = [];
  const watch = (
    model: CrashDisk,
    witness: () => Witness,
    operation: string,
    path: string,
  ): void => {
    if (options.wanted?.() === false) return;
    const number = model.count();
    const at = `${sample.seed}/${name}/${number}`;
    const seen = witness();
    const stakes = stakesOf(seen);
    for (const [index, drawn] of imagesAt(model, { ...sample, seed: at }).entries()) {
      // The same image again is another case when more was relied on meanwhile.
      const key = `${drawn.fingerprint}\n${stakes}`;
      if (known.has(key)) continue;
      known.add(key);
      cuts.push({
        scenario,
        image: drawn.image,
        witness: seen,
        operation: `${operation} ${path}`,
        name: `${at}/${index}`,
      });
    }
  };
  const played = await play({
    repository,
    start,
    goal,
    watch,
    between(disk) {
      const under = scenario.between?.(disk) ?? disk;
      return options.between?.(under) ?? under;
    },
  });
  // The power may also go when all is over.
  watch(played.model, played.witness, ...REST);
  return { cuts, operations: played.model.count(), needed: blobsOf(played.http.received) };
}

function stakesOf({ relied, floors, received }: Witness): string {
  const bytes = blobsOf(received)
    .values()
    .reduce((sum, some) => sum + some, 0);
  return JSON.stringify([relied, [...floors.numbers], floors.site, Math.floor(bytes / LOSS_LIMIT)]);
}

function blobsOf(received: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  return new Map([...received].filter(([path]) => path.startsWith("blobs/")));
}

/** Bytes that an interruption may cost: what the promise says. */
export const LOSS_LIMIT = 64 * 1024;

/** What is wrong with what is found after a cut; undefined when all promises hold. */
export function judge(
  { scenario, image, witness }: Cut,
  repository: Repository,
  needed: ReadonlyMap<string, number>,
): Promise<string | undefined> {
  const { goal, installed } = scenario;
  const checkAfter = (disk: Disk): Promise<string | undefined> => checkRecovered(PAYLOAD, disk);
  const checkNow =
    scenario.check ?? ((disk: Disk): Promise<string | undefined> => checkVolume(PAYLOAD, disk));
  return complaintOf(async () => {
    const found = crashDisk(image);
    const served = await checkNow(found.disk);
    if (installed || witness.relied.running !== undefined)
      assert.notEqual(served, undefined, "a release that ran is still there");
    await assertReliable(PAYLOAD, witness.relied, found.disk);
    assertNotBelow(floorsIn(found), witness.floors);

    let known: string | undefined;
    const recovered = await play({
      repository,
      start: image,
      goal,
      async recovered(model, http) {
        assert.equal(http.requests(), 0, "recovery asks nobody");
        const id = await (scenario.check ?? checkAfter)(model.disk);
        known = id;
        if (served !== undefined) assert.notEqual(id, undefined, "recovery keeps what was served");
        const { committed } = witness.relied;
        await assertReliable(PAYLOAD, { running: undefined, committed }, model.disk);
        assertNotBelow(floorsIn(model), witness.floors);
      },
      opened(says) {
        assert.equal(says, known !== undefined, "the gate opens when recovery is over");
      },
    });
    await checkVolume(PAYLOAD, recovered.model.disk);
    assertNotBelow(floorsIn(recovered.model), witness.floors);
    assertFrugal(witness.received, recovered.http.received, needed);
  });
}

function floorsIn(model: CrashDisk): Witness["floors"] {
  return floorsOf(model.peekNames(`${PAYLOAD}/trust`), (path) => model.peek(`${PAYLOAD}/${path}`));
}

/** An interrupted download goes on, and what was fetched whole is not fetched again. */
function assertFrugal(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  needed: ReadonlyMap<string, number>,
): void {
  let wasted = 0;
  for (const [path, bytes] of blobsOf(after))
    wasted += Math.max(0, (before.get(path) ?? 0) + bytes - (needed.get(path) ?? 0));
  assert.ok(wasted <= LOSS_LIMIT, `${wasted} bytes were fetched twice`);
}

export interface Judged {
  readonly images: number;
  /** Each with the name of its image and what is wrong. */
  readonly violations: readonly string[];
}

/** The name of the only image that is to be judged. */
export const ONE_IMAGE: string | undefined = process.env["EDGESYNC_CRASH_IMAGE"];

/** Judges one of `stride` images of each scenario, and those at rest. */
export async function judgeAll(
  scenarios: readonly Scenario[],
  repository: Repository,
  sample: Sample,
  stride: number = 1,
): Promise<Judged> {
  const violations: string[] = [];
  let images = 0;
  for (const scenario of scenarios) {
    const { cuts, needed } = await cutsOf(scenario, { repository, sample });
    // Those at rest always: what is wrong in the end stays so.
    const chosen = cuts.filter(({ name, operation }, index) =>
      ONE_IMAGE === undefined ? index % stride === 0 || operation === AT_REST : name === ONE_IMAGE,
    );
    for (const cut of chosen) {
      images += 1;
      const complaint = await judge(cut, repository, needed);
      if (complaint === undefined) continue;
      violations.push(`${cut.name}, before ${cut.operation}: ${complaint}`);
    }
  }
  return { images, violations };
}
