/**
 * A right that one pod at a time has, as files on the volume that the pods share; who may act when is decided in `src/claim-lease.ts`.
 *
 *     <folder>/<n>/beat.<k>      epoch n, renewed k times; the file names the holder. `released.<k>` when it was given back
 *     <folder>/<n>/<token>/      where the holder works; the token is nobody else's, ever
 *     <folder>/candidate-<token> an epoch that is being prepared
 *
 * An epoch is made by renaming a folder that is not empty, so one of several gets it. Its maker then takes the folders before it away, first by
 * their name and then all that is in them: what an old holder still wanted to rename out of its own, or into it, cannot be renamed any more.
 */
import { join } from "node:path";
import { mayAct, moveOf, openLease, renewed, sighted, taken } from "#core/claim-lease.ts";
import type { Sight } from "#core/claim-lease.ts";
import type { Clock } from "#core/clock.ts";
import { readSmallFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

export interface FileLease {
  /**
   * One look, and what follows from it.
   *
   * @param wanted whether to take what is free; what is held is renewed either way
   * @param alone tells whether nobody else is registered on the volume
   * @throws EdgeSyncError DISK_FULL, DISK_FAILED; the lease then runs out by itself
   */
  tend(wanted: boolean, alone: () => Promise<boolean>): Promise<void>;
  readonly mayAct: () => boolean;
  /** Where what is unfinished lies; undefined while the right is not held. */
  work(): string | undefined;
  /** Of the epoch that was last seen. */
  holder(): { readonly epoch: number; readonly uid: string; readonly name: string } | undefined;
  /** Gives it back, if it is held. */
  release(): Promise<void>;
}

export interface FileLeaseDeps {
  /** Absolute. */
  readonly folder: string;
  /** Uid and name of the pod. */
  readonly uid: string;
  readonly name: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly leaseMs: number;
  /** A name that nobody else ever makes. */
  readonly token: () => string;
}

const EPOCH = /^[1-9]\d{0,14}$/;
const BEAT = /^(beat|released)\.(\d{1,15})$/;

/** Bytes; a uid and the name of a pod. */
const HOLDER_LIMIT = 4096;

/** A beat may be renamed between two looks at a folder. */
const LOOKS = 5;

type Found = Sight & { readonly name: string };

export function openFileLease(deps: FileLeaseDeps): FileLease {
  const { folder, uid, name, disk, clock, leaseMs } = deps;
  let lease = openLease(uid);
  let found: Found | undefined;
  let token = "";
  /** One thing at a time: a beat must not come between a look and what follows from it. */
  let before: Promise<unknown> = Promise.resolve();

  function inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = before.then(task);
    before = result.catch(() => undefined);
    return result;
  }

  const epochs = async (): Promise<readonly number[]> =>
    (await disk.list(folder)).filter((item) => EPOCH.test(item.name)).map(({ name }) => +name);

  async function look(): Promise<Found | undefined> {
    for (let attempt = 0; ; attempt++) {
      const epoch = Math.max(0, ...(await epochs()));
      if (epoch === 0) return undefined;
      const names = (await disk.list(join(folder, `${epoch}`))).map((item) => item.name);
      const [file, kind, beat] = names.map((each) => BEAT.exec(each)).find((m) => m !== null) ?? [];
      const bytes =
        file === undefined
          ? undefined
          : await readSmallFile(disk, join(folder, `${epoch}`, file), HOLDER_LIMIT);
      if (bytes !== undefined) {
        const [holder = "", pod = ""] = Buffer.from(bytes).toString().split("\n");
        return { epoch, holder, beat: Number(beat), released: kind === "released", name: pod };
      }
      // Half of what it should be is nobody's: it is waited for like one that does not beat.
      if (attempt === LOOKS) return { epoch, holder: "", beat: 0, released: false, name: "" };
    }
  }

  async function prepare(candidate: string): Promise<void> {
    await disk.makeDirectory(candidate, 0o755);
    await disk.makeDirectory(join(candidate, token), 0o755);
    {
      await using file = await disk.create(join(candidate, "beat.0"), 0o644);
      await file.write(Buffer.from(`${uid}\n${name}\n`));
      await file.sync();
    }
    await disk.syncDirectory(candidate);
  }

  /** @returns whether the epoch is ours */
  async function take(epoch: number): Promise<boolean> {
    token = deps.token();
    const candidate = join(folder, `candidate-${token}`);
    const path = join(folder, `${epoch}`);
    try {
      await prepare(candidate);
      await disk.rename(candidate, path);
    } catch (error) {
      // Another was faster: it has the epoch, and may have taken the candidate away.
      await disk.removeTree(candidate);
      // One listing may miss both an epoch that goes and the next one, which comes, while it is read.
      for (let attempt = 0; attempt < LOOKS; attempt++)
        if (Math.max(0, ...(await epochs())) >= epoch) return false;
      throw error;
    }
    await disk.syncDirectory(folder);
    // One that was long on the way may have got a number that is free again.
    if (Math.max(...(await epochs())) !== epoch) {
      await disk.removeTree(path);
      return false;
    }
    await fence(epoch, join(path, token));
    return (await disk.stat(join(path, token))) !== undefined;
  }

  async function fence(epoch: number, work: string): Promise<void> {
    for (const { name: stale } of await disk.list(folder)) {
      // Of one that has not become an epoch there is nothing to be feared.
      if (stale.startsWith("candidate-")) await disk.removeTree(join(folder, stale));
      if (!EPOCH.test(stale) || Number(stale) >= epoch) continue;
      const aside = join(work, stale);
      await disk.rename(join(folder, stale), aside);
      // A network file system lets a folder be used that was opened under another name, while there is something in it.
      await disk.removeTree(aside);
    }
  }

  return {
    tend: (wanted, alone) =>
      inTurn(async () => {
        const begun = clock.monotonic();
        const isAlone = await alone();
        found = await look();
        lease = sighted(lease, found, begun, clock.monotonic());
        const move = moveOf(lease, wanted, isAlone, leaseMs);
        if (move.move === "take") {
          if (!(await take(move.epoch))) return;
          lease = taken(lease, move.epoch, begun);
          found = { epoch: move.epoch, holder: uid, beat: 0, released: false, name };
        } else if (move.move === "beat" || move.move === "keep") {
          const path = join(folder, `${found?.epoch ?? 0}`);
          if (move.move === "beat")
            await disk.rename(
              join(path, `beat.${found?.beat ?? 0}`),
              join(path, `beat.${move.beat}`),
            );
          lease = renewed(lease, begun, clock.monotonic(), leaseMs);
        }
      }),
    mayAct: () => mayAct(lease, clock.monotonic(), leaseMs),
    work: () => (lease.held === undefined ? undefined : join(folder, `${lease.held.epoch}`, token)),
    holder: () => found && { epoch: found.epoch, uid: found.holder, name: found.name },
    release: () =>
      inTurn(async () => {
        const epoch = lease.held?.epoch;
        if (epoch === undefined) return;
        lease = { ...lease, held: undefined };
        const path = join(folder, `${epoch}`);
        const items = await disk.list(path);
        const beat = items.find((item) => item.name.startsWith("beat."))?.name;
        if (beat !== undefined)
          await disk.rename(join(path, beat), join(path, beat.replace("beat", "released")));
      }),
  };
}
