/**
 * When the application is told that its secrets have changed (annotation `on-rotate`), as data. Never of the first set, which it starts
 * with; once for what changes together; and at most once for each change: what is about to be told is saved as told before anything
 * is done, so a sidecar that ends in the middle does not tell, or restart, again. Times are monotonic milliseconds.
 */
export interface Rotation {
  /** Digest of the set that the application has, or was told of; `undefined` before the first. */
  readonly told: string | undefined;
  /** Another set is published. */
  readonly due:
    { readonly digest: string; readonly quietAt: number; readonly latestAt: number } | undefined;
  /** The application is being told of `told`. A process that finds it so saved has taken over from one that ended meanwhile. */
  readonly telling: boolean;
}

/** Milliseconds without another change after which the application is told, and after which it is told at the latest. */
const QUIET_MS = 2_000;
const LATEST_MS = 10_000;

export const noRotation: Rotation = { told: undefined, due: undefined, telling: false };

/** A set is published, for the first time or again. */
export function publishedSet(rotation: Rotation, digest: string, at: number): Rotation {
  if (rotation.told === undefined) return { ...rotation, told: digest };
  if (rotation.due?.digest === digest) return rotation;
  // Back to what the application has.
  if (rotation.told === digest) return { ...rotation, due: undefined };
  const latestAt = rotation.due?.latestAt ?? at + LATEST_MS;
  return { ...rotation, due: { digest, quietAt: at + QUIET_MS, latestAt } };
}

/** When the application is to be told; without an end when there is nothing to tell. */
export function tellAt({ due, telling }: Rotation): number {
  return due === undefined || telling
    ? Number.POSITIVE_INFINITY
    : Math.min(due.quietAt, due.latestAt);
}

/** The application is about to be told; to be saved before it is. */
export function beginTelling({ told, due }: Rotation): Rotation {
  return { told: due?.digest ?? told, due: undefined, telling: true };
}

export function endTelling(rotation: Rotation): Rotation {
  return { ...rotation, telling: false };
}
