/**
 * Admission over keep-alive TLS: the webhook's bundle with the flags of its Deployment, beside the least that a Node server that parses and answers the same
 * reviews can be. Throughput is per second of processor time, so that neither the client nor other work on the machine counts; latency is measured at a
 * fixed rate that does not wait for answers. The pods are those of one controller: alike, but each with a token volume of its own name, as the API server
 * gives it. Once more with strangers, each the only pod of its controller, for which nothing that was decided before is of use.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir, writeFile } from "node:fs/promises";
import https from "node:https";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import type { IncomingMessage } from "node:http";
import { parse } from "yaml";
import { bundle, bundleOne } from "../scripts/bundle.ts";
import { readImage } from "../scripts/image.ts";
import { podWith, WEB } from "../test/support/inject.ts";
import { freePort } from "../test/support/process.ts";
import { temporaryFolder } from "../test/support/temporary.ts";
import { localCertificate } from "../test/support/webhook.ts";
import { rotation } from "./rotation.ts";
import { figuresOf } from "./site.ts";
import { median, round } from "./subjects.ts";
import type { Measurement } from "./subjects.ts";

/**
 * Bytes of a pod, reviews after which the code of both is compiled, those of one round of the throughput, and how many come in a second for the
 * latency.
 */
const SIZES = [
  { name: "4KiB", bytes: 4 * 1024, warmUp: 20_000, reviews: 4_000, rate: 200 },
  { name: "40KiB", bytes: 40 * 1024, warmUp: 8_000, reviews: 1_500, rate: 100 },
  { name: "1.5MiB", bytes: 1.5 * 2 ** 20, warmUp: 100, reviews: 40, rate: 5 },
] as const;
const ROUNDS = 5;
const LATENCY_S = 10;
const CLIENTS = 4;

interface Subject extends AsyncDisposable {
  readonly name: "webhook" | "floor";
  readonly pid: number;
  /** Posts a review and resolves with the answer. @throws Error for anything but an admission with a patch */
  post(review: string): Promise<string>;
}

/** Each with a number of its own. */
type Reviews = (index: number) => string;

export async function* admission(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  await bundle(folder.path);
  const floorPath = join(folder.path, "admission-floor.mjs");
  await bundleOne("bench/programs/admission.ts", floorPath);
  const { ca, certificate, key } = await localCertificate();
  await writeFile(join(folder.path, "tls.crt"), certificate);
  await writeFile(join(folder.path, "tls.key"), key);
  const { env } = await readImage(folder.path);
  const flags = await flagsOfDeployment();
  const answerPath = join(folder.path, "answer.json");
  const begin = (name: Subject["name"]): Promise<Subject> =>
    open(
      name,
      name === "webhook"
        ? [...flags, join(folder.path, "edgesync.mjs"), "webhook"]
        : [...flags, floorPath],
      ca,
      {
        ...env,
        EDGESYNC_TLS_DIR: folder.path,
        EDGESYNC_CERTIFICATES: "files",
        EDGESYNC_LISTEN_ADDRESS: "127.0.0.1",
        EDGESYNC_METRICS_PORT: "0",
        EDGESYNC_IMAGE: "edgesync:bench",
        EDGESYNC_REPOSITORY: "https://releases.example",
        EDGESYNC_VAULT_ADDRESS: "https://vault.example",
        BENCH_ANSWER: answerPath,
      },
    );
  for (const size of SIZES) {
    const reviews = reviewsOf(size.bytes);
    await using webhook = await begin("webhook");
    await writeFile(answerPath, await webhook.post(reviews(0)));
    await using floor = await begin("floor");
    yield* compare(size, reviews, [floor, webhook]);
  }
  {
    const reviews = reviewsOf(SIZES[0].bytes, `web-${MARK}`);
    await using webhook = await begin("webhook");
    await writeFile(answerPath, await webhook.post(reviews(0)));
    await using floor = await begin("floor");
    for await (const measurement of compare(SIZES[0], reviews, [floor, webhook]))
      yield { ...measurement, metric: `strangers-${measurement.metric}` };
  }
  yield* rotation(join(folder.path, "edgesync.mjs"), reviewsOf(SIZES[0].bytes));
}

/** Those of Node with which the manifests start the webhook. */
async function flagsOfDeployment(): Promise<readonly string[]> {
  const path = join(import.meta.dirname, "../manifests/base/deployment.yaml");
  const { spec } = parse(await readFile(path, "utf8")) as {
    spec: { template: { spec: { containers: { command: string[] }[] } } };
  };
  return spec.template.spec.containers[0]?.command.slice(1, -1) ?? [];
}

async function* compare(
  size: (typeof SIZES)[number],
  reviews: Reviews,
  subjects: readonly Subject[],
): AsyncGenerator<Measurement> {
  const rates = new Map<string, number[]>();
  for (const subject of subjects) await flood(subject, reviews, size.warmUp);
  for (let turn = 0; turn < ROUNDS; turn++)
    for (const subject of subjects) {
      const before = await processorSeconds(subject.pid);
      await flood(subject, reviews, size.reviews);
      const used = (await processorSeconds(subject.pid)) - before;
      rates.set(subject.name, [...(rates.get(subject.name) ?? []), size.reviews / used]);
    }
  const floors = new Map<string, number>();
  for (const subject of subjects) {
    const latencies = await pace(subject, reviews, size.rate);
    const { rss, rssPeak } = await figuresOf(subject.pid);
    const figures: readonly (readonly [string, number, string])[] = [
      ["throughput", median(rates.get(subject.name) ?? []), "reviews/core-second"],
      [`p50-at-${size.rate}`, quantile(latencies, 0.5), "ms"],
      [`p99-at-${size.rate}`, quantile(latencies, 0.99), "ms"],
      ["rss", rss, "MiB"],
      ["rss-peak", rssPeak, "MiB"],
    ];
    for (const [metric, value, unit] of figures) {
      const peer = floors.get(metric);
      if (subject.name === "floor") floors.set(metric, value);
      yield {
        subject: subject.name,
        metric: `${metric}-${size.name}`,
        value: round(value),
        unit,
        peer: peer === undefined ? null : "floor",
        ratio: peer === undefined ? null : round(value / peer),
      };
    }
  }
}

