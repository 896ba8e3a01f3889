/**
 * As much of kustomize as the manifests here use: resources, components, a namespace, JSON patches by kind and name, deletions, and ConfigMaps made from
 * files. Where kubectl is on the machine, a test compares the two.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import patches from "fast-json-patch";
import { parse, parseAllDocuments } from "yaml";

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

interface Kustomization {
  readonly resources?: readonly string[];
  readonly components?: readonly string[];
  readonly namespace?: string;
  readonly patches?: readonly {
    readonly target?: { readonly kind: string; readonly name: string };
    readonly patch: string;
  }[];
  readonly configMapGenerator?: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly files: readonly string[];
    readonly options: { readonly labels: Readonly<Record<string, string>> };
  }[];
}

const KNOWN = [
  "apiVersion",
  "kind",
  "resources",
  "components",
  "namespace",
  "patches",
  "configMapGenerator",
];

/** @throws Error for whatever it does not know */
export async function build(folder: string): Promise<readonly Manifest[]> {
  return await apply(folder, []);
}

async function apply(folder: string, given: readonly Manifest[]): Promise<readonly Manifest[]> {
  const file = join(folder, "kustomization.yaml");
  const kustomization = parse(await readFile(file, "utf8")) as Kustomization;
  const unknown = Object.keys(kustomization).filter((key) => !KNOWN.includes(key));
  if (unknown.length > 0) throw new Error(`${file}: ${unknown.join(", ")} is not known`);
  let manifests = [...given];
  for (const resource of kustomization.resources ?? []) {
    const path = resolve(folder, resource);
    const found = (await stat(path)).isDirectory() ? await build(path) : await read(path);
    manifests.push(...found);
  }
  for (const { name, namespace, files, options } of kustomization.configMapGenerator ?? []) {
    const data: Record<string, string> = {};
    for (const one of files) data[basename(one)] = await readFile(join(folder, one), "utf8");
    const metadata = { name, namespace, labels: options.labels };
    manifests.push({ apiVersion: "v1", kind: "ConfigMap", metadata, data });
  }
  for (const component of kustomization.components ?? [])
    manifests = [...(await apply(resolve(folder, component), manifests))];
  for (const { target, patch } of kustomization.patches ?? []) {
    const parsed: unknown = parse(patch);
    const wanted = target ?? targetOf(parsed as Manifest);
    const index = manifests.findIndex(
      ({ kind, metadata }) => kind === wanted.kind && metadata.name === wanted.name,
    );
    const found = manifests[index];
    if (found === undefined) throw new Error(`${file}: there is no ${wanted.kind} ${wanted.name}`);
    if (Array.isArray(parsed)) {
      const operations = parsed as patches.Operation[];
      manifests[index] = patches.applyPatch(structuredClone(found), operations, true).newDocument;
    } else manifests.splice(index, 1);
  }
  return manifests;
}

function targetOf(patch: Manifest): { readonly kind: string; readonly name: string } {
  if (patch["$patch"] !== "delete") throw new Error("a merge patch other than a deletion");
  return { kind: patch.kind, name: patch.metadata.name };
}

/** The objects of one file. */
export async function read(path: string): Promise<readonly Manifest[]> {
  const documents = parseAllDocuments(await readFile(path, "utf8"), {
    strict: true,
    uniqueKeys: true,
  });
  if ("empty" in documents) return [];
  return documents.map((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw new Error(`${path} is not YAML`, { cause: error });
    return document.toJS() as Manifest;
  });
}
