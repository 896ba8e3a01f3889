/**
 * Whether the pod's containers may have been started before this process: they may when the sidecar has been restarted alone, and not when the
 * pod has just come up, also after a power cut. Every container of a pod lives in one sandbox, whose network namespace is its own from one
 * start of the pod to the next; what the sidecar has found there is noted on the volume, and found again by the next one.
 */
import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "#core/errors.ts";
import type { Log } from "#core/telemetry.ts";
import { nodeDisk, readSmallFile, replaceFile } from "../disk/durable.ts";

export interface Sandbox {
  /** True until it is known: what cannot be told must not count as a fresh start. */
  inherited(): boolean;
  readonly known: Promise<void>;
}

export interface SandboxDeps {
  /** Folder of a payload volume; without one nothing depends on the answer. */
  readonly volume: string | undefined;
  /** UID of the pod. */
  readonly pod: string | undefined;
  readonly log: Log;
}

/** Bytes. */
const LIMIT = 4 * 1024;

export function openSandbox({ volume, pod, log }: SandboxDeps): Sandbox {
  let inherited = true;
  async function look(folder: string): Promise<void> {
    try {
      const path = join(folder, "sandbox");
      const [boot, network] = await Promise.all([
        readFile("/proc/sys/kernel/random/boot_id", "utf8"),
        readlink("/proc/self/ns/net"),
      ]);
      const now = `${pod ?? ""} ${boot.trim()} ${network}\n`;
      const before = await readSmallFile(nodeDisk, path, LIMIT);
      if (before !== undefined && Buffer.from(before).toString() === now) return;
      await replaceFile(nodeDisk, path, Buffer.from(now));
      inherited = false;
    } catch (err) {
      log.warn({ err, code: codeOf(err) }, "cannot tell whether the pod has just started");
    }
  }
  const known = volume === undefined ? Promise.resolve() : look(volume);
  return { inherited: () => inherited, known };
}
