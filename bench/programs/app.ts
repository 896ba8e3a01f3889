/** An application: it says which release it was started from, for as long as it lives. `app PORT FOLDER` */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import process from "node:process";

const [port, folder = ""] = process.argv.slice(2);
const version = readFileSync(join(folder, "current", "version"), "utf8");
const server = createServer((_, response) => response.end(version)).listen(Number(port));
process.once("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
