/**
 * A strict check of Kubernetes objects: unknown fields, wrong types and missing required fields. The schema is that of the API
 * client's generated models: field names and types from their attribute maps, what is required from their declarations (a property
 * without `?`). They say nothing of allowed words and ranges, so neither does this.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import * as models from "@kubernetes/client-node/dist/gen/models/all.js";

interface Field {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
}

const folder = join(
  dirname(createRequire(import.meta.url).resolve("@kubernetes/client-node")),
  "gen/models",
);

interface Model {
  getAttributeTypeMap(): readonly {
    readonly name: string;
    readonly baseName: string;
    readonly type: string;
  }[];
}

function isModel(value: unknown): value is Model {
  return typeof value === "function" && "getAttributeTypeMap" in value;
}

const known = new Map<string, readonly Field[]>();

function fieldsOf(type: string): readonly Field[] | undefined {
  const found = known.get(type);
  if (found !== undefined) return found;
  const model = Object.entries(models).find(([name]) => name === type)?.[1];
  if (!isModel(model)) return undefined;
  const declaration = readFileSync(join(folder, `${type}.d.ts`), "utf8");
  const required = new Set(
    [...declaration.matchAll(/^\s+'(\w+)':/gm)].map(([, property]) => property),
  );
  const fields = model.getAttributeTypeMap().map(({ name, baseName, type }) => ({
    name: baseName,
    type,
    required: required.has(name),
  }));
  known.set(type, fields);
  return fields;
}

/** A sentence for each thing that is wrong with an object that has an apiVersion and a kind. */
export function schemaProblems(object: unknown): readonly string[] {
  if (!isRecord(object)) return ["not an object"];
  const { apiVersion, kind } = object;
  const version = String(apiVersion).split("/").at(-1) ?? "";
  const type = `${version[0]?.toUpperCase()}${version.slice(1)}${String(kind)}`;
  if (fieldsOf(type) === undefined) return [`${String(apiVersion)} ${String(kind)} is not known`];
  const problems: string[] = [];
  checkValue(String(kind), object, type, problems);
  return problems;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkValue(path: string, value: unknown, type: string, problems: string[]): void {
  const item = /^Array<(.+)>$/.exec(type)?.[1];
  const entry = /^\{ \[key: string\]: (.+); \}$/.exec(type)?.[1];
  if (item !== undefined) {
    if (!Array.isArray(value)) problems.push(`${path} is not a list`);
    else value.forEach((one, index) => checkValue(`${path}[${index}]`, one, item, problems));
  } else if (entry !== undefined) {
    if (!isRecord(value)) problems.push(`${path} is not a map`);
    else
      for (const [key, one] of Object.entries(value))
        checkValue(`${path}.${key}`, one, entry, problems);
  } else if (!isScalar(type)) checkFields(path, value, type, problems);
  else if (!fitsScalar(value, type)) problems.push(`${path} is not of type ${type}`);
}

const SCALARS: Readonly<Record<string, readonly string[]>> = {
  string: ["string"],
  number: ["number"],
  boolean: ["boolean"],
  Date: ["string"],
  IntOrString: ["number", "string"],
};

function isScalar(type: string): boolean {
  return type === "any" || type in SCALARS;
}

function fitsScalar(value: unknown, type: string): boolean {
  return type === "any" || (SCALARS[type] ?? []).includes(typeof value);
}

function checkFields(path: string, value: unknown, type: string, problems: string[]): void {
  const fields = fieldsOf(type);
  if (fields === undefined) problems.push(`${path} has the unknown type ${type}`);
  else if (!isRecord(value)) problems.push(`${path} is not an object`);
  else {
    for (const { name, required } of fields)
      if (required && value[name] === undefined) problems.push(`${path}.${name} is missing`);
    for (const [key, one] of Object.entries(value)) {
      const field = fields.find(({ name }) => name === key);
      if (field === undefined) problems.push(`${path}.${key} is not known`);
      else checkValue(`${path}.${key}`, one, field.type, problems);
    }
  }
}
