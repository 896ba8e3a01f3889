/** What stands around a sidecar that follows a channel: a repository behind TLS, a counted link to it, and an application that answers probes. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { authority } from "../test/support/certificates.ts";
import { openWorld } from "../test/update/support/world.ts";
import type { World } from "../test/update/support/world.ts";
import { openRelay } from "./relay.ts";

export interface Stage extends AsyncDisposable {
  readonly world: World;
  /** Of the link, which goes to the repository. */
  readonly url: string;
  readonly caFile: string;
  /** Bytes on the link so far, both ways, handshakes included. */
  carried(): number;
  /** Variables of a sidecar whose payload volume is this folder. */
  environment(payload: string, more?: Readonly<Record<string, string>>): Record<string, string>;
}

/** The kubelet's window in which a sidecar may be away; short, because a bench has little time. */
const STARTUP_WINDOW = { periodMs: 1_000, failureThreshold: 2 };

/** Between two looks of an hour's four every server has closed the connection; between two of a bench it would not have. */
export const IDLE_MS = 300;

export async function openStage(): Promise<Stage> {
  await using stack = new AsyncDisposableStack();
  const ca = authority();
  const world = stack.use(await openWorld(ca.issue(["localhost"])));
  const caFile = join(world.folder, "ca.crt");
  await writeFile(caFile, ca.cert);
  const link = stack.use(await openRelay(Number(new URL(world.origin.url).port), IDLE_MS));
  const app = stack.use(await openApplication());
  const resources = stack.move();
  return {
    world,
    url: `https://localhost:${link.port}`,
    caFile,
    carried: link.bytes,
    environment: (payload, more = {}) => ({
      EDGESYNC_SETTINGS_VERSION: "1",
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: `https://localhost:${link.port}`,
      EDGESYNC_REPOSITORY_CA_FILE: caFile,
      EDGESYNC_TRUST_ROOT_FILE: world.root,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_APP: JSON.stringify([
        { container: "app", startupWindow: STARTUP_WINDOW, liveness: probe(app.port) },
      ]),
      ...more,
    }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

function probe(port: number): object {
  return {
    handler: { kind: "http", scheme: "http", port, path: "/", headers: [] },
    initialDelayMs: 0,
    periodMs: 10_000,
    timeoutMs: 1_000,
    successThreshold: 1,
    failureThreshold: 3,
  };
}

interface Listening extends AsyncDisposable {
  readonly port: number;
}

async function openApplication(): Promise<Listening> {
  const server = createServer((_, response) => response.end("ok\n")).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** Memory of a process in MiB, and the processor time that it has used, in seconds. */
export async function figuresOf(pid: number): Promise<{
  readonly rss: number;
  readonly rssPeak: number;
  readonly rssAnon: number;
  readonly cpu: number;
}> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const mib = (field: string): number => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1];
    if (kib === undefined) throw new Error(`/proc/${pid}/status has no ${field}`);
    return Number(kib) / 1024;
  };
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    rss: mib("VmRSS"),
    rssPeak: mib("VmHWM"),
    rssAnon: mib("RssAnon"),
    cpu: (Number(fields[11]) + Number(fields[12])) / 100,
  };
}
