import { request } from "node:http";
import { httpServer } from "../support/server.ts";

/** A server in front of another that passes blobs on up to a point and then keeps the rest back. */
export interface Stall extends AsyncDisposable {
  readonly url: string;
  /** Bytes that were passed on of each blob. */
  passed(): readonly number[];
  /** From now on everything is passed on. */
  open(): void;
}

/** @param after bytes of each blob's answer */
export async function openStall(origin: string, after: number): Promise<Stall> {
  const passed = new Map<string, number>();
  let open = false;
  const server = await httpServer((incoming, response) => {
    const { url = "", headers } = incoming;
    const blob = url.includes("/blobs/");
    const upstream = request(new URL(url, origin), { headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      let left = blob && !open ? after : Infinity;
      answer.on("data", (chunk: Buffer) => {
        const part = chunk.subarray(0, left);
        left -= part.length;
        if (blob) passed.set(url, (passed.get(url) ?? 0) + part.length);
        response.write(part);
      });
      answer.on("end", () => {
        if (left > 0) response.end();
      });
    });
    upstream.on("error", () => response.destroy());
    upstream.end();
  });
  return {
    url: server.url,
    passed: () => [...passed.values()],
    open: () => void (open = true),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
