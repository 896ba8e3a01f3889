/** What the commands that deal with keys have in common: which key, of which role, of which type. */
import { randomUUID } from "node:crypto";
import { basename } from "node:path";
import { readFile } from "node:fs/promises";
import { EdgeSyncError } from "#core/errors.ts";
import { integer } from "#core/values.ts";
import type { Arguments } from "../command.ts";
import { formatCeremony, parseCeremony } from "../ceremony.ts";
import type { Ceremony } from "../ceremony.ts";
import { place, readIfExists, spool } from "../files.ts";
import { readPublic } from "../keys.ts";
import type { KeySet } from "../keys.ts";
import { TOP_ROLES, isTopRole } from "../metadata.ts";
import type { TopRole } from "../metadata.ts";
import { KEY_TYPES } from "../public-keys.ts";
import type { KeyType, PublicKey } from "../public-keys.ts";
import { openSigner } from "../signers.ts";
import { unfit, usage } from "./shared.ts";

export const TYPE_OPTION = {
  type: "kind of a key that is made: ed25519, which is taken when not given, or ecdsa (P-256)",
};

/** How a key is named in an option. */
export const KEY_REFERENCE =
  "name of a key in the keys folder, or a file: .pub, .pem or .signer.json";

export function typeOf(args: Arguments): KeyType {
  const given = args.optional("type") ?? "ed25519";
  const type = KEY_TYPES.find((item) => item === given);
  if (type === undefined) throw usage(`--type must be ${KEY_TYPES.join(" or ")}, not ${given}`);
  return type;
}

const threshold = integer(1, 1024);

export function thresholdOf(option: string, text: string): number {
  const value = threshold.parse(text);
  if (value === undefined) throw unfit(option, text, threshold.allowed);
  return value;
}

/** Values of the form `<role>=<value>`, by role. */
export function byRole(args: Arguments, option: string): ReadonlyMap<TopRole, readonly string[]> {
  const values = new Map<TopRole, string[]>();
  for (const text of args.all(option)) {
    const [role = "", ...rest] = text.split("=");
    const value = rest.join("=");
    if (!isTopRole(role) || value === "")
      throw usage(
        `--${option} must be <role>=<value> with a role of ${TOP_ROLES.join(", ")}, not ${JSON.stringify(text)}`,
      );
    values.set(role, [...(values.get(role) ?? []), value]);
  }
  return values;
}

/** @throws EdgeSyncError KEY_INVALID */
export async function findPublic(set: KeySet, reference: string): Promise<PublicKey> {
  const known = set.keys.find(({ name }) => name === reference);
  if (known !== undefined) return known;
  const closed = set.closed.find(({ name }) => name === reference)?.public;
  if (closed !== undefined) return closed;
  if (reference.endsWith(".signer.json"))
    return await openSigner(reference, basename(reference, ".signer.json"), {});
  return await readPublic(reference);
}

/** @throws EdgeSyncError METADATA_INVALID, METADATA_UNTRUSTED, REPOSITORY_INVALID when there is no such file */
export async function readCeremony(path: string): Promise<Ceremony> {
  return parseCeremony(await readGiven(path), path);
}

export async function readGiven(path: string): Promise<Buffer> {
  return await readFile(path).catch((cause: unknown) => {
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} cannot be read`, { cause });
  });
}

export async function writeCeremony(path: string, ceremony: Ceremony): Promise<void> {
  const { path: aside } = await spool(`${path}.${randomUUID()}`, [formatCeremony(ceremony)]);
  await place(aside, path);
}

export async function refuseExisting(path: string): Promise<void> {
  if ((await readIfExists(path)) !== undefined)
    throw usage(`${path} exists and is not overwritten; somebody may have signed it`);
}
