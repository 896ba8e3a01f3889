import assert from "node:assert/strict";
import { mkdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openAppRepository } from "../support/app-repository.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";

const PAYLOADS = ["main", "models", "rules"] as const;

interface Line {
  readonly msg: string;
  readonly payload?: string;
  readonly version?: string;
}

/** The swaps of a version in the log, as `payload what`. */
function swaps(output: string, version: string): readonly string[] {
  return output
    .split("\n")
    .filter((line) => line.startsWith("{") && line.endsWith("}"))
    .map((line) => JSON.parse(line) as Line)
    .filter((line) => line.version === version)
    .filter(({ msg }) => ["trial begun", "release committed"].includes(msg))
    .map(({ payload, msg }) => `${payload} ${msg}`);
}

describe("a sidecar with several payloads", () => {
  test("swaps one at a time, also after it was killed in a trial, and tells them apart", async () => {
    await using world = await openAppRepository();
    const folder = (payload: string): string => join(world.folder, `payload-${payload}`);
    for (const payload of PAYLOADS) await mkdir(folder(payload));
    const port = await freePort();
    const get = async (path: string): Promise<Response> =>
      await fetch(`http://127.0.0.1:${port}${path}`);
    const start = (): Program =>
      startNode(["bin/edgesync.ts", "agent"], {
        EDGESYNC_PORT: String(port),
        EDGESYNC_CHANNEL: "web/stable",
        EDGESYNC_REPOSITORY: world.url,
        EDGESYNC_PAYLOAD_DIR: folder("main"),
        EDGESYNC_TRUST_ROOT_FILE: world.root,
        EDGESYNC_POLL_INTERVAL: "1s",
        EDGESYNC_TRIAL_DURATION: "1s",
        EDGESYNC_ON_UPDATE: "none",
        EDGESYNC_HEALTH: "none",
        EDGESYNC_SETTINGS_VERSION: "2",
        EDGESYNC_PAYLOADS: JSON.stringify({
          models: { "payload-dir": folder("models") },
          rules: { "payload-dir": folder("rules") },
        }),
      });
    const run = async (version: string, sidecar: Program): Promise<void> => {
      for (const payload of PAYLOADS)
        await eventually(
          async () => {
            const current = await readlink(join(folder(payload), "current")).catch(() => "");
            return current.startsWith(`banks/${version}-`) || undefined;
          },
          () => sidecar.output(),
          30_000,
        );
    };

    await world.publish("1.0.0", { "version.txt": "1.0.0" });
    let begun: readonly string[];
    {
      await using sidecar = start();
      await run("1.0.0", sidecar);
      await eventually(
        async () => ((await get("/startup")).ok ? true : undefined),
        () => sidecar.output(),
      );
      await world.publish("1.0.1", { "version.txt": "1.0.1" });
      begun = await eventually(
        () => {
          const told = swaps(sidecar.output(), "1.0.1");
          return told.length > 0 ? told : undefined;
        },
        () => sidecar.output(),
        30_000,
      );
      await sidecar.end("SIGKILL");
      begun = swaps(sidecar.output(), "1.0.1");
    }
    await using sidecar = start();
    await run("1.0.1", sidecar);
    const told = await eventually(
      () => {
        const all = [...begun, ...swaps(sidecar.output(), "1.0.1")];
        return all.filter((line) => line.endsWith("committed")).length === 3 ? all : undefined;
      },
      () => sidecar.output(),
      30_000,
    );
    assert.equal(told.length, 6);
    for (const at of [0, 2, 4]) {
      const [payload] = told[at]?.split(" ") ?? [];
      assert.equal(told[at], `${payload} trial begun`, told.join(", "));
      assert.equal(told[at + 1], `${payload} release committed`, told.join(", "));
    }

    const { update, payloads } = (await (await get("/status")).json()) as {
      update?: { channel: string };
      payloads?: Record<string, { release: { version: string } }>;
    };
    assert.equal(update?.channel, "web/stable");
    assert.deepEqual(Object.keys(payloads ?? {}), ["models", "rules"]);
    assert.equal(payloads?.["models"]?.release.version, "1.0.1");
    const text = await (await get("/metrics")).text();
    for (const payload of PAYLOADS) {
      const info = new RegExp(
        `^edgesync_sidecar_release_info\\{.*payload="${payload}"\\} 1$`,
        "gm",
      );
      assert.equal(text.match(info)?.length, 1, "what one clears is not another's");
    }
    assert.equal(await sidecar.end("SIGTERM"), 0);
  });
});
