/**
 * A cluster as far as Vault sees one: it signs service-account tokens in the shape of Kubernetes' projected ones, and answers
 * TokenReview over TLS.
 */
import { exportSPKI, generateKeyPair, jwtVerify, SignJWT } from "jose";
import { createServer } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Clock } from "#core/clock.ts";
import { isRecord, list, record, text } from "./exchange.ts";
import { listen, readText } from "./listen.ts";

export interface ServiceAccount {
  readonly namespace: string;
  readonly name: string;
}

export interface TokenOptions {
  /** Without one the token is for the API server. */
  readonly audience?: string;
  /** Seconds; negative makes a token that has expired. */
  readonly lifetimeSeconds?: number;
}

export interface DevCluster extends AsyncDisposable {
  /** `https://<host>:<port>`, for `kubernetes_host`. */
  readonly url: string;
  readonly issuer: string;
  /** PEM of the key that verifies its tokens, for `jwt_validation_pubkeys`. */
  readonly publicKey: string;
  token(account: ServiceAccount, options?: TokenOptions): Promise<string>;
  /** From now on every token of the account is refused, as when it is deleted. */
  remove(account: ServiceAccount): void;
}

export interface DevClusterOptions {
  readonly tls: { readonly cert: string; readonly key: string };
  readonly host?: string;
  readonly clock: Clock;
}

const API_AUDIENCE = "https://kubernetes.default.svc.cluster.local";
const REVIEW_PATH = "/apis/authentication.k8s.io/v1/tokenreviews";
const BODY_LIMIT_BYTES = 65_536;

export async function openDevCluster(options: DevClusterOptions): Promise<DevCluster> {
  const { clock, host = "127.0.0.1" } = options;
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  const issuer = API_AUDIENCE;
  const removed = new Set<string>();

  const review = async (request: IncomingMessage): Promise<object> => {
    const parsed: unknown = JSON.parse(await readText(request, BODY_LIMIT_BYTES));
    const spec = record(isRecord(parsed) ? parsed : {}, "spec");
    const wanted = list(spec, "audiences");
    const audiences = wanted.length === 0 ? [API_AUDIENCE] : [...wanted];
    const refused = { authenticated: false, error: "invalid bearer token" };
    try {
      const { payload } = await jwtVerify(text(spec, "token") ?? "", publicKey, {
        issuer,
        audience: audiences,
        algorithms: ["ES256"],
        currentDate: new Date(clock.now()),
      });
      const account = record(record(payload, "kubernetes.io"), "serviceaccount");
      if (payload.sub === undefined || removed.has(payload.sub)) return refused;
      const valid = [payload.aud ?? []].flat().filter((aud) => audiences.includes(aud));
      const user = { username: payload.sub, uid: text(account, "uid") };
      return { authenticated: true, user, audiences: valid };
    } catch {
      // What is wrong with a token is told to nobody, as in Kubernetes.
      return refused;
    }
  };
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const answer = async (): Promise<void> => {
      if (request.method !== "POST" || request.url !== REVIEW_PATH) {
        response.writeHead(404).end();
        return;
      }
      const status = await review(request);
      response.writeHead(201, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", status }),
      );
    };
    answer().catch(() => response.destroy());
  };

  const server = await listen(createServer({ ...options.tls }, listener));

  return {
    url: `https://${host}:${server.port}`,
    issuer,
    publicKey: await exportSPKI(publicKey),
    token({ namespace, name }, { audience = API_AUDIENCE, lifetimeSeconds = 3_600 } = {}) {
      const now = Math.floor(clock.now() / 1_000);
      const expires = now + lifetimeSeconds;
      const issued = Math.min(now, expires - 1);
      return new SignJWT({
        "kubernetes.io": { namespace, serviceaccount: { name, uid: uidOf(namespace, name) } },
      })
        .setProtectedHeader({ alg: "ES256" })
        .setIssuer(issuer)
        .setSubject(subjectOf({ namespace, name }))
        .setAudience([audience])
        .setIssuedAt(issued)
        .setNotBefore(issued)
        .setExpirationTime(expires)
        .sign(privateKey);
    },
    remove(account) {
      removed.add(subjectOf(account));
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function subjectOf({ namespace, name }: ServiceAccount): string {
  return `system:serviceaccount:${namespace}:${name}`;
}

/** Stable for one account, so that a new token is for the same identity. */
function uidOf(namespace: string, name: string): string {
  return `uid-${namespace}-${name}`;
}
