/** What an idle site costs: the bytes of a whole look on the wire, request and response. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { byteServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { committed, openSite } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";
import { serve } from "../../publisher/serve.ts";

const LIMIT = 1_024;

interface Relay extends TestServer {
  /** Bytes that went through, in both directions. */
  bytes(): number;
  requests(): number;
}

/** Passes bytes on to a port and counts them. */
async function openRelay(port: number): Promise<Relay> {
  let bytes = 0;
  let requests = 0;
  const relay = await byteServer((client) => {
    const server = connect(port, "127.0.0.1");
    server.on("error", () => client.destroy());
    client.on("close", () => server.destroy());
    client.on("data", (chunk) => {
      bytes += chunk.length;
      requests += chunk.toString().match(/^GET /gm)?.length ?? 0;
      server.write(chunk);
    });
    server.on("data", (chunk) => {
      bytes += chunk.length;
      client.write(chunk);
    });
  });
  return { ...relay, bytes: () => bytes, requests: () => requests };
}

describe("an idle look", () => {
  test(`is two requests and takes less than ${LIMIT} bytes, with those of the answers`, async (t) => {
    await using world = await openWorld();
    await world.publish("1.0.0", { health: "good", a: "1" });
    await using server = await serve({ root: world.repository, host: "127.0.0.1", port: 0 });
    await using relay = await openRelay(Number(new URL(server.url).port));
    const settings = { pollInterval: 60 };
    const payload = join(world.folder, "site");
    await using site = await openSite({ payload, url: relay.url, root: world.root, settings });
    await site.until("the release", committed("1.0.0"));
    await site.looked();
    const looks = async (): Promise<number> =>
      site.metric("edgesync_sidecar_polls_total", { outcome: "unchanged" });
    const before = { bytes: relay.bytes(), requests: relay.requests(), looks: await looks() };
    for (let turn = 0; turn < 3; turn++) await site.looked();
    const took = (await looks()) - before.looks;
    const each = (relay.bytes() - before.bytes) / took;
    t.diagnostic(`${Math.round(each)} bytes a look, with those of its answers`);
    assert.ok(took >= 3);
    // The one that is under way when counting begins or ends counts in part.
    assert.ok(each < LIMIT, `${each} bytes a look`);
    assert.ok(each > 100, `${each} bytes a look: nothing was asked`);
    const requests = (relay.requests() - before.requests) / took;
    assert.ok(Math.abs(requests - 2) <= 2 / took, `${requests} requests a look`);
  });
});
