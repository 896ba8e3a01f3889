/** The auth methods of the development Vault that take a token: `kubernetes`, which asks a cluster's TokenReview, and `jwt` with static keys. */
import { importSPKI, decodeJwt, jwtVerify } from "jose";
import type { JWTPayload } from "jose";
import { request } from "node:https";
import { NO_CONTENT, absent, answer, denied, invalid } from "./exchange.ts";
import { isRecord, list, needed, record, text } from "./exchange.ts";
import type { Answer, Call, Fields } from "./exchange.ts";
import { authOf } from "./tokens.ts";
import { approleMethod } from "./approle.ts";
import { certificateMethod } from "./certificate.ts";
import { openRoles, policiesOf, termsOf } from "./roles.ts";
import type { TokenStore } from "./tokens.ts";

/** One mounted method. Paths are those below the mount. */
export interface AuthMethod {
  readonly type: string;
  login(call: Call): Promise<Answer>;
  /** Configuration, for who may. */
  handle(call: Call): Answer;
}

export interface AuthDeps {
  readonly tokens: TokenStore;
  readonly now: () => number;
  /** `auth/<mount>/`. */
  readonly mount: string;
}

type Verify = (role: Fields, config: Fields, jwt: string) => Promise<Identity>;

interface Identity {
  readonly metadata: Readonly<Record<string, string>>;
  readonly displayName: string;
}

export function authMethod(type: string, deps: AuthDeps): AuthMethod {
  if (type === "approle") return approleMethod(deps);
  if (type === "cert") return certificateMethod(deps);
  const verify: Readonly<Record<string, Verify>> = {
    kubernetes: verifyByReview,
    jwt: (role, config, jwt) => verifyByKeys(role, config, jwt, deps.now()),
  };
  const method = verify[type];
  if (method === undefined) throw invalid(`plugin not found in the catalog: ${type}`);
  let config: Fields | undefined;
  const roles = openRoles("role");
  return {
    type,
    async login({ fields }) {
      const name = needed(fields, "role");
      const role = roles.get(name);
      if (role === undefined) throw invalid(`role "${name}" could not be found`);
      if (config === undefined) throw invalid("could not load configuration");
      const { metadata, displayName } = await method(role, config, needed(fields, "jwt"));
      const token = deps.tokens.issue({
        policies: policiesOf(role),
        path: `${deps.mount}login`,
        metadata: { ...metadata, role: name },
        displayName,
        terms: () => termsOf(roles.get(name) ?? role),
      });
      return answer({ auth: authOf(token, deps.now()) });
    },
    handle(call) {
      if (call.path === "config") {
        if (call.operation === "write") config = call.fields;
        else if (config === undefined) throw absent();
        return call.operation === "write" ? NO_CONTENT : answer({ data: config ?? {} });
      }
      return roles.handle(call);
    },
  };
}

/** Seconds that a token's times may be off, as in the library that the real method uses. */
const LEEWAY_SECONDS = 60;

/** The real method answers 400, not 403, to a token that it does not accept. */
async function verifyByKeys(
  role: Fields,
  config: Fields,
  jwt: string,
  now: number,
): Promise<Identity> {
  const audiences = list(role, "bound_audiences");
  const issuer = text(config, "bound_issuer");
  const subject = text(role, "bound_subject");
  const payload = await verifyWithAny(list(config, "jwt_validation_pubkeys"), jwt, {
    ...(audiences.length === 0 ? {} : { audience: [...audiences] }),
    ...(issuer === undefined ? {} : { issuer }),
    ...(subject === undefined ? {} : { subject }),
    clockTolerance: LEEWAY_SECONDS,
    currentDate: new Date(now),
  });
  if (payload.aud !== undefined && audiences.length === 0)
    throw invalid("audience claim found in JWT but no audiences bound to the role");
  for (const [claim, bound] of Object.entries(record(role, "bound_claims"))) {
    const allowed = Array.isArray(bound) ? bound : [bound];
    if (!allowed.includes(payload[claim])) throw invalid("error validating claims");
  }
  const user = payload[needed(role, "user_claim")];
  if (typeof user !== "string") throw invalid("claim for the user not found in token");
  return { metadata: {}, displayName: user };
}

