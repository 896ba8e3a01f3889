/** The golden vectors of the injection: a pod and what becomes of it, one YAML file for each shape. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { parseAllDocuments, stringify } from "yaml";
import { inject } from "#core/inject/inject.ts";
import type { Pod } from "#core/inject/pod.ts";
import { CLUSTER } from "./inject.ts";

const FOLDER = new URL("../vectors/inject/", import.meta.url);

export interface Vector {
  readonly name: string;
  readonly comment: string;
  readonly pod: Pod;
  readonly expected: unknown;
}

export async function vectors(): Promise<readonly Vector[]> {
  const files = (await readdir(FOLDER)).filter((file) => file.endsWith(".yaml")).toSorted();
  return Promise.all(
    files.map(async (file) => {
      const text = await readFile(new URL(file, FOLDER), "utf8");
      const [pod, expected] = [...parseAllDocuments(text)].map((document): unknown =>
        document.toJS(),
      );
      const comment = text.slice(0, text.indexOf("\n") + 1);
      return { name: file.replace(/\.yaml$/, ""), comment, pod: pod as Pod, expected };
    }),
  );
}

/** As YAML has it: without undefined, and never the same object twice. Only what becomes of the pod, and what is said of it. */
export function outcome(pod: Pod): unknown {
  return JSON.parse(
    JSON.stringify({ ...inject(pod, CLUSTER), main: undefined, lasting: undefined }),
  );
}

/** Writes what becomes of each pod today. The difference is to be read before it is committed. */
export async function writeVectors(): Promise<void> {
  for (const { name, comment, pod } of await vectors()) {
    const parts = [pod, outcome(pod)].map((part) => stringify(part, { lineWidth: 0 }));
    await writeFile(new URL(`${name}.yaml`, FOLDER), comment + parts.join("---\n"));
  }
}

if (import.meta.main) await writeVectors();
