/** What the webhook learns of its cluster, and what it tells it: the real process at an API server over TLS. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openClusterApi } from "../../webhook/cluster-api.ts";
import { openClusterState } from "../../webhook/cluster-state.ts";
import type { ClusterState } from "../../webhook/cluster-state.ts";
import { openEvents } from "../../webhook/events.ts";
import type { OwnerEvent } from "../../webhook/events.ts";
import { podWith } from "../support/inject.ts";
import { call, launchWebhook, localCertificate } from "../support/webhook.ts";
import { openApiServer } from "../support/api-server.ts";
import type { ApiServer } from "../support/api-server.ts";
import { realClock } from "../support/real-clock.ts";
import { temporaryFolder } from "../support/temporary.ts";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

interface World extends AsyncDisposable {
  readonly server: ApiServer;
  readonly api: ReturnType<typeof openClusterApi>;
}

async function openWorld(): Promise<World> {
  await using undo = new AsyncDisposableStack();
  const folder = undo.use(await temporaryFolder());
  const server = undo.use(await openApiServer());
  const api = openClusterApi(await server.kubeconfig(folder.path), {
    clock: realClock,
    random: Math.random,
  });
  const owned = undo.move();
  return { server, api, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function putNode(server: ApiServer, name: string, kubeletVersion: string): void {
  server.put(`/api/v1/nodes/${name}`, {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name },
    status: { nodeInfo: { kubeletVersion } },
  });
}

function putDefaults(server: ApiServer, namespace: string, data: object): void {
  const name = "edgesync-defaults";
  server.put(`/api/v1/namespaces/${namespace}/configmaps/${name}`, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name, namespace },
    data,
  });
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!holds()) {
    assert.ok(Date.now() < deadline, what);
    await realClock.sleep(10, new AbortController().signal);
  }
}

async function watched(
  { api }: Pick<World, "api">,
  look: (state: ClusterState) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const state = openClusterState({
    api,
    namespace: "edgesync",
    clock: realClock,
    random: Math.random,
    log: quiet,
  });
  const running = state.run(stop.signal);
  try {
    await state.tried;
    await look(state);
  } finally {
    stop.abort();
    await running;
  }
}

const native = (state: ClusterState, node?: string): boolean =>
  state.facts("shop", node).nativeSidecars;

describe("native sidecars in a cluster", () => {
  test("wait for the last old kubelet, but not on a node that a pod names", async () => {
    await using world = await openWorld();
    putNode(world.server, "new", "v1.31.2+k3s1");
    putNode(world.server, "old", "v1.28.9+k3s1");
    await watched(world, async (state) => {
      assert.equal(native(state), false);
      assert.equal(native(state, "new"), true);
      assert.equal(native(state, "old"), false);
      putNode(world.server, "old", "v1.31.2+k3s1");
      await eventually("the upgrade was not seen", () => native(state));
      putNode(world.server, "broken", "v1.35.1");
      await eventually("the new node was not seen", () => !native(state));
    });
  });

  test("are taken for granted where nodes cannot be read, and read when they can", async () => {
    await using world = await openWorld();
    putNode(world.server, "old", "v1.28.9");
    let allowed = false;
    world.server.refuse = ({ path }) =>
      path === "/api/v1/nodes" && !allowed ? { status: 403 } : undefined;
    await watched(world, async (state) => {
      assert.equal(native(state), true);
      allowed = true;
      await eventually("the nodes were not read again", () => !native(state));
    });
  });
});

describe("a token that cannot be read", () => {
  test("ends nothing: what is known stands, and it is tried again", async () => {
    await using folder = await temporaryFolder();
    await using server = await openApiServer();
    const file = await server.kubeconfig(folder.path);
    const config = JSON.parse(await readFile(file, "utf8")) as { users: object };
    const tokenFile = join(folder.path, "nowhere");
    const user = { "auth-provider": { name: "tokenFile", config: { tokenFile } } };
    await writeFile(file, JSON.stringify({ ...config, users: [{ name: "test", user }] }));
    const api = openClusterApi(file, { clock: realClock, random: Math.random });
    // A rejection that nobody handles would end the process, and the test.
    await watched({ api }, async (state) => {
      assert.equal(native(state), true);
      await new Promise((resolve) => setImmediate(resolve));
    });
  });
});

describe("defaults in a cluster", () => {
  test("follow their ConfigMaps, of the namespace before the webhook's", async () => {
    await using world = await openWorld();
    putDefaults(world.server, "edgesync", { "log-level": "debug" });
    putDefaults(world.server, "other", { "log-level": "error" });
    await watched(world, async (state) => {
      const known = (): unknown => state.facts("shop", undefined).defaults;
      const cluster = {
        source: "ConfigMap edgesync/edgesync-defaults",
        values: { "log-level": "debug" },
      };
      assert.deepEqual(known(), [cluster]);
      putDefaults(world.server, "shop", { "poll-interval": "2h" });
      await eventually("the new ConfigMap was not seen", () =>
        JSON.stringify(known()).includes("shop/edgesync-defaults"),
      );
      assert.deepEqual(known(), [
        { source: "ConfigMap shop/edgesync-defaults", values: { "poll-interval": "2h" } },
        cluster,
      ]);
      world.server.delete("/api/v1/namespaces/shop/configmaps/edgesync-defaults");
      await eventually(
        "the deletion was not seen",
        () => !JSON.stringify(known()).includes("shop"),
      );
      assert.deepEqual(state.facts("edgesync", undefined).defaults, [cluster]);
    });
  });
});

describe("events", () => {
  const owner = { apiVersion: "apps/v1", kind: "ReplicaSet", name: "web-5d4", uid: "1-2-3" };
  const denied: OwnerEvent = {
    namespace: "shop",
    owner,
    type: "Warning",
    reason: "InjectionDenied",
    message: "ANNOTATION_INVALID: edgesync.dev/chanel is not known",
  };

  test("are made on the owner, once for what is said again and again", async () => {
    await using world = await openWorld();
    const stop = new AbortController();
    const events = openEvents({ api: world.api, clock: realClock, log: quiet }, stop.signal);
    for (let i = 0; i < 5; i++) events.send(denied);
    events.send({ ...denied, owner: { ...owner, uid: "4-5-6" } });
    await eventually("two events", () => world.server.made.length === 2);
    const [first] = world.server.made as Readonly<Record<string, unknown>>[];
    const { involvedObject, type, reason, message } = first ?? {};
    assert.deepEqual(
      { involvedObject, type, reason, message },
      {
        involvedObject: { ...owner, namespace: "shop" },
        type: "Warning",
        reason: "InjectionDenied",
        message: denied.message,
      },
    );
  });

  test("are few, however many there would be, and no longer than one may be", async () => {
    await using world = await openWorld();
    const stop = new AbortController();
    // A clock that stands still: nothing is refilled.
    const clock = { ...realClock, monotonic: () => 0 };
    const events = openEvents({ api: world.api, clock, log: quiet }, stop.signal);
    for (let i = 0; i < 200; i++)
      events.send({ ...denied, owner: { ...owner, uid: `${i}` }, message: "ä".repeat(2_000) });
    await eventually("the burst", () => world.server.made.length === 20);
    const [{ message } = { message: "" }] = world.server.made as { message: string }[];
    assert.ok(Buffer.byteLength(message) <= 1_024 && message.endsWith("ä…"), message);
  });

  test("do not matter when they fail", async () => {
    await using world = await openWorld();
    world.server.refuse = () => ({ status: 403 });
    const stop = new AbortController();
    const events = openEvents({ api: world.api, clock: realClock, log: quiet }, stop.signal);
    events.send(denied);
    await eventually("the attempt", () => world.server.requests.length === 1);
    stop.abort();
    events.send({ ...denied, owner: { ...owner, uid: "7" } });
    assert.equal(world.server.requests.length, 1);
  });
});

describe("the webhook in a cluster", () => {
  test("decides by its nodes and defaults, answers, and then tells the owner", async () => {
    await using folder = await temporaryFolder();
    await using server = await openApiServer();
    putNode(server, "old", "v1.28.9");
    putDefaults(server, "edgesync", { "log-level": "debug" });
    const { ca, certificate, key } = await localCertificate();
    const data = Object.fromEntries(
      Object.entries({ "tls.crt": certificate, "tls.key": key, "ca.crt": ca }).map(
        ([name, text]) => [name, Buffer.from(text).toString("base64")],
      ),
    );
    const metadata = { name: "edgesync-webhook-tls", namespace: "edgesync" };
    server.put("/api/v1/namespaces/edgesync/secrets/edgesync-webhook-tls", {
      apiVersion: "v1",
      kind: "Secret",
      metadata,
      data,
    });
    server.put("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/edgesync", {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: "MutatingWebhookConfiguration",
      metadata: { name: "edgesync" },
      webhooks: [{ name: "x", clientConfig: { caBundle: data["ca.crt"] } }],
    });
    await using webhook = await launchWebhook({
      EDGESYNC_CERTIFICATES: "secret",
      EDGESYNC_KUBECONFIG: await server.kubeconfig(folder.path),
    });
    await webhook.logged("serving certificate loaded");
    const pod = podWith({ channel: "web/stable" });
    const owner = { apiVersion: "apps/v1", kind: "ReplicaSet", name: "web", uid: "1" };
    const ownerReferences = [{ ...owner, controller: true }];
    const admit = async (dryRun: boolean): Promise<string> => {
      const request = {
        uid: "705ab4f5",
        kind: { group: "", version: "v1", kind: "Pod" },
        operation: "CREATE",
        namespace: "shop",
        dryRun,
        object: { ...pod, metadata: { ...pod.metadata, ownerReferences } },
      };
      const body = JSON.stringify({
        apiVersion: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        request,
      });
      const { text } = await call({ port: webhook.port, path: "/mutate", ca, body });
      const { response } = JSON.parse(text) as { response: { patch: string } };
      return Buffer.from(response.patch, "base64").toString();
    };
    const patch = await admit(true);
    assert.match(patch, /"agent","--wait"/);
    assert.match(patch, /"EDGESYNC_LOG_LEVEL","value":"debug"/);
    // Its Event would have to come before that of what follows.
    assert.equal(await admit(false), patch);
    await eventually("the event", () => server.made.length > 0);
    assert.equal(server.made.length, 1);
    assert.match(JSON.stringify(server.made), /"reason":"InjectionWarned"/);
  });
});
