/** Private keys: one PEM file for each role, in a folder that is never served. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign as signBytes,
} from "node:crypto";
import type { KeyObject } from "node:crypto";
import { open, realpath } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { canonicalize } from "@tufjs/canonical-json";
import { Key, Signature } from "@tufjs/models";
import { EdgeSyncError } from "#core/errors.ts";
import { diskError, errnoOf, makeFolder, readIfExists, syncFolder } from "./files.ts";

/** A key that can sign, and its public part as metadata lists it. */
export interface SigningKey {
  readonly id: string;
  readonly public: Key;
  sign(data: Buffer): Signature;
}

export interface Keyring {
  readonly folder: string;
  /** @throws EdgeSyncError KEY_INVALID when there is none, or it cannot be opened */
  load(role: string): Promise<SigningKey>;
  /** Like load, but `undefined` when there is no file. */
  find(role: string): Promise<SigningKey | undefined>;
  /** Makes a key and its file. @throws EdgeSyncError KEY_INVALID when the file exists */
  create(role: string): Promise<SigningKey>;
}

/**
 * @param passphrase with which new keys are encrypted (PKCS#8, PBES2 with AES-256-CBC) and encrypted ones are opened
 */
export function openKeyring(folder: string, passphrase: string | undefined): Keyring {
  const fileOf = (role: string): string => join(folder, `${role}.pem`);

  async function find(role: string): Promise<SigningKey | undefined> {
    const pem = await readIfExists(fileOf(role));
    if (pem === undefined) return undefined;
    let key: KeyObject;
    try {
      // The empty passphrase keeps OpenSSL from asking for one on the terminal.
      key = createPrivateKey({ key: pem, passphrase: passphrase ?? "" });
    } catch (cause) {
      throw new EdgeSyncError(
        "KEY_INVALID",
        `${fileOf(role)} is not a private key, or needs another passphrase`,
        { cause },
      );
    }
    if (key.asymmetricKeyType !== "ed25519")
      throw new EdgeSyncError("KEY_INVALID", `${fileOf(role)} is not an Ed25519 key`);
    return signingKey(key);
  }

  return {
    folder,
    find,
    async load(role) {
      const key = await find(role);
      if (key === undefined)
        throw new EdgeSyncError("KEY_INVALID", `there is no key of role ${role} in ${folder}`);
      return key;
    },
    async create(role) {
      const { privateKey } = generateKeyPairSync("ed25519");
      const pem = privateKey.export({
        type: "pkcs8",
        format: "pem",
        ...(passphrase !== undefined && { cipher: "aes-256-cbc", passphrase }),
      });
      await writeKey(fileOf(role), pem);
      return signingKey(privateKey);
    },
  };
}

async function writeKey(path: string, pem: string | Buffer): Promise<void> {
  await makeFolder(dirname(path));
  try {
    await using file = await open(path, "wx", 0o600);
    await file.writeFile(pem);
    await file.sync();
  } catch (error) {
    if (errnoOf(error) === "EEXIST")
      throw new EdgeSyncError("KEY_INVALID", `${path} exists and is not overwritten`);
    throw diskError(error, path);
  }
  await syncFolder(dirname(path));
}

function signingKey(key: KeyObject): SigningKey {
  const { x = "" } = createPublicKey(key).export({ format: "jwk" });
  const data = {
    keytype: "ed25519",
    scheme: "ed25519",
    keyval: { public: Buffer.from(x, "base64url").toString("hex") },
  };
  // Specification 1.0.34, 4.2: the digest of the canonical form.
  const id = createHash("sha256").update(canonicalize(data)).digest("hex");
  return {
    id,
    public: Key.fromJSON(id, data),
    sign: (bytes) => new Signature({ keyID: id, sig: signBytes(null, bytes, key).toString("hex") }),
  };
}

/**
 * Refuses keys in the folder that is served, also by way of a symlink.
 *
 * @throws EdgeSyncError REPOSITORY_UNSAFE
 */
export async function refuseKeysInside(repository: string, keys: string): Promise<void> {
  const [outer, inner] = await Promise.all([realPath(repository), realPath(keys)]);
  const way = relative(outer, inner);
  if (way === "" || (way !== ".." && !way.startsWith(`..${sep}`)))
    throw new EdgeSyncError(
      "REPOSITORY_UNSAFE",
      `the keys folder ${keys} is inside the repository ${repository}, which is served`,
    );
}

/** The real path of something of which the last parts need not exist yet. */
async function realPath(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" || dirname(absolute) === absolute) throw error;
    return join(await realPath(dirname(absolute)), basename(absolute));
  }
}
