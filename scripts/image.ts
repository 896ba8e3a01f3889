/** What the image runs, read from its Dockerfile, so that demo, benchmarks and tests run the same: flags, environment, bundle. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";

export interface Image {
  /** This Node, the flags of the image's entry point, and the dispatcher's bundle. */
  readonly entryPoint: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * @param folder with the bundles, in place of the image's `/app`
 * @throws Error when the Dockerfile is not as this expects it
 */
export async function readImage(folder: string): Promise<Image> {
  const text = await readFile(join(import.meta.dirname, "..", "Dockerfile.multiarch"), "utf8");
  const last = text.slice(text.lastIndexOf("\nFROM "));
  const entryPoint = /^ENTRYPOINT (\[.*\])$/m.exec(last)?.[1];
  const [program, ...args] = JSON.parse(entryPoint ?? "[]") as readonly string[];
  if (program !== "node" || args.length === 0)
    throw new Error("Dockerfile.multiarch: the last stage must have an ENTRYPOINT [node, …]");
  const env = [...last.matchAll(/^ENV (\w+)=(\S+)$/gm)].map(
    ([, name = "", value = ""]) => [name, value] as const,
  );
  return {
    entryPoint: [process.execPath, ...args.map((arg) => arg.replace(/^\/app(?=\/)/, folder))],
    env: Object.fromEntries(env),
  };
}
