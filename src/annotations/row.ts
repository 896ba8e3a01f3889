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
  /**
   * Where a pod has several payloads, each may state a row of the updates by suffix, and what is stated without one is the default of
   * all. Not so: `own` belongs to one payload and is no other's default; `repository` is a default only for payloads of the same
   * repository; `pod` holds for the pod as a whole and takes no suffix.
   */
  readonly payload?: "own" | "repository" | "pod";
}

export type Section = "Updates" | "Secrets" | "Gate" | "Sidecar";
