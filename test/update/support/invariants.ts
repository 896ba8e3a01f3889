import assert from "node:assert/strict";
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseJournal } from "#core/journal.ts";
import { parseRelease } from "#core/release.ts";
import { banksOf } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { verifyBank } from "../../../sidecar/bank.ts";
import { nodeDisk } from "../../../sidecar/durable.ts";

/** What must hold of a payload volume at any instant. Returns the bank that is served, if there is one yet. */
export async function checkVolume(payload: string): Promise<string | undefined> {
  let target: string;
  try {
    target = readlinkSync(join(payload, "current"));
  } catch {
    return undefined;
  }
  assert.match(target, /^banks\/[^/]+-[0-9a-f]{12}$/, "current names a bank, by a relative path");
  const id = target.slice("banks/".length);
  const release = parseRelease(readFileSync(join(payload, `${target}.json`)));
  const signal = new AbortController().signal;
  const whole = await verifyBank(nodeDisk, join(payload, target), release, signal);
  assert.ok(whole, "current names a complete bank");
  const known = banksOf(journalOf(payload));
  const bank = known.find((item) => item.id === id);
  assert.equal(bank?.tree, release.tree, "its tree digest is in the journal");
  return id;
}

export function journalOf(payload: string): UpdateState {
  return parseJournal(readFileSync(join(payload, "state.json")));
}

/** Whether nothing is left of what went before: there is one bank, its manifest, and no file that is half written. */
export function isTidy(payload: string): boolean {
  const rest = readdirSync(payload).toSorted();
  return (
    readdirSync(join(payload, "banks")).length === 2 &&
    isDeepStrictEqual(rest, ["banks", "current", "partial", "state.json", "trust"])
  );
}
