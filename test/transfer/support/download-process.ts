/** A download in a process of its own, so that it can be killed for good. Says `complete` when it is. */
import { createMetrics } from "#core/telemetry.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import process from "node:process";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { realClock } from "../../support/real-clock.ts";
import { openDownloads } from "../../../sidecar/repository/download.ts";
import { nodeDisk } from "../../../sidecar/disk/durable.ts";
import { openHttp } from "../../../sidecar/network/http.ts";
import { openRepository } from "../../../sidecar/repository/repository.ts";

export interface DownloadOptions {
  readonly url: string;
  readonly folder: string;
  readonly blob: { readonly sha256: string; readonly size: number };
}

const { url, folder, blob } = JSON.parse(process.argv[2] ?? "") as DownloadOptions;
const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
const http = openHttp({ idleTimeoutMs: 60_000, unavailable: "ORIGIN_UNAVAILABLE" });
const repository = openRepository(url, { http, clock: realClock, metrics });
const arrived = (): undefined => undefined;
const downloads = openDownloads({ disk: nodeDisk, folder, repository, metrics, arrived });
await downloads.fetch({ fetch: "blob", blob, kind: "full" }, new AbortController().signal);
process.stdout.write("complete\n");
http.close();
