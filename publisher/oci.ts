/**
 * Brings a repository into an OCI registry, where the sidecar reads it as `src/oci.ts` says. What refers to a file is pushed after it, and
 * the timestamp last; what is there already is not pushed again, so a push that was killed goes on where it ended.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { OciAddress } from "#core/addresses.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { openLanes } from "#core/lanes.ts";
import {
  EMPTY_CONFIG,
  MANIFEST_TYPE,
  digestIn,
  keepingManifest,
  metadataManifest,
  metadataTag,
  parseMetadataManifest,
  tagOf,
} from "#core/oci.ts";
import type { Layer } from "#core/oci.ts";
import { parseTimestamp } from "#core/trust/metadata.ts";
import { readRange } from "./files.ts";
import { readRoot } from "./metadata.ts";
import type { Root } from "./metadata.ts";
import { sizeOf } from "./reach.ts";
import { blobsOf } from "./release-files.ts";
import { refused } from "./registry.ts";
import type { Content, Registry } from "./registry.ts";
import { blobFile } from "./repository.ts";
import type { View } from "./repository.ts";
import { orderedFiles } from "./sync.ts";
import type { OrderedFile } from "./sync.ts";
import type { Progress } from "./work.ts";

export interface Pushed {
  /** Blobs and tags that were sent. */
  readonly pushed: number;
  readonly pushedBytes: number;
  /** What was there already. */
  readonly same: number;
}

/** Uploads at a time: enough for a link with a long round trip. */
const LANES = 4;
/** Blobs in one artifact; registries take manifests of up to 4 MiB. */
const MAX_LAYERS = 8_000;

/**
 * @throws EdgeSyncError REPOSITORY_INVALID when the registry holds another repository or a newer one, DIGEST_MISMATCH, and as `Registry`
 */
export async function pushRepository(
  repository: View,
  address: OciAddress,
  registry: Registry,
  progress: Progress,
  signal: AbortSignal,
): Promise<Pushed> {
  const there = await refuseOther(repository, address, registry, signal);
  const files = await orderedFiles(repository, there, signal);
  for (const { size } of files) progress.expect(size);
  const push = openPush(address, registry, signal);
  const lanes = openLanes(LANES);
  const each = (some: readonly OrderedFile[], work: (file: OrderedFile) => Promise<void>) =>
    Promise.all(
      some.map((file) =>
        lanes(async () => {
          signal.throwIfAborted();
          await work(file);
          progress.advance(file.size, file.path);
        }),
      ),
    );
  const inStep = (step: OrderedFile["step"]): readonly OrderedFile[] =>
    files.filter((file) => file.step === step);
  const { path: root } = repository;

  await push.blob(sha256Of(EMPTY_CONFIG), contentOf(EMPTY_CONFIG));
  for (const step of ["blobs", "targets"] as const)
    await each(inStep(step), async ({ path, size }) => {
      const sha256 = digestIn(path);
      if (sha256 === undefined)
        throw new EdgeSyncError("REPOSITORY_INVALID", `${path} has no digest in its name`);
      await push.blob(sha256, { size, open: () => readRange(join(root, path), 0, size) });
    });
  await keep(repository, inStep("targets"), push, signal);
  // In their order, one by one: what delegates comes after what it delegates to, and the timestamp after everything.
  for (const file of [...inStep("metadata"), ...inStep("timestamp")]) {
    signal.throwIfAborted();
    await pushMetadata(root, file, push);
    progress.advance(file.size, file.path);
  }
  progress.end();
  return push.counts();
}

interface Push {
  blob(sha256: string, content: Content): Promise<void>;
  tag(tag: string, manifest: Uint8Array): Promise<void>;
  counts(): Pushed;
}

