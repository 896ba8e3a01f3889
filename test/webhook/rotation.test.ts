import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { makeCertificate } from "../../webhook/certificate.ts";
import { openApiServer } from "../support/api-server.ts";
import type { ApiServer, Stored } from "../support/api-server.ts";
import { podWith } from "../support/inject.ts";
import { eventually } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { call, launchWebhook } from "../support/webhook.ts";
import type { Reply, RunningWebhook } from "../support/webhook.ts";

const SECRET = "/api/v1/namespaces/edgesync/secrets/edgesync-webhook-tls";
const LEASE = "/apis/coordination.k8s.io/v1/namespaces/edgesync/leases/edgesync-webhook";
const CONFIGURATION =
  "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/edgesync";
const HOST = "edgesync-webhook.edgesync.svc";
const DAY_MS = 86_400_000;

const REVIEW = JSON.stringify({
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "705ab4f5",
    kind: { group: "", version: "v1", kind: "Pod" },
    operation: "CREATE",
    namespace: "shop",
    object: podWith({ channel: "web/stable" }),
  },
});

const QUICK = {
  EDGESYNC_CERTIFICATES: "own",
  EDGESYNC_CERTIFICATE_SETTLE: "300ms",
  EDGESYNC_CERTIFICATE_KEEP: "1s",
  EDGESYNC_LEASE_DURATION: "5s",
};

/** What the manifests put there: nothing that is secret, and no caBundle. */
function install(api: ApiServer): void {
  const metadata = { namespace: "edgesync" };
  api.put(SECRET, {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { ...metadata, name: "edgesync-webhook-tls" },
  });
  api.put(LEASE, {
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { ...metadata, name: "edgesync-webhook" },
  });
  api.put(CONFIGURATION, configuration());
}

function configuration(): Stored {
  const entry = (name: string): object => ({
    name,
    clientConfig: { service: { name: "edgesync-webhook", namespace: "edgesync" } },
    // A field that our client does not know must outlive every write.
    fromTheFuture: { kept: true },
  });
  return {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "MutatingWebhookConfiguration",
    metadata: { name: "edgesync" },
    webhooks: [entry("namespace.edgesync.dev"), entry("pod.edgesync.dev")],
  };
}

interface Entry {
  readonly clientConfig: { readonly caBundle?: string };
  readonly fromTheFuture?: unknown;
}

/** PEM of each entry. */
function bundlesIn(object: Stored): readonly string[] {
  return (object["webhooks"] as readonly Entry[]).map(({ clientConfig }) =>
    Buffer.from(clientConfig.caBundle ?? "", "base64").toString(),
  );
}

function certificatesIn(pem: string): readonly X509Certificate[] {
  return pem
    .split(/(?<=-----END CERTIFICATE-----)/)
    .filter((one) => one.includes("BEGIN"))
    .map((one) => new X509Certificate(one));
}

function dataOf(object: Stored): Readonly<Record<string, string>> {
  const data = (object["data"] ?? {}) as Readonly<Record<string, string>>;
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value, "base64").toString()]),
  );
}

/** As an API server calls: a new connection, verified with the bundle of one entry as it is at this moment. */
function admit(api: ApiServer, webhook: RunningWebhook, entry: number): Promise<Reply> {
  const ca = bundlesIn(api.get(CONFIGURATION))[entry] ?? "";
  return call({ port: webhook.port, path: "/mutate", ca, body: REVIEW, host: HOST });
}

