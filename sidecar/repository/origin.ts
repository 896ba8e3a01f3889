/**
 * Requests for files at one server, whatever the form of the repository there: what its statuses mean, when it wants to be left alone,
 * where it may redirect to, and who gets credentials.
 */
import { isLoopback } from "#core/addresses.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { SidecarMetrics } from "#core/telemetry.ts";
import { readBody } from "../network/http.ts";
import type { Http, HttpResponse } from "../network/http.ts";
import { LEAST_PACE, keepPace } from "../network/pace.ts";
import type { Pace } from "../network/pace.ts";

export interface OriginDeps {
  readonly http: Http;
  readonly clock: Clock;
  readonly metrics: SidecarMetrics;
  /** When a body comes too slowly; {@link LEAST_PACE} when not given. */
  readonly pace?: Pace;
}

/** Where the `authorization` header of a request comes from. */
export interface Authorization {
  /** Its value for the next request. */
  header(signal: AbortSignal): Promise<string | undefined>;
  /** Told of an answer 401 to a request with this value: whether to ask once more, with what `header` gives then. */
  challenged(
    response: HttpResponse,
    sent: string | undefined,
    signal: AbortSignal,
  ): Promise<boolean>;
}

export interface FileRequest {
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether the caller checks a digest or version that is signed already, so that it does not matter where the bytes come from. */
  readonly pinned: boolean;
  /** A bucket that may not be listed answers 403 for what it does not have, which then reads as 404. */
  readonly forbiddenIsAbsent?: boolean;
}

export interface Origin {
  /**
   * One of the answers 200, 206, 304, 404, 410 and 416; the bodies of the last three have been read.
   *
   * @throws EdgeSyncError ORIGIN_UNAVAILABLE for what may pass, ORIGIN_REFUSED for what a retry does not cure, and as `Http`
   */
  get(request: FileRequest, signal: AbortSignal): Promise<HttpResponse>;
  /** Milliseconds for which the server has asked to be left alone. */
  holdMs(): number;
}

/** Bytes of an error's body that are read so that its connection can be used again. */
const ERROR_BODY_LIMIT = 64 * 1024;
/** A server may ask for at most this many milliseconds of rest: a mistake there must not cut sites off for days. */
const MAX_HOLD_MS = 6 * 3_600_000;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const ANSWERS: ReadonlySet<number> = new Set([200, 206, 304, 404, 410, 416]);

/** @param authorization only for requests to the origin itself, over TLS or on this machine */
export function openOrigin(deps: OriginDeps, authorization?: Authorization): Origin {
  const { http, clock, metrics } = deps;
  let quietUntil = 0;

  /** Every body is watched, also one that is only passed over: an error that drips would hold a look back as well as a file. */
  async function send(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const response = await http.request({ method: "GET", url, headers }, signal);
    const behind = (): EdgeSyncError => {
      metrics.add("edgesync_sidecar_slow_retrievals_total", {});
      return new EdgeSyncError("ORIGIN_UNAVAILABLE", `${nameOf(new URL(url))} comes too slowly`);
    };
    const body = keepPace(response.body, deps.pace ?? LEAST_PACE, clock, behind);
    return { ...response, body };
  }

  /** Asks the origin itself; once more when its credentials have become others. */
  async function ask(request: FileRequest, signal: AbortSignal): Promise<HttpResponse> {
    const { url, headers } = request;
    for (let attempt = 0; ; attempt++) {
      const sent = await authorization?.header(signal);
      const all = sent === undefined ? headers : { ...headers, authorization: sent };
      const response = await send(url, { ...all }, signal);
      if (response.status !== 401 || attempt > 0) return response;
      await discard(response, signal);
      if (authorization === undefined || !(await authorization.challenged(response, sent, signal)))
        return response;
    }
  }

  function hold(response: HttpResponse): void {
    const rest = retryAfterMs(response, clock.now());
    if (rest !== undefined)
      quietUntil = Math.max(quietUntil, clock.monotonic() + Math.min(rest, MAX_HOLD_MS));
  }

  return {
    async get(request, signal) {
      let at = new URL(request.url);
      let response = await ask(request, signal);
      for (let count = 0; REDIRECTS.has(response.status); count++) {
        await discard(response, signal);
        at = destinationOf(response, at, request.pinned, count);
        const { headers = {} } = request;
        // Without credentials, also where it is the same server: it has said that it is another's file.
        response = await send(at.href, headers, signal);
      }
      const absent = request.forbiddenIsAbsent === true && response.status === 403;
      const status = absent ? 404 : response.status;
      if (!ANSWERS.has(status)) {
        await discard(response, signal);
        hold(response);
        throw refusal(status, nameOf(at));
      }
      const encoding = response.headers["content-encoding"] ?? "identity";
      if (status < 300 && encoding !== "identity") {
        await discard(response, signal);
        throw new EdgeSyncError(
          "ORIGIN_REFUSED",
          `${nameOf(at)} comes with content-encoding ${encoding}, which was not asked for`,
        );
      }
      if (status === 404 || status === 410 || status === 416) await discard(response, signal);
      return { ...response, status };
    },
    holdMs: () => Math.max(0, quietUntil - clock.monotonic()),
  };
}

/** What an address is called in messages: a query may hold a signature that is as good as a credential. */
function nameOf({ origin, pathname }: URL): string {
  return origin + pathname;
}

function refusal(status: number, name: string): EdgeSyncError {
  const passing = status >= 500 || status === 408 || status === 425 || status === 429;
  return new EdgeSyncError(
    passing ? "ORIGIN_UNAVAILABLE" : "ORIGIN_REFUSED",
    `${name} answers with status ${status}`,
  );
}

/** @throws EdgeSyncError ORIGIN_REFUSED where a redirect is not followed */
function destinationOf(response: HttpResponse, from: URL, pinned: boolean, count: number): URL {
  const refuse = (why: string): EdgeSyncError =>
    new EdgeSyncError("ORIGIN_REFUSED", `${nameOf(from)} redirects (${response.status}); ${why}`);
  if (!pinned) throw refuse("only files whose digest is known may lie elsewhere");
  if (count >= MAX_REDIRECTS) throw refuse(`more than ${MAX_REDIRECTS} are not followed`);
  const { location } = response.headers;
  if (location === undefined || !URL.canParse(location, from))
    throw refuse("its location is no address");
  const to = new URL(location, from);
  if (to.username !== "" || to.password !== "") throw refuse("its location holds credentials");
  const plain = to.protocol === "http:" && from.protocol === "http:" && isLoopback(to);
  if (to.protocol !== "https:" && !plain) throw refuse("not to an https:// address");
  return to;
}

/** Reads a short body to its end, so that the connection is kept; gives up a longer one. */
export async function discard(response: HttpResponse, signal: AbortSignal): Promise<void> {
  try {
    await readBody(response, ERROR_BODY_LIMIT, signal);
  } catch (error) {
    // The status has said what there is to know; only the caller's abort matters.
    signal.throwIfAborted();
    if (!(error instanceof EdgeSyncError)) throw error;
  }
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
