/** A memory cgroup of one's own, v1 or v2, where this process may make one: what a container's limit counts. */
import { access, mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";

export interface Cgroup extends AsyncDisposable {
  /** Goes before a command line: a shell that enters the group and becomes the command. */
  readonly command: readonly string[];
  /** Bytes charged to the group now. */
  bytes(): Promise<number>;
  /** How often the kernel has killed a process of the group for want of memory. */
  kills(): Promise<number>;
}

const LAYOUTS = [
  { root: "/sys/fs/cgroup", usage: "memory.current", limit: "memory.max", events: "memory.events" },
  {
    root: "/sys/fs/cgroup/memory",
    usage: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    events: "memory.oom_control",
  },
] as const;

/**
 * `undefined` where no group can be made: that takes root, or a delegated group.
 *
 * @param limit bytes that the group may have, page cache included
 */
export async function openCgroup(name: string, limit?: number): Promise<Cgroup | undefined> {
  for (const { root, usage, ...files } of LAYOUTS) {
    const folder = join(root, `edgesync-bench-${process.pid}-${name}`);
    try {
      await mkdir(folder);
    } catch {
      // Not mounted, not delegated or read-only: the other layout, or none.
      continue;
    }
    try {
      await access(join(folder, usage));
      if (limit !== undefined) await writeFile(join(folder, files.limit), String(limit));
    } catch {
      // No memory controller here.
      await rmdir(folder);
      continue;
    }
    return {
      command: ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', join(folder, "cgroup.procs")],
      bytes: async () => Number(await readFile(join(folder, usage), "utf8")),
      async kills() {
        const text = await readFile(join(folder, files.events), "utf8");
        return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
      },
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