/** Of all its threads, to the nanosecond: the ticks of /proc/<pid>/stat are as long as a hundred reviews. */
async function processorSeconds(pid: number): Promise<number> {
  const folder = `/proc/${pid}/task`;
  const texts = (await readdir(folder)).map((task) => readFile(join(folder, task, "schedstat")));
  const times = (await Promise.all(texts)).map((text) => Number(text.toString().split(" ")[0]));
  return times.reduce((sum, ns) => sum + ns, 0) / 1e9;
}

/** Five characters that are in no review otherwise. */
const MARK = "@@@@@";

/** Pods whose JSON has about so many bytes: more of what makes pods large, variables of containers. */
function reviewsOf(bytes: number, controller = "web-5d4f6c7b8d"): Reviews {
  const count = Math.max(1, Math.floor((bytes - 600) / 100));
  const env = Array.from({ length: count }, (_, index) => ({
    name: `SETTING_${String(index).padStart(6, "0")}`,
    value: "x".repeat(64),
  }));
  const pod = podWith(
    { channel: "web/stable", "secret.db": "database/creds/web" },
    {
      containers: [
        {
          ...WEB,
          env,
          volumeMounts: [
            { name: `kube-api-access-${MARK}`, mountPath: TOKEN_PATH, readOnly: true },
          ],
        },
      ],
      volumes: [{ name: `kube-api-access-${MARK}`, ...TOKEN_SOURCE }],
    },
  );
  const owner = { apiVersion: "apps/v1", kind: "ReplicaSet", name: controller, uid: controller };
  const metadata = {
    ...pod.metadata,
    name: undefined,
    generateName: `${controller}-`,
    ownerReferences: [{ ...owner, controller: true }],
  };
  const parts = JSON.stringify({
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid: `705ab4f5-8393-11e8-b7cc-42010a8${MARK}`,
      kind: { group: "", version: "v1", kind: "Pod" },
      resource: { group: "", version: "v1", resource: "pods" },
      operation: "CREATE",
      namespace: "shop",
      object: { ...pod, metadata },
    },
  }).split(MARK);
  return (index) => parts.join(String(index % 100_000).padStart(MARK.length, "0"));
}

const TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SOURCE = {
  projected: { sources: [{ serviceAccountToken: { expirationSeconds: 3607, path: "token" } }] },
};

async function open(
  name: Subject["name"],
  args: readonly string[],
  ca: string,
  env: Readonly<Record<string, string>>,
): Promise<Subject> {
  const port = await freePort();
  const child = spawn(process.execPath, args, {
    env: { ...env, EDGESYNC_TLS_PORT: String(port) },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = once(child, "exit");
  const agent = new https.Agent({ keepAlive: true, maxSockets: CLIENTS, ca });
  const ask = async (path: string, body?: string): Promise<string> => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const outgoing = https.request(
      {
        host: "127.0.0.1",
        port,
        servername: "localhost",
        path,
        agent,
        method: body === undefined ? "GET" : "POST",
        headers:
          body === undefined
            ? {}
            : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) },
      },
      resolve,
    );
    outgoing.once("error", reject);
    outgoing.end(body);
    const response = await promise;
    const answer = await text(response);
    if (response.statusCode !== 200) throw new Error(`${name}: ${response.statusCode}`);
    return answer;
  };
  const stop = async (): Promise<void> => {
    agent.destroy();
    child.kill("SIGKILL");
    await ended;
  };
  for (let attempt = 0; ; attempt++)
    try {
      await ask("/readyz");
      break;
    } catch (error) {
      // Not listening yet.
      if (attempt === 3_000 || child.exitCode !== null) {
        await stop();
        throw error;
      }
      await sleep(10);
    }
  return {
    name,
    pid: child.pid ?? 0,
    async post(review) {
      // As an API server asks.
      const answer = await ask("/mutate?timeout=10s", review);
      const { response } = JSON.parse(answer) as { response: { patch?: string } };
      if (response.patch === undefined) throw new Error(`${name} does not inject: ${answer}`);
      return answer;
    },
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * As fast as some clients can. They never sleep: to wake whoever waits for an answer is work of the process that writes it, the more often the slower
 * that is, and says nothing about it.
 */
async function flood(subject: Subject, reviews: Reviews, count: number): Promise<void> {
  let left = count;
  const awake = (): void => {
    if (left > 0) setImmediate(awake);
  };
  const client = async (): Promise<void> => {
    for (let index = left--; index > 0; index = left--) await subject.post(reviews(index));
  };
  awake();
  await Promise.all(Array.from({ length: CLIENTS }, client));
}

/** Milliseconds of each review; the next comes whatever became of those before. */
async function pace(subject: Subject, reviews: Reviews, rate: number): Promise<readonly number[]> {
  const begun = performance.now();
  const count = rate * LATENCY_S;
  return await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const due = begun + (index * 1_000) / rate;
      await sleep(Math.max(0, due - performance.now()));
      // A timer of ours that is late is not the subject's affair.
      const asked = performance.now();
      await subject.post(reviews(index));
      return performance.now() - asked;
    }),
  );
}

function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;
}
