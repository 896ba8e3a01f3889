/** The text of a template in a mounted ConfigMap, or in a folder of a machine. */
import { isUtf8 } from "node:buffer";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { nodeDisk, readSmallFile } from "../disk/durable.ts";
import { markOf, throughLink } from "./mounted.ts";

export interface TemplateFile {
  readonly folder: string;
  readonly key: string;
}

/** The API server takes no larger ConfigMap. */
const LIMIT_BYTES = 1_048_576;

/**
 * Its text each time that it is another one; undefined while it is the same.
 *
 * @throws EdgeSyncError TEMPLATE_INVALID when it cannot be read, each time
 */
export function openTemplateFile({ folder, key }: TemplateFile): () => Promise<string | undefined> {
  let seen: string | undefined;
  let text: string | undefined;
  return async () => {
    const path = join(folder, key);
    let mark: string;
    let bytes: Uint8Array;
    try {
      mark = await markOf(folder);
      if (mark === seen) return undefined;
      bytes = await throughLink(folder, (target) => readKey(join(target, key)));
    } catch (cause) {
      const message = `the template ${path} cannot be read`;
      throw new EdgeSyncError("TEMPLATE_INVALID", message, { cause });
    }
    if (!isUtf8(bytes))
      throw new EdgeSyncError("TEMPLATE_INVALID", `the template ${path} is no text in UTF-8`);
    seen = mark;
    const before = text;
    text = Buffer.from(bytes).toString("utf8");
    return text === before ? undefined : text;
  };
}

/** The text that was rendered last, for a sidecar that starts anew while the ConfigMap holds none that can be. In memory, beside the state. */
export interface KeptText {
  read(): Promise<string | undefined>;
  write(text: string): Promise<void>;
}

/** @param folder the memory volume */
export function openKept(folder: string, name: string): KeptText {
  const path = join(folder, "state", `template-${name}`);
  const partial = `${path}.partial`;
  return {
    // Absent, or of no use: the ConfigMap alone counts then.
    read: () => readFile(path, "utf8").catch(() => undefined),
    async write(text) {
      await rm(partial, { force: true });
      await writeFile(partial, text, { mode: 0o600, flag: "wx" });
      await rename(partial, path);
    },
  };
}

async function readKey(path: string): Promise<Uint8Array> {
  const bytes = await readSmallFile(nodeDisk, path, LIMIT_BYTES);
  if (bytes === undefined) throw new Error("there is no such file");
  return bytes;
}
