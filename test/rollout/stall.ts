import { request } from "node:http";
import { httpServer } from "../support/server.ts";

/** A server in front of another that passes blobs on up to a point and then keeps the rest back. */
export interface Stall extends AsyncDisposable {
  readonly url: string;
  /** Bytes that were passed on of each blob. */
  passed(): readonly number[];
  /** From now on everything is passed on, also what was kept back. */
  open(): void;
}

/** @param after bytes of each blob's answer */
export async function openStall(origin: string, after: number): Promise<Stall> {
  const passed = new Map<string, number>();
  let open = false;
  const kept: (() => void)[] = [];
  const server = await httpServer((incoming, response) => {
    const { url = "", headers } = incoming;
    const blob = url.includes("/blobs/");
    const upstream = request(new URL(url, origin), { headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", () => {
        const body = Buffer.concat(chunks);
        const pass = (part: Buffer): void => {
          if (blob) passed.set(url, (passed.get(url) ?? 0) + part.length);
          response.write(part);
        };
        const cut = blob && !open ? after : body.length;
        pass(body.subarray(0, cut));
        const finish = (): void => {
          if (response.destroyed) return;
          pass(body.subarray(cut));
          response.end();
        };
        if (cut < body.length) kept.push(finish);
        else finish();
      });
    });
    upstream.on("error", () => response.destroy());
    upstream.end();
  });
  return {
    url: server.url,
    passed: () => [...passed.values()],
    open() {
      open = true;
      for (const finish of kept) finish();
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
