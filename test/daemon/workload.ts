/** An application of which a service manager keeps an instance running: it serves what `current` named when it was started. */
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import process from "node:process";

const [payload = "", port = "", pidFile = ""] = process.argv.slice(2);
const version = readFileSync(join(payload, "current/version.txt"), "utf8");
const server = createServer((request, response) => {
  const healthy = !version.includes("bad");
  response.writeHead(request.url === "/ready" && !healthy ? 500 : 200).end(version);
});
server.listen(Number(port), "127.0.0.1", () => writeFileSync(pidFile, String(process.pid)));
process.once("SIGTERM", () => process.exit(0));
