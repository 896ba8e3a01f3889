import process from "node:process";
import { openPrograms } from "../../sidecar/application/programs.ts";
import type { Programs } from "../../sidecar/application/programs.ts";

/** Programs of whoever runs the tests. */
export function ownPrograms(never: readonly string[] = []): Programs {
  return openPrograms({
    owner: process.getuid?.() ?? 0,
    never,
    kill: (pid) => void process.kill(pid, "SIGKILL"),
  });
}
