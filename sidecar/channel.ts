/** One look at the followed channel: the repository's metadata are brought up to date, and the channel document is read from them, verified. */
import {
  CHANNEL_DOCUMENT_LIMIT,
  channelPath,
  parseChannelDocument,
} from "#core/channel-document.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import type { Target } from "#core/update-state.ts";
import type { Downloads } from "./download.ts";
import { readSmallFile } from "./durable.ts";
import type { Disk } from "./durable.ts";
import { anywhere } from "./mirrors.ts";
import type { Repository } from "./repository.ts";
import type { Store } from "./store.ts";

/** Bytes of the pinned root. */
const ROOT_LIMIT = 512 * 1024;

/** Verified metadata, and what it takes to verify more from the same state of the repository. */
export interface Trusted {
  readonly set: TrustedSet;
  readonly deps: TrustDeps;
}

interface LookDeps {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly repository: Repository;
  readonly store: Store;
  readonly downloads: Downloads;
  readonly platform: string;
  /** File of the pinned root. */
  readonly root: string;
}

interface Followed {
  readonly app: string;
  readonly channel: string;
}

interface Look {
  readonly trusted: Trusted;
  readonly target: Target;
}

/** @throws EdgeSyncError CONFIG_INVALID, RELEASE_INVALID, RELEASE_NOT_FOUND, and as `refresh` and `fetchTarget` */
export async function lookAt(
  followed: Followed,
  deps: LookDeps,
  signal: AbortSignal,
): Promise<Look> {
  deps.repository.begin();
  return await anywhere(deps.repository, () => lookOnce(followed, deps, signal));
}

async function lookOnce(
  { app, channel }: Followed,
  deps: LookDeps,
  signal: AbortSignal,
): Promise<Look> {
  const initialRoot = await readSmallFile(deps.disk, deps.root, ROOT_LIMIT);
  if (initialRoot === undefined)
    throw new EdgeSyncError("CONFIG_INVALID", `the trust root ${deps.root} does not exist`);
  const { store, clock } = deps;
  const trust = { source: sourceOf(deps), store: store.trust, initialRoot, now: clock.now() };
  const set = await refresh(trust, signal);
  const path = channelPath(app, channel);
  const bytes = await fetchTarget(set, path, CHANNEL_DOCUMENT_LIMIT, trust, signal);
  return {
    trusted: { set, deps: trust },
    target: targetIn(bytes, `${app}/${channel}`, deps.platform),
  };
}

function sourceOf({ store, repository, downloads }: LookDeps): TrustDeps["source"] {
  return {
    async metadata(name, limit, signal) {
      const known = name === "timestamp.json" ? await store.trust.load(name) : undefined;
      return repository.metadata(name, limit, known, signal);
    },
    async target(path, limit, signal) {
      const sha256 = /(?:^|\/)([0-9a-f]{64})\.[^/]+$/.exec(path)?.[1];
      if (sha256 === undefined)
        throw new EdgeSyncError("METADATA_INVALID", `target ${path} has no digest in its name`);
      return downloads.file(`targets/${path}`, { sha256, size: limit }, signal);
    },
  };
}

function targetIn(bytes: Uint8Array, followed: string, platform: string): Target {
  const document = parseChannelDocument(bytes);
  if (`${document.app}/${document.channel}` !== followed)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `the document of ${followed} is one of ${document.app}/${document.channel}`,
    );
  const version = document.releases.find((item) => item.platform === platform)?.version;
  if (version === undefined)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `${followed} has no release for ${platform}`);
  return { channel: followed, sequence: document.sequence, version };
}
