/**
 * The application of the pods under test, as a payload or from a ConfigMap: says when it starts and which version it is, whether it is healthy,
 * whose credentials it sees, and kills the sidecar when it is told to, which takes a process namespace and a user in common.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import process from "node:process";

const SECRETS = "/run/secrets/edgesync";
const here = import.meta.dirname;
const startedAt = Date.now();

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** What tells one credential from another, and no secret. */
function identities(): Readonly<Record<string, string>> {
  const names = readdirSync(SECRETS).filter((name) => !name.startsWith("."));
  return Object.fromEntries(
    names.map((name) => {
      const fields = JSON.parse(text(join(SECRETS, name)) ?? "{}") as Record<string, string>;
      return [name, fields["username"] ?? fields["serial_number"] ?? fields["greeting"] ?? ""];
    }),
  );
}

function killSidecar(): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const found = pids.filter((pid) =>
    (text(`/proc/${pid}/cmdline`) ?? "").includes("/app/edgesync.mjs"),
  );
  for (const pid of found) process.kill(Number(pid), "SIGKILL");
  return found.length;
}

const version = text(join(here, "version.txt"));
const ROUTES: Readonly<Record<string, () => unknown>> = {
  "/": () => ({ version, pid: process.pid, startedAt }),
  "/secrets": identities,
  "/kill-sidecar": () => ({ killed: killSidecar() }),
};

createServer((incoming, response) => {
  if (incoming.url === "/healthz") {
    response.writeHead(text(join(here, "broken")) === undefined ? 200 : 500).end();
    return;
  }
  try {
    const answer = ROUTES[incoming.url ?? ""]?.();
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? {}));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(8080);

/** So that starts are told apart to the millisecond, by one clock; the kubelet's own report has seconds. */
function tellStart(attempts: number): void {
  const url = process.env["E2E_SITE"];
  if (url === undefined) return;
  const call = request(`${url}/started`, { method: "POST", timeout: 2_000 });
  call.once("timeout", () => call.destroy(new Error("no answer")));
  call.once("error", () => {
    if (attempts > 1) setTimeout(tellStart, 500, attempts - 1);
  });
  call.once("response", (response) => response.resume());
  const lateMs = Date.now() - startedAt;
  call.end(JSON.stringify({ pod: process.env["HOSTNAME"], version, lateMs }));
}
tellStart(20);
process.once("SIGTERM", () => process.exit(0));
