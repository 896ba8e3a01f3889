/**
 * A pod's own link on a shared volume: what its application sees. The link lies in an emptyDir of the pod and names a bank on the claim, which is
 * mounted below; the pod's registration on the claim names the same bank before the link does.
 */
import { join, relative } from "node:path";
import type { Pods, Registration } from "./pods.ts";
import { swapLink } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import type { Store } from "../payload/store.ts";

export interface OwnLink {
  /** The complete bank that the link names; undefined without a link, or when the bank is gone. */
  readonly current: () => Promise<string | undefined>;
  /** The same, when it was last looked at. */
  known(): string | undefined;
  /** Whether the workload is known to have started from the bank that the link names. */
  settled(): boolean;
  /**
   * Makes the link name a bank.
   *
   * @param still asked when the bank is registered and can no longer be swept from under the link; false leaves the link as it is
   */
  link(bank: string, still?: () => Promise<boolean>): Promise<boolean>;
  /** Makes the link name again what it named, where it names nothing any more and that bank is there. @returns the path, if that was needed */
  mend(): Promise<string | undefined>;
  /** The workload has started from the bank that the link names. */
  started(): Promise<void>;
  /** Shows that this pod is there still. */
  beat(): Promise<void>;
}

export interface OwnLinkDeps {
  /** The folder of the link. */
  readonly folder: string;
  /** Of the shared volume. */
  readonly root: string;
  readonly podName: string;
  readonly store: Pick<Store, "banks">;
  readonly pods: Pods;
  readonly disk: Disk;
  /** Whether the workload may go on to use the bank that it was started from before: nobody restarts it. */
  readonly keepsOld: boolean;
}

export async function openOwnLink(deps: OwnLinkDeps): Promise<OwnLink> {
  const { folder, root, podName, store, pods, disk, keepsOld } = deps;
  const path = join(folder, "current");
  const banks = `${relative(folder, root)}/banks/`;
  let said: Registration = { name: podName, banks: [], settled: true };
  /** Whether the volume holds something older. */
  let unsaved = false;
  let known: string | undefined;

  async function named(): Promise<string | undefined> {
    const target = await disk.readLink(path);
    return target?.startsWith(banks) === true ? target.slice(banks.length) : undefined;
  }

  async function current(): Promise<string | undefined> {
    const id = await named();
    known = id !== undefined && (await store.banks()).includes(id) ? id : undefined;
    return known;
  }

  async function save(): Promise<void> {
    await pods.save(said);
    unsaved = false;
  }

  async function say(registration: Registration): Promise<void> {
    if (!unsaved && JSON.stringify(registration) === JSON.stringify(said)) return;
    await pods.save(registration);
    said = registration;
    unsaved = false;
  }

  const before = await pods.mine();
  const linked = await named();
  // Without a link nothing has started here yet: what an earlier pod of the same uid said has no meaning any more.
  if (linked !== undefined) {
    const list = [...new Set([linked, ...(before?.banks ?? [])])];
    const settled = before?.settled === true && before.banks[0] === linked;
    said = { name: podName, banks: list, settled };
  }
  await save();
  await current();

  return {
    current,
    known: () => known,
    settled: () => said.settled,
    async link(bank, still = () => Promise.resolve(true)) {
      const first = (await named()) === undefined;
      const old = said.settled ? said.banks.slice(0, 1) : said.banks;
      const settled = first || (said.settled && said.banks[0] === bank);
      await say({ name: podName, banks: first ? [bank] : [...new Set([bank, ...old])], settled });
      if (!(await still())) return false;
      await swapLink(disk, path, `${banks}${bank}`);
      known = bank;
      return true;
    },
    async mend() {
      const [bank] = said.banks;
      if (bank === undefined || (await current()) !== undefined) return undefined;
      if (!(await store.banks()).includes(bank)) return undefined;
      await swapLink(disk, path, `${banks}${bank}`);
      known = bank;
      return path;
    },
    async started() {
      said = { name: podName, banks: said.banks.slice(0, keepsOld ? 2 : 1), settled: true };
      unsaved = true;
      // What has happened is not undone by a full disk; unsaved, it costs a restart more after one of the sidecar.
      await save().catch(() => undefined);
    },
    async beat() {
      if (!(await pods.beat()) || unsaved) await save();
    },
  };
}
