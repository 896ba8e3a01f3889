/** Debian's docker-registry as a process of its own: a folder of its own, TLS, and the login that is asked for. */
import { createHash, createPrivateKey, randomUUID, sign } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import forge from "node-forge";
import type { Authority, Identity } from "../support/certificates.ts";
import { accepts, httpServer } from "../support/server.ts";
import { eventually, freePort, startProgram } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";

export const PROGRAM = "/usr/bin/docker-registry";
export const ACCOUNT = { username: "robot", password: "secret" };

export function isInstalled(): boolean {
  return existsSync(PROGRAM);
}

export interface DockerRegistry extends AsyncDisposable {
  /** `localhost:<port>`. */
  readonly host: string;
  /** What it has logged. */
  output(): string;
  /** Tokens that its login has given. */
  logins(): number;
}

const SERVICE = "edgesync system test";
/** bcrypt of the account's password. */
const HTPASSWD = "robot:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

export async function openDockerRegistry(
  ca: Authority,
  login: "none" | "basic" | "token",
): Promise<DockerRegistry> {
  await using cleanup = new AsyncDisposableStack();
  const { path: folder } = cleanup.use(await temporaryFolder());
  const identity = ca.issue(["localhost"]);
  const port = await freePort();
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  let logins = 0;
  const tokens = await httpServer((request, response) => {
    logins += Number(giveToken(identity, request, response));
  }, identity);
  cleanup.use(tokens);
  const auth = {
    none: "",
    basic: `auth:\n  htpasswd:\n    realm: test\n    path: ${await file("htpasswd", HTPASSWD)}\n`,
    token: `auth:\n  token:\n    realm: ${tokens.url}/token\n    service: ${SERVICE}\n    issuer: edgesync\n    rootcertbundle: ${await file("ca.crt", ca.cert)}\n`,
  }[login];
  const config = `version: 0.1
storage:
  filesystem:
    rootdirectory: ${join(folder, "storage")}
http:
  addr: 127.0.0.1:${port}
  secret: ${randomUUID()}
  tls:
    certificate: ${await file("tls.crt", identity.cert)}
    key: ${await file("tls.key", identity.key)}
${auth}`;
  const program = startProgram(PROGRAM, ["serve", await file("config.yml", config)]);
  cleanup.use(program);
  await eventually(
    async () => ((await accepts(port)) ? true : undefined),
    () => program.output(),
  );
  const owned = cleanup.move();
  return {
    host: `localhost:${port}`,
    output: () => program.output(),
    logins: () => logins,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The registry trusts the authority, and so a token that is signed by one of its certificates. */
function giveToken(
  identity: Identity,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  const url = new URL(request.url ?? "", "http://x");
  const account = Buffer.from(`${ACCOUNT.username}:${ACCOUNT.password}`).toString("base64");
  if (request.headers.authorization !== `Basic ${account}`) {
    response.writeHead(401).end();
    return false;
  }
  const [type, name, actions] = (url.searchParams.get("scope") ?? "").split(":");
  const der = forge.asn1
    .toDer(forge.pki.certificateToAsn1(forge.pki.certificateFromPem(identity.cert)))
    .getBytes();
  const header = { typ: "JWT", alg: "RS256", x5c: [forge.util.encode64(der)] };
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: "edgesync",
    sub: ACCOUNT.username,
    aud: url.searchParams.get("service"),
    iat: now,
    nbf: now - 10,
    exp: now + 60,
    jti: createHash("sha256").update(randomUUID()).digest("hex"),
    access: [{ type, name, actions: actions?.split(",") }],
  };
  const signed = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  const signature = sign("sha256", Buffer.from(signed), createPrivateKey(identity.key));
  response.end(
    JSON.stringify({ token: `${signed}.${signature.toString("base64url")}`, expires_in: 60 }),
  );
  return true;
}
