/**
 * Loaded before the command (`--import`): kills the process with SIGKILL at its n-th rename, before or after it takes effect. Everything
 * that a publisher leaves behind gets its name by a rename, so these are all the moments that differ.
 */
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import process from "node:process";

const [at, when] = (process.env["KILL_AT"] ?? "0 before").split(" ");
const rename = fs.rename;
let count = 0;

fs.rename = async (from, to) => {
  count += 1;
  const last = count === Number(at);
  if (last && when === "before") process.kill(process.pid, "SIGKILL");
  await rename(from, to);
  if (last) process.kill(process.pid, "SIGKILL");
};
syncBuiltinESMExports();
