/** Private keys: files in a folder that is never served, variables of the environment, and commands that sign elsewhere. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { open, readFile, readdir, realpath } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { diskError, errnoOf, makeFolder, syncFolder } from "./files.ts";
import type { RoleKeys } from "./metadata.ts";
import { publicKey } from "./public-keys.ts";
import type { KeyType, PublicKey } from "./public-keys.ts";
import { openSigner } from "./signers.ts";
import type { SignerOptions } from "./signers.ts";

/** A key that can sign, and its public part as metadata lists it. */
export interface SigningKey extends PublicKey {
  /** Where it is, for people: a path, a variable, or the command that signs. */
  readonly where: string;
  /** @returns the signature in hexadecimal. @throws EdgeSyncError SIGNER_FAILED */
  sign(data: Uint8Array): Promise<string>;
}

/** A file that should be a key and cannot be used. */
export interface ClosedKey {
  readonly name: string;
  readonly where: string;
  readonly problem: EdgeSyncError;
  /** From the file of the public part beside it. */
  readonly public: PublicKey | undefined;
}

/** Every key that there is at one time. */
export interface KeySet {
  readonly folder: string;
  readonly keys: readonly SigningKey[];
  readonly closed: readonly ClosedKey[];
}

export interface Keyring {
  readonly folder: string;
  /** Looks for keys anew. */
  load(): Promise<KeySet>;
  /** Makes a key and its files. @throws EdgeSyncError KEY_INVALID when the file exists */
  create(name: string, type?: KeyType): Promise<SigningKey>;
}

export interface KeyringOptions extends SignerOptions {
  /** Keys of the environment in PEM, by the name of their variable. */
  readonly environment?: Readonly<Record<string, string>>;
}

export const VARIABLE_PREFIX = "EDGESYNC_KEY_";
const PRIVATE = ".pem";
const PUBLIC = ".pub";
const SIGNER = ".signer.json";

/**
 * @param passphrase with which new keys are encrypted (PKCS#8, PBES2 with AES-256-CBC) and encrypted ones are opened
 */
export function openKeyring(
  folder: string,
  passphrase: string | undefined,
  options: KeyringOptions = {},
): Keyring {
  return {
    folder,
    async load() {
      const keys: SigningKey[] = [];
      const closed: ClosedKey[] = [];
      const add = async (
        name: string,
        where: string,
        read: () => Promise<SigningKey>,
      ): Promise<void> => {
        try {
          const key = await read();
          // The same key may be in two places: the first one is as good.
          if (!keys.some(({ id }) => id === key.id)) keys.push(key);
        } catch (error) {
          if (!(error instanceof EdgeSyncError)) throw error;
          const open = await readPublic(join(folder, `${name}${PUBLIC}`)).catch(() => undefined);
          closed.push({ name, where, problem: error, public: open });
        }
      };
      for (const file of await filesIn(folder)) {
        const path = join(folder, file);
        if (file.endsWith(PRIVATE)) {
          const name = file.slice(0, -PRIVATE.length);
          await add(name, path, async () =>
            signingKey(openPrivate(await readFile(path), path, passphrase), name, path),
          );
        } else if (file.endsWith(SIGNER)) {
          const name = file.slice(0, -SIGNER.length);
          await add(name, path, async () => await openSigner(path, name, options));
        }
      }
      for (const [variable, pem] of Object.entries(options.environment ?? {})) {
        const name = variable.slice(VARIABLE_PREFIX.length).toLowerCase();
        await add(name, variable, () => {
          const key = openPrivate(Buffer.from(pem), variable, passphrase);
          return Promise.resolve(signingKey(key, name, variable));
        });
      }
      return { folder, keys, closed };
    },
    async create(name, type = "ed25519") {
      const { privateKey } =
        type === "ed25519"
          ? generateKeyPairSync("ed25519")
          : generateKeyPairSync("ec", { namedCurve: "P-256" });
      const pem = privateKey.export({
        type: "pkcs8",
        format: "pem",
        ...(passphrase !== undefined && { cipher: "aes-256-cbc", passphrase }),
      });
      const path = join(folder, `${name}${PRIVATE}`);
      await writeKey(path, pem, 0o600);
      const open = createPublicKey(privateKey).export({ type: "spki", format: "pem" });
      // After a crash before this one the private key is there alone, which is enough.
      await writeKey(join(folder, `${name}${PUBLIC}`), open, 0o644).catch((error: unknown) => {
        if (!(error instanceof EdgeSyncError) || error.code !== "KEY_INVALID") throw error;
      });
      return signingKey(privateKey, name, path);
    },
  };
}

async function filesIn(folder: string): Promise<readonly string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith(".")).toSorted();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw diskError(error, folder);
  }
}

/** @throws EdgeSyncError KEY_INVALID */
function openPrivate(pem: Buffer, where: string, passphrase: string | undefined): KeyObject {
  try {
    // The empty passphrase keeps OpenSSL from asking for one on the terminal.
    return createPrivateKey({ key: pem, passphrase: passphrase ?? "" });
  } catch (cause) {
    throw new EdgeSyncError(
      "KEY_INVALID",
      `${where} is not a private key, or needs another passphrase`,
      { cause },
    );
  }
}

