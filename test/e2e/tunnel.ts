/** The test's end of the way to a Vault that pods do not reach. */
import { readFileSync } from "node:fs";
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { text } from "node:stream/consumers";
import type { Asked, Told } from "./protocol.ts";
import type { Vault } from "./settings.ts";

const CALL_MS = 20_000;

/** @throws Error when there is no answer */
export async function tellVault(vault: Vault, asked: Asked): Promise<Told> {
  const target = new URL(asked.path, vault.address);
  const ca = vault.caFile === undefined ? {} : { ca: readFileSync(vault.caFile) };
  const headers = {
    "content-type": "application/json",
    ...(asked.token !== undefined && { "x-vault-token": asked.token }),
  };
  const signal = AbortSignal.timeout(CALL_MS);
  return await new Promise((resolve, reject) => {
    const send = target.protocol === "https:" ? tlsRequest : plainRequest;
    const outgoing = send(target, { method: asked.method, headers, signal, ...ca });
    outgoing.once("error", reject);
    outgoing.once("response", (answer) => {
      const retryAfter = answer.headers["retry-after"];
      text(answer).then((body) => {
        const { id } = asked;
        const status = answer.statusCode ?? 502;
        resolve({ id, status, body, ...(retryAfter !== undefined && { retryAfter }) });
      }, reject);
    });
    outgoing.end(asked.body === "" ? undefined : asked.body);
  });
}

/** Fetches, makes and answers requests until `closed`. */
export async function runTunnel(
  vault: Vault,
  site: {
    take(): Promise<readonly Asked[]>;
    give(told: Told): Promise<void>;
    pause(): Promise<void>;
  },
  closed: AbortSignal,
): Promise<void> {
  const serve = async (asked: Asked): Promise<void> => {
    const unanswered = { id: asked.id, status: 502, body: '{"errors":["no answer"]}' };
    await site.give(await tellVault(vault, asked).catch(() => unanswered));
  };
  while (!closed.aborted) {
    try {
      // Each on its own: a slow one must not hold up the others. What cannot be answered is asked for again by who asked.
      for (const asked of await site.take()) serve(asked).catch(() => {});
    } catch {
      await site.pause();
    }
  }
}
