/** The command as a process, and repositories for it to work on. */
import { spawn } from "node:child_process";
import { chmod, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { initRepository } from "../../publisher/init.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { setChannel } from "../../publisher/channel.ts";
import { addRelease } from "../../publisher/release.ts";
import type { Added } from "../../publisher/release.ts";
import { openRepository } from "../../publisher/repository.ts";
import { silent } from "../../publisher/work.ts";
import { temporaryFolder } from "../support/temporary.ts";

const BIN = fileURLToPath(new URL("../../bin/edgesync.ts", import.meta.url));
export const never: AbortSignal = new AbortController().signal;

export interface Ran {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Options for node, before the command. */
  readonly node?: readonly string[];
  /** The working folder. */
  readonly cwd?: string;
}

export function edgesync(
  args: readonly string[],
  { env = {}, node = [], cwd }: RunOptions = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...node, BIN, ...args], {
      cwd,
      env: { ...process.env, EDGESYNC_PASSPHRASE: undefined, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
}

/** Files by path: text, or a mode and text, or the target of a symlink. */
export type Files = Readonly<
  Record<
    string,
    string | Buffer | { readonly mode: number; readonly text: string } | { readonly link: string }
  >
>;

export async function makeTree(folder: string, files: Files): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    if (typeof content === "string" || Buffer.isBuffer(content)) await writeFile(file, content);
    else if ("link" in content) await symlink(content.link, file);
    else {
      await writeFile(file, content.text);
      await chmod(file, content.mode);
    }
  }
  return folder;
}

/** Paths of all files below a folder. */
export async function listFiles(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .toSorted();
}

export interface Publisher extends AsyncDisposable {
  readonly folder: string;
  readonly repository: string;
  readonly keys: string;
  add(version: string, files: Files, now?: number, deltas?: number): Promise<Added>;
  set(version: string, now?: number): Promise<number>;
}

/** A new repository of app `web`, channel `stable`, platform `linux-x64`. */
export async function makePublisher(created: number = Date.now()): Promise<Publisher> {
  await using cleanup = new AsyncDisposableStack();
  const { path: folder } = cleanup.use(await temporaryFolder());
  const repository = join(folder, "repository");
  const keyring = openKeyring(join(folder, "keys"), undefined);
  await initRepository(repository, keyring, created);
  const owned = cleanup.move();
  let trees = 0;
  return {
    folder,
    repository,
    keys: keyring.folder,
    async add(version, files, now = created, deltas = 3) {
      const tree = await makeTree(join(folder, `tree-${trees++}`), files);
      await using open = await openRepository(repository, now);
      const wanted = { folder: tree, app: "web", version, platform: "linux-x64", deltas };
      return await addRelease(open, keyring, wanted, now, silent, never);
    },
    async set(version, now = created) {
      await using open = await openRepository(repository, now);
      const reference = { app: "web", channel: "stable", version };
      return (await setChannel(open, keyring, reference, now)).sequence;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Text that compresses a little, long enough for a blob of its own, the same for the same seed. */
export function prose(bytes: number, seed: number): string {
  let [state, text] = [seed, ""];
  while (text.length < bytes) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    text += `${state.toString(36)} `;
  }
  return text.slice(0, bytes);
}
