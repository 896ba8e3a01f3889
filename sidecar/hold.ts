/** Leases by which the application holds an update for a while. */

export interface Hold {
  readonly owner: string;
  /** Milliseconds since the epoch, by the node's clock. */
  readonly since: number;
  readonly until: number;
  readonly reason?: string | undefined;
}

/** Those that have not ended yet; looked at anew at each call, because one may have come a moment ago. */
export type Holds = (signal: AbortSignal) => Promise<readonly Hold[]>;

export const noHolds: Holds = () => Promise.resolve([]);
