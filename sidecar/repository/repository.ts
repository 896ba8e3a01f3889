/**
 * The repository as static files behind any web server: which requests are made, and what the answers mean. Nothing that comes from here
 * is trusted; sizes are bounded here, digests and signatures are checked by the callers.
 */
import { isLoopback } from "#core/addresses.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Credentials } from "./credentials.ts";
import { readBody } from "../network/http.ts";
import type { HttpResponse } from "../network/http.ts";
import { discard, openOrigin } from "./origin.ts";
import type { Authorization, OriginDeps } from "./origin.ts";
import { basic } from "../network/proxy.ts";

export interface Repository {
  /**
   * A file of `metadata/`, whose name is safe in an address; undefined when there is none.
   *
   * @param known the bytes that the caller has of it: while the server still has the same, they are the answer
   * @throws EdgeSyncError RESPONSE_TOO_LARGE, and as `open`
   */
  metadata(
    name: string,
    limit: number,
    known: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined>;
  /**
   * A file from `offset` on. The body begins at the `offset` of the answer, which is 0 when the
   * server does not serve ranges, and may be longer or shorter than expected.
   *
   * @param end offset after the last byte; without it all that there is
   * @throws EdgeSyncError ORIGIN_UNAVAILABLE for what may pass, ORIGIN_REFUSED for what a retry does not cure
   */
  open(path: string, offset: number, end: number | undefined, signal: AbortSignal): Promise<Answer>;
  /** Milliseconds for which the server has asked to be left alone. */
  holdMs(): number;
  /** A new look at the channel begins: every address is worth a try again. */
  begin(): void;
  /**
   * What was done with the repository ended in this error. Returns when it is worth doing again, because another address will answer
   * then; else throws what there is to say.
   *
   * @param path of the file whose bytes were not good
   */
  elsewhere(error: unknown, path?: string): void;
}

export type Answer =
  | { readonly answer: "absent" }
  /** The file ends before the offset. */
  | { readonly answer: "beyond" }
  | {
      readonly answer: "bytes";
      readonly offset: number;
      readonly body: AsyncIterable<Uint8Array>;
      /** Another file has taken the place of the one that the bytes before the offset are of. */
      readonly replaced?: true;
    };

export interface RepositoryDeps extends OriginDeps {
  readonly credentials?: Credentials;
}

/** @param address without a slash at its end */
export function openRepository(address: string, deps: RepositoryDeps): Repository {
  const origin = openOrigin(deps, authorizationOf(new URL(address), deps.credentials));
  const tags = openTags();
  const files = openValidators();

  return {
    async metadata(name, limit, known, signal) {
      const path = `metadata/${name}`;
      const tag = tags.find(name, known);
      const headers = tag === undefined ? {} : { "if-none-match": tag };
      const url = `${address}/${path}`;
      const response = await origin.get(
        { url, headers, pinned: isPinned(name), forbiddenIsAbsent: isRoot(name) },
        signal,
      );
      if (response.status === 404 || response.status === 410) return undefined;
      if (response.status === 304 && tag !== undefined) {
        await discard(response, signal);
        return known;
      }
      if (response.status !== 200) throw await unexpected(path, response, signal);
      const bytes = await readBody(response, limit, signal);
      deps.metrics.add(
        "edgesync_sidecar_download_bytes_total",
        { kind: "metadata" },
        bytes.byteLength,
      );
      tags.keep(name, response, bytes);
      return bytes;
    },
    async open(path, offset, end, signal) {
      // Versions hold characters such as +, which servers read in different ways.
      const quoted = path.split("/").map(encodeURIComponent).join("/");
      const rest = end === undefined && offset > 0;
      const headers = { ...rangeOf(offset, end), ...(rest && files.header(path)) };
      const request = { url: `${address}/${quoted}`, headers, pinned: true };
      const response = await origin.get(request, signal);
      const answer = await answerOf(path, offset, response, signal);
      const replaced = files.take(path, response, rest);
      return answer.answer === "bytes" && replaced ? { ...answer, replaced: true } : answer;
    },
    holdMs: () => origin.holdMs(),
    begin: () => undefined,
    elsewhere(error) {
      throw error;
    },
  };
}

/** The metadata whose version and digest are signed by the file before them. The root's successor and the timestamp are not. */
export function isPinned(name: string): boolean {
  return /^\d+\./.test(name) && !isRoot(name);
}

/** The successor that is asked for in every look, and that mostly is not there. */
function isRoot(name: string): boolean {
  return /^\d+\.root\.json$/.test(name);
}

/** Credentials as they are, for a server whose addresses all begin alike; over plain HTTP only where nobody listens. */
function authorizationOf(address: URL, credentials?: Credentials): Authorization | undefined {
  if (credentials === undefined || (address.protocol !== "https:" && !isLoopback(address)))
    return undefined;
  const place = `${address.host}${address.pathname.replace(/\/$/, "")}`;
  return {
    async header() {
      const credential = await credentials.read(place);
      if (credential === undefined) return undefined;
      return credential.kind === "bearer"
        ? `Bearer ${credential.token}`
        : basic(credential.username, credential.password);
    },
    challenged: () => Promise.resolve(false),
  };
}

/** @param end offset after the last byte */
export function rangeOf(offset: number, end: number | undefined): Readonly<Record<string, string>> {
  if (offset === 0 && end === undefined) return {};
  return { range: `bytes=${offset}-${end === undefined ? "" : end - 1}` };
}

/** What an answer to a request for a file from `offset` on means. */
export async function answerOf(
  path: string,
  offset: number,
  response: HttpResponse,
  signal: AbortSignal,
): Promise<Answer> {
  const { status, headers, body } = response;
  if (status === 404 || status === 410) return { answer: "absent" };
  if (status === 416) return { answer: "beyond" };
  if (status === 200) return { answer: "bytes", offset: 0, body };
  const begin = /^bytes (\d{1,15})-\d{1,15}\//.exec(headers["content-range"] ?? "")?.[1];
  if (status !== 206 || Number(begin) !== offset) throw await unexpected(path, response, signal);
  return { answer: "bytes", offset, body };
}

/** For an answer that fits nothing that was asked. */
export async function unexpected(
  path: string,
  response: HttpResponse,
  signal: AbortSignal,
): Promise<EdgeSyncError> {
  await discard(response, signal);
  const range = response.headers["content-range"];
  return new EdgeSyncError(
    "ORIGIN_REFUSED",
    `${path}: status ${response.status}${range === undefined ? "" : ` with range ${range}`} is no answer to what was asked`,
  );
}

export interface Tags {
  /** The ETag with which a file came whose bytes are known. */
  find(name: string, known: Uint8Array | undefined): string | undefined;
  keep(name: string, response: HttpResponse, bytes: Uint8Array): void;
}

/** Remembers the ETag of the one file that is asked for again and again. */
export function openTags(): Tags {
  let kept: { readonly etag: string; readonly bytes: Uint8Array } | undefined;
  return {
    // Only with bytes that have been verified and stored meanwhile: a tag must not keep a damaged answer alive.
    find: (name, known) =>
      name === "timestamp.json" && kept !== undefined && known !== undefined
        ? Buffer.compare(kept.bytes, known) === 0
          ? kept.etag
          : undefined
        : undefined,
    keep(name, { headers: { etag } }, bytes) {
      if (name === "timestamp.json") kept = etag === undefined ? undefined : { etag, bytes };
    },
  };
}

/** Files of which more than the beginning may be asked for. */
const MAX_VALIDATORS = 16;

interface Validators {
  /** For a request for the rest of a file. */
  header(path: string): Readonly<Record<string, string>>;
  /** @returns whether the answer is of another file than the one that has been begun */
  take(path: string, response: HttpResponse, rest: boolean): boolean;
}

/**
 * If-Range (RFC 9110, 13.1.5) with the ETag that the server itself gave with the beginning: it then sends another file whole at once, and
 * nobody waits for the rest of one that cannot be completed. Once for a file: servers behind one name may not agree on their
 * ETags, and what is named by its digest must not be begun anew again and again for that.
 */
function openValidators(): Validators {
  /** Empty for files that are not asked for so any more. */
  const known = new Map<string, string>();
  const keep = (path: string, etag: string): void => {
    known.set(path, etag);
    const [oldest] = known.keys();
    if (known.size > MAX_VALIDATORS && oldest !== undefined) known.delete(oldest);
  };
  return {
    header(path): Readonly<Record<string, string>> {
      const etag = known.get(path);
      return etag ? { "if-range": etag } : {};
    },
    take(path, { status, headers: { etag = "" } }, rest) {
      const sent = known.get(path);
      const strong = etag.startsWith('"') ? etag : "";
      if (rest && sent && status === 200 && strong !== "" && strong !== sent) {
        keep(path, "");
        return true;
      }
      if (sent === undefined && strong !== "" && (status === 200 || status === 206))
        keep(path, strong);
      return false;
    },
  };
}
