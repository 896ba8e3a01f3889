/**
 * Who asks a registry: nobody, at first; then whoever its challenge wants. A token is kept until it ends, and fetched anew before that
 * or when the registry does not take it any more.
 */
import { isLoopback } from "#core/addresses.ts";
import type { OciAddress } from "#core/addresses.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { parseChallenge, parseToken, tokenUrl } from "#core/oci.ts";
import type { Challenge } from "#core/oci.ts";
import type { Credentials } from "./credentials.ts";
import { readBody } from "../network/http.ts";
import type { Http } from "../network/http.ts";
import { discard } from "./origin.ts";
import type { Authorization } from "./origin.ts";
import { LEAST_PACE, keepPace } from "../network/pace.ts";
import type { Pace } from "../network/pace.ts";
import { basic } from "../network/proxy.ts";

interface LoginDeps {
  readonly http: Http;
  readonly clock: Clock;
  readonly pace?: Pace;
  readonly credentials?: Credentials;
}

const TOKEN_LIMIT = 256 * 1024;
/** A token is not used in the last part of its life: it would end on the way. */
const USED = 0.8;

type Bearer = Extract<Challenge, { scheme: "bearer" }>;

export function openLogin(
  { origin, registry, name }: OciAddress,
  { http, clock, pace = LEAST_PACE, credentials }: LoginDeps,
): Authorization {
  let challenge: Challenge | undefined;
  let held: { readonly value: string; readonly until: number } | undefined;
  let underWay: Promise<void> | undefined;

  async function fetchToken(bearer: Bearer, signal: AbortSignal): Promise<void> {
    const url = tokenUrl(bearer, name, "pull");
    const shown = url.origin + url.pathname;
    if (url.protocol !== "https:" && !(isLoopback(url) && isLoopback(new URL(origin))))
      throw new EdgeSyncError(
        "ORIGIN_REFUSED",
        `${registry} names ${shown} for its login, which is not https://`,
      );
    const credential = await credentials?.read(`${registry}/${name}`);
    const headers: Record<string, string> =
      credential?.kind === "basic"
        ? { authorization: basic(credential.username, credential.password) }
        : {};
    const answered = await http.request({ method: "GET", url: url.href, headers }, signal);
    const behind = (): EdgeSyncError =>
      new EdgeSyncError(
        "ORIGIN_UNAVAILABLE",
        `the login of ${registry} at ${shown} answers too slowly`,
      );
    const response = { ...answered, body: keepPace(answered.body, pace, clock, behind) };
    const { status } = response;
    if (status !== 200) {
      await discard(response, signal);
      const passing = status >= 500 || status === 408 || status === 429;
      throw new EdgeSyncError(
        passing ? "ORIGIN_UNAVAILABLE" : "ORIGIN_REFUSED",
        `the login of ${registry} at ${shown} answers with status ${status}`,
      );
    }
    const answer = parseToken(await readBody(response, TOKEN_LIMIT, signal));
    if (answer === undefined)
      throw new EdgeSyncError(
        "ORIGIN_REFUSED",
        `the login of ${registry} at ${shown} gives no token`,
      );
    const { token, lifeMs } = answer;
    held = { value: `Bearer ${token}`, until: clock.monotonic() + lifeMs * USED };
  }

  /** One login for all requests that need it at the same time. */
  async function logIn(bearer: Bearer, signal: AbortSignal): Promise<void> {
    underWay ??= fetchToken(bearer, signal).finally(() => (underWay = undefined));
    await underWay;
  }

  return {
    async header(signal) {
      if (challenge?.scheme === "bearer") {
        if (held === undefined || clock.monotonic() >= held.until) await logIn(challenge, signal);
        return held?.value;
      }
      const credential = await credentials?.read(`${registry}/${name}`);
      if (credential?.kind === "bearer") return `Bearer ${credential.token}`;
      return challenge?.scheme === "basic" && credential !== undefined
        ? basic(credential.username, credential.password)
        : undefined;
    },
    async challenged(response, sent, signal) {
      const asked = parseChallenge(response.headers["www-authenticate"]);
      // A token that the operator gave is all that there is to give.
      const credential = await credentials?.read(`${registry}/${name}`);
      if (asked === undefined || credential?.kind === "bearer") return false;
      challenge = asked;
      if (asked.scheme === "basic") return credential !== undefined && sent === undefined;
      // Another request may have logged in meanwhile.
      if (held === undefined || held.value === sent) await logIn(asked, signal);
      return true;
    },
  };
}
