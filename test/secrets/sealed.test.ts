import assert from "node:assert/strict";
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { mkdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { EdgeSyncError } from "#core/errors.ts";
import { keyThumbprint } from "#core/sealed-file.ts";
import { openFiles } from "../../sidecar/secrets/files.ts";
import { openSealed, unseal } from "../../sidecar/secrets/sealed.ts";
import { mountedKey } from "../../sidecar/secrets/key-source.ts";
import { run } from "../publisher/shell.ts";
import { manualClock } from "../support/clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { recordedLog } from "../vault/sidecar.ts";

const CANARY = "canary-in-a-release";
const FIELDS = { username: "web", password: CANARY, port: 5432 };

/** A publisher's working folder with one site's keys, and the site's Secret. */
async function openBench() {
  const folder = await temporaryFolder(MEMORY);
  const at = (...names: string[]): string => join(folder.path, ...names);
  await run(["secret", "keygen", "site", "--folder", folder.path]);
  await mkdir(at("mounted"));
  await writeFile(at("mounted", "key"), await readFile(at("site.jwk")));
  await writeFile(at("db.json"), JSON.stringify(FIELDS));
  return {
    at,
    key: mountedKey(at("mounted"), "key"),
    [Symbol.asyncDispose]: folder[Symbol.asyncDispose],
  };
}

describe("a secret that is sealed to a site", () => {
  test("is opened with the key that keygen made, and by nobody else's", async () => {
    await using bench = await openBench();
    const { at } = bench;
    await run([
      "secret",
      "seal",
      "--key",
      at("site.pub.jwk"),
      "--in",
      at("db.json"),
      "-o",
      at("db.jwe"),
    ]);
    const sealed = await readFile(at("db.jwe"));
    assert.ok(!sealed.includes(CANARY));
    assert.deepEqual(await unseal(sealed, bench.key), FIELDS);
    assert.equal((await stat(at("site.jwk"))).mode & 0o777, 0o600);
    assert.ok(!("d" in JSON.parse(await readFile(at("site.pub.jwk"), "utf8"))));

    await run(["secret", "keygen", "other", "--folder", at()]);
    await writeFile(at("mounted", "key"), await readFile(at("other.jwk")));
    await assert.rejects(unseal(sealed, bench.key), { code: "SECRET_INVALID" });
  });

  test("may be for several, of different types of keys, and each opens it", async () => {
    await using bench = await openBench();
    const { at } = bench;
    const pairs = [
      generateKeyPairSync("rsa", { modulusLength: 2_048 }),
      generateKeyPairSync("x25519"),
      generateKeyPairSync("ec", { namedCurve: "P-384" }),
    ];
    const keys = ["--key", at("site.pub.jwk")];
    for (const [index, { publicKey }] of pairs.entries()) {
      await writeFile(at(`${index}.pem`), publicKey.export({ type: "spki", format: "pem" }));
      keys.push("--key", at(`${index}.pem`));
    }
    await run(["secret", "seal", ...keys, "--in", at("db.json"), "--output", at("db.jwe")]);
    const sealed = await readFile(at("db.jwe"));
    assert.deepEqual(await unseal(sealed, bench.key), FIELDS);
    for (const { privateKey } of pairs) {
      await writeFile(at("mounted", "key"), privateKey.export({ type: "pkcs8", format: "pem" }));
      assert.deepEqual(await unseal(sealed, bench.key), FIELDS);
    }
  });

  test("is refused when one byte of it is another, and no error quotes it", async () => {
    await using bench = await openBench();
    const { at } = bench;
    await run([
      "secret",
      "seal",
      "--key",
      at("site.jwk"),
      "--in",
      at("db.json"),
      "-o",
      at("db.jwe"),
    ]);
    const sealed = await readFile(at("db.jwe"));
    for (let at = 0; at < sealed.length - 1; at += 29) {
      const bad = Buffer.from(sealed);
      bad[at] = (bad[at] ?? 0) ^ 4;
      await assert.rejects(
        unseal(bad, bench.key),
        (error: EdgeSyncError) => error.code === "SECRET_INVALID" && error.cause === undefined,
      );
    }
    await writeFile(at("db.json"), `["${CANARY}"]`);
    await assert.rejects(
      run(["secret", "seal", "--key", at("site.jwk"), "--in", at("db.json"), "-o", at("x.jwe")]),
      (error: Error) => !error.message.includes(CANARY),
    );
  });

  test("is not sealed to a key that protects nothing", async () => {
    await using bench = await openBench();
    const { at } = bench;
    const weak = generateKeyPairSync("rsa", { modulusLength: 1_024 });
    const signs = generateKeyPairSync("ed25519");
    for (const { publicKey } of [weak, signs]) {
      await writeFile(at("bad.pem"), publicKey.export({ type: "spki", format: "pem" }));
      const line = ["secret", "seal", "--key", at("bad.pem"), "--in", at("db.json"), "-o", at("x")];
      await assert.rejects(run(line), { code: "KEY_INVALID" });
    }
  });
});

describe("a key's name", () => {
  test("is its thumbprint (RFC 7638, 3.1)", () => {
    const key = {
      kty: "RSA",
      n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
      e: "AQAB",
    };
    const name = keyThumbprint(createPublicKey({ key, format: "jwk" }));
    assert.equal(name, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
  });
});

describe("a sealed file of a release", () => {
  test("follows what is committed, and stays while a release is on trial", async () => {
    await using bench = await openBench();
    const { at } = bench;
    const release = async (id: string, password: string): Promise<void> => {
      await mkdir(at("volume", "banks", id), { recursive: true });
      await writeFile(at("db.json"), JSON.stringify({ password }));
      const file = at("volume", "banks", id, "db.jwe");
      await run(["secret", "seal", "--key", at("site.jwk"), "--in", at("db.json"), "-o", file]);
      await symlink(`banks/${id}`, at("volume", "next"));
      await rename(at("volume", "next"), at("volume", "current"));
    };
    const clock = manualClock();
    const log = recordedLog();
    let isOnTrial = true;
    const shown: (string | undefined)[] = [];
    const stop = new AbortController();
    const format = { kind: "raw", field: "password" } as const;
    const request = { kind: "sealed", path: "db.jwe" } as const;
    const secrets = [{ name: "db", request, format, file: "db", mode: undefined }];
    const filesOf = await openFiles({ secrets, secretsMode: 0o440 });
    const source = openSealed("sealed:db.jwe", "db.jwe", secrets, {
      release: { folder: at("volume"), isOnTrial: () => isOnTrial },
      key: bench.key,
      clock,
      log,
      filesOf,
      changed: () => shown.push(Buffer.from(source.current?.files[0]?.bytes ?? []).toString()),
    });
    const look = async (reached: () => boolean): Promise<void> => {
      for (let turn = 0; turn < 500 && !reached(); turn++) {
        await clock.advance(2_000);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assert.ok(reached(), JSON.stringify([shown, source.code]));
    };
    const running = source.run(stop.signal);
    // A first release is on trial, and has its secret all the same.
    await release("1", "one");
    await look(() => shown.length === 1);
    await release("2", "two");
    let turns = 0;
    await look(() => ++turns > 50);
    await clock.advance(10_000);
    assert.deepEqual(shown, ["one"]);
    isOnTrial = false;
    await look(() => shown.length === 2);
    assert.deepEqual(shown, ["one", "two"]);

    // A link to somewhere else is no file of the release, and what was there stays.
    await writeFile(at("elsewhere"), await readFile(at("volume", "banks", "2", "db.jwe")));
    await mkdir(at("volume", "banks", "3"));
    await symlink(at("elsewhere"), at("volume", "banks", "3", "db.jwe"));
    await symlink("banks/3", at("volume", "next"));
    await rename(at("volume", "next"), at("volume", "current"));
    await look(() => source.code === "SECRET_INVALID");
    assert.deepEqual(shown, ["one", "two"]);
    assert.ok(!log.lines.join("\n").includes("two"));
    stop.abort();
    await running.catch(() => undefined);
  });
});
