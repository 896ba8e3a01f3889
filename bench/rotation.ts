/** Reviews that fail while the webhook's certificate is replaced under load, on connections that stay and on new ones. There must be none. */
import https from "node:https";
import { setImmediate as immediate } from "node:timers/promises";
import { call, localCertificate, startWebhook } from "../test/support/webhook.ts";
import type { Measurement } from "./subjects.ts";

const ROTATIONS = 5;
/** That stay, and that are made anew for each review. */
const STAYING = 4;
const NEW = 2;
/** Reviews of each client between two certificates. */
const BETWEEN = 100;

/** @param program the bundle */
export async function* rotation(
  program: string,
  reviews: (index: number) => string,
): AsyncGenerator<Measurement> {
  const certificates = await Promise.all(
    Array.from({ length: ROTATIONS + 1 }, () => localCertificate()),
  );
  const [first, ...next] = certificates;
  // As the caBundle is while one certificate follows another.
  const ca = certificates.map((one) => one.ca).join("\n");
  await using webhook = await startWebhook({}, first, program);
  const agent = new https.Agent({ keepAlive: true, maxSockets: STAYING });
  const more = new AbortController();
  const tally = { answered: 0, failed: 0 };
  const client = async (staying: boolean): Promise<void> => {
    while (!more.signal.aborted)
      try {
        const { status, text } = await call({
          port: webhook.port,
          path: "/mutate?timeout=10s",
          ca,
          body: reviews(tally.answered),
          ...(staying ? { agent } : {}),
        });
        if (status === 200 && text.includes('"patch"')) tally.answered += 1;
        else tally.failed += 1;
      } catch {
        // Whatever has become of the connection, the pod was not made.
        tally.failed += 1;
      }
  };
  const clients = Array.from({ length: STAYING + NEW }, (_, index) => client(index < STAYING));
  for (const [index, certificate] of next.entries()) {
    await webhook.publish(certificate);
    await webhook.logged("serving certificate loaded", index + 2);
    const enough = tally.answered + tally.failed + BETWEEN * clients.length;
    while (tally.answered + tally.failed < enough) await immediate();
  }
  more.abort();
  await Promise.all(clients);
  agent.destroy();
  const of = (metric: string, value: number): Measurement => ({
    subject: "webhook",
    metric,
    value,
    unit: "1",
    peer: null,
    ratio: null,
  });
  yield of("certificate-rotations", ROTATIONS);
  yield of("answered-through-rotations", tally.answered);
  yield of("failed-through-rotations", tally.failed);
}
