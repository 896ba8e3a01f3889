import { mkdir, rm, writeFile, chmod, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { channelPath } from "#core/channel-document.ts";
import { serialize } from "#core/document.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import type { Identity } from "../../support/certificates.ts";
import { openOrigin } from "../../support/origin.ts";
import type { Origin } from "../../support/origin.ts";
import { temporaryFolder } from "../../support/temporary.ts";
import { setChannel } from "../../../publisher/channel.ts";
import { initRepository } from "../../../publisher/init.ts";
import { openKeyring } from "../../../publisher/keys.ts";
import { findSigners, publish, renew } from "../../../publisher/publish.ts";
import { addRelease } from "../../../publisher/release.ts";
import { openRepository } from "../../../publisher/repository.ts";
import { silent } from "../../../publisher/work.ts";

export const PLATFORM = "linux-x64";

/** Content by path; `executable` and `link` for what is not a plain file. */
export type Files = Readonly<
  Record<string, string | Buffer | { readonly executable: string } | { readonly link: string }>
>;

/** A real publisher with its repository behind a web server, and a place for sites. */
export interface World extends AsyncDisposable {
  readonly folder: string;
  readonly repository: string;
  /** The pinned root. */
  readonly root: string;
  readonly origin: Origin;
  /** Publishes files as a version of the app `web`, and points the channel `stable` at it. */
  publish(version: string, files: Files): Promise<void>;
  release(version: string, files: Files): Promise<void>;
  channel(version: string): Promise<void>;
  /** Signs a channel document that the publisher itself would not make. */
  forgeChannel(document: ChannelDocument): Promise<void>;
  /** Signs anew what is due. */
  renew(): Promise<void>;
}

/**
 * @param identity of the web server, which then speaks TLS
 * @param platform of the releases
 */
export async function openWorld(identity?: Identity, platform = PLATFORM): Promise<World> {
  const folder = await temporaryFolder();
  const repository = join(folder.path, "repository");
  const keyring = openKeyring(join(folder.path, "keys"), undefined);
  const root = await initRepository(repository, keyring, Date.now());
  for (const role of ["app.web", "channel.web.stable"]) await keyring.create(role);
  const origin = await openOrigin(repository, identity);

  async function release(version: string, files: Files): Promise<void> {
    const tree = join(folder.path, "tree");
    await rm(tree, { recursive: true, force: true });
    await mkdir(tree);
    await writeTree(tree, files);
    await using open = await openRepository(repository, Date.now());
    const wanted = { folder: tree, app: "web", version, platform, deltas: 3 };
    await addRelease(open, keyring, wanted, Date.now(), silent, new AbortController().signal);
  }
  async function channel(version: string): Promise<void> {
    await using open = await openRepository(repository, Date.now());
    await setChannel(open, keyring, { app: "web", channel: "stable", version }, Date.now());
  }

  return {
    folder: folder.path,
    repository,
    root,
    origin,
    release,
    channel,
    async forgeChannel(document) {
      await using open = await openRepository(repository, Date.now());
      const role = "channel.web.stable";
      const path = channelPath("web", "stable");
      const targets = [{ path, bytes: serialize(document) }];
      const signers = await findSigners(open, keyring, role);
      await publish(open, keyring, signers, { role, paths: [path], targets }, Date.now());
    },
    async renew() {
      await using open = await openRepository(repository, Date.now());
      await renew(open, keyring, Date.now());
    },
    async publish(version, files) {
      await release(version, files);
      await channel(version);
    },
    async [Symbol.asyncDispose]() {
      await origin[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function writeTree(folder: string, files: Files): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    if (typeof content === "string" || Buffer.isBuffer(content)) await writeFile(file, content);
    else if ("link" in content) await symlink(content.link, file);
    else {
      await writeFile(file, content.executable);
      await chmod(file, 0o755);
    }
  }
}

/** Bytes that do not compress, the same for the same seed. */
export function noise(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let index = 0; index < length; index++) {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state & 0xff;
  }
  return bytes;
}

/** The same bytes with a few of them changed: what a small update looks like. */
export function changed(bytes: Buffer, at: number, text: string): Buffer {
  const copy = Buffer.from(bytes);
  copy.write(text, at);
  return copy;
}
