import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { makeCertificate } from "../../webhook/certificate.ts";
import { temporaryFolder } from "../support/temporary.ts";

const BIN = new URL("../../bin/edgesync.ts", import.meta.url).pathname;
const NOW = Date.parse("2026-11-22T12:00:00Z");
const REQUEST = { service: "edgesync-webhook", namespace: "edgesync", names: ["localhost", "::1"] };
const run = promisify(execFile);

describe("a serving certificate", async () => {
  const [first, second] = await Promise.all([
    makeCertificate(REQUEST, NOW),
    makeCertificate(REQUEST, NOW),
  ]);
  const leaf = new X509Certificate(first.certificate);
  const ca = new X509Certificate(first.ca);

  test("is issued by its authority and fits its key", () => {
    assert.ok(leaf.checkIssued(ca));
    assert.ok(leaf.verify(ca.publicKey));
    assert.ok(leaf.checkPrivateKey(createPrivateKey(first.key)));
    assert.deepEqual([ca.ca, leaf.ca], [true, false]);
  });

  test("has the names of the Service and those asked for", () => {
    for (const host of [
      "edgesync-webhook",
      "edgesync-webhook.edgesync",
      "edgesync-webhook.edgesync.svc",
      "localhost",
    ])
      assert.equal(leaf.checkHost(host), host);
    assert.equal(leaf.checkIP("::1"), "::1");
    assert.equal(leaf.checkHost("edgesync-webhook.other.svc"), undefined);
  });

  test("is good from the day before for 30 days, its authority for a year", () => {
    const days = (certificate: X509Certificate): readonly number[] =>
      [certificate.validFromDate, certificate.validToDate].map(
        (date) => (date.getTime() - NOW) / 86_400_000,
      );
    assert.deepEqual(days(leaf), [-1, 30]);
    assert.deepEqual(days(ca), [-1, 365]);
  });

  test("has an authority of its own name and a serial number of its own, positive and of 20 bytes", () => {
    assert.notEqual(ca.subject, new X509Certificate(second.ca).subject);
    assert.notEqual(leaf.serialNumber, new X509Certificate(second.certificate).serialNumber);
    assert.match(leaf.serialNumber, /^[4-7][0-9A-F]{39}$/);
  });

  test("names the key that signed it, so that a bundle of two authorities is no riddle", () => {
    assert.ok(!leaf.checkIssued(new X509Certificate(second.ca)));
    const text = leaf.toLegacyObject();
    assert.deepEqual(text.ext_key_usage, ["1.3.6.1.5.5.7.3.1"]);
  });
});

describe("edgesync webhook certificate", () => {
  const command = (...args: readonly string[]): Promise<{ stdout: string; stderr: string }> =>
    run(process.execPath, [BIN, "webhook", "certificate", ...args]);

  test("writes what the Secret and the caBundle are made of, the key for its owner only", async () => {
    await using folder = await temporaryFolder();
    const out = join(folder.path, "tls");
    const options = ["--out", out, "--namespace", "edgesync", "--service", "edgesync-webhook"];
    await command(...options, "--name", "127.0.0.1");
    const [crt, ca] = await Promise.all(
      ["tls.crt", "ca.crt"].map(
        async (file) => new X509Certificate(await readFile(join(out, file))),
      ),
    );
    assert.ok(crt !== undefined && ca !== undefined && crt.checkIssued(ca));
    assert.equal(crt.checkIP("127.0.0.1"), "127.0.0.1");
    assert.equal((await stat(join(out, "tls.key"))).mode & 0o777, 0o600);
    await assert.rejects(command(...options), { code: 64 });
  });

  test("says in one line what it expected", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "file");
    await writeFile(file, "");
    const names = ["--namespace", "edgesync", "--service", "x"];
    for (const [args, told] of [
      [[...names, "--out", file], "--out"],
      [[...names, "--out", folder.path, "--name", "a b"], "--name"],
      [[...names, "--out", folder.path, "--mane", "a"], "--mane"],
      [["--namespace", "a b", "--service", "x", "--out", folder.path], "--namespace"],
    ] as const)
      await assert.rejects(command(...args), (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 64);
        assert.match(error.stderr ?? "", new RegExp(`^edgesync: USAGE: .*${told}.*\\n$`));
        return true;
      });
    assert.deepEqual(await readdir(folder.path), ["file"]);
  });

  test("tells its options", async () => {
    assert.match((await command("--help")).stdout, /--namespace <name>/);
  });

  test("says what is missing", async () => {
    await assert.rejects(
      command("--namespace", "edgesync", "--service", "x"),
      (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 64);
        assert.match(error.stderr ?? "", /USAGE.*--out/);
        return true;
      },
    );
  });
});

describe("edgesync webhook", () => {
  test("ends with the exit status for bad settings, and names them", async () => {
    const env = { EDGESYNC_TLS_PORT: "none" };
    await assert.rejects(
      run(process.execPath, [BIN, "webhook"], { env }),
      (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 78);
        assert.match(error.stderr ?? "", /CONFIG_INVALID.*EDGESYNC_IMAGE/);
        assert.match(error.stderr ?? "", /EDGESYNC_TLS_PORT/);
        return true;
      },
    );
  });

  test("says that it cannot listen where it was told to", async () => {
    await using holder = createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const { port } = holder.address() as AddressInfo;
    const env = {
      EDGESYNC_IMAGE: "edgesync:test",
      EDGESYNC_CERTIFICATES: "files",
      EDGESYNC_LISTEN_ADDRESS: "127.0.0.1",
      EDGESYNC_TLS_PORT: String(port),
    };
    await assert.rejects(
      run(process.execPath, [BIN, "webhook"], { env }),
      (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 78);
        assert.match(error.stderr ?? "", new RegExp(`CONFIG_INVALID: .*127.0.0.1, port ${port}`));
        return true;
      },
    );
  });

  test("says that there is no cluster around it", async () => {
    await assert.rejects(
      run(process.execPath, [BIN, "webhook"], { env: { EDGESYNC_IMAGE: "edgesync:test" } }),
      (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 78);
        assert.match(error.stderr ?? "", /CONFIG_INVALID: .*EDGESYNC_KUBECONFIG/);
        return true;
      },
    );
  });

  test("knows no other command", async () => {
    await assert.rejects(run(process.execPath, [BIN, "webhook", "serve"]), { code: 64 });
    const { stdout } = await run(process.execPath, [BIN, "webhook", "--help"]);
    assert.match(stdout, /edgesync webhook certificate/);
  });
});
