/** A sidecar's look at applications, in a network of their own: what it says of each before it has ended, and after. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fromEnv } from "#core/settings.ts";
import { openPresence } from "../../sidecar/application/presence.ts";
import { realClock } from "../support/real-clock.ts";
import { recordedLog, until } from "../vault/sidecar.ts";

const CODE = {
  server: 'require("node:net").createServer().listen(0, "127.0.0.1")',
  worker: 'require("node:dgram").createSocket("udp4").bind(0)',
  batch: "setInterval(() => undefined, 1e6)",
};

async function verdictsOf(kind: keyof typeof CODE): Promise<readonly boolean[]> {
  // Not a pipe, which would be a socket that the application holds.
  const app = spawn(process.execPath, ["-e", CODE[kind]], { stdio: "ignore" });
  await once(app, "spawn");
  let looks = 0;
  const log = recordedLog();
  const presence = openPresence({
    settings: fromEnv({ EDGESYNC_POD_NAME: "web-0" }),
    log,
    clock: {
      ...realClock,
      sleep: (ms, signal) => {
        looks += 1;
        return realClock.sleep(Math.min(ms, 20), signal);
      },
    },
  });
  const stop = new AbortController();
  const running = presence.run(stop.signal).catch(() => undefined);
  await until(() => (kind === "batch" ? looks > 10 : log.lines.length > 0), "the looks");
  stop.abort();
  await running;
  const runs = await presence.ended(AbortSignal.timeout(5_000));
  app.kill("SIGKILL");
  await once(app, "exit");
  return [runs, await presence.ended(AbortSignal.timeout(5_000))];
}

const verdicts = {
  server: await verdictsOf("server"),
  worker: await verdictsOf("worker"),
  batch: await verdictsOf("batch"),
};
process.stdout.write(JSON.stringify(verdicts));
