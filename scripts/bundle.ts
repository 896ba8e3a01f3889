/**
 * `npm run build [-- <folder>]`: one file for each program, as the image holds them, into `dist/` unless told otherwise. What a
 * sidecar must not load, and how large it may become, is checked here, so that the price of a dependency is seen when it comes.
 */
import { readFile, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import type { BuildResult, Metafile, Plugin } from "esbuild";
import { sbom } from "./sbom.ts";

const ROOT = resolve(import.meta.dirname, "..");

/** The dispatcher loads the others by these names, from its own folder. */
const PROGRAMS = {
  edgesync: "bin/edgesync.ts",
  sidecar: "sidecar/main.ts",
  // What asks a sidecar, which loads it by this name.
  command: "sidecar/command/command.ts",
  webhook: "webhook/main.ts",
  publisher: "publisher/main.ts",
  // A thread of the publisher, which starts it by this name.
  "match-worker": "publisher/match-worker.ts",
} as const;
type Program = keyof typeof PROGRAMS;

/** On thousands of small machines: an admission library in a sidecar costs each of them tens of megabytes. */
const FORBIDDEN_IN_SIDECAR = ["express", "@kubernetes/client-node", "node-forge", "yaml"];

/** Bytes, minified: what windows, hooks, leases, shared claims, several payloads and the mending of what a disk lost need. Raise it with a reason. */
const SIDECAR_BUDGET = 450_000;

/** Bytes, compressed: what a site fetches of the image when edgesync alone has changed. */
const LAYER_BUDGET = 1_500_000;

export interface Bundle {
  readonly program: Program;
  readonly path: string;
  readonly bytes: number;
}

/** @throws Error when a bundle holds what it must not, or is too large */
export async function bundle(folder: string): Promise<readonly Bundle[]> {
  const bundles: Bundle[] = [];
  const packages = new Set<string>();
  for (const program of programs()) {
    const path = join(folder, `${program}.mjs`);
    const { metafile } = await bundleOne(PROGRAMS[program], path, [siblings, unused]);
    if (program === "sidecar") checkSidecar(metafile, (await stat(path)).size);
    for (const name of packagesIn(metafile)) packages.add(name);
    bundles.push({ program, path, bytes: (await stat(path)).size });
  }
  await writeFile(join(folder, "sbom.cdx.json"), await sbom(ROOT, [...packages]));
  return bundles;
}

function programs(): readonly Program[] {
  return Object.keys(PROGRAMS) as Program[];
}

/** One program with everything that it imports, in one file. */
export function bundleOne(
  entry: string,
  outfile: string,
  plugins: Plugin[] = [],
): Promise<BuildResult<{ metafile: true }>> {
  return build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node26",
    minify: true,
    sourcemap: "linked",
    sourcesContent: false,
    metafile: true,
    legalComments: "linked",
    logLevel: "warning",
    plugins,
    // pino and prom-client are CommonJS: their require() of Node's own modules needs one in an ES module.
    banner: {
      js: 'import{createRequire as __createRequire}from"node:module";const require=__createRequire(import.meta.url);',
    },
  });
}

/** Keeps lazy imports of programs lazy, and points them at the bundles beside the one that has them. */
const siblings: Plugin = {
  name: "siblings",
  setup(build) {
    build.onResolve(
      { filter: /^\.\.\/(sidecar|webhook|publisher)\/main\.ts$|^\.\/command\/command\.ts$/ },
      ({ path, kind }) =>
        kind === "dynamic-import"
          ? { path: `./${path.split("/")[1] ?? ""}.mjs`, external: true }
          : undefined,
    );
  },
};

/**
 * What our libraries load and we never have them use, and would be a tenth of the sidecar: prom-client asks OpenTelemetry for the current span where
 * exemplars are enabled, and needs digests for summaries; pino needs a stream to a thread for transports. A test of the bundle would see them used.
 */
const unused: Plugin = {
  name: "unused",
  setup(build) {
    build.onResolve({ filter: /^(@opentelemetry\/api|tdigest|thread-stream)$/ }, ({ path }) => ({
      path,
      namespace: "unused",
    }));
    build.onLoad({ filter: /.*/, namespace: "unused" }, () => ({ contents: "" }));
  },
};

/** Names of the packages whose code is in a bundle. */
export function packagesIn({ inputs }: Metafile): readonly string[] {
  const names = Object.keys(inputs).flatMap((path) => {
    const inside = path.split("node_modules/").at(-1);
    if (inside === undefined || inside === path) return [];
    const [scope = "", name = ""] = inside.split("/");
    return [scope.startsWith("@") ? `${scope}/${name}` : scope];
  });
  return [...new Set(names)].toSorted();
}

function checkSidecar(metafile: Metafile, bytes: number): void {
  const found = packagesIn(metafile).filter((name) => FORBIDDEN_IN_SIDECAR.includes(name));
  if (found.length > 0)
    throw new Error(`the sidecar's bundle holds ${found.join(", ")}, which it must not load`);
  if (bytes > SIDECAR_BUDGET)
    throw new Error(
      `the sidecar's bundle has ${bytes} bytes and may have ${SIDECAR_BUDGET}; find what grew before raising it`,
    );
}

if (import.meta.main) {
  let layer = 0;
  for (const { program, path, bytes } of await bundle(
    resolve(process.argv[2] ?? join(ROOT, "dist")),
  )) {
    layer += gzipSync(await readFile(path)).length;
    process.stdout.write(`${program}.mjs ${Math.ceil(bytes / 1000)} kB\n`);
  }
  process.stdout.write(`compressed ${Math.ceil(layer / 1000)} kB\n`);
  if (layer > LAYER_BUDGET)
    throw new Error(`the image's own layer has ${layer} bytes and may have ${LAYER_BUDGET}`);
}