async function readiness({ port }: RunningWebhook): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
  const options = { host: "127.0.0.1", port, path: "/readyz", rejectUnauthorized: false };
  https
    .get({ ...options, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
    .on("error", reject);
  return await promise.catch(() => undefined);
}

async function untilReady(webhook: RunningWebhook): Promise<void> {
  await eventually(
    async () => ((await readiness(webhook)) === 200 ? true : undefined),
    () => JSON.stringify(webhook.lines.slice(-5)),
  );
}

/** As `kubectl annotate` does. */
function askForRotation(api: ApiServer): void {
  const secret = api.get(SECRET);
  if (secret.metadata.annotations?.["edgesync.dev/rotate"] !== undefined) return;
  const annotations = { "edgesync.dev/rotate": "now" };
  api.put(SECRET, { ...secret, metadata: { ...secret.metadata, annotations } });
}

function rotations(api: ApiServer): number {
  const leaves = api.history(SECRET).map((secret) => dataOf(secret)["tls.crt"]);
  return new Set(leaves.filter((leaf) => leaf !== undefined)).size - 1;
}

interface Site extends AsyncDisposable {
  readonly api: ApiServer;
  start(env?: Readonly<Record<string, string>>): Promise<RunningWebhook>;
}

async function openSite(): Promise<Site> {
  await using undo = new AsyncDisposableStack();
  const folder = undo.use(await temporaryFolder());
  const api = undo.use(await openApiServer());
  install(api);
  const kubeconfig = await api.kubeconfig(folder.path);
  const owned = undo.move();
  return {
    api,
    start: async (env = {}) =>
      owned.use(await launchWebhook({ ...QUICK, EDGESYNC_KUBECONFIG: kubeconfig, ...env })),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe("two replicas of a new installation", () => {
  let site: Site;
  let replicas: readonly RunningWebhook[];
  before(async () => {
    site = await openSite();
    replicas = await Promise.all([site.start(), site.start()]);
    for (const replica of replicas) await untilReady(replica);
  });
  after(() => site[Symbol.asyncDispose]());

  test("agree on one certificate, which the API server trusts by every entry", async () => {
    for (const replica of replicas)
      for (const entry of [0, 1]) assert.equal((await admit(site.api, replica, entry)).status, 200);
    const { "tls.crt": leaf = "", "ca.crt": ca = "" } = dataOf(site.api.get(SECRET));
    assert.ok(new X509Certificate(leaf).checkIssued(new X509Certificate(ca)));
    assert.equal(new X509Certificate(leaf).checkHost(HOST), HOST);
  });

  test("have one leader, and touch nothing of the configuration but the bundles", () => {
    const leading = replicas.filter(({ lines }) =>
      lines.some(({ msg }) => msg === "leading the replicas"),
    );
    assert.equal(leading.length, 1);
    for (const entry of site.api.get(CONFIGURATION)["webhooks"] as readonly Entry[])
      assert.deepEqual(entry.fromTheFuture, { kept: true });
  });

  test("need no right but to read, watch and patch objects that are there", () => {
    assert.deepEqual([...new Set(site.api.requests.map(({ method }) => method))].toSorted(), [
      "GET",
      "PATCH",
    ]);
  });

  test("mend a caBundle that somebody has taken away", async () => {
    site.api.put(CONFIGURATION, configuration());
    await eventually(
      () => (bundlesIn(site.api.get(CONFIGURATION))[1] === "" ? undefined : true),
      () => "the bundle is still empty",
    );
    for (const replica of replicas) await untilReady(replica);
  });

  test("put back what the Secret has lost, as long as it is good", async () => {
    const before = dataOf(site.api.get(SECRET));
    const { data: _, ...empty } = site.api.get(SECRET);
    site.api.put(SECRET, empty);
    await eventually(
      () => dataOf(site.api.get(SECRET))["tls.crt"],
      () => "the Secret is still empty",
    );
    assert.equal(dataOf(site.api.get(SECRET))["tls.key"], before["tls.key"]);
  });

  test("rotate when an operator asks for it, in the order that loses nothing", async () => {
    const before = dataOf(site.api.get(SECRET));
    const since = site.api.history(SECRET).length;
    askForRotation(site.api);
    await eventually(
      () =>
        bundlesIn(site.api.get(CONFIGURATION))[0]?.includes(before["ca.crt"] ?? "") === true
          ? undefined
          : true,
      () => "the old authority is still trusted",
    );
    const after = dataOf(site.api.get(SECRET));
    assert.notEqual(after["tls.crt"], before["tls.crt"]);
    assert.deepEqual(Object.keys(after).toSorted(), ["ca.crt", "tls.crt", "tls.key"]);
    // Never was anything served whose authority was not in every bundle before.
    const states = site.api.history(SECRET).slice(since);
    for (const state of states) {
      const { "tls.crt": leaf = "", "ca.crt": ca = "" } = dataOf(state);
      const known = site.api
        .history(CONFIGURATION)
        .filter(
          (one) => Number(one.metadata.resourceVersion) < Number(state.metadata.resourceVersion),
        )
        .at(-1);
      assert.ok(known !== undefined);
      assert.notEqual(leaf, "");
      for (const bundle of bundlesIn(known)) assert.ok(bundle.includes(ca.trim()));
    }
    assert.equal(site.api.get(SECRET).metadata.annotations?.["edgesync.dev/rotate"], undefined);
    for (const replica of replicas) await untilReady(replica);
  });

  test("lead on with the other when one ends", async () => {
    const [leader, other] =
      replicas[0]?.lines.some(({ msg }) => msg === "leading the replicas") === true
        ? replicas
        : replicas.toReversed();
    assert.ok(leader !== undefined && other !== undefined);
    leader.terminate();
    assert.equal(await leader.exited, 0);
    await other.logged("leading the replicas");
    assert.equal((await admit(site.api, other, 0)).status, 200);
  });
});

describe("a configuration that changes between reading and writing", () => {
  test("is read again, so that no write is half of it", async () => {
    await using site = await openSite();
    const { api } = site;
    let since = Number.POSITIVE_INFINITY;
    api.refuse = ({ method, path }) => {
      if (method === "PATCH" && path === CONFIGURATION && since === Number.POSITIVE_INFINITY) {
        const before = api.get(CONFIGURATION);
        const entries = before["webhooks"] as readonly object[];
        const another = { ...entries[0], name: "another.edgesync.dev" };
        api.put(CONFIGURATION, { ...before, webhooks: [another, ...entries] });
        since = api.history(CONFIGURATION).length;
      }
      return undefined;
    };
    await untilReady(await site.start());
    const states = api.history(CONFIGURATION).slice(since);
    assert.ok(states.length > 0);
    for (const state of states) assert.ok(!bundlesIn(state).includes(""));
  });
});

describe("a rotation under load", () => {
  test("fails no admission, whichever replica it goes to, through several rotations, conflicts and an overloaded API server", async () => {
    await using site = await openSite();
    const { api } = site;
    // Longer than a call takes on a machine that is busy: an API server, too, may use for a moment what it knew when a call began.
    const times = { EDGESYNC_CERTIFICATE_SETTLE: "2s", EDGESYNC_CERTIFICATE_KEEP: "3s" };
    const replicas = await Promise.all([site.start(times), site.start(times)]);
    for (const replica of replicas) await untilReady(replica);
    let asked = 0;
    api.refuse = ({ method }) => {
      if (method === "GET" || ++asked % 5 !== 0) return undefined;
      return asked % 2 === 0 ? { status: 409 } : { status: 429, headers: { "Retry-After": "0" } };
    };
    const stop = new AbortController();
    let admitted = 0;
    const load = Array.from({ length: 4 }, async (_, client) => {
      while (!stop.signal.aborted) {
        const replica = replicas[client % 2];
        assert.ok(replica !== undefined);
        const reply = await admit(api, replica, client >> 1);
        assert.equal(reply.status, 200, reply.text);
        admitted++;
        // Some hundred in a second find a gap as well as all that the machine could make.
        await delay(10);
      }
    });
    const rotated = eventually(
      () => {
        if (rotations(api) >= 2) return true;
        if (dataOf(api.get(SECRET))["next-tls.crt"] === undefined) askForRotation(api);
        return undefined;
      },
      () => `${rotations(api)} rotations`,
      60_000,
    );
    await Promise.race([rotated, Promise.all(load)]);
    stop.abort();
    await Promise.all(load);
    assert.ok(admitted > 50, `${admitted} admissions`);
  });
});

describe("an outage of the API server", () => {
  test("leaves what is served served and ready, and what was due happens after it", async () => {
    await using site = await openSite();
    const { api } = site;
    const webhook = await site.start();
    await untilReady(webhook);
    const ca = bundlesIn(api.get(CONFIGURATION))[0] ?? "";
    // Something is heard of that cannot be read any more.
    api.refuse = () => ({ status: 503 });
    api.put(CONFIGURATION, api.get(CONFIGURATION));
    await webhook.logged("certificate not compared with the caBundle");
    api.setDown(true);
    assert.equal(await readiness(webhook), 200);
    const reply = await call({ port: webhook.port, path: "/mutate", ca, body: REVIEW, host: HOST });
    assert.equal(reply.status, 200);
    api.put(CONFIGURATION, configuration());
    api.refuse = () => undefined;
    api.setDown(false);
    await eventually(
      () => (bundlesIn(api.get(CONFIGURATION))[0] === "" ? undefined : true),
      () => "the bundle is still empty",
      30_000,
    );
  });

  test("at the start leaves the webhook unready and alive until it is over", async () => {
    await using site = await openSite();
    site.api.refuse = () => ({ status: 503 });
    const webhook = await site.start();
    await webhook.logged("certificate not compared with the caBundle");
    assert.notEqual(await readiness(webhook), 200);
    site.api.refuse = () => undefined;
    await untilReady(webhook);
  });
});

describe("a clock that is wrong", () => {
  test("is that of the node: certificates are made for the time of the API server", async () => {
    await using site = await openSite();
    site.api.skewMs = 400 * DAY_MS;
    const webhook = await site.start();
    await untilReady(webhook);
    const { "tls.crt": leaf = "" } = dataOf(site.api.get(SECRET));
    const { validFromDate, validToDate } = new X509Certificate(leaf);
    const now = Date.now() + site.api.skewMs;
    assert.ok(validFromDate.getTime() < now && now < validToDate.getTime());
  });

  test("is set right: an expired certificate is replaced at once", async () => {
    await using site = await openSite();
    const webhook = await site.start({ EDGESYNC_CERTIFICATE_SETTLE: "1h" });
    await untilReady(webhook);
    site.api.skewMs = 400 * DAY_MS;
    // Something is heard of, and the answers tell the new time.
    site.api.put(CONFIGURATION, site.api.get(CONFIGURATION));
    await webhook.logged("certificate rotated");
    await untilReady(webhook);
  });
});

describe("a certificate of somebody else", () => {
  test("is taken from its Secret, and admissions come when the caBundle knows it; nothing is written", async () => {
    await using site = await openSite();
    const { api } = site;
    const webhook = await site.start({ EDGESYNC_CERTIFICATES: "secret" });
    const made = await makeCertificate(
      { service: "edgesync-webhook", namespace: "edgesync", names: [] },
      Date.now(),
    );
    const encode = (pem: string): string => Buffer.from(pem).toString("base64");
    const data = { "tls.crt": encode(made.certificate), "tls.key": encode(made.key) };
    api.put(SECRET, { ...api.get(SECRET), data });
    await webhook.logged("serving certificate loaded");
    assert.equal(await readiness(webhook), 503);
    const trusted = structuredClone(configuration());
    for (const entry of trusted["webhooks"] as { clientConfig: { caBundle?: string } }[])
      entry.clientConfig.caBundle = encode(made.ca);
    api.put(CONFIGURATION, trusted);
    await untilReady(webhook);
    assert.equal((await admit(api, webhook, 1)).status, 200);
    assert.ok(api.requests.every(({ method }) => method === "GET"));
    assert.equal(certificatesIn(made.ca).length, 1);
  });
});
