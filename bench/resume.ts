import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openFaultProxy } from "../test/support/fault-proxy.ts";
import type { FaultProxy } from "../test/support/fault-proxy.ts";
import { temporaryFolder } from "../test/support/temporary.ts";
import { noise, openWorld } from "../test/update/support/world.ts";
import { buildSubjects, round, start } from "./subjects.ts";
import type { Measurement, Running, Subject } from "./subjects.ts";

const SIZE = 100_000_000;
const CUTS = 20;
const PATIENCE_MS = 120_000;
/** What a process may hold that it has not counted yet. */
const HELD = 64 * 1024;
/** Bytes that do not compress, so that the blob is the file. */
const CONTENT = noise(3, SIZE);
const BLOB = new RegExp(createHash("sha256").update(CONTENT).digest("hex"));

/** Bytes on the wire for a file of 100 MB when the link, or the process, ends twenty times on the way; the floor is the file's own size. */
export async function* resume(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  await using world = await openWorld();
  await world.publish("1.0.0", { model: CONTENT });
  const subjects = await buildSubjects(folder.path);
  const sidecar = subjects.find(({ name }) => name === "sidecar");
  if (sidecar === undefined) throw new Error("no bundle of the sidecar");
  yield { subject: "file", metric: "size", value: SIZE, unit: "bytes", peer: null, ratio: null };
  for (const how of ["resets", "kills"] as const) {
    const payload = join(folder.path, how);
    await mkdir(payload);
    await using proxy = await openFaultProxy(world.origin.url);
    const env = {
      EDGESYNC_SETTINGS_VERSION: "1",
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: proxy.url,
      EDGESYNC_TRUST_ROOT_FILE: world.root,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_POLL_INTERVAL: "1s",
      EDGESYNC_HEALTH: "none",
      EDGESYNC_ON_UPDATE: "none",
    };
    const requests = await (how === "resets" ? withResets : withKills)(sidecar, env, proxy);
    const sent = sentBy(proxy);
    const subject = `twenty-${how}`;
    yield {
      subject,
      metric: "sent",
      value: sent,
      unit: "bytes",
      peer: "file",
      ratio: round(sent / SIZE),
    };
    const each = round((sent - SIZE) / CUTS);
    yield { subject, metric: "wasted-each", value: each, unit: "bytes", peer: null, ratio: null };
    yield {
      subject,
      metric: "requests",
      value: requests,
      unit: "requests",
      peer: null,
      ratio: null,
    };
  }
}

type Environment = Readonly<Record<string, string>>;

async function withResets(subject: Subject, env: Environment, proxy: FaultProxy): Promise<number> {
  const each = Math.floor(SIZE / (CUTS + 1));
  for (let cut = 0; cut < CUTS; cut++) proxy.fail(BLOB, { fault: "closed", after: each });
  await using running = await start(subject, env);
  await untilInstalled(running);
  return requestsOf(proxy);
}

async function withKills(subject: Subject, env: Environment, proxy: FaultProxy): Promise<number> {
  const each = Math.floor(SIZE / (CUTS + 1));
  for (let cut = 1; cut <= CUTS; cut++) {
    proxy.fail(BLOB, { fault: "stall", after: each });
    await using running = await start(subject, env);
    // The process is killed while it waits for more, with all that it was given.
    await until(() => sentBy(proxy) >= cut * each);
    await until(async () => (await receivedBy(running)) >= each - HELD);
  }
  await using running = await start(subject, env);
  await untilInstalled(running);
  return requestsOf(proxy);
}

function sentBy(proxy: FaultProxy): number {
  return proxy.requests
    .filter(({ path }) => BLOB.test(path))
    .reduce((sum, { sent }) => sum + sent, 0);
}

function requestsOf(proxy: FaultProxy): number {
  return proxy.requests.filter(({ path }) => BLOB.test(path)).length;
}

/** Bytes of blobs that the process has taken. */
async function receivedBy(running: Running): Promise<number> {
  const text = await running.get("/metrics");
  const lines = text.matchAll(/^edgesync_sidecar_download_bytes_total\{.*kind="full".*\} (\d+)$/gm);
  return [...lines].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}

function untilInstalled(running: Running): Promise<void> {
  return until(() =>
    running.get("/startup").then(
      () => true,
      () => false,
    ),
  );
}

async function until(is: () => Promise<boolean> | boolean): Promise<void> {
  const begun = performance.now();
  while (!(await is())) {
    if (performance.now() - begun > PATIENCE_MS) throw new Error("it did not come about");
    await sleep(20);
  }
}
