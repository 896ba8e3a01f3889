/**
 * Keys that never leave where they are: a command signs with them. `<name>.signer.json` names the public key and the command, which is
 * given the bytes on standard input and answers with the signature on standard output. So a KMS, an HSM or a smart card fits.
 */
import { spawn } from "node:child_process";
import { createPublicKey, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import * as s from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import type { SigningKey } from "./keys.ts";
import { publicKey } from "./public-keys.ts";
import type { KeyType } from "./public-keys.ts";

const schema = s.object({
  /** PEM, or the name of a file of it beside this one. */
  public: s.pipe(s.string(), s.minLength(1)),
  command: s.pipe(s.array(s.string()), s.minLength(1)),
  /** How long the command may take; a person may have to find a card and touch it. */
  timeoutSeconds: s.optional(
    s.pipe(s.number(), s.safeInteger(), s.minValue(1), s.maxValue(3600)),
    60,
  ),
});
type Description = s.InferOutput<typeof schema>;

/** Bytes; a longer answer is no signature. */
const ANSWER_LIMIT = 64 * 1024;

export interface SignerOptions {
  /** Of the command; that of this process when not given. */
  readonly commandEnvironment?: Readonly<Record<string, string | undefined>>;
  /** Passes on what the command says to people. */
  readonly tell?: (text: string) => void;
  /** Ends the command. */
  readonly signal?: AbortSignal;
}

/** @throws EdgeSyncError KEY_INVALID when the description is not one */
export async function openSigner(
  path: string,
  name: string,
  options: SignerOptions,
): Promise<SigningKey> {
  const description = await readDescription(path);
  const key = await readKey(path, description);
  const open = publicKey(key, name, path);
  const [program = ""] = description.command;
  return {
    ...open,
    where: `${path} (${program})`,
    async sign(data) {
      const answer = await ask(path, description, data, options);
      const signature = findSignature(answer, open.key.keytype);
      if (signature === undefined)
        throw failed(path, `answers with ${answer.length} bytes that are no signature`);
      // A signature of another key would only be noticed by every site at once.
      if (!verify(open.key.keytype === "ecdsa" ? "sha256" : null, data, key, signature))
        throw failed(path, "answers with a signature that is not one of its public key");
      return signature.toString("hex");
    },
  };
}

function failed(path: string, what: string, cause?: unknown): EdgeSyncError {
  return new EdgeSyncError("SIGNER_FAILED", `the command of ${path} ${what}`, { cause });
}

async function readDescription(path: string): Promise<Description> {
  try {
    return s.parse(schema, JSON.parse(await readFile(path, "utf8")));
  } catch (cause) {
    throw new EdgeSyncError(
      "KEY_INVALID",
      `${path} is not {"public": PEM, "command": [program, argument…]}`,
      { cause },
    );
  }
}

async function readKey(path: string, { public: given }: Description): Promise<KeyObject> {
  try {
    const pem = given.startsWith("-----BEGIN")
      ? given
      : await readFile(resolve(dirname(path), given));
    return createPublicKey(pem);
  } catch (cause) {
    throw new EdgeSyncError("KEY_INVALID", `${path}: public is not a public key in PEM`, { cause });
  }
}

/** Runs the command without a shell, in the folder of the keys, with the environment of edgesync but for its secrets. */
async function ask(
  path: string,
  { command, timeoutSeconds }: Description,
  data: Uint8Array,
  { commandEnvironment, tell, signal }: SignerOptions,
): Promise<Buffer> {
  const [program = "", ...args] = command;
  signal?.throwIfAborted();
  const timeout = AbortSignal.timeout(timeoutSeconds * 1000);
  const bounded = signal === undefined ? timeout : AbortSignal.any([timeout, signal]);
  const child = spawn(program, args, {
    cwd: dirname(resolve(path)),
    stdio: "pipe",
    ...(commandEnvironment !== undefined && { env: commandEnvironment }),
  });
  const { promise, resolve: settle, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let [bytes, said] = [0, ""];
  const giveUp = (error: unknown): void => {
    reject(error);
    child.kill("SIGKILL");
    // A grandchild may hold the pipes open; nobody waits for it.
    child.stdout.destroy();
    child.stderr.destroy();
  };
  const stop = (): void => {
    giveUp(
      signal?.aborted === true
        ? signal.reason
        : failed(path, `has not answered within ${timeoutSeconds} s`),
    );
  };
  bounded.addEventListener("abort", stop, { once: true });
  child.on("error", (cause) => giveUp(failed(path, `cannot be started: ${cause.message}`, cause)));
  child.stdout.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    chunks.push(chunk);
    if (bytes > ANSWER_LIMIT) giveUp(failed(path, `answers with more than ${ANSWER_LIMIT} bytes`));
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    // People read it at once: it may say "touch the key".
    tell?.(text);
    said = (said + text).slice(-2000);
  });
  // It may end without reading everything; what counts is its answer.
  child.stdin.on("error", () => undefined);
  child.stdin.end(data);
  child.on("close", (status, killed) => {
    if (status === 0) settle(Buffer.concat(chunks));
    else reject(failed(path, `ends with ${status ?? killed}${lastLine(said)}`));
  });
  try {
    return await promise;
  } finally {
    bounded.removeEventListener("abort", stop);
  }
}

function lastLine(text: string): string {
  const line = text.trimEnd().split("\n").at(-1) ?? "";
  return line === "" ? "" : `: ${line}`;
}

/**
 * A signature as bytes or as base64. For ECDSA in DER, or the two numbers one after the other as smart cards give them; for Ed25519
 * its 64 bytes.
 */
function findSignature(answer: Buffer, type: KeyType): Buffer | undefined {
  const text = answer.toString("latin1").replaceAll(/\s/g, "");
  const decoded = /^[A-Za-z0-9+/]{80,}={0,2}$/.test(text) ? Buffer.from(text, "base64") : undefined;
  for (const bytes of [answer, decoded]) {
    if (bytes === undefined) continue;
    if (bytes.length === 64) return type === "ecdsa" ? toDer(bytes) : bytes;
    if (type === "ecdsa" && bytes[0] === 0x30 && bytes[1] === bytes.length - 2) return bytes;
  }
  return undefined;
}

/** X.690: SEQUENCE of two INTEGERs, each without needless zeros and with a leading one where it would read as negative. */
function toDer(pair: Buffer): Buffer {
  const integers = [pair.subarray(0, 32), pair.subarray(32)].map((bytes) => {
    const first = bytes.findIndex((byte) => byte !== 0);
    const short = bytes.subarray(first < 0 ? 31 : first);
    const positive = (short[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), short]) : short;
    return Buffer.concat([Buffer.from([0x02, positive.length]), positive]);
  });
  const body = Buffer.concat(integers);
  return Buffer.concat([Buffer.from([0x30, body.length]), body]);
}
