import assert from "node:assert/strict";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { after, before, describe, test } from "node:test";
import { fieldsOf } from "#core/secret-file.ts";
import { KEY_TYPES, secretRequest } from "#core/secret-request.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import type { Http } from "../../sidecar/network/http.ts";
import type { Secret } from "../../sidecar/secrets/reading.ts";
import { openVault } from "../../sidecar/secrets/vault.ts";
import type { Vault } from "../../sidecar/secrets/vault.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { startSidecar, until } from "./sidecar.ts";
import { openWorld } from "./world.ts";
import type { World } from "./world.ts";

/** Every kind of secret, from whichever server is given; see world.ts. */
let world: World;
let http: Http;
let vault: Vault;
let token = "";
const signal = AbortSignal.timeout(120_000);
before(async () => {
  world = await openWorld();
  const jwt = await world.cluster.token(world.account);
  const login = { role: "web", jwt };
  const reply = await world.call("POST", `auth/${world.names.kubernetes}/login`, login, "");
  token = reply.body.auth?.client_token ?? "";
  http = openHttp({
    ...(world.ca === undefined ? {} : { ca: world.ca }),
    idleTimeoutMs: 10_000,
    unavailable: "VAULT_UNAVAILABLE",
  });
  vault = openVault(http, {
    address: world.url,
    namespace: undefined,
    login: { kind: "cert", mount: "none", role: undefined },
  });
});
after(async () => {
  http.close();
  await world[Symbol.asyncDispose]();
});

async function read(text: string): Promise<Secret> {
  const request = secretRequest.parse(text);
  assert.ok(request?.kind === "vault", text);
  return vault.read(token, request, signal);
}

describe("a version of KV version 2", () => {
  const path = (): string => `${world.names.kv}/data/web/versions`;
  before(async () => {
    for (const value of ["one", "two", "three", "four"])
      await world.configure("POST", path(), { data: { value } });
    const at = path().replace("/data/", "/destroy/");
    await world.configure("POST", at, { versions: [2] });
    const deleted = path().replace("/data/", "/delete/");
    await world.configure("POST", deleted, { versions: [3] });
  });

  test("is the newest, or the one that is asked for", async () => {
    assert.deepEqual(fieldsOf((await read(path())).data), { value: "four" });
    assert.deepEqual(fieldsOf((await read(`${path()}?version=1`)).data), { value: "one" });
  });

  for (const [version, reason] of [
    [2, /version 2 is destroyed/],
    [3, /version 3 is deleted/],
    [9, /404/],
  ] as const)
    test(`${version} that is gone is invalid, for its own reason`, async () => {
      await assert.rejects(read(`${path()}?version=${version}`), {
        code: "SECRET_INVALID",
        message: reason,
      });
    });
});

