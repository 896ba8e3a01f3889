/** What is in the bundles, as a CycloneDX 1.6 document: the same bytes for the same sources, so it has no date and no serial number. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface Component {
  readonly name: string;
  readonly version: string;
  /** SPDX expression, as the package states it. */
  readonly license: string;
}

/** @param names of packages in `node_modules` of `root` */
export async function sbom(root: string, names: readonly string[]): Promise<string> {
  const own = await describe(join(root, "package.json"));
  const libraries = await Promise.all(
    names.toSorted().map((name) => describe(join(root, "node_modules", name, "package.json"))),
  );
  const document = {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: { component: { type: "application", name: own.name, version: own.version } },
    components: libraries.map(({ name, version, license }) => ({
      type: "library",
      name,
      version,
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      licenses: [{ expression: license }],
    })),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

async function describe(path: string): Promise<Component> {
  const { name, version, license } = JSON.parse(await readFile(path, "utf8")) as Partial<Component>;
  if (name === undefined || version === undefined)
    throw new Error(`${path} has no name or version`);
  return { name, version, license: license ?? "NOASSERTION" };
}
