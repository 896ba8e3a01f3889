import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { savedState, startSidecar, until } from "../vault/sidecar.ts";
import type { Sidecar } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** What answers in Vault's place while Vault is away: an ingress that has lost its backend, a firewall with a page of its own. */
let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(async () => {
  control().faults();
  await world[Symbol.asyncDispose]();
});
beforeEach(async () => {
  control().faults();
  await world.leaseTerms(3_600, 7_200);
});

function control() {
  const { embedded } = world;
  assert.ok(embedded !== undefined);
  return embedded.control;
}

const creds = (): string => `${world.names.broker}/creds/app`;
const kv = (): string => `${world.names.kv}/data/web/behind-a-proxy`;

const PAGES = [
  { status: 400, body: "400 Bad Request" },
  { status: 403, body: "<html><h1>403 Forbidden</h1></html>" },
  { status: 403, body: '{"message":"Forbidden"}' },
  { status: 404, body: "404 page not found" },
] as const;

/** A sidecar that goes on where another has ended asks for everything at once: the token, the lease and the data. */
async function asking(folder?: string): Promise<Sidecar> {
  return await startSidecar(world, {
    ...(folder === undefined ? {} : { folder }),
    refreshInterval: "1s",
    random: () => 0,
    secrets: {
      db: { request: creds(), format: "raw:username" },
      web: { request: kv(), format: "raw:value" },
    },
  });
}

describe("a refusal that is not Vault's own", () => {
  for (const page of PAGES)
    test(`costs neither token nor credential: ${page.status} ${page.body}`, async () => {
      await world.configure("POST", kv(), { data: { value: "one" } });
      await using first = await asking();
      await until(() => first.agent.published(), "published");
      const user = await first.file("db");
      const { token } = await savedState(first.folder);
      await first.stop();
      control().faults(page);
      await using second = await asking(first.folder);
      const told = (): number =>
        second.log.lines.filter((line) => line.includes("not in Vault's own form")).length;
      await until(() => told() >= 3, "three such answers", 20_000);
      assert.equal(second.agent.expiredSince(), undefined);
      control().faults();
      await world.configure("POST", kv(), { data: { value: "two" } });
      await until(async () => (await second.file("web")) === "two", "Vault's answer", 20_000);
      assert.equal((await savedState(first.folder)).token.accessor, token.accessor);
      assert.equal(await second.file("db"), user);
    });
});
