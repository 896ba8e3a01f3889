/** What the client workflow needs, and what it leads to. */
import type { ClockSkew } from "../clock-skew.ts";
import type { Root, Snapshot, Targets, Timestamp } from "./metadata.ts";
import type { Anchor, TrustedTime } from "./time.ts";

export interface MetadataSource {
  /**
   * Bytes of `metadata/<name>`; `undefined` when there is no such file. The name is safe in a URL and as a file name.
   *
   * @param limit bytes; a longer file is RESPONSE_TOO_LARGE
   */
  metadata(name: string, limit: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Bytes of `targets/<path>`, in the same way. */
  target(path: string, limit: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
}

/** Holds verified bytes. Each `save` and `remove` is atomic and durable when it resolves. Names are safe as file names: `root.json`, `timestamp.json`, … and `pinned-root`. */
export interface MetadataStore {
  load(name: string): Promise<Uint8Array | undefined>;
  save(name: string, bytes: Uint8Array): Promise<void>;
  remove(name: string): Promise<void>;
}

export interface TrustDeps {
  readonly source: MetadataSource;
  readonly store: MetadataStore;
  /** The pinned root, as the operator gave it. */
  readonly initialRoot: Uint8Array;
  /** Milliseconds since the epoch, by the wall clock; fixed for the cycle (5.1). */
  readonly now: number;
  /** Without it the wall clock is taken at its word, to the millisecond. */
  readonly timing?: Timing | undefined;
}

/** What is known of the time beside the wall clock. */
export interface Timing {
  readonly skew: ClockSkew;
  /** Monotonic milliseconds at the start of the cycle. */
  readonly monotonic: number;
  readonly memory: TimeMemory;
}

/** Kept by the caller from cycle to cycle, and written to in each, also in one that fails. */
export interface TimeMemory {
  anchor?: Anchor | undefined;
  judged?: TrustedTime;
  /** When each role expires, as it was last verified, in milliseconds since the epoch. */
  readonly expiries: Map<string, number>;
}

/** Metadata that has been verified in one cycle. */
export interface TrustedSet {
  readonly root: Root;
  readonly timestamp: Timestamp;
  readonly snapshot: Snapshot;
  readonly targets: Targets;
  /** What expiry is judged by, also of the delegated roles. */
  readonly time: TrustedTime;
  /** When each loaded role expires, in milliseconds since the epoch; delegated roles appear once they were needed. */
  expiries(): ReadonlyMap<string, number>;
  /** Delegated roles loaded in this cycle, by delegator and role. */
  readonly delegated: Map<string, { readonly name: string; readonly targets: Targets }>;
}
