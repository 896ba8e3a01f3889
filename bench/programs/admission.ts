/** The least that a server of admission reviews can be: it reads a body, parses it, and answers with a patch of the same size as the webhook's. */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const { env } = process;
const folder = env["EDGESYNC_TLS_DIR"] ?? "";
const patch = "x".repeat(Number(env["BENCH_PATCH_BYTES"]));

createServer(
  { cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`) },
  (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      // Probes have no body.
      const review = (text === "" ? {} : JSON.parse(text)) as { request?: { uid: string } };
      const answer = { response: { uid: review.request?.uid, allowed: true, patch } };
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(answer));
    });
  },
).listen(Number(env["EDGESYNC_TLS_PORT"]), "127.0.0.1");
