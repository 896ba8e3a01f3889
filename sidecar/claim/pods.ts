/**
 * Which banks the pods on a shared volume use, so that none is swept from under a workload: `pods/<uid>.<beat>`, one file for each pod, written by that
 * pod alone. A beat that stands still for long belongs to a pod that is gone.
 */
import { join } from "node:path";
import * as s from "valibot";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { readSmallFile, replaceFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

/** What a pod says of itself. */
export interface Registration {
  readonly name: string;
  /** What its workload may have open: first the bank that its link names, or is about to name. */
  readonly banks: readonly string[];
  /** Whether its workload is known to have started from that one. */
  readonly settled: boolean;
}

export interface Pods {
  /** What this pod has said, also before its sidecar was restarted; undefined if nothing, or if it was forgotten. */
  mine(): Promise<Registration | undefined>;
  save(registration: Registration): Promise<void>;
  /** Shows that this pod is there still; false when what it has said is not on the volume any more, and has to be said anew. */
  beat(): Promise<boolean>;
  readonly alone: () => Promise<boolean>;
  /** Every bank that a pod may use; forgets pods that have not been heard of for long. For the leader. */
  used(): Promise<ReadonlySet<string>>;
  count(): Promise<number>;
}

export interface PodsDeps {
  /** Absolute. */
  readonly folder: string;
  readonly uid: string;
  readonly disk: Disk;
  readonly clock: Clock;
  /** Milliseconds of the leader's time after which a pod that does not beat is forgotten. */
  readonly forgetMs: number;
}

/** Bytes. */
const LIMIT = 64 * 1024;
/** A pod may beat, and so rename its file, while it is read. */
const READS = 5;
const FILE = /^([A-Za-z0-9-]{1,64})\.(\d{1,15})$/;

const registration = s.object({
  name: s.string(),
  banks: s.array(s.pipe(s.string(), s.regex(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,255}$/))),
  settled: s.boolean(),
}) satisfies s.GenericSchema<unknown, Registration>;

/** @throws EdgeSyncError CONFIG_INVALID when the uid cannot be the name of a file */
export function openPods({ folder, uid, disk, clock, forgetMs }: PodsDeps): Pods {
  if (!FILE.test(`${uid}.0`))
    throw new EdgeSyncError("CONFIG_INVALID", `pod-uid is ${uid}; expected letters, digits and -`);
  /** By file name, which holds the beat: since when it has been seen. */
  const seen = new Map<string, number>();

  /** A beat must not rename the file that is being written anew, or there would be two. */
  let before: Promise<unknown> = Promise.resolve();
  function inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = before.then(task);
    before = result.catch(() => undefined);
    return result;
  }

  async function files(): Promise<readonly { readonly file: string; readonly pod: string }[]> {
    const names = (await disk.list(folder)).map(({ name }) => FILE.exec(name));
    return names.flatMap((match) =>
      match === null ? [] : [{ file: match[0], pod: match[1] ?? "" }],
    );
  }

  async function own(): Promise<string | undefined> {
    return (await files()).find(({ pod }) => pod === uid)?.file;
  }

  /** Undefined when it has just been renamed or removed. */
  async function read(file: string): Promise<Registration | undefined> {
    const bytes = await readSmallFile(disk, join(folder, file), LIMIT);
    if (bytes === undefined) return undefined;
    try {
      return s.parse(registration, JSON.parse(Buffer.from(bytes).toString()));
    } catch (cause) {
      throw new EdgeSyncError("DISK_FAILED", `${join(folder, file)} cannot be read`, { cause });
    }
  }

  /** Undefined when a file that was there has just been renamed. */
  async function readAll(): Promise<ReadonlySet<string> | undefined> {
    const now = clock.monotonic();
    const present = await files();
    for (const file of seen.keys())
      if (!present.some((other) => other.file === file)) seen.delete(file);
    const banks = new Set<string>();
    for (const { file, pod } of present) {
      const since = seen.get(file) ?? now;
      seen.set(file, since);
      if (pod !== uid && now - since >= forgetMs) {
        // By its beat: one that has come back to life meanwhile has another name.
        await disk.remove(join(folder, file));
        continue;
      }
      const said = await read(file);
      if (said === undefined) return undefined;
      for (const bank of said.banks) banks.add(bank);
    }
    return banks;
  }

  async function mine(): Promise<Registration | undefined> {
    const file = await own();
    try {
      return file === undefined ? undefined : await read(file);
    } catch (error) {
      // What this pod's own says, it says anew; until then nothing is known of its workload.
      if (codeOf(error) === "DISK_FAILED") return undefined;
      throw error;
    }
  }

  return {
    mine,
    save: (wanted) =>
      inTurn(async () => {
        const file = (await own()) ?? `${uid}.0`;
        await replaceFile(disk, join(folder, file), Buffer.from(JSON.stringify(wanted)));
      }),
    beat: () =>
      inTurn(async () => {
        const file = await own();
        // One that the disk has lost would stop every sweep for as long as its pod beats.
        if (file === undefined || (await mine()) === undefined) return false;
        const next = `${uid}.${Number(FILE.exec(file)?.[2]) + 1}`;
        await disk.rename(join(folder, file), join(folder, next));
        return true;
      }),
    alone: async () => (await files()).every(({ pod }) => pod === uid),
    count: async () => new Set((await files()).map(({ pod }) => pod)).size,
    async used() {
      for (let attempt = 0; attempt < READS; attempt++) {
        const banks = await readAll();
        if (banks !== undefined) return banks;
      }
      throw new EdgeSyncError("DISK_FAILED", `${folder} has changed whenever it was read`);
    },
  };
}
