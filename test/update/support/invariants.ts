import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseJournal } from "#core/journal.ts";
import { parseManifest } from "#core/manifest.ts";
import type { Release } from "#core/release.ts";
import { banksOf } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { verifyBank } from "../../../sidecar/bank.ts";
import { nodeDisk } from "../../../sidecar/durable.ts";

/** What must hold of a payload volume at any instant. Returns the bank that is served, if there is one yet. */
export async function checkVolume(payload: string): Promise<string | undefined> {
  if (!existsSync(join(payload, "banks"))) return undefined;
  for (const item of readdirSync(join(payload, "banks"), { withFileTypes: true }))
    if (item.isDirectory() && !/\.(building|removing)-\d+$/.test(item.name))
      assert.ok(
        await isWhole(payload, item.name),
        `${item.name} is complete, as its name promises`,
      );
  let target: string;
  try {
    target = readlinkSync(join(payload, "current"));
  } catch {
    return undefined;
  }
  assert.match(target, /^banks\/[^/]+-[0-9a-f]{12}$/, "current names a bank, by a relative path");
  const id = target.slice("banks/".length);
  assert.ok(existsSync(join(payload, target)), "which exists");
  const known = banksOf(journalOf(payload));
  const bank = known.find((item) => item.id === id);
  assert.equal(bank?.tree, manifestOf(payload, id).tree, "its tree digest is in the journal");
  return id;
}

function manifestOf(payload: string, id: string): Release {
  return parseManifest(readFileSync(join(payload, `banks/${id}.json`)));
}

async function isWhole(payload: string, id: string): Promise<boolean> {
  const signal = new AbortController().signal;
  return verifyBank(nodeDisk, join(payload, "banks", id), manifestOf(payload, id), signal);
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
