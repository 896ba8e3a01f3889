/** What a server may do with a request: redirect it, ask who it is from, drip. */
import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { authority } from "../support/certificates.ts";
import { realClock } from "../support/real-clock.ts";
import { httpServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openCredentials } from "../../sidecar/repository/credentials.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import type { Http } from "../../sidecar/network/http.ts";
import type { Pace } from "../../sidecar/network/pace.ts";
import { openRepository } from "../../sidecar/repository/repository.ts";
import type { Repository } from "../../sidecar/repository/repository.ts";

const never = new AbortController().signal;
const ca = authority();
const localhost = ca.issue(["localhost"]);
const registry = new Registry();
const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
const BLOB = "blobs/sha256/00";

let http: Http;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  http = openHttp({ ca: ca.cert, idleTimeoutMs: 2_000, unavailable: "ORIGIN_UNAVAILABLE" });
  folder = await temporaryFolder();
});
after(async () => {
  http.close();
  await folder[Symbol.asyncDispose]();
});

function repositoryAt(url: string, more: { login?: true; pace?: Pace } = {}): Repository {
  return openRepository(url, {
    http,
    clock: realClock,
    metrics,
    ...(more.pace === undefined ? {} : { pace: more.pace }),
    ...(more.login === undefined ? {} : { credentials: openCredentials(folder.path, nodeDisk) }),
  });
}

async function blobOf(repository: Repository, offset = 0): Promise<string> {
  const answer = await repository.open(BLOB, offset, undefined, never);
  assert.equal(answer.answer, "bytes");
  if (answer.answer !== "bytes") return "";
  const chunks: Uint8Array[] = [];
  for await (const chunk of answer.body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A TLS server that keeps the headers of its requests. */
async function server(
  answer: Answer,
): Promise<TestServer & { readonly seen: readonly IncomingMessage["headers"][] }> {
  const seen: IncomingMessage["headers"][] = [];
  const listening = await httpServer((request, response) => {
    seen.push(request.headers);
    answer(request, response);
  }, localhost);
  return { ...listening, seen };
}

async function login(files: Readonly<Record<string, string>>): Promise<void> {
  await rm(folder.path, { recursive: true, force: true });
  await mkdir(folder.path);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder.path, name), text);
}

describe("a bucket that may not be listed", () => {
  const forbid: Answer = (_, response) => void response.writeHead(403).end("<Error/>");

  test("says with 403 that there is no newer root, and nothing else", async () => {
    await using bucket = await server(forbid);
    const repository = repositoryAt(bucket.url);
    assert.equal(await repository.metadata("2.root.json", 1_000, undefined, never), undefined);
    for (const name of ["timestamp.json", "7.snapshot.json", "2.root.json.json"]) {
      const asked = repository.metadata(name, 1_000, undefined, never);
      await assert.rejects(asked, { code: "ORIGIN_REFUSED" });
    }
    await assert.rejects(blobOf(repository), { code: "ORIGIN_REFUSED" });
  });
});

