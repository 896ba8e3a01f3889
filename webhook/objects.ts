/** Kubernetes objects in files: the pods in them, wherever they are, and the same text with some of them changed. */
import { isSeq, parseAllDocuments, visit } from "yaml";
import type { Document, ParsedNode, Tags } from "yaml";
import { EdgeSyncError } from "#core/errors.ts";
import { podProblem } from "#core/inject/pod.ts";
import type { Pod } from "#core/inject/pod.ts";
import { diff } from "#core/json-patch.ts";
import { isObject } from "#core/json.ts";

type Path = readonly (string | number)[];
type Json = Readonly<Record<string, unknown>>;

/** A pod, or the template of pods, in an object. */
export interface PodPlace {
  readonly kind: string;
  /** Of the object; its generateName where it has no name. */
  readonly name: string;
  /** Undefined where the object states none. */
  readonly namespace: string | undefined;
  /** Only metadata and spec. */
  readonly pod: Pod;
  /** Annotations of the object around it, which are not its pods'. */
  readonly outer: Readonly<Record<string, unknown>>;
  readonly document: number;
  /** Where the pod's metadata and spec are in the document. */
  readonly path: Path;
}

export interface Objects {
  /** Each document's value. */
  readonly values: readonly unknown[];
  readonly pods: readonly PodPlace[];
  /** The text with other pods in the places of some; documents without a change stay as they were written. */
  withPods(changed: ReadonlyMap<PodPlace, Pod>): string;
}

/**
 * As kubectl reads YAML: by version 1.1, where `yes` is true and 0644 is octal, but for its times, which are texts. What is written must
 * be quoted by the same rules.
 */
const READING = {
  version: "1.1",
  customTags: (tags: Tags): Tags =>
    tags.filter(
      (tag) =>
        typeof tag === "string" ||
        (!/:(timestamp|binary)$/.test(tag.tag) && !("format" in tag && tag.format === "TIME")),
    ),
} as const;

/** @throws EdgeSyncError OBJECT_INVALID, naming the file with the line or the field */
export function readObjects(text: string, file: string): Objects {
  const documents = parseAllDocuments(text, READING);
  if (!Array.isArray(documents)) return { values: [], pods: [], withPods: () => text };
  for (const { errors } of documents)
    for (const { message, linePos } of errors)
      throw new EdgeSyncError(
        "OBJECT_INVALID",
        `${file}${linePos === undefined ? "" : `, line ${linePos[0].line}`}: ${message.split("\n", 1)[0] ?? ""}`,
      );
  const values = documents.map((document): unknown => valueOf(document, file));
  const pods = values.flatMap((value, index) => podsIn(value, index, [], file));
  return {
    values,
    pods,
    withPods(changed) {
      let from = 0;
      return documents
        .map((document, index) => {
          // What is behind the last document is nobody else's.
          const to = index === documents.length - 1 ? text.length : document.range[2];
          const source = text.slice(from, to);
          from = to;
          const mine = [...changed].filter(([place]) => place.document === index);
          return mine.length === 0 ? source : rewritten(document, source, mine);
        })
        .join("");
    },
  };
}

function valueOf(document: Document, file: string): unknown {
  try {
    return document.toJS();
  } catch (cause) {
    // More aliases than an honest file has.
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new EdgeSyncError("OBJECT_INVALID", `${file}: ${message}`, { cause });
  }
}

/** By shape and not by kind, so that kinds of others with a template of pods are known too. */
const TEMPLATES: readonly Path[] = [
  ["spec", "jobTemplate", "spec", "template"],
  ["spec", "template"],
  ["template"],
];

function podsIn(value: unknown, document: number, at: Path, file: string): readonly PodPlace[] {
  if (value === null || value === undefined) return [];
  if (!isObject(value) || typeof value["kind"] !== "string")
    throw new EdgeSyncError(
      "OBJECT_INVALID",
      `${file}: ${at.length === 0 ? `document ${document + 1}` : at.join(".")} is no Kubernetes object; expected apiVersion and kind`,
    );
  const { kind } = value;
  if (kind.endsWith("List") && Array.isArray(value["items"]))
    return value["items"].flatMap((item: unknown, index) =>
      podsIn(item, document, [...at, "items", index], file),
    );
  const inner =
    kind === "Pod"
      ? []
      : TEMPLATES.find((path) => Array.isArray(get(value, [...path, "spec", "containers"])));
  if (inner === undefined) return [];
  const { metadata, spec } = objectAt(value, inner);
  const pod: unknown = {
    ...(metadata === undefined ? {} : { metadata }),
    ...(spec === undefined ? {} : { spec }),
  };
  const meta = objectAt(value, ["metadata"]);
  const name = [meta["name"], meta["generateName"]].find((one) => typeof one === "string");
  const problem = podProblem(pod);
  if (problem !== undefined)
    throw new EdgeSyncError(
      "OBJECT_INVALID",
      `${file}: ${kind} ${name ?? "without a name"} is not valid at ${[...inner, problem].join(".")}`,
    );
  return [
    {
      kind,
      name: name ?? "",
      namespace: typeof meta["namespace"] === "string" ? meta["namespace"] : undefined,
      // podProblem has just said that it is one.
      pod: pod as Pod,
      outer: kind === "Pod" ? {} : objectAt(meta, ["annotations"]),
      document,
      path: [...at, ...inner],
    },
  ];
}

function get(value: unknown, path: Path): unknown {
  let found = value;
  for (const key of path)
    found = isObject(found) && Object.hasOwn(found, key) ? found[key] : undefined;
  return found;
}

function objectAt(value: unknown, path: Path): Json {
  const found = get(value, path);
  return isObject(found) ? found : {};
}

function rewritten(
  document: Document.Parsed,
  source: string,
  changed: readonly (readonly [PodPlace, Pod])[],
): string {
  if (hasAliases(document))
    document.contents = document.createNode(document.toJS(), UNSHARED) as ParsedNode;
  for (const [place, pod] of changed) apply(document, place, pod);
  // As the text was written: lists of Kubernetes are mostly not indented below their key.
  const indentSeq = !/^( *)[^\s#-][^\n]*:[ \t]*\n\1- /m.test(source);
  const text = document.toString({ lineWidth: 0, indentSeq, directives: false });
  return `${/^---/m.test(source) && !text.startsWith("---") ? "---\n" : ""}${text}`;
}

/** What is the same object in memory is not to be one in the text. */
const UNSHARED = { aliasDuplicateObjects: false };

/** The difference alone is written, so that comments and the order of what stays are kept. */
function apply(document: Document.Parsed, { path, pod }: PodPlace, wanted: Pod): void {
  for (const { op, path: text, ...operation } of diff(pod, wanted)) {
    const pointer = text
      .split("/")
      .slice(1)
      .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"));
    const parent = document.getIn([...path, ...pointer.slice(0, -1)], true);
    const nodes = "value" in operation ? [document.createNode(operation.value, UNSHARED)] : [];
    if (isSeq(parent)) parent.items.splice(Number(pointer.at(-1)), op === "add" ? 0 : 1, ...nodes);
    else if (nodes.length === 0) document.deleteIn([...path, ...pointer]);
    else document.setIn([...path, ...pointer], nodes[0]);
  }
}

/** Aliases share a node, and merged keys are in none: a change of one place would be one of others, or of nothing. */
function hasAliases(document: Document.Parsed): boolean {
  let found = false;
  visit(document, {
    Alias() {
      found = true;
      return visit.BREAK;
    },
  });
  return found;
}