function openPush({ origin, name }: OciAddress, registry: Registry, signal: AbortSignal): Push {
  let [pushed, pushedBytes, same] = [0, 0, 0];
  const sent = (bytes: number): void => {
    pushed++;
    pushedBytes += bytes;
  };
  return {
    async blob(sha256, content) {
      const path = `/blobs/sha256:${sha256}`;
      const { status } = await registry.send({ method: "HEAD", path }, signal);
      if (status === 200) {
        same++;
        return;
      }
      if (status !== 404) throw refused(`HEAD ${name}${path}`, status);
      const begun = await registry.send({ method: "POST", path: "/blobs/uploads/" }, signal);
      const { location = "" } = begun.headers;
      const base = `${origin}/v2/${name}/blobs/uploads/`;
      if (begun.status !== 202 || !URL.canParse(location, base))
        throw refused(`an upload to ${name}`, begun.status);
      const to = new URL(location, base);
      to.searchParams.set("digest", `sha256:${sha256}`);
      const headers = { "content-type": "application/octet-stream" };
      const request = { method: "PUT", path: to, headers, body: content } as const;
      const done = await registry.send(request, signal);
      // What is damaged here must not be spread; the registry has looked.
      if (done.status === 400)
        throw new EdgeSyncError(
          "DIGEST_MISMATCH",
          `the registry finds another digest than ${sha256}`,
        );
      if (done.status !== 201) throw refused(`an upload to ${name}`, done.status);
      sent(content.size);
    },
    async tag(tag, manifest) {
      const path = `/manifests/${tag}`;
      const accept = { accept: MANIFEST_TYPE };
      const there = await registry.send({ method: "HEAD", path, headers: accept }, signal);
      if (there.headers["docker-content-digest"] === `sha256:${sha256Of(manifest)}`) {
        same++;
        return;
      }
      const headers = { "content-type": MANIFEST_TYPE };
      const body = contentOf(manifest);
      const { status } = await registry.send({ method: "PUT", path, headers, body }, signal);
      if (status !== 201) throw refused(`PUT ${name}${path}`, status);
      sent(manifest.byteLength);
    },
    counts: () => ({ pushed, pushedBytes, same }),
  };
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function contentOf(bytes: Uint8Array): Content {
  return { size: bytes.byteLength, open: () => [bytes] };
}

async function pushMetadata(root: string, { path }: OrderedFile, push: Push): Promise<void> {
  const name = path.slice("metadata/".length);
  const bytes = await readFile(join(root, path));
  await push.blob(sha256Of(bytes), contentOf(bytes));
  await push.tag(metadataTag(name), metadataManifest(name, bytes));
}

/** Names what must stay: for each release its document and its blobs, and for everything else that is a target the file itself. */
async function keep(
  { path: root }: View,
  targets: readonly OrderedFile[],
  push: Push,
  signal: AbortSignal,
): Promise<void> {
  const others: Layer[] = [];
  for (const { path, size } of targets) {
    const sha256 = digestIn(path) ?? "";
    const [, app, version, platform] =
      /^targets\/releases\/([^/]+)\/([^/]+)\/[0-9a-f]{64}\.(.+)\.json$/.exec(path) ?? [];
    if (app === undefined) {
      others.push({ sha256, size });
      continue;
    }
    const layers = new Map<string, number>([[sha256, size]]);
    for await (const blob of blobsOf(root, await readFile(join(root, path)), signal))
      if (!layers.has(blob)) layers.set(blob, (await sizeOf(blobFile({ path: root }, blob))) ?? 0);
    await tagAll(`${app}-${version}-${platform}`, layers, push);
  }
  await tagAll("channels", new Map(others.map(({ sha256, size }) => [sha256, size])), push);
}

async function tagAll(name: string, all: ReadonlyMap<string, number>, push: Push): Promise<void> {
  const layers = Array.from(all, ([sha256, size]) => ({ sha256, size }));
  for (let at = 0; at < layers.length; at += MAX_LAYERS) {
    const part = at === 0 ? name : `${name}.${at / MAX_LAYERS + 1}`;
    await push.tag(tagOf("release", part), keepingManifest(layers.slice(at, at + MAX_LAYERS)));
  }
}

/**
 * @returns the newest root that the registry has
 * @throws EdgeSyncError REPOSITORY_INVALID
 */
async function refuseOther(
  { path, timestamp, root }: View,
  { registry: host, name }: OciAddress,
  registry: Registry,
  signal: AbortSignal,
): Promise<Root | undefined> {
  const read = async (file: string): Promise<Buffer | undefined> => {
    const tag = `/manifests/${metadataTag(file)}`;
    const headers = { accept: MANIFEST_TYPE };
    const { status, body } = await registry.send({ method: "GET", path: tag, headers }, signal);
    if (status === 404) return undefined;
    if (status !== 200) throw refused(`GET ${host}/${name}${tag}`, status);
    const { data, sha256 } = parseMetadataManifest(file, body);
    if (data !== undefined) return Buffer.from(data);
    const blob = await registry.send({ method: "GET", path: `/blobs/sha256:${sha256}` }, signal);
    return blob.status === 200 ? blob.body : undefined;
  };
  const first = await read("1.root.json");
  if (first === undefined) return undefined;
  if (!first.equals(await readFile(join(path, "metadata", "1.root.json"))))
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${host}/${name} holds another repository, with another first root`,
    );
  let newest = readRoot(first).signed;
  for (;;) {
    const bytes = await read(`${newest.version + 1}.root.json`);
    if (bytes === undefined) break;
    newest = readRoot(bytes).signed;
  }
  const shown = await read("timestamp.json");
  const version = shown === undefined ? 0 : parseTimestamp(shown).signed.version;
  // Numbers begin anew only when keys are withdrawn, and then with a newer root.
  if (
    newest.version > root.signed.version ||
    (version > timestamp.signed.version && newest.version === root.signed.version)
  )
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${host}/${name} is newer (timestamp ${version}) than ${path} (timestamp ${timestamp.signed.version}); sites would refuse to go back`,
    );
  return newest;
}
