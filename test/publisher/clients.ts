/** Sites of two makes that follow one repository: the sidecar's client, and the reference implementation in JavaScript. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { channelPath } from "#core/channel-document.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { readIfExists } from "../../publisher/files.ts";
import { serve } from "../../publisher/serve.ts";
import { storeOf } from "../trust/world.ts";
import { never } from "./world.ts";

/** A site that keeps what it has learnt. */
export interface Client {
  /** The version that the channel `web/stable` points to. */
  look(): Promise<string>;
}

function versionIn(document: Uint8Array): string {
  return JSON.parse(Buffer.from(document).toString()).releases[0].version;
}

/** @param root that it was given; when not given, the repository's first one */
export async function sidecar(repository: string, root?: Buffer): Promise<Client> {
  const source: MetadataSource = {
    metadata: (name) => readIfExists(join(repository, "metadata", name)),
    target: (path) => readIfExists(join(repository, "targets", path)),
  };
  const initialRoot = root ?? (await readFile(join(repository, "metadata", "1.root.json")));
  const store = storeOf(new Map());
  return {
    async look() {
      const deps = { source, store, initialRoot, now: Date.now() };
      const trusted = await refresh(deps, never);
      const path = channelPath("web", "stable");
      return versionIn(await fetchTarget(trusted, path, 1_000_000, deps, never));
    },
  };
}

/** The part that is used; the library's own types need those of a package that it does not bring along. */
interface TufJs {
  readonly Updater: new (options: Readonly<Record<string, unknown>>) => {
    getTargetInfo(path: string): Promise<object | undefined>;
    /** Returns where the file is. */
    downloadTarget(info: object): Promise<string>;
  };
}
const { Updater }: TufJs = createRequire(import.meta.url)("tuf-js");

/** @param folder of its own */
export async function tufJs(repository: string, folder: string): Promise<Client & AsyncDisposable> {
  const site = await serve({ root: repository, host: "127.0.0.1", port: 0 });
  const [metadataDir, targetDir] = [join(folder, "metadata"), join(folder, "targets")];
  await mkdir(metadataDir, { recursive: true });
  await mkdir(targetDir);
  const root = await readFile(join(repository, "metadata", "1.root.json"));
  await writeFile(join(metadataDir, "root.json"), root);
  return {
    async look() {
      const updater = new Updater({
        metadataDir,
        targetDir,
        metadataBaseUrl: `${site.url}metadata`,
        targetBaseUrl: `${site.url}targets`,
        config: { fetchRetries: 0, fetchRetry: 0 },
      });
      const info = await updater.getTargetInfo(channelPath("web", "stable"));
      if (info === undefined) throw new Error("the channel is not listed");
      return versionIn(await readFile(await updater.downloadTarget(info)));
    },
    [Symbol.asyncDispose]: () => site[Symbol.asyncDispose](),
  };
}

export interface Sites extends AsyncDisposable {
  /** What all of them see. Fails when one is refused, or they do not agree. */
  look(): Promise<string>;
}

/** One site of each make, with the first root of the repository. */
export async function openSites(repository: string, folder: string): Promise<Sites> {
  const ours = await sidecar(repository);
  const oracle = await tufJs(repository, folder);
  return {
    async look() {
      const [a, b] = [await ours.look(), await oracle.look()];
      if (a !== b) throw new Error(`the sidecar sees ${a}, tuf-js sees ${b}`);
      return a;
    },
    [Symbol.asyncDispose]: () => oracle[Symbol.asyncDispose](),
  };
}