describe("a certificate", () => {
  test("is issued with its key, and good until it ends", async () => {
    const secret = await read(`${world.names.pki}/issue/ec common_name=a.web.example ttl=1h`);
    const leaf = new X509Certificate(String(secret.data["certificate"]));
    assert.ok(leaf.checkHost("a.web.example") !== undefined);
    assert.equal(secret.leaseId, undefined);
    assert.equal(secret.grant?.renewable, false);
    const duration = secret.grant?.durationMs ?? 0;
    assert.ok(Math.abs(duration - 3_600_000) < 60_000, String(duration));
  });

  for (const key of KEY_TYPES.filter((type) => type !== "rsa-4096"))
    test(`is signed for a key that never leaves: ${key}`, async () => {
      const secret = await read(
        `${world.names.pki}/sign/web -key=${key} common_name=b.web.example alt_names=c.web.example ttl=1h`,
      );
      const leaf = new X509Certificate(String(secret.data["certificate"]));
      const own = createPrivateKey(String(secret.data["private_key"]));
      assert.ok(leaf.checkPrivateKey(own));
      for (const name of ["b.web.example", "c.web.example"])
        assert.ok(leaf.checkHost(name) !== undefined, name);
      assert.ok(leaf.verify(new X509Certificate(String(secret.data["issuing_ca"])).publicKey));
      assert.ok((secret.grant?.durationMs ?? 0) > 3_000_000);
    });

  test("for a name that the role does not allow is refused", async () => {
    const request = `${world.names.pki}/sign/web -key=ec-p256 common_name=b.other.example`;
    await assert.rejects(read(request), { code: "SECRET_INVALID" });
  });

  test("is replaced before it ends, key and certificate together", async () => {
    const request = `${world.names.pki}/sign/web -key=ec-p256 common_name=d.web.example ttl=4s`;
    await using sidecar = await startSidecar(world, {
      secrets: {
        key: { request, format: "raw:private_key" },
        certificate: { request, format: "raw:certificate" },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    await until(() => sidecar.agent.status().rotations >= 2, "two new ones");
    await sidecar.stop();
    const leaf = new X509Certificate(await sidecar.file("certificate"));
    assert.ok(leaf.checkPrivateKey(createPrivateKey(await sidecar.file("key"))));
    assert.ok(!sidecar.log.lines.join("\n").includes("PRIVATE KEY"));
  });
});

describe("a key store", () => {
  for (const request of ["sign/web -key=ec-p256", "sign/web -key=rsa-2048", "issue/ec"])
    test(`opens with the key and the chain that were had of ${request}, and stays as it is`, async () => {
      await using folder = await temporaryFolder("/dev/shm");
      const options = {
        folder: folder.path,
        secrets: {
          tls: {
            request: `${world.names.pki}/${request} common_name=e.web.example ttl=1h`,
            format: "pkcs12",
            file: "tls.p12",
          },
        },
      };
      const stores: Buffer[] = [];
      // The second sidecar takes up what the first has left.
      for (let life = 0; life < 2; life++) {
        await using sidecar = await startSidecar(world, options);
        await until(() => sidecar.agent.published(), "published");
        stores.push(await readFile(join(folder.path, "volume", "set", "tls.p12")));
      }
      const [pfx = Buffer.alloc(0), again] = stores;
      assert.deepEqual(pfx, again);
      createSecureContext({ pfx, passphrase: "changeit" });
      assert.throws(() => createSecureContext({ pfx, passphrase: "changeme" }));
    });
});

describe("a template with pkiCert", () => {
  test("writes key, certificate and authority of one certificate to its file", async () => {
    const call = `pkiCert "${world.names.pki}/issue/ec" "common_name=f.web.example" "ttl=1h"`;
    await using sidecar = await startSidecar(world, {
      secrets: {
        web: {
          template: `{{ with ${call} }}{{ .Key }}# next\n{{ .Cert }}# next\n{{ .CA }}{{ end }}`,
          file: "web.pem",
          mode: "0440",
        },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    const [key = "", cert = "", ca = ""] = (await sidecar.file("web.pem")).split("# next\n");
    const leaf = new X509Certificate(cert);
    assert.ok(leaf.checkPrivateKey(createPrivateKey(key)));
    assert.ok(leaf.checkHost("f.web.example") !== undefined);
    assert.ok(leaf.verify(new X509Certificate(ca).publicKey));
    assert.ok(!sidecar.log.lines.join("\n").includes("PRIVATE KEY"));
  });
});

describe("a wrapped answer", () => {
  test("is unwrapped, and its lease is the pod's", async () => {
    const secret = await read(`${world.names.broker}/creds/app -wrap-ttl=60s`);
    assert.ok((secret.leaseId ?? "").startsWith(`${world.names.broker}/creds/app/`));
    const { username, password } = secret.data;
    assert.ok(world.broker.accepts(String(username), String(password)));
  });

  test("of KV is the same as one that was not", async () => {
    const path = `${world.names.kv}/data/web/wrapped`;
    await world.configure("POST", path, { data: { value: "inside" } });
    assert.deepEqual(fieldsOf((await read(`${path} -wrap-ttl=60s`)).data), { value: "inside" });
  });
});
