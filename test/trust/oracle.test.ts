import assert from "node:assert/strict";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { channelPath } from "#core/channel-document.ts";
import { manifestPath } from "#core/release.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { MetadataSource } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { renew } from "../../publisher/publish.ts";
import { openRepository } from "../../publisher/repository.ts";
import { serve } from "../../publisher/serve.ts";
import { makePublisher } from "../publisher/world.ts";
import type { Publisher } from "../publisher/world.ts";
import { never, storeOf } from "./world.ts";

const TARGETS = [channelPath("web", "stable"), manifestPath("web", "2", "linux-x64")];

/** The part that is used; the library's own types need those of a package that it does not bring along. */
interface TufJs {
  readonly Updater: new (options: Readonly<Record<string, unknown>>) => {
    refresh(): Promise<void>;
    getTargetInfo(path: string): Promise<object | undefined>;
    /** Returns where the file is. */
    downloadTarget(info: object): Promise<string>;
  };
}
const { Updater }: TufJs = createRequire(import.meta.url)("tuf-js");

/** A client of either kind, which keeps what it has learnt. */
interface Client {
  /** The targets, or that they are refused. */
  fetch(): Promise<readonly string[] | "refused">;
}

async function tufJs(url: string, folder: string, root: Buffer): Promise<Client> {
  const [metadataDir, targetDir] = [join(folder, "metadata"), join(folder, "targets")];
  await mkdir(metadataDir, { recursive: true });
  await mkdir(targetDir);
  await writeFile(join(metadataDir, "root.json"), root);
  return {
    async fetch() {
      try {
        const config = { fetchRetries: 0, fetchRetry: 0 };
        const [metadataBaseUrl, targetBaseUrl] = [`${url}metadata`, `${url}targets`];
        const updater = new Updater({
          metadataDir,
          targetDir,
          metadataBaseUrl,
          targetBaseUrl,
          config,
        });
        await updater.refresh();
        const found: string[] = [];
        for (const path of TARGETS) {
          const info = await updater.getTargetInfo(path);
          if (info === undefined) return "refused";
          found.push(await readFile(await updater.downloadTarget(info), "utf8"));
        }
        return found;
      } catch {
        // Whatever its class is: what is compared is that it refuses.
        return "refused";
      }
    },
  };
}

function ours(url: string, initialRoot: Buffer): Client {
  const read = async (path: string, limit: number): Promise<Uint8Array | undefined> => {
    const response = await fetch(`${url}${path}`);
    const bytes = await response.bytes();
    assert.ok(bytes.length <= limit || !response.ok);
    return response.ok ? bytes : undefined;
  };
  const source: MetadataSource = {
    metadata: (name, limit) => read(`metadata/${name}`, limit),
    target: (path, limit) => read(`targets/${path}`, limit),
  };
  const store = storeOf(new Map());
  return {
    async fetch() {
      try {
        const deps = { source, store, initialRoot, now: Date.now() };
        const trusted = await refresh(deps, never);
        const found: string[] = [];
        for (const path of TARGETS)
          found.push(
            Buffer.from(await fetchTarget(trusted, path, 1_000_000, deps, never)).toString(),
          );
        return found;
      } catch (error) {
        assert.ok(error instanceof Error && "code" in error, String(error));
        return "refused";
      }
    },
  };
}

async function makeRepository(): Promise<Publisher> {
  const publisher = await makePublisher();
  await publisher.add("1", { file: "one" });
  await publisher.add("2", { file: "two" });
  await publisher.set("2");
  return publisher;
}

interface Json {
  [key: string]: Json;
}

