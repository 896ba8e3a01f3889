/** A repository in a registry: pushed by the command, read by sites. */
import assert from "node:assert/strict";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { metadataTag, parseChallenge } from "#core/oci.ts";
import { authority } from "../support/certificates.ts";
import { startNode } from "../support/process.ts";
import { readBack } from "../support/read-back.ts";
import { openTestRegistry } from "../support/registry.ts";
import type { TestRegistry, TestRegistryOptions } from "../support/registry.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site, SiteOptions } from "../update/support/site.ts";
import { noise, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { run } from "../publisher/shell.ts";

const BIN = fileURLToPath(new URL("../../bin/edgesync.ts", import.meta.url));
const ca = authority();
const localhost = ca.issue(["localhost"]);
const MODEL = noise(21, 300_000);
const files = (version: string): Record<string, string | Buffer> => ({
  health: "good",
  version,
  "model.bin": MODEL,
});
const ACCOUNT = { EDGESYNC_REGISTRY_USERNAME: "robot", EDGESYNC_REGISTRY_PASSWORD: "secret" };

let world: World;
let caFile: string;
let count = 0;
before(async () => {
  world = await openWorld(localhost);
  caFile = join(world.folder, "ca.crt");
  await writeFile(caFile, ca.cert);
  await world.publish("1.0.0+a", files("1.0.0+a"));
});
after(() => world[Symbol.asyncDispose]());

type Environment = Readonly<Record<string, string>>;

const lineOf = (registry: TestRegistry, repository = world.repository): readonly string[] => [
  "push",
  `${registry.url}/team/a`,
  "--repository",
  repository,
  "--ca",
  caFile,
];

async function push(
  registry: TestRegistry,
  environment: Environment = {},
): Promise<{ pushed: number; same: number }> {
  const { json } = await run(lineOf(registry), { environment });
  return json as { pushed: number; same: number };
}

function registryWith(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  return openTestRegistry({ identity: localhost, ...options });
}

/** A folder as the Secret is mounted. */
async function credentials(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(world.folder, `login-${count++}`);
  await mkdir(folder);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

function siteAt(
  registry: TestRegistry,
  folder?: string,
  more: Partial<SiteOptions> = {},
): Promise<Site> {
  return openSite({
    payload: join(world.folder, `site-${count++}`),
    url: `${registry.url}/team/a`,
    root: world.root,
    ca: ca.cert,
    ...more,
    settings: {
      ...(folder === undefined ? {} : { repositoryCredentialsDir: folder }),
      ...more.settings,
    },
  });
}

const installed = async (site: Site): Promise<void> => {
  await site.until("the release", committed("1.0.0+a"));
  assert.deepEqual(await readFile(join(site.payload, "current/model.bin")), MODEL);
};

describe("a push", () => {
  test("puts what refers to a file after it, and the timestamp at the very end", async () => {
    await using registry = await registryWith();
    await push(registry);
    const tags = [...registry.tags.keys()].map((tag) => tag.replace("team/a:", ""));
    assert.equal(tags.at(-1), "metadata-timestamp.json");
    assert.ok(
      tags.findIndex((tag) => /metadata-\d+\.snapshot/.test(tag)) >
        tags.findIndex((tag) => /\.targets\.json/.test(tag)),
    );
    assert.ok(tags.filter((tag) => tag.startsWith("release-")).length === 2, tags.join(" "));
    assert.ok(
      tags.findLastIndex((tag) => tag.startsWith("release-")) <
        tags.findIndex((tag) => tag.startsWith("metadata-")),
    );
    const first = registry.requests.findIndex(
      ({ path }) => path.includes("/manifests/") && !path.includes("root"),
    );
    const last = registry.requests.findLastIndex(
      ({ method, path }) => method === "PUT" && path.includes("/manifests/"),
    );
    assert.ok(first > 0);
    assert.match(registry.requests[last]?.path ?? "", /metadata-timestamp\.json$/);
  });

  test("names every blob of the repository in a manifest, so that none is collected as garbage", async () => {
    await using registry = await registryWith();
    await push(registry);
    const named = new Set(
      [...registry.manifests.values()].flatMap((bytes) => {
        const { config, layers } = JSON.parse(bytes.toString()) as {
          config: { digest: string };
          layers: { digest: string }[];
        };
        return [config, ...layers].map(({ digest }) => digest);
      }),
    );
    assert.deepEqual(
      [...registry.blobs.keys()].filter((digest) => !named.has(digest)),
      [],
    );
  });

  test("sends a second time nothing, and after a release only what is new; sync is the same", async () => {
    await using registry = await registryWith();
    const first = await push(registry);
    assert.ok(first.pushed > 10);
    registry.requests.length = 0;
    assert.equal((await push(registry)).pushed, 0);
    assert.ok(registry.requests.every(({ method }) => method === "HEAD" || method === "GET"));
    const [, ...rest] = lineOf(registry);
    assert.equal((await run(["sync", ...rest])).json["pushed"], 0);
  });

  test("goes on where it was cut off, and leaves no timestamp before all is there", async () => {
    await using registry = await registryWith();
    let left = 7;
    registry.intercept = ({ method, to }) =>
      to === "registry" && method === "PUT" && left-- <= 0 ? 503 : undefined;
    await assert.rejects(push(registry), { code: "ORIGIN_UNAVAILABLE" });
    assert.ok(![...registry.tags.keys()].some((tag) => tag.endsWith("timestamp.json")));
    registry.intercept = () => undefined;
    const { same } = await push(registry);
    assert.ok(same >= 7, `${same} were there`);
    await using site = await siteAt(registry);
    await installed(site);
  });

  test("that is killed is completed by the next one", async () => {
    await using registry = await registryWith();
    let left = 5;
    const line = [BIN, ...lineOf(registry)];
    await using program = startNode(["--disable-warning=ExperimentalWarning", ...line]);
    registry.intercept = ({ method, to }) => {
      if (to === "registry" && method === "PUT" && left-- === 0)
        process.kill(program.pid, "SIGKILL");
      return undefined;
    };
    assert.equal(await program.ended(), "SIGKILL", program.output());
    const there = registry.blobs.size;
    assert.ok(there >= 5);
    const { pushed, same } = await push(registry);
    assert.ok(same >= 5, `${same} were there`);
    assert.ok(pushed > 0);
    await using site = await siteAt(registry);
    await installed(site);
  });

  test("does not go into another repository, nor back", async () => {
    await using registry = await registryWith();
    await push(registry);
    await using other = await openWorld(localhost);
    await other.publish("9.0.0", files("9.0.0"));
    const back = run(lineOf(registry, other.repository));
    await assert.rejects(back, { code: "REPOSITORY_INVALID" });
    const old = join(world.folder, "old");
    await cp(world.repository, old, { recursive: true });
    await world.channel("1.0.0+a");
    await push(registry);
    await assert.rejects(run(lineOf(registry, old)), { code: "REPOSITORY_INVALID" });
  });

  test("logs in by basic or token, from the environment or docker's file, and says no secret when that fails", async () => {
    for (const login of ["basic", "token"] as const) {
      await using registry = await registryWith({ login });
      await push(registry, ACCOUNT);
      const docker = {
        auths: { [registry.host]: { auth: Buffer.from("robot:secret").toString("base64") } },
      };
      await mkdir(join(world.folder, `docker-${login}`));
      await writeFile(join(world.folder, `docker-${login}/config.json`), JSON.stringify(docker));
      const again = await push(registry, {
        DOCKER_CONFIG: join(world.folder, `docker-${login}`),
      });
      assert.equal(again.pushed, 0);
      const wrong = { ...ACCOUNT, EDGESYNC_REGISTRY_PASSWORD: "canary" };
      await assert.rejects(push(registry, wrong), (error: Error & { code?: string }) => {
        assert.equal(error.code, "ORIGIN_REFUSED");
        const encoded = Buffer.from("robot:canary").toString("base64");
        const shown = `${error.stack} ${String(error.cause)}`;
        assert.doesNotMatch(shown, new RegExp(`canary|${encoded}`));
        return true;
      });
    }
  });

  test("refuses a registry whose certificate is not good before it sends anything", async () => {
    await using registry = await registryWith({
      identity: authority("another CA").issue(["localhost"]),
    });
    const wary = push(registry, { ...ACCOUNT, EDGESYNC_REGISTRY_TOKEN: "canary" });
    await assert.rejects(wary, { code: "TLS_UNTRUSTED" });
    assert.equal(registry.requests.length, 0);
  });
});

describe("a site that follows a registry", () => {
  test("reads it without an account, and asks little while nothing happens", async () => {
    await using registry = await registryWith();
    await push(registry);
    await using site = await siteAt(registry);
    await installed(site);
    await site.looked();
    registry.requests.length = 0;
    await site.looked();
    assert.ok(registry.requests.every(({ status }) => status === 304 || status === 404));
  });

  test("goes on with a blob behind what it has", async () => {
    await using registry = await registryWith({ storage: true });
    await push(registry);
    registry.breakAfter = 100_000;
    await using site = await siteAt(registry);
    await installed(site);
    const broken = registry.requests.find(
      ({ path, to }) => to === "storage" && path === registry.broken,
    );
    const resumed = registry.requests.filter(
      ({ path, range }) => path === registry.broken && range !== undefined,
    );
    assert.ok(broken !== undefined);
    const [, offset] = /^bytes=(\d+)-$/.exec(resumed[0]?.range ?? "") ?? [];
    assert.ok(Number(offset) > 0 && Number(offset) <= 100_000, `resumed with ${resumed[0]?.range}`);
  });

  test("can read every file of it, byte for byte", async () => {
    await using registry = await registryWith();
    await push(registry);
    const files = await readBack(`${registry.url}/team/a`, world.repository, ca.cert);
    assert.ok(files > 10, `${files} files`);
  });

  const logins: readonly (readonly [
    string,
    TestRegistryOptions,
    (host: string) => Record<string, string>,
  ])[] = [
    ["basic", { login: "basic" }, () => ({ username: "robot", password: "secret" })],
    ["a token", { login: "token" }, () => ({ username: "robot", password: "secret\n" })],
    [
      "a token for an image pull secret",
      { login: "token" },
      (host) => ({
        ".dockerconfigjson": JSON.stringify({
          auths: { [host]: { username: "robot", password: "secret" } },
        }),
      }),
    ],
  ];
  for (const [what, options, secret] of logins)
    test(`logs in by ${what}, and shows the storage nothing of it`, async () => {
      await using registry = await registryWith({ ...options, storage: true });
      await push(registry, ACCOUNT);
      registry.requests.length = 0;
      await using site = await siteAt(registry, await credentials(secret(registry.host)));
      await installed(site);
      const stored = registry.requests.filter(({ to }) => to === "storage");
      assert.ok(stored.length > 0);
      assert.ok(stored.every(({ authorization }) => authorization === undefined));
      const logins = registry.requests.filter(({ to }) => to === "login");
      assert.equal(logins.length, options.login === "token" ? 1 : 0, "one token serves all");
      const atRegistry = registry.requests.filter(({ to }) => to === "registry");
      if (options.login === "token")
        assert.ok(
          atRegistry.every(({ authorization }) => authorization?.startsWith("Basic") !== true),
        );
    });

  test("gets a token without an account where the registry wants one from everybody", async () => {
    await using registry = await registryWith({ login: "anonymous-token" });
    await push(registry);
    await using site = await siteAt(registry);
    await installed(site);
    assert.ok(
      registry.requests.every(({ authorization }) => authorization?.startsWith("Basic") !== true),
    );
  });

  test("logs in anew, once, when its token is not good any more, and before it ends", async () => {
    await using registry = await registryWith({ login: "token" });
    await push(registry, ACCOUNT);
    const folder = await credentials({ username: "robot", password: "secret" });
    let revoked = false;
    registry.intercept = ({ path, to }) => {
      if (to === "registry" && !revoked && path.includes("timestamp")) {
        revoked = true;
        registry.revoke();
      }
      return undefined;
    };
    registry.requests.length = 0;
    await using site = await siteAt(registry, folder);
    await installed(site);
    assert.ok(revoked);
    assert.equal(registry.requests.filter(({ to }) => to === "login").length, 2);
    const failed = site.log.filter(({ message }) => message.startsWith("update failed"));
    assert.deepEqual(failed, []);
  });

  test("does not log in again and again where the account has no right", async () => {
    await using registry = await registryWith({ login: "token" });
    await push(registry, ACCOUNT);
    registry.requests.length = 0;
    registry.intercept = ({ to }) => (to === "registry" ? 401 : undefined);
    await using site = await siteAt(
      registry,
      await credentials({ username: "robot", password: "secret" }),
      {
        settings: { pollInterval: 3_600_000 },
      },
    );
    const { error } = await site.until("an error", ({ error }) => error !== null);
    assert.equal(error?.code, "ORIGIN_REFUSED");
    assert.ok(registry.requests.length <= 3, `${registry.requests.length} requests`);
  });

  test("is told when the account is wrong, without the account", async () => {
    await using registry = await registryWith({ login: "token" });
    await push(registry, ACCOUNT);
    await using site = await siteAt(
      registry,
      await credentials({ username: "robot", password: "canary" }),
    );
    const { error } = await site.until("an error", ({ error }) => error !== null);
    assert.equal(error?.code, "ORIGIN_REFUSED");
    assert.doesNotMatch(JSON.stringify([error, site.log]), /canary|cm9ib3Q6Y2FuYXJ5/);
  });

  test("takes nothing from a registry that lies", async () => {
    await using registry = await registryWith();
    await push(registry);
    for (const [digest, bytes] of registry.blobs)
      if (bytes.length > 200_000) {
        const bad = Buffer.from(bytes);
        bad[5] = (bad[5] ?? 0) ^ 1;
        registry.blobs.set(digest, bad);
      }
    await using site = await siteAt(registry);
    const { error } = await site.until("an error", ({ error }) => error !== null);
    assert.equal(error?.code, "DIGEST_MISMATCH");
  });

  test("has a web server as its mirror, and the other way round", async () => {
    await using registry = await registryWith();
    await push(registry);
    registry.intercept = () => 503;
    const settings = { repositoryMirrors: [world.origin.url] };
    {
      await using site = await siteAt(registry, undefined, { settings });
      await installed(site);
    }
    registry.intercept = () => undefined;
    await using nobody = await registryWith();
    const mirror = { repositoryMirrors: [`${registry.url}/team/a`] };
    await using site = await siteAt(nobody, undefined, { settings: mirror });
    await installed(site);
  });
});

describe("the names of a repository in a registry", () => {
  test("are tags, by their digest where they cannot be", () => {
    assert.equal(metadataTag("timestamp.json"), "metadata-timestamp.json");
    assert.match(metadataTag("3.app%2Fweb.json"), /^metadata-sha256-[0-9a-f]{64}$/);
    assert.match(metadataTag(`1.${"a".repeat(200)}.json`), /^metadata-sha256-[0-9a-f]{64}$/);
  });

  test("are asked for with the login that a challenge names", () => {
    const realm = "https://auth.example/token";
    const full = `Bearer realm="${realm}",service="a \\"b\\"",scope="repository:x:pull"`;
    assert.deepEqual(parseChallenge(full), { scheme: "bearer", realm, service: 'a "b"' });
    assert.deepEqual(parseChallenge(`bearer realm=${realm}`), {
      scheme: "bearer",
      realm,
      service: undefined,
    });
    assert.deepEqual(parseChallenge('Basic realm="x"'), { scheme: "basic" });
    for (const none of [undefined, "", "Negotiate", 'Bearer realm="nowhere"', "Bearer"])
      assert.equal(parseChallenge(none), undefined);
  });
});