describe("a redirect", () => {
  const redirect =
    (to: string, status = 302): Answer =>
    (_, response) =>
      void response.writeHead(status, { location: to }).end("moved");

  for (const status of [301, 302, 303, 307, 308])
    test(`${status} of a blob is followed to another origin, with the range and without credentials`, async () => {
      await login({ token: "canary" });
      await using storage = await server((_, response) => {
        response.writeHead(206, { "content-range": "bytes 3-4/5" }).end("lo");
      });
      await using origin = await server(redirect(`${storage.url}/store?X-Signature=s`, status));
      assert.equal(await blobOf(repositoryAt(origin.url, { login: true }), 3), "lo");
      assert.equal(origin.seen[0]?.authorization, "Bearer canary");
      assert.equal(storage.seen[0]?.authorization, undefined);
      assert.equal(storage.seen[0]?.range, "bytes=3-");
    });

  test("within the origin is followed, without credentials too", async () => {
    await login({ token: "canary" });
    await using origin = await server((request, response) => {
      if (request.url === "/elsewhere") response.end("hello");
      else redirect("/elsewhere")(request, response);
    });
    assert.equal(await blobOf(repositoryAt(origin.url, { login: true })), "hello");
    assert.deepEqual(
      origin.seen.map(({ authorization }) => authorization),
      ["Bearer canary", undefined],
    );
  });

  for (const name of ["timestamp.json", "2.root.json", "snapshot.json"])
    test(`of ${name} is refused, because nothing says yet what it must be`, async () => {
      await using origin = await server(redirect("/elsewhere"));
      const asked = repositoryAt(origin.url).metadata(name, 1_000, undefined, never);
      await assert.rejects(asked, { code: "ORIGIN_REFUSED" });
      assert.equal(origin.seen.length, 1);
    });

  test("of versioned metadata is followed", async () => {
    await using storage = await server((_, response) => response.end("{}"));
    await using origin = await server(redirect(`${storage.url}/x`));
    const bytes = await repositoryAt(origin.url).metadata("3.snapshot.json", 9, undefined, never);
    assert.equal(String(bytes), "{}");
  });

  test("to plain HTTP, to nowhere, with credentials or in a circle is refused", async () => {
    await using plain = await httpServer((_, response) => response.end("hello"));
    for (const to of [
      plain.url,
      "https://[",
      "file:///etc/passwd",
      "https://a:b@localhost/",
      "/x",
    ]) {
      await using origin = await server(redirect(to));
      await assert.rejects(blobOf(repositoryAt(origin.url)), { code: "ORIGIN_REFUSED" });
      assert.equal(origin.seen.length, to === "/x" ? 6 : 1, to);
    }
    assert.equal(plain.connections(), 0);
  });

  test("says where it led without the query, which may hold a signature", async () => {
    await using storage = await server((_, response) => void response.writeHead(403).end());
    await using origin = await server(redirect(`${storage.url}/store?X-Signature=canary`));
    await assert.rejects(blobOf(repositoryAt(origin.url)), (error: Error) => {
      assert.match(error.message, /\/store/);
      assert.doesNotMatch(error.message, /canary/);
      return true;
    });
  });
});

describe("credentials", () => {
  const hosts = (port: number, place = ""): string =>
    JSON.stringify({
      auths: {
        "other.example": { auth: Buffer.from("no:no").toString("base64") },
        [`https://localhost:${port}${place}`]: {
          auth: Buffer.from("robot:p:w").toString("base64"),
        },
      },
    });
  const ok: Answer = (_, response) => void response.end("hello");

  test("are read anew at each use, in whichever of the three forms there is", async () => {
    await using origin = await server(ok);
    const repository = repositoryAt(`${origin.url}/team/a`, { login: true });
    const forms = [
      { token: "one\n" },
      { token: "two" },
      { username: "edge", password: "pass:word\n" },
      { ".dockerconfigjson": hosts(origin.port) },
      { ".dockerconfigjson": hosts(origin.port, "/team") },
      { ".dockerconfigjson": hosts(origin.port, "/another") },
    ];
    for (const files of forms) {
      await login(files);
      assert.equal(await blobOf(repository), "hello");
    }
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString("base64")}`;
    assert.deepEqual(
      origin.seen.map(({ authorization }) => authorization),
      [
        "Bearer one",
        "Bearer two",
        basic("edge:pass:word"),
        basic("robot:p:w"),
        basic("robot:p:w"),
        undefined,
      ],
    );
  });

  test("that are missing or not well-formed are a fault of the settings, and nothing is asked", async () => {
    await using origin = await server(ok);
    const repository = repositoryAt(origin.url, { login: true });
    for (const files of [
      {},
      { username: "edge" },
      { token: "canary canary" },
      { token: "canary\r\nx-evil: canary" },
      { username: "a:b", password: "canary" },
      { ".dockerconfigjson": '{"auths": {"localhost": "canary"' },
      { ".dockerconfigjson": `{"auths":{"localhost:${origin.port}":{"auth":"Y2FuYXJ5"}}}` },
    ]) {
      await login(files);
      await assert.rejects(blobOf(repository), (error: Error & { code?: string }) => {
        assert.equal(error.code, "CONFIG_INVALID");
        assert.doesNotMatch(`${error.stack} ${String(error.cause)}`, /canary|Y2FuYXJ5/);
        return true;
      });
    }
    assert.equal(origin.seen.length, 0);
  });

  test("that are not the right ones are refused and not tried again", async () => {
    await login({ token: "canary" });
    await using origin = await server((_, response) => void response.writeHead(401).end());
    const asked = blobOf(repositoryAt(origin.url, { login: true }));
    await assert.rejects(asked, { code: "ORIGIN_REFUSED" });
    assert.equal(origin.seen.length, 1);
  });

  test("go over plain HTTP to this machine only", async () => {
    await login({ token: "canary" });
    const sent: unknown[] = [];
    await using local = await httpServer((request, response) => {
      sent.push(request.headers.authorization);
      response.end("hello");
    });
    assert.equal(await blobOf(repositoryAt(local.url, { login: true })), "hello");
    // Another name for this machine, which is not one that nobody else can have.
    const other = `http://[::ffff:127.0.0.1]:${local.port}`;
    assert.equal(await blobOf(repositoryAt(other, { login: true })), "hello");
    assert.deepEqual(sent, ["Bearer canary", undefined]);
  });
});

