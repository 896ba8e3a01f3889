/** The way to a Vault that pods do not reach and the test does: requests wait here until the test has fetched, made and answered them. */
import type { RequestListener, ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import type { Asked, Told } from "../protocol.ts";

/** How long the test is kept waiting for a request, and asks again. */
const HOLD_MS = 4_000;

export interface Tunnel {
  readonly listener: RequestListener;
  /** Requests that nobody has fetched, as soon as there are any; none after a while. */
  take(): Promise<readonly Asked[]>;
  give(told: Told): void;
}

export function openTunnel(): Tunnel {
  const waiting: Asked[] = [];
  const responses = new Map<number, ServerResponse>();
  let last = 0;
  let wake = (): void => {};
  return {
    listener(request, response) {
      text(request).then(
        (body) => {
          const id = ++last;
          const token = request.headers["x-vault-token"];
          waiting.push({
            id,
            method: request.method ?? "GET",
            path: request.url ?? "/",
            ...(typeof token === "string" && { token }),
            body,
          });
          responses.set(id, response);
          response.once("close", () => responses.delete(id));
          wake();
        },
        () => response.destroy(),
      );
    },
    async take() {
      if (waiting.length === 0)
        await new Promise<void>((resolve) => {
          const late = setTimeout(resolve, HOLD_MS);
          wake = () => {
            clearTimeout(late);
            resolve();
          };
        });
      return waiting.splice(0);
    },
    give({ id, status, body, retryAfter }) {
      responses
        .get(id)
        ?.writeHead(status, {
          "content-type": "application/json",
          ...(retryAfter !== undefined && { "retry-after": retryAfter }),
        })
        .end(status === 204 ? undefined : body);
    },
  };
}
