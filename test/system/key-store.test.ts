import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { keyStore } from "../../sidecar/secrets/key-store.ts";
import { keyPair } from "../secrets/key-pairs.ts";
import { temporaryFolder } from "../support/temporary.ts";

const run = promisify(execFile);

describe("a key store in Java", () => {
  for (const kind of ["rsa", "ec"] as const)
    test(`is listed by keytool with its entry and the whole chain, and gives its key: ${kind}`, async (t) => {
      try {
        await run("keytool", ["-help"]);
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
        t.diagnostic("keytool is not there; scripts/system-packages.sh installs it");
        return;
      }
      await using folder = await temporaryFolder();
      const { data } = keyPair(kind);
      const store = join(folder.path, "store.p12");
      await writeFile(store, keyStore(data, "web", "changeit"));
      const list = ["-J-Duser.language=en", "-list", "-v", "-keystore", store];
      const { stdout } = await run("keytool", [...list, "-storepass", "changeit"]);
      assert.match(stdout, /Alias name: web\n/);
      assert.match(stdout, /Entry type: PrivateKeyEntry\nCertificate chain length: 3\n/);
      const { fingerprint256 } = new X509Certificate(data.certificate);
      assert.ok(stdout.includes(`SHA256: ${fingerprint256}`));
      // The key itself must come out as well: to list entries Java does not decrypt them.
      const request = ["-J-Duser.language=en", "-certreq", "-alias", "web", "-keystore", store];
      const made = await run("keytool", [...request, "-storepass", "changeit"]);
      assert.match(made.stdout, /BEGIN NEW CERTIFICATE REQUEST/);
      await assert.rejects(run("keytool", [...list, "-storepass", "changeme"]));
    });
});
