/** A real repository behind a real `edgesync serve`, with the bytes counted that pass between it and the sites. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ChannelDocument, Rollout } from "#core/channel-document.ts";
import { authority } from "../../test/support/certificates.ts";
import { startNode } from "../../test/support/process.ts";
import { PLATFORM, changed, noise, openWorld } from "../../test/update/support/world.ts";
import type { Files, World } from "../../test/update/support/world.ts";
import { openRelay } from "../relay.ts";

/** Not made when the first release is: sites have that before anything is counted. */
const OLD = "1.0.0";
export const NEW = "1.1.0";

export type Protocol = "http" | "https";

export interface Wire extends AsyncDisposable {
  readonly world: World;
  readonly url: string;
  /** Of the server's certificate. */
  readonly ca: string;
  /** Bytes that have passed, in both directions. */
  bytes(): number;
  /** Connections that were made. */
  connections(): number;
  /** Points the channel at the new release, with a roll-out. */
  announce(rollout: Rollout): Promise<void>;
}

export async function openWire(protocol: Protocol): Promise<Wire> {
  await using cleanup = new AsyncDisposableStack();
  const world = cleanup.use(await openWorld());
  await world.publish(OLD, filesOf("one"));
  await world.release(NEW, filesOf("two"));
  const ca = authority();
  const { cert, key } = ca.issue(["127.0.0.1"]);
  const paths = { cert: join(world.folder, "tls.crt"), key: join(world.folder, "tls.key") };
  await Promise.all([writeFile(paths.cert, cert), writeFile(paths.key, key)]);
  const tls = protocol === "https" ? ["--tls-cert", paths.cert, "--tls-key", paths.key] : [];
  const command = ["bin/edgesync.ts", "serve", world.repository, "--port", "0", ...tls];
  const server = cleanup.use(startNode(["--disable-warning=ExperimentalWarning", ...command]));
  const relay = cleanup.use(await openRelay(await portOf(() => server.output())));
  const owned = cleanup.move();
  return {
    world,
    url: `${protocol}://127.0.0.1:${relay.port}`,
    ca: ca.cert,
    bytes: relay.bytes,
    connections: relay.connections,
    announce: (rollout) => world.forgeChannel(documentOf(rollout)),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function documentOf(rollout: Rollout): ChannelDocument {
  const releases = [{ platform: PLATFORM, version: NEW }];
  return { schema: 1, app: "web", channel: "stable", sequence: 2, releases, rollout };
}

export const FROM = [{ platform: PLATFORM, version: OLD }];

const MODEL = noise(7, 4 * 1024 * 1024);

/** A program of 300 files and 8 MiB, of which an update changes 60 files and a few places of the largest. */
function filesOf(mark: string): Files {
  const files: Record<string, Buffer> = {
    "data/model.bin": changed(changed(MODEL, 1_000, mark), 3_000_000, mark),
  };
  for (let index = 0; index < 300; index++) {
    const content = noise(index + 1, 14_000);
    files[`lib/part-${index}.so`] = index % 5 === 0 ? changed(content, 500, mark) : content;
  }
  return files;
}

async function portOf(output: () => string): Promise<number> {
  for (let turn = 0; turn < 3_000; turn++) {
    const port = /at https?:\/\/127\.0\.0\.1:(\d+)/.exec(output())?.[1];
    if (port !== undefined) return Number(port);
    await sleep(10);
  }
  throw new Error(`edgesync serve does not come up: ${output()}`);
}
