/** Repositories of every shape, good and spoilt, for clients that are to agree about them. Nothing here is checked before it is signed. */
import { sha256, makeKey, signedBy } from "./world.ts";
import type { TestKey } from "./world.ts";

export const PATHS = ["top", "a/x", "a/c1", "b/y", "nowhere"] as const;

const TOP = ["root", "timestamp", "snapshot", "targets"] as const;
type Top = (typeof TOP)[number];
export const FILES = [...TOP, "a", "b", "c"] as const;
export type Name = (typeof FILES)[number];

/** What a repository is like. */
export interface Shape {
  readonly consistent: boolean;
  /** What parents say about files. */
  readonly info: "full" | "bare" | "length";
  readonly delegation: "paths" | "prefixes";
  readonly terminating: boolean;
  /** Signatures that each role needs; it has one key more. */
  readonly threshold: 1 | 2;
  readonly keys: "ed25519" | "ecdsa" | "rsa";
  /** Which role lists which of the paths. */
  readonly lists: Readonly<Record<"targets" | "a" | "b" | "c", readonly string[]>>;
}

/** One state of it after another. */
export interface Step {
  /** Roles whose keys a new root replaces; undefined without a new root. */
  readonly rotate: readonly Top[] | undefined;
  /** Roles that get a new version; their parents do, too. */
  readonly change: readonly Name[];
  readonly spoil: Spoiling | undefined;
}

export interface Spoiling {
  readonly file: Name;
  readonly how: Corruption;
}

export type Json = Record<string, unknown>;

/** What an attacker, an accident or another publisher can do to a file. */
export interface Corruption {
  readonly name: string;
  /** Before it is signed, by the keys of the role. */
  readonly signed?: (signed: Json) => Json;
  /** Afterwards. Undefined: the file is gone. */
  readonly bytes?: (bytes: Buffer, repository: Repository, file: Name) => Buffer | undefined;
  /** Which files it can be done to. */
  readonly only?: readonly Name[];
  /** Why this client may refuse what tuf-js takes. */
  readonly stricter?: string;
  /** Whether versions go back by it, its own or those of what comes after it. */
  readonly rollback?: true;
}

export interface Repository {
  /** What a web server has, below `metadata/` and `targets/`. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** The first root. */
  readonly initialRoot: Buffer;
  advance(step: Step): void;
}

const POOL = new Map<Shape["keys"], TestKey[]>();
function poolOf(type: Shape["keys"]): readonly TestKey[] {
  const known = POOL.get(type);
  if (known !== undefined) return known;
  // RSA keys take long to make.
  const keys = Array.from({ length: type === "rsa" ? 4 : 12 }, () => makeKey(type));
  POOL.set(type, keys);
  return keys;
}

