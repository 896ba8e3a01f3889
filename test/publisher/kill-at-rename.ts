/**
 * Loaded before the command (`--import`): kills the process with SIGKILL at its n-th rename, or at the n-th removal of a file of the
 * repository, before or after it takes effect. Everything that a publisher leaves behind gets its name by a rename, so these are all the
 * moments that differ.
 */
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import process from "node:process";

const [at, when, what = "rename"] = (process.env["KILL_AT"] ?? "0 before").split(" ");
const { rename, rm } = fs;
let count = 0;

async function kill(work: () => Promise<void>): Promise<void> {
  count += 1;
  const last = count === Number(at);
  if (last && when === "before") process.kill(process.pid, "SIGKILL");
  await work();
  if (last) process.kill(process.pid, "SIGKILL");
}

if (what === "rename") fs.rename = (from, to) => kill(() => rename(from, to));
else
  fs.rm = (path, options) => {
    const counts = /\/(metadata|targets|blobs)\//.test(String(path));
    return counts ? kill(() => rm(path, options)) : rm(path, options);
  };
syncBuiltinESMExports();
