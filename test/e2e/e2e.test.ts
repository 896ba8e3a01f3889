/** The parts of the end-to-end test that need no cluster. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { describe, test } from "node:test";
import { listen } from "../../demo/vault/listen.ts";
import { build } from "../support/kustomize.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openTunnel } from "./in-pod/tunnel.ts";
import { kustomization } from "./install.ts";
import { CLAIMS, openLedger } from "./ledger.ts";
import { applicationPod, containerOf, isInjected, jobOf } from "./pods.ts";
import { readSettings } from "./settings.ts";
import { podPrograms } from "./site.ts";
import { readMetrics } from "./stage.ts";
import { delays } from "./stories/lever.ts";
import { tellVault } from "./tunnel.ts";
import { Hopeless, openWaits } from "./wait.ts";
import { schemaProblems } from "../support/kubernetes-schema.ts";
import type { Manifest } from "../support/kustomize.ts";

const NEEDED = { KUBECONFIG: "/k", EDGESYNC_IMAGE: "registry.example/edgesync:1" };

describe("the settings of an end-to-end run", () => {
  test("are a kubeconfig and an image, and the development Vault", () => {
    assert.deepEqual(readSettings(NEEDED), {
      image: NEEDED.EDGESYNC_IMAGE,
      workloadImage: NEEDED.EDGESYNC_IMAGE,
      vault: undefined,
      timeFactor: 1,
      keep: false,
    });
  });

  test("name every variable that is missing or wrong", () => {
    const env = {
      E2E_TIMEOUT_FACTOR: "slow",
      E2E_VAULT_ADDR: "vault:8200",
      E2E_VAULT_ENGINE: "x",
    };
    const read = readSettings(env);
    assert.ok("problems" in read);
    const names = read.problems.map((problem) => problem.split(" ")[0] ?? "");
    assert.deepEqual(
      names.toSorted((a, b) => a.localeCompare(b)),
      [
        "E2E_TIMEOUT_FACTOR",
        "E2E_VAULT_ADDR",
        "E2E_VAULT_ENGINE",
        "E2E_VAULT_TOKEN",
        "EDGESYNC_IMAGE",
        "KUBECONFIG",
      ],
    );
  });

  test("take a Vault by its own variables or by those of this run, which win", () => {
    const vault = { VAULT_ADDR: "http://a:1", VAULT_TOKEN: "t", E2E_VAULT_ADDR: "https://b:2" };
    const read = readSettings({ ...NEEDED, ...vault });
    assert.ok(!("problems" in read));
    assert.equal(read.vault?.address, "https://b:2");
    assert.equal(read.vault?.token, "t");
  });
});

describe("the ledger", () => {
  test("prints a line for each claim, of those not tried too, and counts them", async () => {
    const lines: string[] = [];
    const ledger = openLedger({ print: (line) => lines.push(line), monotonic: () => 0 });
    assert.equal(await ledger.claim("install", () => Promise.resolve("14 objects")), true);
    const cause = new Error("no\nroute");
    const why = new Error("not ready", { cause });
    assert.equal(await ledger.claim("held", () => Promise.reject(why)), false);
    const counted = ledger.finish("the gate stayed closed");
    const all = Object.keys(CLAIMS).length;
    assert.deepEqual(counted, { passed: 1, failed: all - 1 });
    assert.equal(lines.length, all + 1);
    assert.equal(lines[0], `pass  ${CLAIMS.install}  (14 objects, 0.0 s)`);
    assert.equal(lines[1], `fail  ${CLAIMS.held}: not ready: no route  (0.0 s)`);
    assert.equal(lines[2], `fail  ${CLAIMS.namespace}: not tried, the gate stayed closed`);
    assert.equal(lines.at(-1), `1 passed, ${all - 1} failed`);
  });
});

describe("a wait", () => {
  test("ends with its limit of time, says what it saw last, and takes an error for no answer", async () => {
    const waits = openWaits(0, new AbortController().signal);
    const nothing = waits.until("a thing", 60, (seen) => {
      seen("half of it");
      return Promise.resolve(undefined);
    });
    await assert.rejects(nothing, /a thing.*half of it/);
    const broken = (): Promise<never> => Promise.reject(new Error("broken link"));
    await assert.rejects(waits.until("a thing", 60, broken), /a thing.*broken link/);
  });

  test("ends at once with what cannot come any more, and with the run", async () => {
    const stop = new AbortController();
    const waits = openWaits(1, stop.signal);
    const hopeless = (): Promise<never> => Promise.reject(new Hopeless("failed for good"));
    await assert.rejects(waits.until("a thing", 60, hopeless), Hopeless);
    const waiting = waits.until("a thing", 60, () => Promise.resolve(undefined));
    stop.abort(new Error("stopped"));
    await assert.rejects(waiting, /stopped/);
  });
});

describe("the way to a Vault that pods do not reach", () => {
  test("carries a request out and its answer back", async () => {
    await using far = await listen(
      createServer((request, response) => {
        const token = request.headers["x-vault-token"];
        response.writeHead(429, { "retry-after": "7" });
        text(request).then(
          (body) => response.end(`${request.url} ${String(token)} ${body}`),
          assert.fail,
        );
      }),
    );
    const tunnel = openTunnel();
    await using near = await listen(createServer(tunnel.listener));
    const answered = fetch(`http://127.0.0.1:${near.port}/v1/auth/jwt/login`, {
      method: "POST",
      headers: { "x-vault-token": "t" },
      body: "{}",
    });
    const [asked] = await tunnel.take();
    assert.ok(asked !== undefined);
    const address = `http://127.0.0.1:${far.port}`;
    const vault = { address, token: "root", caFile: undefined, engine: undefined };
    tunnel.give(await tellVault(vault, asked));
    const answer = await answered;
    assert.equal(answer.status, 429);
    assert.equal(answer.headers.get("retry-after"), "7");
    assert.equal(await answer.text(), "/v1/auth/jwt/login t {}");
  });
});

describe("the overlay of the base", () => {
  const settings = { EDGESYNC_REPOSITORY: "https://10.0.0.1:8443" };
  async function built(apiServer: { host: string; port: number } | undefined): Promise<string> {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "overlay");
    await mkdir(path);
    const base = relative(path, resolve(import.meta.dirname, "../../manifests/base"));
    const overlay = kustomization(base, { image: "example/e:1", settings, apiServer });
    await writeFile(join(path, "kustomization.yaml"), overlay);
    const objects = await build(path);
    assert.deepEqual(objects.flatMap(schemaProblems), []);
    return JSON.stringify(objects);
  }

  test("changes image and settings, and the API server only where it must", async () => {
    const plain = await built(undefined);
    assert.match(plain, /"image":"example\/e:1"/);
    assert.match(plain, /"EDGESYNC_IMAGE":"example\/e:1"/);
    assert.match(plain, /"EDGESYNC_REPOSITORY":"https:\/\/10\.0\.0\.1:8443"/);
    assert.doesNotMatch(plain, /KUBERNETES_SERVICE_HOST/);
    const routed = await built({ host: "10.0.0.9", port: 6443 });
    assert.match(routed, /"name":"KUBERNETES_SERVICE_HOST","value":"10\.0\.0\.9"/);
  });
});

describe("what runs in the pods", () => {
  const of = {
    name: "web",
    namespace: "shop",
    image: "example/e:1",
    run: "e2e-1",
    site: "http://10.0.0.2:8080",
    annotations: { channel: "web/stable" },
  };

  test("is what the API server's schemas allow", () => {
    const objects = [applicationPod({ ...of, bare: true, shareProcesses: true }), jobOf(of)];
    assert.deepEqual(
      objects.flatMap((object) => schemaProblems(object as Manifest)),
      [],
    );
  });

  test("fits into a ConfigMap", async () => {
    const programs = await podPrograms();
    assert.deepEqual(Object.keys(programs), ["site.mjs", "app.mjs"]);
  });

  test("is told apart by container, and by whether the webhook was at it", () => {
    const status = {
      initContainerStatuses: [
        { name: "edgesync", restartCount: 1, started: true, state: { running: {} } },
      ],
      containerStatuses: [
        { name: "main", restartCount: 0, state: { waiting: { reason: "PodInitializing" } } },
      ],
    };
    const pod = { status, spec: { containers: [{ name: "main" }] } } as unknown as Parameters<
      typeof containerOf
    >[0];
    assert.deepEqual(containerOf(pod, "edgesync"), {
      restarts: 1,
      running: true,
      started: true,
      reason: "",
    });
    assert.equal(containerOf(pod, "main").reason, "PodInitializing");
    assert.equal(isInjected(pod), false);
  });
});

describe("what is printed", () => {
  test("sums a metric over the labels that are asked for", () => {
    const metrics = readMetrics(
      '# HELP a b\na_total{kind="x"} 2\na_total{kind="y"} 3\na_totals 7\nb 1.5e3\n',
    );
    assert.equal(metrics("a_total"), 5);
    assert.equal(metrics("a_total", 'kind="y"'), 3);
    assert.equal(metrics("b"), 1_500);
    assert.equal(metrics("c"), 0);
  });

  test("gives each pull the first start of its release or of a later one", () => {
    const starts = [
      { version: "1.0.0", at: 0 },
      { version: "1.0.1", at: 1_500 },
      { version: "1.0.3", at: 9_000 },
    ];
    assert.deepEqual(delays([1_000, 2_000, 3_000, 4_000], starts), [
      "0.5 s",
      "7.0 s (with 1.0.3)",
      "6.0 s",
      "none",
    ]);
  });
});