/** What an attacker, or an accident, can do to the files. */
const CORRUPTIONS: Readonly<Record<string, (folder: string, name: string) => Promise<void>>> = {
  "is gone": (folder, name) => rm(join(folder, name)),
  "is cut": async (folder, name) => {
    const bytes = await readFile(join(folder, name));
    await writeFile(join(folder, name), bytes.subarray(0, bytes.length / 2));
  },
  "lives longer than was signed": (folder, name) =>
    edit(folder, name, (json) =>
      Object.assign(json["signed"] ?? {}, { expires: "2099-01-01T00:00:00Z" }),
    ),
  "has a higher version than was signed": (folder, name) =>
    edit(folder, name, (json) => Object.assign(json["signed"] ?? {}, { version: 1000 })),
  "has no signature": (folder, name) =>
    edit(folder, name, (json) => Object.assign(json, { signatures: [] })),
  "is of another type": (folder, name) =>
    edit(folder, name, (json) => Object.assign(json["signed"] ?? {}, { _type: "mirrors" })),
};

async function edit(folder: string, name: string, change: (json: Json) => void): Promise<void> {
  const json: Json = JSON.parse(await readFile(join(folder, name), "utf8"));
  change(json);
  await writeFile(join(folder, name), JSON.stringify(json));
}

describe("beside tuf-js", () => {
  test("the client gets the same bytes from a good repository, and follows it in the same way", async () => {
    await using publisher = await makeRepository();
    const { repository, keys, folder } = publisher;
    await using site = await serve({ root: repository, host: "127.0.0.1", port: 0 });
    const root = await readFile(join(repository, "metadata", "1.root.json"));
    const [oracle, client] = [
      await tufJs(site.url, join(folder, "oracle"), root),
      ours(site.url, root),
    ];
    const first = await client.fetch();
    assert.equal(first.length, TARGETS.length);
    assert.deepEqual(first, await oracle.fetch());
    await publisher.add("3", { file: "three" });
    await publisher.set("3");
    {
      // A year on, everything is signed anew, the root included.
      const later = Date.now() + 360 * 86_400_000;
      await using open = await openRepository(repository, later);
      await renew(open, openKeyring(keys, undefined), later);
    }
    const second = await client.fetch();
    assert.notDeepEqual(second, first);
    assert.deepEqual(second, await oracle.fetch());
  });

  test("the client refuses what it refuses", async () => {
    await using publisher = await makeRepository();
    const { repository, folder } = publisher;
    await using site = await serve({ root: repository, host: "127.0.0.1", port: 0 });
    const root = await readFile(join(repository, "metadata", "1.root.json"));
    const names = (await readdir(join(repository, "metadata"))).filter((name) =>
      /^(timestamp|4\.snapshot|3\.targets|2\.app\.web|1\.channel\.web\.stable)\.json$/.test(name),
    );
    assert.equal(names.length, 5);
    let count = 0;
    for (const name of names)
      for (const [what, corrupt] of Object.entries(CORRUPTIONS)) {
        const path = join("metadata", name);
        const good = await readFile(join(repository, path));
        await corrupt(repository, path);
        const oracle = await tufJs(site.url, join(folder, `oracle-${count++}`), root);
        assert.equal(await oracle.fetch(), "refused", `tuf-js: ${name} ${what}`);
        assert.equal(await ours(site.url, root).fetch(), "refused", `${name} ${what}`);
        await mkdir(dirname(join(repository, path)), { recursive: true });
        await writeFile(join(repository, path), good);
      }
    assert.notEqual(await ours(site.url, root).fetch(), "refused");
  });

  test("the client refuses an older state of a repository that it has seen", async () => {
    await using publisher = await makeRepository();
    const { repository, folder } = publisher;
    await using site = await serve({ root: repository, host: "127.0.0.1", port: 0 });
    const root = await readFile(join(repository, "metadata", "1.root.json"));
    const old = await readFile(join(repository, "metadata", "timestamp.json"));
    await publisher.set("2");
    const [oracle, client] = [
      await tufJs(site.url, join(folder, "oracle"), root),
      ours(site.url, root),
    ];
    assert.notEqual(await oracle.fetch(), "refused");
    assert.notEqual(await client.fetch(), "refused");
    await writeFile(join(repository, "metadata", "timestamp.json"), old);
    assert.equal(await oracle.fetch(), "refused");
    assert.equal(await client.fetch(), "refused");
  });
});
