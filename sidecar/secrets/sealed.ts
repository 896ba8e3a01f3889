/**
 * A file of the release, sealed to the site's key: whoever has the repository, a mirror or the volume has ciphertext. It follows
 * releases as they are committed: while one is on trial, the secret stays the one that the release to go back to has.
 */
import { createPrivateKey, createPublicKey } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readlink, realpath } from "node:fs/promises";
import { join } from "node:path";
import { compactDecrypt, generalDecrypt } from "jose";
import type { GeneralJWE } from "jose";
import { EdgeSyncError } from "#core/errors.ts";
import { jsonObject } from "#core/json.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import {
  SEALED_ALGORITHMS,
  SEALED_ENCRYPTION,
  SEALED_LIMIT,
  keyThumbprint,
} from "#core/sealed-file.ts";
import { isSecretData, parseExactJson } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import { nodeDisk, readSmallFile } from "../disk/durable.ts";
import type { SecretsDeps } from "./agent.ts";
import { mountedKey } from "./key-source.ts";
import type { KeySource } from "./key-source.ts";
import { required } from "./login.ts";
import { openPolled } from "./polled.ts";
import type { Place, PolledDeps } from "./polled.ts";
import type { Source } from "./source.ts";

/** Where the payload is, and how it stands. */
export interface ReleaseAt {
  /** The folder in which `current` lies. */
  readonly folder: string;
  /** Whether what `current` names may still be rolled back. */
  readonly isOnTrial: () => boolean;
}

export interface SealedDeps extends PolledDeps {
  readonly release: ReleaseAt;
  readonly key: KeySource;
}

export type OpenSealed = (
  key: string,
  path: string,
  secrets: readonly SecretOptions[],
  deps: PolledDeps,
) => Source;

/** @throws EdgeSyncError CONFIG_INVALID when a setting is missing */
export function sealedOpener({ settings, release: at }: SecretsDeps): OpenSealed {
  const siteKey = mountedKey(required(settings.sealedKeyDir, "sealed-key-dir"), "key");
  const release = required(at, "payload-dir");
  return (key, path, secrets, deps) =>
    openSealed(key, path, secrets, { ...deps, release, key: siteKey });
}

/** @param path of the file in the release */
export function openSealed(
  key: string,
  path: string,
  secrets: readonly SecretOptions[],
  deps: SealedDeps,
): Source {
  const { release } = deps;
  const place: Place = {
    kind: "sealed",
    async mark(isFirst) {
      const bank = await readlink(join(release.folder, "current")).catch(() => undefined);
      // A first release is on trial too, and must have its secret to be tried.
      return !isFirst && release.isOnTrial() ? undefined : bank;
    },
    read: async (bank) => unseal(await readInside(join(release.folder, bank), path), deps.key),
    failure: "the sealed file cannot be opened",
  };
  return openPolled(key, place, secrets, deps);
}

/** A link in a release leads nowhere else. */
async function readInside(bank: string, path: string): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    const root = await realpath(bank);
    const file = await realpath(join(root, path));
    if (file.startsWith(`${root}/`)) bytes = await readSmallFile(nodeDisk, file, SEALED_LIMIT);
  } catch (cause) {
    throw new EdgeSyncError("SECRET_INVALID", `the release has no readable file ${path}`, {
      cause,
    });
  }
  if (bytes === undefined)
    throw new EdgeSyncError("SECRET_INVALID", `${path} does not lie in the release`);
  return bytes;
}

const ALLOWED = {
  keyManagementAlgorithms: [...SEALED_ALGORITHMS],
  contentEncryptionAlgorithms: [SEALED_ENCRYPTION],
};

/** @throws EdgeSyncError CONFIG_INVALID for the key, SECRET_INVALID for the file; neither says a word of what is in them */
export async function unseal(bytes: Uint8Array, source: KeySource): Promise<SecretData> {
  const key = privateKey(await source.read(), source.where);
  const kid = keyThumbprint(createPublicKey(key));
  let plaintext: Uint8Array;
  try {
    const text = Buffer.from(bytes).toString("latin1").trim();
    const opened = text.startsWith("{")
      ? await generalDecrypt(own(text, kid), key, ALLOWED)
      : await compactDecrypt(text, key, ALLOWED);
    ({ plaintext } = opened);
  } catch {
    // No cause: none is of help, and some may quote.
    throw new EdgeSyncError("SECRET_INVALID", `it is not sealed to the site's key ${kid}`);
  }
  let data: unknown;
  try {
    data = parseExactJson(Buffer.from(plaintext).toString("utf8"));
  } catch {
    data = undefined;
  }
  if (!isSecretData(data))
    throw new EdgeSyncError("SECRET_INVALID", "what is sealed is not an object of fields");
  return data;
}

/** Of a file for many sites, what is for this one: to try them all would take long. */
function own(text: string, kid: string): GeneralJWE {
  const jwe = JSON.parse(text) as GeneralJWE;
  const mine = jwe.recipients.filter((one) => one.header?.kid === kid);
  return { ...jwe, recipients: mine };
}

function privateKey(bytes: Uint8Array, where: string): KeyObject {
  const text = Buffer.from(bytes).toString("utf8");
  const jwk = jsonObject(text);
  try {
    return jwk === undefined
      ? createPrivateKey(text)
      : createPrivateKey({ key: jwk, format: "jwk" });
  } catch {
    // No cause: it may quote the key.
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${where} is not a private key; expected a JWK, or PEM (PKCS#8) without a passphrase`,
    );
  }
}
