/**
 * The repository as static files behind any web server: which requests are made, what the answers mean, and when the server wants
 * to be left alone. Nothing that comes from here is trusted; sizes are bounded here, digests and signatures are checked by the callers.
 */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { SidecarMetrics } from "#core/telemetry.ts";
import { readBody } from "./http.ts";
import type { Http, HttpResponse } from "./http.ts";

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
}

export type Answer =
  | { readonly answer: "absent" }
  /** The file ends before the offset. */
  | { readonly answer: "beyond" }
  | {
      readonly answer: "bytes";
      readonly offset: number;
      readonly body: AsyncIterable<Uint8Array>;
    };

interface RepositoryDeps {
  readonly http: Http;
  readonly clock: Clock;
  readonly metrics: SidecarMetrics;
}

/** Bytes of an error's body that are read so that its connection can be used again. */
const ERROR_BODY_LIMIT = 64 * 1024;
/** A server may ask for at most this many milliseconds of rest: a mistake there must not cut sites off for days. */
const MAX_HOLD_MS = 6 * 3_600_000;

/** @param address without a slash at its end */
export function openRepository(address: string, deps: RepositoryDeps): Repository {
  let quietUntil = 0;
  /** ETags by the name of the file, with the bytes that came with them. */
  const tags = new Map<string, { readonly etag: string; readonly bytes: Uint8Array }>();

  async function get(
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const url = `${address}/${path}`;
    const response = await deps.http.request({ method: "GET", url, headers }, signal);
    const { status } = response;
    if (status === 200 || status === 206 || status === 304) return response;
    await discard(response, signal);
    if (status === 404 || status === 410 || status === 416) return response;
    const rest = retryAfterMs(response, deps.clock.now());
    if (rest !== undefined)
      quietUntil = Math.max(quietUntil, deps.clock.monotonic() + Math.min(rest, MAX_HOLD_MS));
    const passing = status >= 500 || status === 408 || status === 425 || status === 429;
    throw new EdgeSyncError(
      passing ? "ORIGIN_UNAVAILABLE" : "ORIGIN_REFUSED",
      `${url} answers with status ${status}`,
    );
  }

  return {
    async metadata(name, limit, known, signal) {
      const path = `metadata/${name}`;
      const tag = tags.get(name);
      // Only with bytes that have been verified and stored meanwhile: a tag must not keep a damaged answer alive.
      const fresh = tag !== undefined && known !== undefined && equals(tag.bytes, known);
      const response = await get(path, fresh ? { "if-none-match": tag.etag } : {}, signal);
      if (response.status === 404 || response.status === 410) return undefined;
      if (response.status === 304 && fresh) {
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
      const { etag } = response.headers;
      if (name === "timestamp.json" && etag !== undefined) tags.set(name, { etag, bytes });
      return bytes;
    },
    async open(path, offset, end, signal) {
      const whole = offset === 0 && end === undefined;
      const range = `bytes=${offset}-${end === undefined ? "" : end - 1}`;
      // Versions hold characters such as +, which servers read in different ways.
      const quoted = path.split("/").map(encodeURIComponent).join("/");
      const response = await get(quoted, whole ? {} : { range }, signal);
      const { status, headers, body } = response;
      if (status === 404 || status === 410) return { answer: "absent" };
      if (status === 416) return { answer: "beyond" };
      if (status === 200) return { answer: "bytes", offset: 0, body };
      const begin = /^bytes (\d{1,15})-\d{1,15}\//.exec(headers["content-range"] ?? "")?.[1];
      if (status !== 206 || Number(begin) !== offset)
        throw await unexpected(path, response, signal);
      return { answer: "bytes", offset, body };
    },
    holdMs: () => Math.max(0, quietUntil - deps.clock.monotonic()),
  };
}

async function unexpected(
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

/** Reads a short body to its end, so that the connection is kept; gives up a longer one. */
async function discard(response: HttpResponse, signal: AbortSignal): Promise<void> {
  try {
    await readBody(response, ERROR_BODY_LIMIT, signal);
  } catch (error) {
    // The status has said what there is to know; only the caller's abort matters.
    signal.throwIfAborted();
    if (!(error instanceof EdgeSyncError)) throw error;
  }
}

function equals(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** RFC 9110, 10.2.3: seconds, or a date, which is taken against the server's own clock where it tells it. */
function retryAfterMs(response: HttpResponse, now: number): number | undefined {
  const text = response.headers["retry-after"];
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const until = Date.parse(text);
  const from = Date.parse(response.headers.date ?? "");
  const rest = until - (Number.isNaN(from) ? now : from);
  return Number.isNaN(rest) ? undefined : Math.max(0, rest);
}
