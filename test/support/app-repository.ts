/** A real repository for agents that run as processes of their own: releases of app `web` for this machine, behind a web server. */
import { join } from "node:path";
import process from "node:process";
import { setChannel } from "../../publisher/channel.ts";
import { initRepository } from "../../publisher/init.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { addRelease } from "../../publisher/release.ts";
import { openRepository } from "../../publisher/repository.ts";
import { serve } from "../../publisher/serve.ts";
import { silent } from "../../publisher/work.ts";
import { makeTree } from "../publisher/world.ts";
import type { Files } from "../publisher/world.ts";
import { temporaryFolder } from "./temporary.ts";

export interface AppRepository extends AsyncDisposable {
  /** Room for the test; the repository is in it. */
  readonly folder: string;
  readonly url: string;
  /** The pinned root. */
  readonly root: string;
  /** Adds a release of `web` and points the channel `stable` at it. */
  publish(version: string, files: Files): Promise<void>;
}

export async function openAppRepository(): Promise<AppRepository> {
  await using cleanup = new AsyncDisposableStack();
  const { path: folder } = cleanup.use(await temporaryFolder());
  const repository = join(folder, "repository");
  const keyring = openKeyring(join(folder, "keys"), undefined);
  const root = await initRepository(repository, keyring, Date.now());
  const server = cleanup.use(await serve({ root: repository, host: "127.0.0.1", port: 0 }));
  const owned = cleanup.move();
  return {
    folder,
    url: server.url,
    root,
    async publish(version, files) {
      const tree = await makeTree(join(folder, `tree-${version}`), files);
      {
        await using open = await openRepository(repository, Date.now());
        const platform = `${process.platform}-${process.arch}`;
        const wanted = { folder: tree, app: "web", version, platform, deltas: 3 };
        await addRelease(open, keyring, wanted, Date.now(), silent, new AbortController().signal);
      }
      // With the release in it.
      await using open = await openRepository(repository, Date.now());
      await setChannel(open, keyring, { app: "web", channel: "stable", version }, Date.now());
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
