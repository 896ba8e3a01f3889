/**
 * Three releases of a real program: two consecutive ones of esbuild, as its makers published them for this platform, run as a
 * web server; and a third that is broken on purpose: its health page is gone.
 */
import { cp, mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { arch } from "node:process";
import { dirname, join } from "node:path";

export interface DemoRelease {
  readonly version: string;
  readonly folder: string;
}

const require = createRequire(import.meta.url);

/** The folder of one of esbuild's platform packages, which the lock file brings in under an alias. */
function packageOf(which: "old" | "new"): { readonly folder: string; readonly version: string } {
  const manifest = `demo-esbuild-${which}-${arch}/package.json`;
  const { version } = require(manifest) as { version: string };
  return { folder: dirname(require.resolve(manifest)), version };
}

async function makeTree(
  folder: string,
  from: string,
  version: string,
  healthy: boolean,
): Promise<void> {
  const web = join(folder, "www");
  await mkdir(join(folder, "bin"), { recursive: true });
  await mkdir(web, { recursive: true });
  await cp(join(from, "bin", "esbuild"), join(folder, "bin", "esbuild"));
  await writeFile(join(web, "index.html"), `<!doctype html><title>esbuild ${version}</title>\n`);
  await writeFile(join(web, "version.txt"), `${version}\n`);
  if (healthy) await writeFile(join(web, "healthz.html"), "ok\n");
}

/** Makes the folders of the three releases below `parent`, oldest first. */
export async function makeReleases(
  parent: string,
): Promise<readonly [DemoRelease, DemoRelease, DemoRelease]> {
  const old = packageOf("old");
  const next = packageOf("new");
  const release = async (version: string, from: string, healthy: boolean): Promise<DemoRelease> => {
    const folder = join(parent, version);
    await makeTree(folder, from, version, healthy);
    return { version, folder };
  };
  return [
    await release(old.version, old.folder, true),
    await release(next.version, next.folder, true),
    await release(`${next.version}-broken`, next.folder, false),
  ];
}
