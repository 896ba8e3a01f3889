/**
 * The channel document: which release a channel points to. It is a TUF target, so by the time it is parsed here its bytes are authentic;
 * it is checked all the same, because a publisher can be wrong.
 */
import * as s from "valibot";
import { name, parseDocument, platform, version } from "./document.ts";
import { EdgeSyncError } from "./errors.ts";

/** Bytes; beyond it a document is neither fetched nor published. */
export const CHANNEL_DOCUMENT_LIMIT = 64 * 1024;

/** Which release a channel points to, for each platform. */
export interface ChannelDocument {
  readonly schema: 1;
  readonly app: string;
  readonly channel: string;
  /** Grows with every change of the channel, also when the version goes back. */
  readonly sequence: number;
  readonly releases: readonly { readonly platform: string; readonly version: string }[];
}

export function channelPath(app: string, channel: string): string {
  return `channels/${app}/${channel}.json`;
}

const channelDocument = s.object({
  schema: s.literal(1),
  app: name,
  channel: name,
  sequence: s.pipe(s.number(), s.safeInteger(), s.minValue(1)),
  releases: s.pipe(s.array(s.object({ platform, version })), s.maxLength(64)),
});

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseChannelDocument(bytes: Uint8Array): ChannelDocument {
  const document = parseDocument(
    channelDocument,
    bytes,
    CHANNEL_DOCUMENT_LIMIT,
    "channel document",
  );
  const platforms = document.releases.map((item) => item.platform);
  if (new Set(platforms).size !== platforms.length)
    throw new EdgeSyncError("RELEASE_INVALID", "channel document names a platform twice");
  return document;
}