async function verifyWithAny(
  keys: readonly string[],
  jwt: string,
  options: Parameters<typeof jwtVerify>[2],
): Promise<JWTPayload> {
  for (const pem of keys) {
    for (const algorithm of ["RS256", "ES256", "EdDSA"]) {
      try {
        const key = await importSPKI(pem, algorithm);
        return (await jwtVerify(jwt, key, { ...options, algorithms: [algorithm] })).payload;
      } catch {
        // Another key or algorithm may fit; what none accepts is refused below.
      }
    }
  }
  throw invalid("error validating token");
}

/** Names are checked before the cluster is asked, and what it says must be about the same account. */
async function verifyByReview(role: Fields, config: Fields, jwt: string): Promise<Identity> {
  const claimed = claimedAccount(jwt);
  const allowed = (key: string, value: string): boolean =>
    list(role, key).some((entry) => entry === "*" || entry === value);
  if (
    !allowed("bound_service_account_names", claimed.name) ||
    !allowed("bound_service_account_namespaces", claimed.namespace)
  )
    throw denied();
  const audience = text(role, "audience");
  const audiences = audience === undefined ? claimed.audiences : [audience];
  if (!audiences.every((wanted) => claimed.audiences.includes(wanted))) throw denied();
  const review = await reviewToken(config, jwt, audiences);
  const status = record(review, "status");
  const user = record(status, "user");
  const isSame =
    status["authenticated"] === true &&
    user["username"] === `system:serviceaccount:${claimed.namespace}:${claimed.name}` &&
    user["uid"] === claimed.uid;
  const heard = list(status, "audiences");
  if (!isSame || (audiences.length > 0 && !audiences.some((wanted) => heard.includes(wanted))))
    throw denied();
  return {
    metadata: {
      service_account_name: claimed.name,
      service_account_namespace: claimed.namespace,
      service_account_uid: claimed.uid,
    },
    displayName: `${claimed.namespace}-${claimed.name}`,
  };
}

interface ClaimedAccount {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly audiences: readonly string[];
}

/** Not verified here: that is what the review is for. */
function claimedAccount(jwt: string): ClaimedAccount {
  let payload: JWTPayload;
  try {
    payload = decodeJwt(jwt);
  } catch {
    throw denied();
  }
  const cluster = record(payload, "kubernetes.io");
  const account = record(cluster, "serviceaccount");
  const [name, uid] = [text(account, "name"), text(account, "uid")];
  const namespace = text(cluster, "namespace");
  if (name === undefined || uid === undefined || namespace === undefined) throw denied();
  return { name, namespace, uid, audiences: [payload.aud ?? []].flat() };
}

const REVIEW_LIMIT_BYTES = 1_048_576;

/** POST to the cluster that the method is configured with, over TLS. Whatever goes wrong is a denial, as in the real one. */
async function reviewToken(
  config: Fields,
  jwt: string,
  audiences: readonly string[],
): Promise<Fields> {
  const host = text(config, "kubernetes_host") ?? "";
  const ca = text(config, "kubernetes_ca_cert");
  const url = `${host.replace(/\/$/, "")}/apis/authentication.k8s.io/v1/tokenreviews`;
  if (!URL.canParse(url)) throw denied();
  const body = JSON.stringify({
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenReview",
    spec: { token: jwt, audiences },
  });
  const answered = await new Promise<string>((resolve, reject) => {
    const outgoing = request(url, {
      method: "POST",
      ...(ca === undefined ? {} : { ca }),
      signal: AbortSignal.timeout(10_000),
      headers: {
        authorization: `Bearer ${text(config, "token_reviewer_jwt") ?? jwt}`,
        "content-type": "application/json",
      },
    });
    outgoing.once("error", reject);
    outgoing.once("response", (response) => {
      let received = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        received += chunk;
        if (received.length > REVIEW_LIMIT_BYTES) response.destroy(denied());
      });
      response.once("error", reject);
      response.once("end", () => {
        const isGood = response.statusCode === 200 || response.statusCode === 201;
        return isGood ? resolve(received) : reject(denied());
      });
    });
    outgoing.end(body);
  }).catch(() => {
    throw denied();
  });
  const parsed: unknown = JSON.parse(answered);
  return isRecord(parsed) ? parsed : {};
}