export function openRepository(shape: Shape): Repository {
  const files = new Map<string, Buffer>();
  const pool = poolOf(shape.keys);
  const versions: Record<Name, number> = {
    root: 1,
    timestamp: 0,
    snapshot: 0,
    targets: 0,
    a: 0,
    b: 0,
    c: 0,
  };
  let next = 0;
  const fresh = (): readonly TestKey[] =>
    Array.from({ length: shape.threshold + 1 }, () => pool[next++ % pool.length] as TestKey);
  const keys = Object.fromEntries(FILES.map((name) => [name, fresh()])) as Record<
    Name,
    readonly TestKey[]
  >;
  const roleOf = (name: Name): object => ({
    keyids: [...new Set(keys[name].map((key) => key.id))],
    threshold: shape.threshold,
  });
  const tableOf = (...names: readonly Name[]): object =>
    Object.fromEntries(names.flatMap((name) => keys[name].map((key) => [key.id, key.json])));
  const common = { spec_version: "1.0.34", expires: "2099-01-01T00:00:00Z" };
  const signers = (name: Name): readonly TestKey[] => [
    ...new Map(keys[name].map((key) => [key.id, key])).values(),
  ];

  const rootOf = (): Json => ({
    _type: "root",
    ...common,
    version: versions.root,
    consistent_snapshot: shape.consistent,
    keys: tableOf(...TOP),
    roles: Object.fromEntries(TOP.map((name) => [name, roleOf(name)])),
  });
  const delegate = (name: "a" | "b" | "c", pattern: string, terminating: boolean): object => ({
    name,
    ...roleOf(name),
    terminating,
    ...(shape.delegation === "paths"
      ? { paths: [pattern] }
      : {
          path_hash_prefixes: PATHS.filter((path) => path.startsWith(pattern.replace("*", ""))).map(
            (path) => sha256(Buffer.from(path)).slice(0, 8),
          ),
        }),
  });
  const targetsOf = (name: "targets" | "a" | "b" | "c"): Json => ({
    _type: "targets",
    ...common,
    version: versions[name],
    targets: Object.fromEntries(
      shape.lists[name].map((path) => {
        const bytes = contentOf(name, path, versions[name]);
        return [path, { length: bytes.length, hashes: { sha256: sha256(bytes) } }];
      }),
    ),
    ...(name === "targets" && {
      delegations: {
        keys: tableOf("a", "b"),
        roles: [delegate("a", "a/*", shape.terminating), delegate("b", "b/*", false)],
      },
    }),
    ...(name === "a" && {
      delegations: { keys: tableOf("c"), roles: [delegate("c", "a/c*", false)] },
    }),
  });
  const infoOf = (name: Name, bytes: Buffer): object => ({
    version: versions[name],
    ...(shape.info !== "bare" && { length: bytes.length }),
    ...(shape.info === "full" && { hashes: { sha256: sha256(bytes) } }),
  });

  let repository: Repository;
  let spoil: Spoiling | undefined;
  /** Signs, spoils and serves a file; resolves to what its parent will say about it: what was meant to be served. */
  function put(name: Name, signed: Json, by: readonly TestKey[] = signers(name)): Buffer {
    const how = spoil?.file === name ? spoil.how : undefined;
    const bytes = signedBy(how?.signed?.(signed) ?? signed, ...by);
    const path = pathOf(name);
    const spoilt = how?.bytes === undefined ? bytes : how.bytes(bytes, repository, name);
    if (spoilt === undefined) files.delete(path);
    else files.set(path, spoilt);
    return bytes;
  }
  function pathOf(name: Name): string {
    const versioned = name === "root" || (shape.consistent && name !== "timestamp");
    return `metadata/${versioned ? `${versions[name]}.` : ""}${name}.json`;
  }

  const initialRoot = signedBy(rootOf(), ...signers("root"));
  files.set("metadata/1.root.json", initialRoot);
  repository = {
    files,
    initialRoot,
    advance(step) {
      ({ spoil } = step);
      if (step.rotate !== undefined) {
        const before = signers("root");
        versions.root += 1;
        for (const name of step.rotate) keys[name] = fresh();
        const both = new Map([...before, ...signers("root")].map((key) => [key.id, key]));
        put("root", rootOf(), [...both.values()]);
      }
      const rotated = new Set<Name>(step.rotate);
      const first = versions.timestamp === 0;
      const changed = new Set<Name>(first ? FILES : [...step.change, ...rotated]);
      if (["a", "b", "c", "targets"].some((name) => changed.has(name as Name)))
        changed.add("snapshot");
      if (changed.has("snapshot")) changed.add("timestamp");
      if (spoil !== undefined) for (const name of parentsOf(spoil.file)) changed.add(name);
      for (const name of changed) if (name !== "root") versions[name] += 1;

      const meta = new Map<string, object>(known);
      for (const name of ["c", "b", "a", "targets"] as const) {
        if (!changed.has(name)) continue;
        const bytes = put(name, targetsOf(name));
        meta.set(`${name}.json`, infoOf(name, bytes));
        for (const path of shape.lists[name]) {
          const content = contentOf(name, path, versions[name]);
          const slash = path.lastIndexOf("/") + 1;
          const served = shape.consistent
            ? `${path.slice(0, slash)}${sha256(content)}.${path.slice(slash)}`
            : path;
          files.set(`targets/${served}`, content);
        }
      }
      known = meta;
      if (changed.has("snapshot")) {
        const signed = { _type: "snapshot", ...common, version: versions.snapshot };
        snapshot = put("snapshot", { ...signed, meta: Object.fromEntries(meta) });
      }
      if (changed.has("timestamp")) {
        const listed = { "snapshot.json": infoOf("snapshot", snapshot) };
        const signed = { _type: "timestamp", ...common, version: versions.timestamp };
        put("timestamp", { ...signed, meta: listed });
      }
      spoil = undefined;
    },
  };
  let known: ReadonlyMap<string, object> = new Map();
  let snapshot: Buffer = Buffer.alloc(0);
  return repository;
}

/** A spoilt file is a new one, and so its parents are. */
function parentsOf(file: Name): readonly Name[] {
  if (file === "root") return [];
  if (file === "timestamp") return ["timestamp"];
  return file === "snapshot" ? ["snapshot", "timestamp"] : [file, "snapshot", "timestamp"];
}

/** Without consistent snapshots a path has one content only, whoever lists it. */
function contentOf(name: string, path: string, version: number): Buffer {
  return Buffer.from(`${path} by ${name} in ${version}\n`);
}
