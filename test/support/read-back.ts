/** Reads a pushed repository with the sidecar's own client, and compares it with the folder that it was pushed from. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseOci } from "#core/addresses.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { refresh } from "#core/trust/refresh.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { storeOf } from "../trust/world.ts";
import { realClock } from "./real-clock.ts";
import { viewRepository } from "../../publisher/repository.ts";
import { orderedFiles } from "../../publisher/sync.ts";
import { openCredentials } from "../../sidecar/repository/credentials.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { openOciRepository } from "../../sidecar/repository/oci.ts";

const never = new AbortController().signal;
const LIMIT = 1 << 30;

/** @returns the number of files, all of which were the same, and of which the metadata has been verified */
export async function readBack(
  address: string,
  folder: string,
  ca?: string,
  login?: string,
): Promise<number> {
  const http = openHttp({
    idleTimeoutMs: 5_000,
    unavailable: "ORIGIN_UNAVAILABLE",
    ...(ca === undefined ? {} : { ca }),
  });
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const oci = parseOci(address);
  assert.ok(oci !== undefined);
  const credentials = login === undefined ? {} : { credentials: openCredentials(login, nodeDisk) };
  const repository = openOciRepository(oci, { http, clock: realClock, metrics, ...credentials });
  try {
    const files = await orderedFiles(await viewRepository(folder), undefined, never);
    for (const { path } of files) {
      const expected = await readFile(join(folder, path));
      const [, name] = /^metadata\/(.+)$/.exec(path) ?? [];
      const got =
        name === undefined
          ? await blob(path)
          : await repository.metadata(name, LIMIT, undefined, never);
      assert.ok(got !== undefined && Buffer.compare(got, expected) === 0, path);
      if (name !== undefined || expected.length < 2) continue;
      // From the middle too.
      const middle = Math.floor(expected.length / 2);
      assert.deepEqual(await blob(path, middle), expected.subarray(middle), path);
    }
    const set = await refresh(
      {
        source: {
          metadata: (name, limit, signal) => repository.metadata(name, limit, undefined, signal),
          target: () => Promise.resolve(undefined),
        },
        store: storeOf(new Map()),
        initialRoot: await readFile(join(folder, "metadata", "1.root.json")),
        now: Date.now(),
      },
      never,
    );
    assert.ok(set.targets.version >= 1);
    return files.length;
  } finally {
    http.close();
  }

  async function blob(path: string, offset = 0): Promise<Buffer> {
    const answer = await repository.open(path, offset, undefined, never);
    assert.ok(answer.answer === "bytes", `${path}: ${answer.answer}`);
    assert.equal(answer.offset, offset);
    const chunks: Uint8Array[] = [];
    for await (const chunk of answer.body) chunks.push(chunk);
    return Buffer.concat(chunks);
  }
}
