/** A memory cgroup of one's own, v1 or v2, where this process may make one: what a container's limit counts. */
import { access, mkdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";

export interface Cgroup extends AsyncDisposable {
  /** Goes before a command line: a shell that enters the group and becomes the command. */
  readonly command: readonly string[];
  /** Bytes charged to the group now. */
  bytes(): Promise<number>;
}

const LAYOUTS = [
  { root: "/sys/fs/cgroup", usage: "memory.current" },
  { root: "/sys/fs/cgroup/memory", usage: "memory.usage_in_bytes" },
] as const;

/** `undefined` where no group can be made: that takes root, or a delegated group. */
export async function openCgroup(name: string): Promise<Cgroup | undefined> {
  for (const { root, usage } of LAYOUTS) {
    const folder = join(root, `edgesync-bench-${process.pid}-${name}`);
    try {
      await mkdir(folder);
    } catch {
      // Not mounted, not delegated or read-only: the other layout, or none.
      continue;
    }
    try {
      await access(join(folder, usage));
    } catch {
      // No memory controller here.
      await rmdir(folder);
      continue;
    }
    return {
      command: ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', join(folder, "cgroup.procs")],
      bytes: async () => Number(await readFile(join(folder, usage), "utf8")),
      // The kernel lets go of a process a moment after its end was seen.
      [Symbol.asyncDispose]: () => removeSoon(folder),
    };
  }
  return undefined;
}

async function removeSoon(folder: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      await rmdir(folder);
      return;
    } catch {
      // Still busy.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
