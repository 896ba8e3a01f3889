/**
 * The payload volume:
 *
 *     current -> banks/<id>      what the application sees
 *     banks/<id>/                a complete tree; nothing else ever has such a name
 *     banks/<id>.json            its release manifest, as verified
 *     banks/<id>.building-<n>/   not complete, never looked at again after a crash
 *     banks/<id>.removing-<n>/   no longer complete
 *     state.json                 the journal
 *     partial/<sha256>           downloads that can resume
 *     trust/                     verified TUF metadata
 */
import { join } from "node:path";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { JOURNAL_LIMIT, formatJournal, parseJournal } from "#core/journal.ts";
import type { Release } from "#core/release.ts";
import type { MetadataStore } from "#core/trust/refresh.ts";
import { INITIAL } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { readSmallFile, replaceFile, swapLink } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { readManifest } from "./manifest.ts";
import { openTrustStore } from "../channel/trust-store.ts";

export interface Store {
  readonly disk: Disk;
  /** Absolute. */
  readonly partial: string;
  /** Verified TUF metadata. */
  readonly trust: MetadataStore;
  /** @throws EdgeSyncError JOURNAL_INVALID */
  loadState(): Promise<UpdateState>;
  /** Does nothing when what would be saved is what was saved last. */
  saveState(state: UpdateState): Promise<void>;
  /** The bank that `current` names; undefined when there is no such link or no such bank. */
  current(): Promise<string | undefined>;
  /** @throws EdgeSyncError DISK_FAILED when the bank is gone, and `current` names another that is not */
  activate(id: string): Promise<void>;
  /**
   * Makes again what the disk has lost of all that is around a bank: the folders, the journal, and `current`, which is left alone while
   * there is no such bank.
   */
  keep(id: string): Promise<readonly Lost[]>;
  /** Every complete bank. */
  banks(): Promise<readonly string[]>;
  bankPath(id: string): string;
  /** The manifest that a bank was built from; undefined when it is gone or damaged, which costs bytes and nothing else. */
  manifest(id: string, signal: AbortSignal): Promise<Release | undefined>;
  /** Where that manifest lies, if it is there. */
  manifestPath(id: string): string;
  /** A folder for a new bank that no earlier attempt has used. */
  beginBank(id: string): Promise<string>;
  /**
   * Turns a finished folder into the bank.
   *
   * @param manifest path of a durable file on the payload volume, which is moved
   */
  completeBank(folder: string, id: string, manifest: string): Promise<void>;
  /** Removes banks and leftovers except those named, and never the one that `current` names. */
  sweep(keep: readonly string[]): Promise<void>;
  freeBytes(): Promise<number>;
  /** Bytes on disk of everything on the volume that is ours. */
  usedBytes(): Promise<number>;
}

export interface Lost {
  readonly kind: "bank" | "current" | "journal";
  readonly path: string;
}

const LEFTOVER = /\.(?:building|removing)-\d{1,6}$/;

