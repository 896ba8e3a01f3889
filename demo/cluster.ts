/** The two things that a pod's sidecar and its Vault need of an API server: service-account tokens, and reviews of them. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { exportSPKI, generateKeyPair, jwtVerify, SignJWT } from "jose";

/** The audience of tokens that are meant for the API server itself. */
const API_SERVER = "https://kubernetes.default.svc";

export interface Cluster extends AsyncDisposable {
  readonly address: string;
  /** What a Vault needs in order to check tokens without asking the cluster (auth method jwt). */
  readonly publicKey: string;
  /** As the API server's TokenRequest answers for the pod's service account. */
  token(audience: string | undefined, expirationSeconds: number): Promise<string>;
}

export interface ServiceAccount {
  readonly namespace: string;
  readonly name: string;
}

export async function openCluster(
  account: ServiceAccount,
  tls: { readonly cert: string; readonly key: string },
): Promise<Cluster> {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const subject = `system:serviceaccount:${account.namespace}:${account.name}`;
  const accountUid = randomUUID();

  const review = async (token: string, audiences: readonly string[]): Promise<object> => {
    try {
      const { payload } = await jwtVerify(token, publicKey, {
        audience: [...audiences],
        issuer: API_SERVER,
      });
      return {
        authenticated: true,
        audiences: [payload.aud].flat(),
        user: {
          username: payload.sub,
          uid: accountUid,
          groups: ["system:serviceaccounts", "system:authenticated"],
        },
      };
    } catch (error) {
      // The API server answers a bad token with a review that says so, not with an error.
      return {
        authenticated: false,
        error: error instanceof Error ? error.message : String(error),
      };
    }
  };

  const server = createServer({ ...tls, minVersion: "TLSv1.2" }, (request, response) => {
    const answer = async (): Promise<void> => {
      if (
        request.method !== "POST" ||
        request.url !== "/apis/authentication.k8s.io/v1/tokenreviews"
      )
        return void response.writeHead(404).end();
      const { spec = {} } = (await json(request)) as {
        spec?: { token?: string; audiences?: readonly string[] };
      };
      const status = await review(spec.token ?? "", spec.audiences ?? [API_SERVER]);
      response.writeHead(201, { "Content-Type": "application/json" });
      response.end(
        JSON.stringify({
          apiVersion: "authentication.k8s.io/v1",
          kind: "TokenReview",
          spec,
          status,
        }),
      );
    };
    answer().catch(() => response.writeHead(400).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  return {
    address: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    publicKey: await exportSPKI(publicKey),
    token: (audience = API_SERVER, expirationSeconds) =>
      new SignJWT({
        "kubernetes.io": {
          namespace: account.namespace,
          serviceaccount: { name: account.name, uid: accountUid },
        },
      })
        .setProtectedHeader({ alg: "ES256" })
        .setIssuer(API_SERVER)
        .setSubject(subject)
        .setAudience(audience)
        .setIssuedAt()
        .setNotBefore("0s")
        .setExpirationTime(`${expirationSeconds}s`)
        .sign(privateKey),
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