/**
 * The public part of a key, from a file of it alone or of the private key.
 *
 * @throws EdgeSyncError KEY_INVALID
 */
export async function readPublic(path: string): Promise<PublicKey> {
  const name = basename(path).replace(/\.(pub|pem|pub\.pem)$/, "");
  const pem = await readFile(path).catch((cause: unknown) => {
    throw new EdgeSyncError("KEY_INVALID", `the key ${path} cannot be read`, { cause });
  });
  let key: KeyObject;
  try {
    key = createPublicKey({ key: pem });
  } catch (cause) {
    throw new EdgeSyncError("KEY_INVALID", `${path} is not a public key in PEM`, { cause });
  }
  return publicKey(key, name, path);
}

/** @throws EdgeSyncError KEY_INVALID when there is a file already */
export async function writeKey(path: string, pem: string | Buffer, mode: number): Promise<void> {
  await makeFolder(dirname(path));
  try {
    await using file = await open(path, "wx", mode);
    await file.writeFile(pem);
    await file.sync();
  } catch (error) {
    if (errnoOf(error) === "EEXIST")
      throw new EdgeSyncError("KEY_INVALID", `${path} exists and is not overwritten`);
    throw diskError(error, path);
  }
  await syncFolder(dirname(path));
}

function signingKey(key: KeyObject, name: string, where: string): SigningKey {
  const open = publicKey(key, name, where);
  // Null: Ed25519 has its digest in it.
  const digest = open.key.keytype === "ecdsa" ? "sha256" : null;
  return {
    ...open,
    where,
    sign: (data) => Promise.resolve(sign(digest, data, key).toString("hex")),
  };
}

/** The variable in which a key of this name may be. */
export function variableOf(name: string): string {
  return `${VARIABLE_PREFIX}${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}`;
}

/** The key that is called like a role: a file of that name, or its variable. */
export function keyNamed(set: KeySet, name: string): SigningKey | undefined {
  const variable = variableOf(name);
  return set.keys.find((key) => key.name === name || key.where === variable);
}

/** As many of a role's keys as have to sign; `undefined` when not enough of them are here. */
export function findKeys(set: KeySet, role: RoleKeys): readonly SigningKey[] | undefined {
  const found = role.keyids.flatMap((id) => set.keys.filter((key) => key.id === id));
  return found.length < role.threshold ? undefined : found.slice(0, role.threshold);
}

/** @throws EdgeSyncError KEY_INVALID when not enough of the role's keys are here */
export function requireKeys(set: KeySet, name: string, role: RoleKeys): readonly SigningKey[] {
  const found = findKeys(set, role);
  if (found !== undefined) return found;
  const here = role.keyids.filter((id) => set.keys.some((key) => key.id === id)).length;
  const closed = set.closed.map(({ problem }) => `; ${problem.message}`).join("");
  throw new EdgeSyncError(
    "KEY_INVALID",
    `role ${name} needs ${role.threshold} of its ${role.keyids.length} keys, and ${here} of them are in ${set.folder}${closed}`,
  );
}

/**
 * Refuses keys in the folder that is served, also by way of a symlink.
 *
 * @throws EdgeSyncError REPOSITORY_UNSAFE
 */
export async function refuseKeysInside(repository: string, keys: string): Promise<void> {
  if (await isWithin(keys, repository))
    throw new EdgeSyncError(
      "REPOSITORY_UNSAFE",
      `the keys folder ${keys} is inside the repository ${repository}, which is served`,
    );
}

/**
 * Refuses to publish the keys, or the repository itself, as what a release holds: the working folder, say, in which both lie.
 *
 * @throws EdgeSyncError TREE_INVALID
 */
export async function refuseToPublish(
  folder: string,
  repository: string,
  keys: string,
): Promise<void> {
  for (const [what, path] of [
    ["private keys", keys],
    ["repository", repository],
  ] as const)
    if ((await isWithin(path, folder)) || (await isWithin(folder, path)))
      throw new EdgeSyncError(
        "TREE_INVALID",
        `${folder} holds, or lies in, the folder of the ${what}, ${path}; expected a folder with nothing but the release`,
      );
}

/** Whether a path is another one or lies in it, also by way of a symlink. */
async function isWithin(path: string, folder: string): Promise<boolean> {
  const [outer, inner] = await Promise.all([realPath(folder), realPath(path)]);
  const way = relative(outer, inner);
  return way === "" || (way !== ".." && !way.startsWith(`..${sep}`));
}

/** The real path of something of which the last parts need not exist yet. */
async function realPath(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch (error) {
    const code = errnoOf(error);
    if ((code !== "ENOENT" && code !== "ENOTDIR") || dirname(absolute) === absolute)
      throw diskError(error, absolute);
    return join(await realPath(dirname(absolute)), basename(absolute));
  }
}