/** @throws EdgeSyncError DISK_FULL or DISK_FAILED when the volume cannot be prepared */
export async function openStore(root: string, disk: Disk): Promise<Store> {
  const banks = join(root, "banks");
  const partial = join(root, "partial");
  const trust = join(root, "trust");
  const link = join(root, "current");
  const journal = join(root, "state.json");
  await makeFolders();
  const metadata = await openTrustStore(trust, disk);
  await disk.syncDirectory(root);
  let saved: string | undefined;

  async function makeFolders(): Promise<void> {
    await disk.makeDirectory(banks, 0o755);
    await disk.makeDirectory(partial, 0o700);
  }

  async function isBank(id: string): Promise<boolean> {
    return (await disk.stat(join(banks, id)))?.kind === "directory";
  }

  async function current(): Promise<string | undefined> {
    const target = await disk.readLink(link);
    const id = /^banks\/([^/]+)$/.exec(target ?? "")?.[1];
    if (id === undefined || LEFTOVER.test(id)) return undefined;
    return (await isBank(id)) ? id : undefined;
  }

  /** A name that is not there yet: leftovers are removed at leisure and must not be in the way. */
  async function freshName(id: string, purpose: "building" | "removing"): Promise<string> {
    const taken = new Set((await disk.list(banks)).map((item) => item.name));
    let number = 0;
    while (taken.has(`${id}.${purpose}-${number}`)) number += 1;
    return join(banks, `${id}.${purpose}-${number}`);
  }

  return {
    disk,
    partial,
    current,
    trust: metadata,
    async loadState() {
      const bytes = await readSmallFile(disk, journal, JOURNAL_LIMIT);
      if (bytes === undefined) return INITIAL;
      const state = parseJournal(bytes, journal);
      saved = formatJournal(state);
      return state;
    },
    async saveState(state) {
      const text = formatJournal(state);
      if (text === saved) return;
      // Unknown until it has succeeded: a failure may come after the rename.
      saved = undefined;
      await replaceFile(disk, journal, Buffer.from(text));
      saved = text;
    },
    async activate(id) {
      if (!(await isBank(id)) && ((await current()) ?? id) !== id)
        throw new EdgeSyncError("DISK_FAILED", `${join(banks, id)} is gone`);
      await swapLink(disk, link, `banks/${id}`);
    },
    async keep(id) {
      const lost: Lost[] = [];
      const there = new Map((await disk.list(root)).map(({ name, kind }) => [name, kind]));
      if (!["banks", "partial", "trust"].every((name) => there.get(name) === "directory")) {
        await makeFolders();
        await openTrustStore(trust, disk);
        await disk.syncDirectory(root);
      }
      if (saved !== undefined && there.get("state.json") !== "file") {
        lost.push({ kind: "journal", path: journal });
        if (there.get("state.json") === "directory")
          await disk.rename(journal, await freshName("state", "removing"));
        await replaceFile(disk, journal, Buffer.from(saved));
      }
      if (!(await isBank(id))) lost.push({ kind: "bank", path: join(banks, id) });
      else if ((await current()) !== id) {
        lost.push({ kind: "current", path: link });
        // By a folder a link cannot be replaced in one step.
        if (there.get("current") === "directory")
          await disk.rename(link, await freshName("current", "removing"));
        await swapLink(disk, link, `banks/${id}`);
      }
      return lost;
    },
    async banks() {
      const items = await disk.list(banks);
      return items
        .filter((item) => item.kind === "directory" && !LEFTOVER.test(item.name))
        .map((item) => item.name);
    },
    bankPath: (id) => join(banks, id),
    manifestPath: (id) => join(banks, `${id}.json`),
    async manifest(id, signal) {
      try {
        return await readManifest(disk, join(banks, `${id}.json`), signal);
      } catch (error) {
        if (codeOf(error) === "RELEASE_INVALID") return undefined;
        throw error;
      }
    },
    async beginBank(id) {
      const folder = await freshName(id, "building");
      await disk.makeDirectory(folder, 0o755);
      return folder;
    },
    async completeBank(folder, id, manifest) {
      // First, so that every bank has one.
      await disk.rename(manifest, join(banks, `${id}.json`));
      await disk.syncDirectory(banks);
      await disk.rename(folder, join(banks, id));
      await disk.syncDirectory(banks);
    },
    async sweep(keep) {
      const kept = new Set([...keep, await current()]);
      const items = await disk.list(banks);
      const gone = items
        .filter(({ name }) => LEFTOVER.test(name))
        .map(({ name }) => join(banks, name));
      const retired = items.filter(
        ({ name, kind }) => kind === "directory" && !LEFTOVER.test(name) && !kept.has(name),
      );
      for (const { name } of retired) {
        // A name without a suffix promises a complete tree, also while this one is being taken apart.
        const removing = await freshName(name, "removing");
        await disk.rename(join(banks, name), removing);
        gone.push(removing);
      }
      // Before a manifest goes, too: a power cut must not bring a bank back without the manifest that says what is in it.
      if (retired.length > 0) await disk.syncDirectory(banks);
      for (const { name, kind } of items)
        if (kind !== "directory" && !(name.endsWith(".json") && kept.has(name.slice(0, -5))))
          await disk.remove(join(banks, name));
      for (const path of gone) await disk.removeTree(path);
    },
    freeBytes: () => disk.freeBytes(root),
    async usedBytes() {
      const sizes = new Map<string, number>();
      for (const folder of [banks, partial, trust]) await measure(disk, folder, sizes);
      return sizes.values().reduce((sum, size) => sum + size, 0);
    },
  };
}

/** Adds the bytes of everything below a folder, each file once however many names it has. */
async function measure(disk: Disk, folder: string, sizes: Map<string, number>): Promise<void> {
  for (const { name, kind } of await disk.list(folder)) {
    const path = join(folder, name);
    const stat = await disk.stat(path);
    if (stat !== undefined) sizes.set(stat.identity, stat.allocated);
    if (kind === "directory") await measure(disk, path, sizes);
  }
}
