/** What a function of templates is. */
import type { CallKind } from "./calls.ts";
import type { Sink } from "./format.ts";
import type { GoValue } from "./values.ts";

/** Go's type of a parameter; `value` takes anything as it is, also nothing. */
export type ParameterType =
  "any" | "int" | "string" | "value" | "[]interface {}" | "[]string" | "map[string]interface {}";

/** What a function gets beside its arguments. */
export interface Surroundings extends Sink {
  env(name: string): string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** The answer to `secret` or `pkiCert`, or `null` when it is not there yet. */
  ask(kind: CallKind, words: readonly string[]): GoValue;
}

export interface GoFunction {
  /** For people: its arguments. */
  readonly form: string;
  readonly help: string;
  readonly from: "Go" | "Consul Template" | "Sprig" | "edgesync";
  readonly parameters: readonly ParameterType[];
  /** The type of all further arguments. */
  readonly more?: ParameterType;
  call(args: readonly GoValue[], around: Surroundings): GoValue;
}
