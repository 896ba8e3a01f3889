/** What users of other agents complain of, and what no other test here has as its subject; `peers/` names the complaints. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fastClock } from "../hooks/support.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { startSidecar, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** The sidecar's time against Vault's: minutes are over in a moment. */
const FASTER = 40;

let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());

/** How many requests the embedded Vault has seen, by method and path. */
function count(pattern: RegExp, of: World = world): number {
  const { control } = of.embedded ?? assert.fail("no embedded Vault");
  return control.requests.filter((line) => pattern.test(line)).length;
}

const kv = (name: string): string => `${world.names.kv}/data/web/${name}`;
const write = (name: string, value: string): Promise<unknown> =>
  world.configure("POST", kv(name), { data: { value } });

describe("a certificate", () => {
  test("is issued once, whatever becomes of the token, the refresh interval and the sidecar", async () => {
    // For the sidecar, its tokens end in a tenth of a second: another one is had while the test looks on.
    await using hasty = await openWorld({ embedded: true, tokenTtl: 4, tokenMaxTtl: 4 });
    await using folder = await temporaryFolder("/dev/shm");
    const request = `${hasty.names.pki}/sign/web -key=ec-p256 common_name=a.web.example ttl=1h`;
    const options = {
      folder: folder.path,
      clock: fastClock(FASTER),
      refreshInterval: "1m",
      secrets: {
        key: { request, format: "raw:private_key" },
        certificate: { request, format: "raw:certificate" },
      },
    };
    const seen = new Set<string>();
    for (let life = 0; life < 2; life++) {
      await using sidecar = await startSidecar(hasty, options);
      await until(() => sidecar.agent.published(), "published");
      const logins = count(/login$/, hasty);
      await until(() => count(/login$/, hasty) > logins, "another token");
      seen.add(`${await sidecar.file("key")}${await sidecar.file("certificate")}`);
    }
    assert.equal(count(/\/sign\/web$/, hasty), 1);
    assert.equal(seen.size, 1);
  });

  test("is replaced as early as the pod says", async () => {
    const clock = fastClock(400);
    const request = `${world.names.pki}/issue/ec -replace-at=5% common_name=a.web.example ttl=1h`;
    await using sidecar = await startSidecar(world, {
      clock,
      random: () => 0,
      secrets: { tls: { request, format: "pem" } },
    });
    await until(() => sidecar.agent.published(), "published");
    const begun = clock.monotonic();
    await until(() => sidecar.agent.status().rotations > 0, "another one");
    // Otherwise it would be after 80 % of the hour.
    assert.ok(clock.monotonic() - begun < 0.75 * 3_600_000);
  });
});

describe("a file of a lease and of what has none", () => {
  test("takes the new value of one and keeps the other's user", async () => {
    await write("mixed", "1");
    const made = world.broker.created();
    const text = `{{ with secret "${world.names.broker}/creds/app" }}{{ .Data.username }}{{ end }} {{ with secret "${kv("mixed")}" }}{{ .Data.data.value }}{{ end }}`;
    await using sidecar = await startSidecar(world, {
      clock: fastClock(FASTER),
      refreshInterval: "10s",
      secrets: { both: { template: text } },
    });
    await until(() => sidecar.agent.published(), "published");
    const [user] = (await sidecar.file("both")).split(" ");
    for (const value of ["2", "3"]) {
      await write("mixed", value);
      await until(async () => (await sidecar.file("both")) === `${user} ${value}`, "the new value");
    }
    assert.equal(world.broker.created() - made, 1);
  });
});

describe("a pod with many secrets", () => {
  test("logs in once, and asks once for each", async () => {
    const names = Array.from({ length: 30 }, (_, index) => `many-${index}`);
    for (const name of names) await write(name, name);
    const [logins, reads] = [count(/login$/), count(/^GET .*web\/many-/)];
    await using sidecar = await startSidecar(world, {
      secrets: Object.fromEntries(
        names.map((name) => [name, { request: kv(name), format: "raw:value" }]),
      ),
    });
    await until(() => sidecar.agent.published(), "published");
    for (const name of names) assert.equal(await sidecar.file(name), name);
    assert.equal(count(/login$/) - logins, 1);
    assert.equal(count(/^GET .*web\/many-/) - reads, names.length);
  });
});

describe("a hook that fails", () => {
  test("asks Vault for nothing", async () => {
    await write("hooked", "1");
    const [logins, users] = [count(/login$/), world.broker.created()];
    let tells = 0;
    await using sidecar = await startSidecar(world, {
      clock: fastClock(FASTER),
      refreshInterval: "10s",
      secrets: {
        db: { request: `${world.names.broker}/creds/app` },
        hooked: { request: kv("hooked"), format: "raw:value" },
      },
      rotate: {
        mayTell: () => true,
        tell: () => Promise.resolve(`refused ${(tells += 1)}`),
        ended: () => undefined,
      },
    });
    await until(() => sidecar.agent.published(), "published");
    await write("hooked", "2");
    await until(() => sidecar.agent.status().onRotate?.state === "failed", "given up");
    assert.equal(tells, 1);
    assert.equal(count(/login$/) - logins, 1);
    assert.equal(world.broker.created() - users, 1);
    assert.equal(await sidecar.file("hooked"), "2");
  });
});
