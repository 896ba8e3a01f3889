/** What the sidecar's libraries cost without the sidecar: all are loaded, set up as the sidecar does it, and used a little. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Agent, request } from "node:https";
import { zstdDecompressSync } from "node:zlib";
import { decodeJwt } from "jose";
import { pino } from "pino";
import { Registry, collectDefaultMetrics } from "prom-client";
import { parse, string } from "valibot";

const log = pino({ timestamp: pino.stdTimeFunctions.isoTime });
const registry = new Registry();
collectDefaultMetrics({ register: registry });
log.info({ used: [decodeJwt.name, zstdDecompressSync.name] }, "loaded");

const target = parse(string(), process.env["BENCH_URL"] ?? "");
const caFile = process.env["BENCH_CA_FILE"];
const agent = new Agent({
  keepAlive: true,
  maxSockets: 4,
  ...(caFile === undefined ? {} : { ca: readFileSync(caFile) }),
});

/** One HTTPS request, whose answer is read and hashed. */
function once(): Promise<void> {
  return new Promise((resolve, reject) => {
    const outgoing = request(target, { agent }, (response) => {
      const hash = createHash("sha256");
      response.on("data", (chunk: Buffer) => hash.update(chunk));
      response.once("end", () => {
        log.debug({ digest: hash.digest("hex") }, "read");
        resolve();
      });
    });
    outgoing.once("error", reject);
    outgoing.end();
  });
}

createServer((incoming, response) => {
  const answer = async (): Promise<string> => {
    if (incoming.url === "/metrics") return registry.metrics();
    if (incoming.url === "/request") await once();
    return "ok\n";
  };
  answer().then(
    (text) => response.end(text),
    (error: unknown) => {
      log.error({ err: error }, "failed");
      response.writeHead(500).end();
    },
  );
}).listen(Number(process.env["EDGESYNC_PORT"]));
