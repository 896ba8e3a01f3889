/** A Kubernetes probe as the sidecar carries it out for the kubelet: ports are numbers, defaults are filled in. */
import * as s from "valibot";
import type { Value } from "./values.ts";

export type ProbeHandler =
  | {
      readonly kind: "http";
      readonly scheme: "http" | "https";
      readonly port: number;
      readonly path: string;
      readonly headers: readonly (readonly [name: string, value: string])[];
    }
  | { readonly kind: "tcp"; readonly port: number }
  | { readonly kind: "grpc"; readonly port: number; readonly service: string };

export interface Probe {
  readonly handler: ProbeHandler;
  readonly initialDelayMs: number;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
}

/** One application container whose probes go through the sidecar. */
export interface AppProbes {
  readonly container: string;
  /** Failures in a row after which the kubelet, as injected, restarts a container that has not yet started. */
  readonly startupWindow: { readonly periodMs: number; readonly failureThreshold: number };
  readonly startup?: Probe;
  readonly liveness?: Probe;
  readonly readiness?: Probe;
}

const port = s.pipe(s.number(), s.integer(), s.minValue(1), s.maxValue(65535));
const count = s.pipe(s.number(), s.integer(), s.minValue(1), s.maxValue(2_147_483_647));
const ms = s.pipe(s.number(), s.integer(), s.minValue(0), s.maxValue(2_147_483_647_000));

const handler = s.variant("kind", [
  s.strictObject({
    kind: s.literal("http"),
    scheme: s.picklist(["http", "https"]),
    port,
    path: s.string(),
    headers: s.array(s.strictTuple([s.string(), s.string()])),
  }),
  s.strictObject({ kind: s.literal("tcp"), port }),
  s.strictObject({ kind: s.literal("grpc"), port, service: s.string() }),
]);

const probe = s.strictObject({
  handler,
  initialDelayMs: ms,
  periodMs: ms,
  timeoutMs: ms,
  successThreshold: count,
  failureThreshold: count,
});

const list = s.array(
  s.strictObject({
    container: s.string(),
    startupWindow: s.strictObject({ periodMs: ms, failureThreshold: count }),
    startup: s.exactOptional(probe),
    liveness: s.exactOptional(probe),
    readiness: s.exactOptional(probe),
  }),
);

export const appProbes: Value<readonly AppProbes[]> = {
  allowed: "a JSON list of containers and their probes, as the webhook writes it",
  parse(input) {
    try {
      const result = s.safeParse(list, JSON.parse(input));
      return result.success ? result.output : undefined;
    } catch {
      // Not JSON: the caller names the variable and what it may hold.
      return undefined;
    }
  },
  format: (value) => JSON.stringify(value),
};
