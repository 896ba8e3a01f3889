/**
 * The promises of an update agent as they show on a payload volume, written once for every proof: kills, power cuts, failing system calls,
 * full disks, the soak. docs/durability.md says which protection holds each of them.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { codeOf } from "#core/errors.ts";
import { parseJournal } from "#core/journal.ts";
import { parseFloor } from "#core/trust/time.ts";
import { RESUMPTIONS } from "#core/update.ts";
import { INITIAL, banksOf, served } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { verifyBank } from "../../../sidecar/payload/bank.ts";
import { nodeDisk, readSmallFile } from "../../../sidecar/disk/durable.ts";
import type { Disk } from "../../../sidecar/disk/durable.ts";
import { readManifest } from "../../../sidecar/payload/manifest.ts";

const never = new AbortController().signal;
const LEFTOVER = /\.(?:building|removing)-\d+$/;
const LIMIT = 16 * 1024 * 1024;

/**
 * What must hold of a payload volume at any instant, also after power loss: `current` names a complete bank whose tree digest is in the
 * journal, and what has the name of a bank is one. Returns the bank that is served, if there is one yet.
 */
export async function checkVolume(
  payload: string,
  disk: Disk = nodeDisk,
): Promise<string | undefined> {
  for (const item of await disk.list(join(payload, "banks")))
    if (item.kind === "directory" && !LEFTOVER.test(item.name))
      assert.ok(
        await isWhole(payload, item.name, disk),
        `${item.name} is complete, as its name promises`,
      );
  const target = await disk.readLink(join(payload, "current"));
  if (target === undefined) return undefined;
  assert.match(target, /^banks\/[^/]+-[0-9a-f]{12}(?:\.\d+)?$/, "current names a bank");
  const id = target.slice("banks/".length);
  const kind = (await disk.stat(join(payload, target)))?.kind;
  assert.equal(kind, "directory", `${id}, which current names, exists`);
  const state = await readJournal(payload, disk);
  const bank = banksOf(state).find((item) => item.id === id);
  const manifest = await readManifest(disk, join(payload, `banks/${id}.json`), never);
  assert.equal(bank?.tree, manifest?.tree, `the tree digest of ${id} is in the journal`);
  return id;
}

/** What must hold besides when an agent has recovered a volume, before it has asked anybody anything. Returns the bank that is served. */
export async function checkRecovered(
  payload: string,
  disk: Disk = nodeDisk,
): Promise<string | undefined> {
  const id = await checkVolume(payload, disk);
  const state = await readJournal(payload, disk);
  assert.equal(id, served(state)?.id, "current is what the journal wants");
  if (state.phase === "trial")
    assert.ok(state.resumed <= RESUMPTIONS, `a trial is resumed ${state.resumed} times`);
  return id;
}

async function isWhole(payload: string, id: string, disk: Disk): Promise<boolean> {
  const manifest = await readManifest(disk, join(payload, `banks/${id}.json`), never);
  if (manifest === undefined) return false;
  return verifyBank(disk, join(payload, "banks", id), manifest, never);
}

async function readJournal(payload: string, disk: Disk): Promise<UpdateState> {
  const bytes = await readSmallFile(disk, join(payload, "state.json"), LIMIT);
  return bytes === undefined ? INITIAL : parseJournal(bytes);
}

export function journalOf(payload: string): UpdateState {
  return parseJournal(readFileSync(join(payload, "state.json")));
}

/** Whether nothing is left of what went before: there is one bank, its manifest, and no file that is half written. */
export function isTidy(payload: string): boolean {
  const rest = readdirSync(payload).toSorted();
  return (
    readdirSync(join(payload, "banks")).length === 2 &&
    isDeepStrictEqual(rest, ["banks", "current", "partial", "site", "state.json", "trust"])
  );
}

/**
 * What a site has taken for granted at some instant, because it acted on it: it asked a repository for what a document named, started an
 * application, said that a release is committed. None of it may be less afterwards, whatever happens.
 */
