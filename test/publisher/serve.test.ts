import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import type { IncomingHttpHeaders } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseArguments } from "../../publisher/command.ts";
import { COMMANDS } from "../../publisher/commands.ts";
import { serve } from "../../publisher/serve.ts";
import { silent } from "../../publisher/work.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { makePublisher } from "./world.ts";

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

interface Site extends AsyncDisposable {
  readonly root: string;
  /** The path goes out as it is: fetch would tidy it. */
  get(path: string, headers?: Record<string, string>, method?: string): Promise<Answer>;
}

async function openSite(): Promise<Site> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await temporaryFolder());
  const root = join(folder.path, "repository");
  await mkdir(join(root, "metadata"), { recursive: true });
  await mkdir(join(root, "targets"));
  await writeFile(join(root, "metadata", "timestamp.json"), "{}");
  await writeFile(join(root, "targets", "digits"), "0123456789");
  await writeFile(join(root, "targets", "empty"), "");
  await writeFile(join(root, "targets", ".hidden"), "hidden");
  await writeFile(join(root, "loose"), "loose");
  await writeFile(join(folder.path, "secret"), "secret");
  await symlink("../../secret", join(root, "targets", "escape"));
  const { url } = cleanup.use(await serve({ root, host: "127.0.0.1", port: 0 }));
  const { port } = new URL(url);
  const owned = cleanup.move();
  return {
    root,
    get: (path, headers = {}, method = "GET") =>
      new Promise((resolve, reject) => {
        const asked = request({ host: "127.0.0.1", port, path, headers, method }, (response) => {
          let body = "";
          response.setEncoding("utf8").on("data", (text: string) => (body += text));
          response.on("end", () =>
            resolve({ status: response.statusCode, headers: response.headers, body }),
          );
        });
        asked.on("error", reject).end();
      }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe("edgesync serve", () => {
  test("answers GET and HEAD, and nothing else", async () => {
    await using site = await openSite();
    const whole = await site.get("/targets/digits");
    assert.deepEqual(
      [whole.status, whole.body, whole.headers["content-length"]],
      [200, "0123456789", "10"],
    );
    const head = await site.get("/targets/digits", {}, "HEAD");
    assert.deepEqual([head.status, head.body, head.headers["content-length"]], [200, "", "10"]);
    assert.equal((await site.get("/targets/empty")).body, "");
    const post = await site.get("/targets/digits", {}, "POST");
    assert.deepEqual([post.status, post.headers.allow], [405, "GET, HEAD"]);
  });

  test("answers one range", async () => {
    await using site = await openSite();
    for (const [range, body, place] of [
      ["bytes=0-0", "0", "bytes 0-0/10"],
      ["bytes=2-4", "234", "bytes 2-4/10"],
      ["bytes=7-", "789", "bytes 7-9/10"],
      ["bytes=7-100", "789", "bytes 7-9/10"],
      ["bytes=-3", "789", "bytes 7-9/10"],
      ["bytes=-100", "0123456789", "bytes 0-9/10"],
    ] as const) {
      const part = await site.get("/targets/digits", { range });
      assert.deepEqual(
        [part.status, part.body, part.headers["content-range"]],
        [206, body, place],
        range,
      );
    }
    for (const range of ["bytes=10-", "bytes=-0"]) {
      const none = await site.get("/targets/digits", { range });
      assert.deepEqual([none.status, none.headers["content-range"]], [416, "bytes */10"], range);
    }
    for (const range of ["bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=x-1"])
      assert.equal((await site.get("/targets/digits", { range })).status, 200, range);
  });

  test("tells by its tag whether a file is still the same", async () => {
    await using site = await openSite();
    const { etag = "" } = (await site.get("/targets/digits")).headers;
    assert.equal((await site.get("/targets/digits", { "if-none-match": etag })).status, 304);
    assert.equal((await site.get("/targets/digits", { "if-none-match": '"other"' })).status, 200);
    const range = "bytes=2-3";
    assert.equal((await site.get("/targets/digits", { range, "if-range": etag })).status, 206);
    assert.equal((await site.get("/targets/digits", { range, "if-range": '"other"' })).status, 200);
    await writeFile(join(site.root, "targets", "digits"), "9876543210!");
    assert.equal((await site.get("/targets/digits", { "if-none-match": etag })).status, 200);
  });

  test("gives nothing from outside of what is published", async () => {
    await using site = await openSite();
    for (const path of [
      "/",
      "/targets",
      "/targets/",
      "/loose",
      "/targets/.hidden",
      "/targets/escape",
      "/targets/../../secret",
      "/targets/%2e%2e/%2e%2e/secret",
      "/targets/..%2f..%2fsecret",
      "//targets/digits",
      "/targets/digits/",
      "/targets/%00",
      "/targets/%ff",
      "/targets/..\\loose",
      `/targets/${"x".repeat(300)}`,
    ])
      assert.equal((await site.get(path)).status, 404, path);
  });

  test("serves until it is told to stop, and then ends well", async () => {
    await using publisher = await makePublisher();
    const bin = fileURLToPath(new URL("../../bin/edgesync.ts", import.meta.url));
    const child = spawn(process.execPath, [bin, "serve", publisher.repository, "--port", "0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    let said = "";
    for await (const text of child.stdout.setEncoding("utf8")) {
      said += text;
      if (said.includes("\n")) break;
    }
    const url = /http:\/\/\S+/.exec(said)?.[0] ?? "";
    assert.equal((await fetch(new URL("metadata/timestamp.json", url))).status, 200);
    child.kill("SIGTERM");
    assert.equal(await ended, 0);
  });

  test("ends also when it was told to stop while it began", async () => {
    await using publisher = await makePublisher();
    const stop = new AbortController();
    const command = COMMANDS.find(({ name }) => name === "serve");
    assert.ok(command !== undefined);
    const { arguments: args } = parseArguments(command, [publisher.repository, "--port", "0"]);
    const shell = {
      now: () => Date.now(),
      keyring: () => Promise.reject(new Error("no keys are needed")),
      environment: {},
      progress: silent,
      announce: () => stop.abort(new Error("SIGINT")),
    };
    assert.equal(await command.run(args, shell, stop.signal), undefined);
  });
});