describe("a server that drips", () => {
  const drip =
    (every: number, piece: string, times: number, status = 200): Answer =>
    (_, response) => {
      response.writeHead(status);
      let left = times;
      const timer = setInterval(() => {
        if (left-- > 0) response.write(piece);
        else response.end();
      }, every);
      response.on("close", () => clearInterval(timer));
    };
  const slow = async (): Promise<number> => {
    const metric = await registry.getSingleMetric("edgesync_sidecar_slow_retrievals_total")?.get();
    return metric?.values[0]?.value ?? 0;
  };

  test("is given up when less comes than the least rate, and counted; what has come is kept", async () => {
    const before = await slow();
    await using origin = await server(drip(20, "x", 1_000));
    const repository = repositoryAt(origin.url, { pace: { bytes: 50, windowMs: 200 } });
    const answer = await repository.open(BLOB, 0, undefined, never);
    assert.equal(answer.answer, "bytes");
    let received = 0;
    const read = async (): Promise<void> => {
      if (answer.answer === "bytes")
        for await (const chunk of answer.body) received += chunk.byteLength;
    };
    await assert.rejects(read(), { code: "ORIGIN_UNAVAILABLE" });
    assert.ok(received >= 1, "it is resumed behind these");
    assert.equal(await slow(), before + 1);
    const asked = repository.metadata("timestamp.json", 1_000, undefined, never);
    await assert.rejects(asked, { code: "ORIGIN_UNAVAILABLE" });
    assert.equal(await slow(), before + 2);
  });

  for (const status of [404, 500])
    test(`does not hold anybody back with an answer ${status} either`, async () => {
      const before = await slow();
      await using origin = await server(drip(20, "x", 1_000, status));
      const repository = repositoryAt(origin.url, { pace: { bytes: 50, windowMs: 200 } });
      const asked = repository.metadata("2.root.json", 1_000, undefined, never);
      if (status === 404) assert.equal(await asked, undefined);
      else await assert.rejects(asked, { code: "ORIGIN_UNAVAILABLE" });
      assert.equal(await slow(), before + 1);
    });

  test("is waited for when it is no slower than that", async () => {
    await using origin = await server(drip(10, "0123456789", 60));
    const repository = repositoryAt(origin.url, { pace: { bytes: 20, windowMs: 200 } });
    assert.equal((await blobOf(repository)).length, 600);
  });

  test("is not blamed for the time that the reader takes", async () => {
    await using origin = await server((_, response) => response.end(Buffer.alloc(300_000)));
    const repository = repositoryAt(origin.url, { pace: { bytes: 1_000_000, windowMs: 400 } });
    const answer = await repository.open(BLOB, 0, undefined, never);
    if (answer.answer !== "bytes") throw new Error("no bytes");
    let size = 0;
    for await (const chunk of answer.body) {
      if (size === 0) await new Promise((resolve) => setTimeout(resolve, 500));
      size += chunk.byteLength;
    }
    assert.equal(size, 300_000);
  });
});