export interface Floors {
  /** Versions of stored metadata, by file; sequence numbers, by channel; the time. */
  readonly numbers: ReadonlyMap<string, number>;
  /** Who the site is. */
  readonly site: string | undefined;
}

/** Reads a file of a payload volume whole. */
export type ReadFile = (path: string) => Uint8Array | undefined;

/** Files of the trust store that hold a signed version number. */
const VERSIONED = /^(?!pinned-root|time-floor).*\.json$/;

/** @param names of the files in `trust/` */
export function floorsOf(names: readonly string[], read: ReadFile): Floors {
  const numbers = new Map<string, number>();
  for (const name of names) {
    const bytes = read(`trust/${name}`);
    if (bytes === undefined) continue;
    if (VERSIONED.test(name)) numbers.set(name, versionOf(bytes));
    if (name === "time-floor") numbers.set(name, parseFloor(bytes)?.time ?? 0);
  }
  const journal = read("state.json");
  const { channels } = journal === undefined ? INITIAL : parseJournal(journal);
  for (const [channel, { sequence }] of Object.entries(channels)) numbers.set(channel, sequence);
  const site = read("site");
  return { numbers, site: site === undefined ? undefined : Buffer.from(site).toString() };
}

/** What is no metadata is as good as none: version 0. */
function versionOf(bytes: Uint8Array): number {
  try {
    const { signed } = JSON.parse(Buffer.from(bytes).toString()) as {
      readonly signed: { readonly version: number };
    };
    return signed.version;
  } catch {
    return 0;
  }
}

/** The same of a volume on the disk of this machine. */
export function floorsOn(payload: string): Floors {
  const trust = join(payload, "trust");
  return floorsOf(existsSync(trust) ? readdirSync(trust) : [], (path) => {
    const file = join(payload, path);
    return existsSync(file) ? readFileSync(file) : undefined;
  });
}

/** Trust, sequence numbers and the time only grow; the site stays who it is. */
export function assertNotBelow(after: Floors, before: Floors): void {
  for (const [name, number] of before.numbers) {
    const now = after.numbers.get(name) ?? 0;
    assert.ok(now >= number, `${name} is at ${now} and was at ${number}`);
  }
  if (before.site !== undefined) assert.equal(after.site, before.site, "the name of the site");
}

/** What an application was told or started on, or a person was shown. */
export interface Relied {
  /** Bank that the application was last started on by the agent's lever, or at a start. */
  readonly running: string | undefined;
  /** The sequence number that was last said to be committed, and its channel. */
  readonly committed: { readonly channel: string; readonly sequence: number } | undefined;
}

/** A committed release does not go back by itself, and what the application was started on is what the volume knows. */
export async function assertReliable(
  payload: string,
  { running, committed }: Relied,
  disk: Disk = nodeDisk,
): Promise<void> {
  const state = await readJournal(payload, disk);
  if (committed !== undefined) {
    const bank = served(state);
    assert.notEqual(bank, null, "what was committed is served");
    const tried = state.phase === "trial" ? state.fallback : bank;
    assert.ok(
      tried !== null && tried.sequence >= committed.sequence,
      `committed was ${committed.sequence}, now ${state.phase} with ${tried?.sequence}`,
    );
  }
  if (running === undefined) return;
  const id = (await disk.readLink(join(payload, "current")))?.slice("banks/".length);
  assert.notEqual(id, undefined, "an application runs, so there is something to start it on");
  const known = banksOf(state).map((bank) => bank.id);
  assert.ok(known.includes(running), `${running} runs, the journal knows ${known.join()}`);
}

/** Whether something is wrong with a volume, as a code and a sentence; undefined when nothing is. */
export async function complaintOf(check: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await check();
    return undefined;
  } catch (error) {
    return error instanceof assert.AssertionError
      ? error.message
      : `${codeOf(error)}: ${error instanceof Error ? error.message : String(error)}`;
  }
}
