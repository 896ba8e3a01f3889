/** A repository in Debian's docker-registry: pushed, read back, followed by a site. `npm run test:system` runs this. */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { authority } from "../support/certificates.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { readBack } from "../support/read-back.ts";
import { edgesync } from "../publisher/world.ts";
import { committed, openSite } from "../update/support/site.ts";
import { changed, noise, openWorld } from "../update/support/world.ts";
import { ACCOUNT, PROGRAM, isInstalled, openDockerRegistry } from "./docker-registry.ts";

const MODEL = noise(31, 700_000);
const files = (mark: string): Record<string, string | Buffer> => ({
  health: "good",
  version: mark,
  "model.bin": changed(MODEL, 1_000, mark),
});

describe("the docker-registry of Debian", () => {
  for (const login of ["none", "basic", "token"] as const)
    test(`holds a repository that is pushed twice, read back and followed, with login ${login}`, async (t) => {
      if (!isInstalled()) {
        t.diagnostic(`${PROGRAM} is not there; apt-get install docker-registry`);
        return;
      }
      const ca = authority();
      await using registry = await openDockerRegistry(ca, login);
      await using world = await openWorld();
      const caFile = join(world.folder, "ca.crt");
      await writeFile(caFile, ca.cert);
      const folder = join(world.folder, "login");
      await mkdir(folder);
      for (const [name, text] of Object.entries(ACCOUNT)) await writeFile(join(folder, name), text);
      const address = `oci://${registry.host}/team/payloads`;
      const docker = {
        EDGESYNC_REGISTRY_USERNAME: ACCOUNT.username,
        EDGESYNC_REGISTRY_PASSWORD: ACCOUNT.password,
      };
      const push = async (): Promise<{ pushed: number; same: number }> => {
        const line = ["push", address, "--repository", world.repository, "--ca", caFile, "--json"];
        const env = { HOME: world.folder, ...(login === "none" ? {} : docker) };
        const { status, stdout, stderr } = await edgesync(line, { env });
        assert.equal(status, 0, stderr);
        return JSON.parse(stdout) as { pushed: number; same: number };
      };
      const secret = login === "none" ? undefined : folder;

      await world.publish("1.0.0+build.1", files("one"));
      const first = await push();
      assert.ok(first.pushed > 10);
      assert.equal((await push()).pushed, 0);
      const count = await readBack(address, world.repository, ca.cert, secret);
      t.diagnostic(`${count} files, ${first.pushed} blobs and tags pushed`);

      const settings = secret === undefined ? {} : { repositoryCredentialsDir: secret };
      const payload = join(world.folder, "site");
      await using site = await openSite({
        payload,
        url: address,
        root: world.root,
        ca: ca.cert,
        settings,
      });
      await site.until("the first release", committed("1.0.0+build.1"));
      await world.publish("1.1.0", files("two"));
      const second = await push();
      assert.ok(second.pushed > 0 && second.pushed < first.pushed + 5, `${second.pushed} pushed`);
      await site.until("the second release", committed("1.1.0"));
      assert.deepEqual(
        await readFile(join(payload, "current/model.bin")),
        changed(MODEL, 1_000, "two"),
      );
      assert.ok((await site.metric("edgesync_sidecar_saved_bytes_total")) > 500_000, "by delta");
      if (login === "token") assert.ok(registry.logins() >= 4);
      assert.doesNotMatch(registry.output(), /panic/);
    });

  test("is pushed to through a proxy", async (t) => {
    if (!isInstalled()) {
      t.diagnostic(`${PROGRAM} is not there; apt-get install docker-registry`);
      return;
    }
    const ca = authority();
    await using registry = await openDockerRegistry(ca, "none");
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const caFile = join(world.folder, "ca.crt");
    await writeFile(caFile, ca.cert);
    await using proxy = await openForwardProxy();
    const line = [
      "push",
      `oci://${registry.host}/a`,
      "--repository",
      world.repository,
      "--ca",
      caFile,
    ];
    const HTTPS_PROXY = `http://edge:canary@127.0.0.1:${proxy.port}`;
    const { status, stderr, stdout } = await edgesync(line, {
      env: { HOME: world.folder, HTTPS_PROXY, NO_PROXY: "" },
    });
    assert.equal(status, 0, stderr);
    assert.deepEqual([...new Set(proxy.asked)], [`CONNECT ${registry.host}`]);
    assert.doesNotMatch(stdout + stderr, /canary/);
  });
});
