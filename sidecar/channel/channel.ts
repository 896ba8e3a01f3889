/** One look at the followed channel: the repository's metadata are brought up to date, and the channel document is read from them, verified. */
import * as s from "valibot";
import {
  CHANNEL_DOCUMENT_LIMIT,
  channelPath,
  parseChannelDocument,
} from "#core/channel-document.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget, findTarget } from "#core/trust/target.ts";
import type { ChannelRef } from "#core/values.ts";
import type { Downloads } from "../repository/download.ts";
import { readSmallFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { anywhere } from "../repository/mirrors.ts";
import { withNews } from "./news.ts";
import type { Repository } from "../repository/repository.ts";
import type { Store } from "../payload/store.ts";
import type { TrustTime } from "./trust-time.ts";

/** Bytes of the pinned root. */
const ROOT_LIMIT = 512 * 1024;

/** Verified metadata, and what it takes to verify more from the same state of the repository. */
export interface Trusted {
  readonly set: TrustedSet;
  /** With the trusted time as `now`. */
  readonly deps: TrustDeps;
}

export interface LookDeps {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly repository: Repository;
  readonly store: Store;
  readonly downloads: Downloads;
  readonly time: TrustTime;
  /** File of the pinned root. */
  readonly root: string;
}

interface Look {
  readonly trusted: Trusted;
  readonly document: ChannelDocument;
}

/** @throws EdgeSyncError CONFIG_INVALID, RELEASE_INVALID, RELEASE_NOT_FOUND, and as `refresh` and `fetchTarget` */
export async function lookAt(
  followed: ChannelRef,
  deps: LookDeps,
  signal: AbortSignal,
): Promise<Look> {
  deps.repository.begin();
  let look: Look | undefined;
  try {
    look = await anywhere(deps.repository, () => lookOnce(followed, deps, signal));
    return look;
  } finally {
    deps.time.looked(look?.trusted.set);
  }
}

async function lookOnce(
  { app, channel }: ChannelRef,
  deps: LookDeps,
  signal: AbortSignal,
): Promise<Look> {
  const initialRoot = await readSmallFile(deps.disk, deps.root, ROOT_LIMIT);
  if (initialRoot === undefined)
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `the trust root ${deps.root} does not exist; expected a copy of metadata/1.root.json of the repository`,
    );
  const { store, clock } = deps;
  const trust = {
    source: withNews(sourceOf(deps)),
    store: store.trust,
    initialRoot,
    now: clock.now(),
    timing: deps.time.timing(),
  };
  const set = await refresh(trust, signal);
  const path = channelPath(app, channel);
  const bytes = await fetchTarget(set, path, CHANNEL_DOCUMENT_LIMIT, trust, signal);
  const document = parseChannelDocument(bytes);
  if (document.app !== app || document.channel !== channel)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `the document of ${app}/${channel} is one of ${document.app}/${document.channel}`,
    );
  return { trusted: { set, deps: { ...trust, now: set.time.now } }, document };
}

/** When a release was published, as a number that grows from release to release; undefined for one that is not listed any more. */
export async function orderOf(
  path: string,
  { set, deps }: Trusted,
  repository: Repository,
  signal: AbortSignal,
): Promise<number | undefined> {
  const file = await anywhere(repository, () => findTarget(set, path, deps, signal));
  if (file === undefined) return undefined;
  const parsed = s.safeParse(custom, file.custom);
  return parsed.success ? parsed.output.order : 0;
}

const custom = s.object({ order: s.pipe(s.number(), s.safeInteger(), s.minValue(0)) });

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
