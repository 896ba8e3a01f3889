/** How the health of a release on trial is told: the kinds of the annotation `health`. */
import { unreachable } from "./errors.ts";
import { formatHttpTarget, parseHttpTarget } from "./http-target.ts";
import type { HttpTarget } from "./http-target.ts";
import type { ProbeHandler } from "./probe.ts";
import { integer } from "./values.ts";
import type { Value } from "./values.ts";

export type HealthCheck =
  /** The container's own. */
  | { readonly kind: "probe" }
  | { readonly kind: "none" }
  | HttpTarget
  | { readonly kind: "tcp"; readonly port: number }
  /** grpc.health.v1, of all services or of one. */
  | { readonly kind: "grpc"; readonly port: number; readonly service: string }
  /** A program with its arguments that exits with 0 when all is well; for a daemon only. */
  | { readonly kind: "command"; readonly argv: readonly string[] };

const port = integer(1, 65535);

export const healthCheck: Value<HealthCheck> = {
  allowed:
    "probe (the container's own), http:<port>/<path>, tcp:<port>, grpc:<port>, grpc:<port>/<service>, or none",
  parse(input) {
    if (input === "probe" || input === "none") return { kind: input };
    const http = parseHttpTarget(input);
    if (http !== undefined) return http;
    const match = /^(tcp|grpc):(\d{1,5})(?:\/([\x21-\x7e]{1,253}))?$/.exec(input);
    const [, kind, digits = "", service] = match ?? [];
    const number = port.parse(digits);
    if (number === undefined || (kind === "tcp" && service !== undefined)) return undefined;
    return kind === "tcp"
      ? { kind: "tcp", port: number }
      : { kind: "grpc", port: number, service: service ?? "" };
  },
  format(value) {
    switch (value.kind) {
      case "probe":
      case "none":
        return value.kind;
      case "http":
        return formatHttpTarget(value);
      case "tcp":
        return `tcp:${value.port}`;
      case "grpc":
        return `grpc:${value.port}${value.service === "" ? "" : `/${value.service}`}`;
      case "command":
        return `command:${value.argv.join(" ")}`;
      default:
        return unreachable(value);
    }
  },
};

/** As {@link healthCheck}, with a command: for the configuration of a daemon, which nobody but root and its own user may write. */
export const daemonHealthCheck: Value<HealthCheck> = {
  allowed:
    "http:<port>/<path>, tcp:<port>, grpc:<port>, grpc:<port>/<service>, command:<program> <argument> …, or none",
  parse(input) {
    const argv = /^command:(.{1,4096})$/.exec(input)?.[1]?.trim().split(/ +/);
    if (argv !== undefined)
      return /^(\/.|[A-Za-z0-9._-]+$)/.test(argv[0] ?? "") ? { kind: "command", argv } : undefined;
    const value = healthCheck.parse(input);
    // There is no container whose probe could be meant.
    return value?.kind === "probe" ? undefined : value;
  },
  format: (value) => healthCheck.format(value),
};

/** What is checked, for people: a command's arguments may hold anything. */
export function checkTarget(
  handler: ProbeHandler | Extract<HealthCheck, { kind: "command" }>,
): string {
  if (handler.kind === "command") return `command:${handler.argv[0] ?? ""}`;
  return handler.kind === "http"
    ? `${handler.scheme}:${handler.port}${handler.path}`
    : healthCheck.format(handler);
}
