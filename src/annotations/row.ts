/** One row of the pod contract. */
import type { Value } from "../values.ts";

export interface Row<T> {
  /** Section of the reference page. */
  readonly section: Section;
  /** One sentence for the reference page. */
  readonly help: string;
  readonly value: Value<T>;
  /** What it may be in the configuration of a daemon, where that is more or less than in a pod. */
  readonly daemon?: Value<T>;
  /** The text that stands when the annotation is absent; without one the option is undefined. */
  readonly default?: string;
  /** For the reference page, when what stands in its absence is not a fixed text. */
  readonly otherwise?: string;
  /** Whether the sidecar needs to know it: it then travels as one environment variable. */
  readonly sidecar: boolean;
}

export type Section = "Updates" | "Secrets" | "Gate" | "Sidecar";
