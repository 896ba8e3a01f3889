/**
 * `npm run build [-- <folder>]`: one file for each program, as the image holds them, into `dist/` unless told otherwise. What a sidecar and
 * the publisher's commands import dynamically are files of their own, `sidecar-*.mjs`, so that what few pods use costs the others nothing. What a sidecar must
 * not load, and how large it may become, is checked here, so that the price of a dependency is seen when it comes.
 */
import { readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import type { BuildResult, Metafile, Plugin } from "esbuild";
import { sbom } from "./sbom.ts";
import { checkKernel } from "./wat.ts";

const ROOT = resolve(import.meta.dirname, "..");

/** The dispatcher loads the others by these names, from its own folder. */
const PROGRAMS = {
  edgesync: "bin/edgesync.ts",
  sidecar: "sidecar/main.ts",
  webhook: "webhook/main.ts",
  publisher: "publisher/main.ts",
  // A thread of the publisher, which starts it by this name.
  "match-worker": "publisher/match-worker.ts",
} as const;
type Program = keyof typeof PROGRAMS;

/** On thousands of small machines: an admission library in a sidecar costs each of them tens of megabytes. */
const FORBIDDEN_IN_SIDECAR = ["express", "@kubernetes/client-node", "node-forge", "yaml"];

/** Of use to few pods: in files that are loaded on demand. */
const FORBIDDEN_AT_START = ["pkijs", "asn1js", "jose"];

/** Bytes, minified: what windows, hooks, leases, shared claims, several payloads and the mending of what a disk lost need. Raise it with a reason. */
const SIDECAR_BUDGET = 450_000;

/** Bytes, compressed: what a site fetches of the image when edgesync alone has changed. */
const LAYER_BUDGET = 1_500_000;

export interface Bundle {
  readonly path: string;
  readonly bytes: number;
}

/** @throws Error when a bundle holds what it must not, or is too large */
export async function bundle(folder: string): Promise<readonly Bundle[]> {
  await checkKernel();
  const paths: string[] = [];
  const packages = new Set<string>();
  for (const file of await readdir(folder).catch(() => []))
    if (PART.test(file)) await rm(join(folder, file));
  for (const program of programs()) {
    const path = join(folder, `${program}.mjs`);
    const { metafile } =
      program === "sidecar" || program === "publisher"
        ? await bundleInParts(PROGRAMS[program], path)
        : await bundleOne(PROGRAMS[program], path, [siblings, unused]);
    if (program === "sidecar") checkSidecar(metafile);
    for (const name of packagesIn(Object.keys(metafile.inputs))) packages.add(name);
    const files = Object.keys(metafile.outputs).filter((file) => file.endsWith(".mjs"));
    paths.push(...files.map((file) => join(folder, basename(file))));
  }
  await writeFile(join(folder, "sbom.cdx.json"), await sbom(ROOT, [...packages]));
  return Promise.all(paths.map(async (path) => ({ path, bytes: (await stat(path)).size })));
}

function programs(): readonly Program[] {
  return Object.keys(PROGRAMS) as Program[];
}

/** Of an earlier build: their names hold a hash of their contents. */
const PART = /^(sidecar|publisher)-.*\.mjs(\.map|\.LEGAL\.txt)?$/;

/** One program with everything that it imports, in one file. */
export function bundleOne(
  entry: string,
  outfile: string,
  plugins: Plugin[] = [],
): Promise<Bundled> {
  return build({ ...OPTIONS, entryPoints: [entry], outfile, plugins });
}

type Bundled = BuildResult<{ metafile: true }>;

/** One program, and beside it a file for each of its dynamic imports and for what these share with it: no class exists twice. */
function bundleInParts(entry: string, outfile: string): Promise<Bundled> {
  const name = basename(outfile, ".mjs");
  return build({
    ...OPTIONS,
    entryPoints: [{ in: entry, out: name }],
    outdir: resolve(outfile, ".."),
    outExtension: { ".js": ".mjs" },
    chunkNames: `${name}-[name]-[hash]`,
    splitting: true,
    plugins: [unused],
  });
}

const OPTIONS = {
  absWorkingDir: ROOT,
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
  // pino and prom-client are CommonJS: their require() of Node's own modules needs one in an ES module.
  banner: {
    js: 'import{createRequire as __createRequire}from"node:module";const require=__createRequire(import.meta.url);',
  },
} as const;

/** Keeps lazy imports of programs lazy, and points them at the bundles beside the one that has them. */
const siblings: Plugin = {
  name: "siblings",
  setup(build) {
    build.onResolve(
      { filter: /^\.\.\/(sidecar|webhook|publisher)\/main\.ts$/ },
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

/** Names of the packages that hold these files. */
function packagesIn(inputs: readonly string[]): readonly string[] {
  const names = inputs.flatMap((path) => {
    const inside = path.split("node_modules/").at(-1);
    if (inside === undefined || inside === path) return [];
    const [scope = "", name = ""] = inside.split("/");
    return [scope.startsWith("@") ? `${scope}/${name}` : scope];
  });
  return [...new Set(names)].toSorted();
}

function checkSidecar({ inputs, outputs }: Metafile): void {
  const found = packagesIn(Object.keys(inputs)).filter((name) =>
    FORBIDDEN_IN_SIDECAR.includes(name),
  );
  if (found.length > 0)
    throw new Error(`the sidecar's bundle holds ${found.join(", ")}, which it must not load`);
  const loaded = [...atStart(outputs)];
  const early = packagesIn(
    loaded.flatMap((file) => Object.keys(outputs[file]?.inputs ?? {})),
  ).filter((name) => FORBIDDEN_AT_START.includes(name));
  if (early.length > 0)
    throw new Error(`every sidecar would load ${early.join(", ")}; import it where it is needed`);
  const bytes = loaded.reduce((sum, file) => sum + (outputs[file]?.bytes ?? 0), 0);
  if (bytes > SIDECAR_BUDGET)
    throw new Error(
      `a sidecar loads ${bytes} bytes at its start and may load ${SIDECAR_BUDGET}; find what grew before raising it`,
    );
}

/** The program's own file, and those that it imports other than on demand. */
function atStart(outputs: Metafile["outputs"]): ReadonlySet<string> {
  const files = new Set(Object.keys(outputs).filter((file) => basename(file) === "sidecar.mjs"));
  for (const file of files)
    for (const { path, kind, external } of outputs[file]?.imports ?? [])
      if (kind === "import-statement" && external !== true) files.add(path);
  return files;
}

if (import.meta.main) {
  // Nothing but a folder: an option is no name of one.
  const [folder = join(ROOT, "dist")] = parseArgs({ allowPositionals: true }).positionals;
  let layer = 0;
  for (const { path, bytes } of await bundle(resolve(folder))) {
    layer += gzipSync(await readFile(path)).length;
    process.stdout.write(`${basename(path)} ${Math.ceil(bytes / 1000)} kB\n`);
  }
  process.stdout.write(`compressed ${Math.ceil(layer / 1000)} kB\n`);
  if (layer > LAYER_BUDGET)
    throw new Error(`the image's own layer has ${layer} bytes and may have ${LAYER_BUDGET}`);
}
