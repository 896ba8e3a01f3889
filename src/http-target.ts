/** A path at a port of the pod itself: `http:8080/reload`. Nothing of it leaves the machine. */
import { integer } from "./values.ts";

export interface HttpTarget {
  readonly kind: "http";
  readonly port: number;
  readonly path: string;
}

const port = integer(1, 65535);

export function parseHttpTarget(input: string): HttpTarget | undefined {
  const [, digits = "", path] = /^http:(\d+)(\/[\x21-\x7e]{0,1023})$/.exec(input) ?? [];
  const number = port.parse(digits);
  return number === undefined || path === undefined
    ? undefined
    : { kind: "http", port: number, path };
}

export function formatHttpTarget({ port, path }: HttpTarget): string {
  return `http:${port}${path}`;
}
