/**
 * A repository in an OCI registry, after the image and distribution specifications 1.1: each file of `metadata/` is a tag of an artifact
 * whose only layer is the file; targets and blobs are blobs, by their digest; and an artifact for each release keeps its blobs from
 * being collected as garbage.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import * as v from "valibot";
import { EdgeSyncError } from "./errors.ts";

export const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
export const METADATA_TYPE = "application/vnd.edgesync.metadata.v1+json";
export const RELEASE_TYPE = "application/vnd.edgesync.release.v1+json";
const EMPTY_TYPE = "application/vnd.oci.empty.v1+json";
const BYTES_TYPE = "application/octet-stream";

/** The config of an artifact that has none. Registries want it to be there like every blob. */
export const EMPTY_CONFIG: Uint8Array = Buffer.from("{}");

/** Bytes of a file that is put into its manifest too, so that one request brings both. */
const EMBEDDED = 64 * 1024;
/** Bytes of a manifest with such a file, in base64. */
export const METADATA_MANIFEST_LIMIT = 128 * 1024;

export interface Layer {
  readonly sha256: string;
  readonly size: number;
}

/** The tag under which a file of `metadata/` is found. */
export function metadataTag(name: string): string {
  return tagOf("metadata", name);
}

/** @param name readable where it can be part of a tag, else by its digest */
export function tagOf(kind: "metadata" | "release", name: string): string {
  const tag = `${kind}-${name}`;
  return /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(tag)
    ? tag
    : `${kind}-sha256-${createHash("sha256").update(name).digest("hex")}`;
}

/** The digest of a file that has it in its name: `blobs/sha256/<digest>`, `targets/<folder>/<digest>.<name>`. */
export function digestIn(path: string): string | undefined {
  return /^(?:blobs\/sha256|targets(?:\/[^/]+)*)\/([0-9a-f]{64})(?:\.[^/]+)?$/.exec(path)?.[1];
}

/** The artifact of one file of `metadata/`. */
export function metadataManifest(name: string, bytes: Uint8Array): Uint8Array {
  const layer = {
    ...descriptor(BYTES_TYPE, {
      sha256: createHash("sha256").update(bytes).digest("hex"),
      size: bytes.byteLength,
    }),
    ...(bytes.byteLength <= EMBEDDED ? { data: Buffer.from(bytes).toString("base64") } : {}),
    annotations: { "org.opencontainers.image.title": name },
  };
  return artifact(METADATA_TYPE, [layer]);
}

/** An artifact that does nothing but name blobs. */
export function keepingManifest(layers: readonly Layer[]): Uint8Array {
  return artifact(
    RELEASE_TYPE,
    layers.map((layer) => descriptor(BYTES_TYPE, layer)),
  );
}

function artifact(artifactType: string, layers: readonly object[]): Uint8Array {
  const sha256 = createHash("sha256").update(EMPTY_CONFIG).digest("hex");
  const config = descriptor(EMPTY_TYPE, { sha256, size: EMPTY_CONFIG.byteLength });
  const manifest = { schemaVersion: 2, mediaType: MANIFEST_TYPE, artifactType, config, layers };
  return Buffer.from(JSON.stringify(manifest));
}

function descriptor(mediaType: string, { sha256, size }: Layer): object {
  return { mediaType, digest: `sha256:${sha256}`, size };
}

const metadataArtifact = v.object({
  schemaVersion: v.literal(2),
  layers: v.strictTuple([
    v.object({
      digest: v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/)),
      size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
      data: v.optional(v.string()),
    }),
  ]),
});

/**
 * The layer of a metadata artifact, with its bytes where they are embedded; their digest has been checked.
 *
 * @throws EdgeSyncError METADATA_INVALID, DIGEST_MISMATCH
 */
export function parseMetadataManifest(
  name: string,
  bytes: Uint8Array,
): Layer & { readonly data: Uint8Array | undefined } {
  const parsed = v.safeParse(metadataArtifact, jsonOf(bytes));
  if (!parsed.success)
    throw new EdgeSyncError("METADATA_INVALID", `the manifest of ${name} is not one of edgesync`);
  const [{ digest, size, data }] = parsed.output.layers;
  const sha256 = digest.slice("sha256:".length);
  if (data === undefined) return { sha256, size, data };
  const content = Buffer.from(data, "base64");
  if (content.byteLength !== size || createHash("sha256").update(content).digest("hex") !== sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `the manifest of ${name} embeds other bytes`);
  return { sha256, size, data: content };
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    // Not JSON: no schema takes it, and the caller says what it was to be.
    return undefined;
  }
}

export type Challenge =
  | { readonly scheme: "basic" }
  | { readonly scheme: "bearer"; readonly realm: string; readonly service: string | undefined };

/** What an answer 401 asks for (RFC 9110, 11.6.1); undefined when it is nothing that we can do. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  const [, scheme = "", rest = ""] = /^\s*([A-Za-z]+)(?:\s+(.*))?$/s.exec(header ?? "") ?? [];
  if (scheme.toLowerCase() === "basic") return { scheme: "basic" };
  if (scheme.toLowerCase() !== "bearer") return undefined;
  const found = new Map<string, string>();
  for (const [, key = "", quoted, plain] of rest.matchAll(
    /([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g,
  ))
    found.set(key.toLowerCase(), quoted?.replaceAll(/\\(.)/g, "$1") ?? plain ?? "");
  const realm = found.get("realm");
  return realm === undefined || !URL.canParse(realm)
    ? undefined
    : { scheme: "bearer", realm, service: found.get("service") };
}

/** Where a token is to be had. @param actions such as `pull` or `pull,push` */
export function tokenUrl(
  { realm, service }: Extract<Challenge, { scheme: "bearer" }>,
  name: string,
  actions: string,
): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  url.searchParams.set("scope", `repository:${name}:${actions}`);
  return url;
}

const tokenAnswer = v.object({
  token: v.optional(v.string()),
  access_token: v.optional(v.string()),
  expires_in: v.optional(v.pipe(v.number(), v.minValue(0))),
});

/** Seconds for which a token is good whose answer does not say so (Docker's token specification). */
const DEFAULT_LIFE_S = 60;

export interface RegistryToken {
  readonly token: string;
  /** Milliseconds. */
  readonly lifeMs: number;
}

/** Undefined when the answer holds no token that can be sent. */
export function parseToken(bytes: Uint8Array): RegistryToken | undefined {
  const parsed = v.safeParse(tokenAnswer, jsonOf(bytes));
  if (!parsed.success) return undefined;
  const { token = parsed.output.access_token, expires_in = DEFAULT_LIFE_S } = parsed.output;
  if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) return undefined;
  return { token, lifeMs: Math.min(expires_in, 86_400) * 1000 };
}
