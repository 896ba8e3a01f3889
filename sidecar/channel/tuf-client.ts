/**
 * The sidecar's trust as a command: the protocol of the public conformance suite of The Update Framework (docs/trust.md). It is
 * not meant for people, and takes no part in an update; what it runs is what the sidecar runs: its store, its refresh, its targets.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { NO_SKEW } from "#core/clock-skew.ts";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import { LIMITS, matches } from "#core/trust/metadata.ts";
import { refresh } from "#core/trust/refresh.ts";
import { pinRoot, pinnedRoot } from "#core/trust/root.ts";
import type { MetadataSource, MetadataStore, TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchFound, findTarget } from "#core/trust/target.ts";
import { nodeDisk, readSmallFile, replaceFile } from "../disk/durable.ts";
import { openHttp, readBody } from "../network/http.ts";
import type { Http } from "../network/http.ts";
import { openTrustStore } from "./trust-store.ts";

const USAGE = `edgesync tuf-client --metadata-dir DIR init ROOT
edgesync tuf-client --metadata-dir DIR --metadata-url URL refresh
edgesync tuf-client --metadata-dir DIR --metadata-url URL --target-dir DIR --target-base-url URL
                    --target-name PATH [--target-name PATH]... download
  Speaks the protocol of the public TUF conformance suite (docs/trust.md).
`;

/** Milliseconds without a byte. */
const IDLE_MS = 10_000;

/** Bytes of a target; they are held in memory. */
const TARGET_LIMIT = 256 * 1024 * 1024;

export interface ClientDeps {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** For what a person may want to read. */
  readonly say: (text: string) => void;
}

/** @returns the exit status, which the protocol wants to be 0 or 1 */
export async function runTufClient(
  args: readonly string[],
  deps: ClientDeps,
  signal: AbortSignal,
): Promise<number> {
  try {
    await run(args, deps, signal);
    return 0;
  } catch (error) {
    signal.throwIfAborted();
    const code = codeOf(error);
    const message = error instanceof Error ? error.message : String(error);
    deps.say(`edgesync: ${code}: ${message}. ${ERRORS[code].remedy}\n`);
    if (code === "USAGE") deps.say(USAGE);
    return 1;
  }
}

async function run(
  args: readonly string[],
  { now }: ClientDeps,
  signal: AbortSignal,
): Promise<void> {
  const { values, positionals } = read(args);
  const store = await openTrustStore(needed(values, "metadata-dir"), nodeDisk);
  const [command, ...rest] = positionals;
  if (command === "init" && rest[0] !== undefined) return await init(rest[0], store);
  if (rest.length > 0 || (command !== "refresh" && command !== "download"))
    throw new EdgeSyncError("USAGE", "expected init ROOT, refresh or download");
  const initialRoot = await pinnedRoot(store);
  if (initialRoot === undefined)
    throw new EdgeSyncError("CONFIG_INVALID", "there is no root; run init first");
  const http = openHttp({ idleTimeoutMs: IDLE_MS, unavailable: "ORIGIN_UNAVAILABLE" });
  const source = sourceOf(http, needed(values, "metadata-url"), values["target-base-url"]);
  try {
    // The suite asks for expiry to the second, and each of its commands is a process of its own.
    const timing = { skew: NO_SKEW, monotonic: 0, memory: { expiries: new Map() } };
    const trust = { source, store, initialRoot, now, timing };
    const trusted = await refresh(trust, signal);
    if (command === "refresh") return;
    const folder = needed(values, "target-dir");
    for (const path of values["target-name"] ?? [])
      await download(path, folder, trusted, trust, signal);
  } finally {
    http.close();
  }
}

interface Values {
  readonly "metadata-dir"?: string | undefined;
  readonly "metadata-url"?: string | undefined;
  readonly "target-dir"?: string | undefined;
  readonly "target-base-url"?: string | undefined;
  readonly "target-name"?: string[] | undefined;
}

function read(args: readonly string[]): { values: Values; positionals: readonly string[] } {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        "metadata-dir": { type: "string" },
        "metadata-url": { type: "string" },
        "target-dir": { type: "string" },
        "target-base-url": { type: "string" },
        "target-name": { type: "string", multiple: true },
      },
    });
  } catch (cause) {
    throw new EdgeSyncError("USAGE", "the arguments cannot be read", { cause });
  }
}

function needed(values: Values, name: Exclude<keyof Values, "target-name">): string {
  const value = values[name];
  if (value === undefined) throw new EdgeSyncError("USAGE", `--${name} is missing`);
  return value;
}

async function init(path: string, store: MetadataStore): Promise<void> {
  const root = await readSmallFile(nodeDisk, path, LIMITS.root);
  if (root === undefined) throw new EdgeSyncError("CONFIG_INVALID", `${path} does not exist`);
  await pinRoot(root, store);
}

function sourceOf(http: Http, metadata: string, targets: string | undefined): MetadataSource {
  const get = async (
    base: string,
    path: string,
    limit: number,
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined> => {
    const url = `${base.replace(/\/$/, "")}/${path}`;
    const response = await http.request({ method: "GET", url }, signal);
    const bytes = await readBody(response, limit, signal);
    if (response.status === 200) return bytes;
    // A bucket that may not be listed has no other word for a root that is not there.
    const isRoot = base === metadata && /^\d+\.root\.json$/.test(path);
    if (response.status === 404 || (response.status === 403 && isRoot)) return undefined;
    throw new EdgeSyncError("ORIGIN_REFUSED", `${url} answers with status ${response.status}`);
  };
  return {
    metadata: (name, limit, signal) => get(metadata, name, limit, signal),
    target(path, limit, signal) {
      if (targets === undefined)
        throw new EdgeSyncError("USAGE", "--target-base-url is missing for a download");
      return get(targets, path.split("/").map(encodeURIComponent).join("/"), limit, signal);
    },
  };
}

/** Writes a target into the folder, unless what is there is what the repository has. */
async function download(
  path: string,
  folder: string,
  trusted: TrustedSet,
  trust: TrustDeps,
  signal: AbortSignal,
): Promise<void> {
  const file = await findTarget(trusted, path, trust, signal);
  if (file === undefined)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `the repository has no target ${path}`);
  const destination = join(folder, encodeURIComponent(path));
  const known = await readSmallFile(nodeDisk, destination, TARGET_LIMIT);
  if (known !== undefined && matches(known, file)) return;
  const bytes = await fetchFound(trusted, path, file, TARGET_LIMIT, trust, signal);
  await replaceFile(nodeDisk, destination, bytes);
}
