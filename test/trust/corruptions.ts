/** What can be wrong with a file of metadata, one thing at a time. */
import { makeKey, signedBy } from "./world.ts";
import type { Corruption, Json, Name } from "./generated.ts";

const PARENTS: readonly Name[] = ["root", "targets", "a"];
const LISTS: readonly Name[] = ["targets", "a", "b", "c"];

const set = (field: string, value: unknown) => (signed: Json) => ({ ...signed, [field]: value });
const drop = (field: string) => (signed: Json) => {
  const { [field]: _, ...rest } = signed;
  return rest;
};

/** Changes what is at a path; a missing part of it leaves all as it is. */
function at(path: readonly string[], change: (value: unknown) => unknown): (signed: Json) => Json {
  const [head = "", ...rest] = path;
  return (signed) => {
    const value = signed[head];
    if (value === undefined) return signed;
    if (rest.length === 0) return { ...signed, [head]: change(value) };
    if (Array.isArray(value)) {
      const [first, ...others] = value as Json[];
      return { ...signed, [head]: [at(rest, change)(first ?? {}), ...others] };
    }
    return { ...signed, [head]: at(rest, change)(value as Json) };
  };
}

const edit = (change: (json: Json) => Json) => (bytes: Buffer) =>
  Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString()))));
const signaturesOf = (json: Json): Json[] => json["signatures"] as Json[];
const other = makeKey();

const NO_CANONICAL_FORM =
  "a number that a double cannot hold, or half of a surrogate pair: two files would have one signature";
const NOT_A_VERSION = "versions are whole numbers from 1 to 2^53-1, and so are thresholds";
const NOT_A_TIME = "a time is in ISO 8601 with its zone, so that every client reads the same one";
const NOT_ONE_WAY = "exactly one way of delegating, as the specification says";
const NOT_AS_LISTED = "also a stored snapshot must have the hashes that the timestamp lists";

export const CORRUPTIONS: readonly Corruption[] = [
  // What is meant well.
  { name: "nothing", signed: (signed) => signed },
  { name: "an unknown field", signed: set("x-other", { deep: [1, { er: null }] }) },
  { name: "an unknown field of any text", signed: set('x-"\\ö\u{1f600}\n', '"\\ö\u{1f600}\n') },
  { name: "a lower minor version of the specification", signed: set("spec_version", "1.0.0") },
  { name: "a specification of two numbers", signed: set("spec_version", "1.0") },
  { name: "fractions of a second in the expiry", signed: set("expires", "2099-01-01T00:00:00.5Z") },
  {
    name: "a signature of an unknown key beside the others",
    bytes: edit((json) => ({
      ...json,
      signatures: [...signaturesOf(json), { keyid: other.id, sig: "00" }],
    })),
  },
  { name: "blanks", bytes: edit((json) => json) },
  { name: "a blank at the end", bytes: (bytes) => Buffer.concat([bytes, Buffer.from(" ")]) },
  { name: "fields in another order", bytes: edit((json) => reversed(json) as Json) },
  {
    name: "signatures in capital letters",
    bytes: edit((json) => ({
      ...json,
      signatures: signaturesOf(json).map((item) => ({
        ...item,
        sig: String(item["sig"]).toUpperCase(),
      })),
    })),
  },

  // What it says of itself.
  { name: "another type", signed: set("_type", "mirrors") },
  { name: "no type", signed: drop("_type") },
  { name: "another major version of the specification", signed: set("spec_version", "2.0.0") },
  { name: "no specification", signed: drop("spec_version") },
  { name: "a specification of one number", signed: set("spec_version", "1") },
  {
    name: "a specification that is no number",
    signed: set("spec_version", "1.0."),
    stricter: "numbers of the specification's version are decimal digits",
  },
  { name: "an expiry in the past", signed: set("expires", "2020-01-01T00:00:00Z") },
  { name: "no expiry", signed: drop("expires") },
  { name: "an expiry that is no time", signed: set("expires", "next week") },
  { name: "an expiry without a zone", signed: set("expires", "2099-01-01"), stricter: NOT_A_TIME },
  { name: "no version", signed: drop("version") },
  { name: "a version in words", signed: set("version", "1") },
  ...[0, -1, 2 ** 53].map((version) => ({
    name: `the version ${version}`,
    signed: set("version", version),
    stricter: NOT_A_VERSION,
  })),
  {
    name: "a later version than it should have",
    rollback: true,
    signed: at(["version"], (v) => Number(v) + 1),
  },
  {
    name: "an earlier version",
    rollback: true,
    signed: at(["version"], (v) => Math.max(1, Number(v) - 1)),
  },
  { name: "a huge number", signed: set("x-other", 2 ** 60), stricter: NO_CANONICAL_FORM },
  { name: "half a surrogate pair", signed: set("x-other", "\ud800"), stricter: NO_CANONICAL_FORM },

  // What it says of others.
  { name: "no table", only: ["timestamp", "snapshot"], signed: drop("meta") },
  { name: "a table that is a list", only: ["snapshot"], signed: set("meta", []) },
  {
    name: "a role that vanishes",
    rollback: true,
    only: ["snapshot"],
    signed: at(["meta"], (meta) => drop("c.json")(meta as Json)),
  },
  ...["targets.json", "a.json"].flatMap((file): Corruption[] => [
    {
      name: `an earlier version of ${file}`,
      rollback: true,
      only: ["snapshot"],
      signed: at(["meta", file, "version"], (v) => Math.max(1, Number(v) - 1)),
    },
    {
      name: `a later version of ${file}`,
      rollback: true,
      only: ["snapshot"],
      signed: at(["meta", file, "version"], (v) => Number(v) + 1),
    },
    {
      name: `a shorter length of ${file}`,
      only: ["snapshot"],
      signed: at(["meta", file, "length"], (v) => Number(v) - 1),
    },
    {
      name: `a longer length of ${file}`,
      only: ["snapshot"],
      signed: at(["meta", file, "length"], (v) => Number(v) + 1),
    },
    {
      name: `another hash of ${file}`,
      only: ["snapshot"],
      signed: at(["meta", file, "hashes", "sha256"], () => "ab".repeat(32)),
    },
  ]),
  {
    name: "an earlier version of the snapshot",
    rollback: true,
    only: ["timestamp"],
    signed: at(["meta", "snapshot.json", "version"], (v) => Math.max(1, Number(v) - 1)),
    stricter: NOT_AS_LISTED,
  },
  {
    name: "no snapshot",
    only: ["timestamp"],
    signed: at(["meta"], () => ({})),
  },
  {
    name: "a second file in the table",
    only: ["timestamp"],
    signed: at(["meta"], (meta) => ({ ...(meta as Json), "other.json": { version: 1 } })),
  },
  { name: "no keys", only: ["root"], signed: drop("keys") },
  { name: "an empty table of keys", only: PARENTS, signed: clearKeys },
  { name: "no roles", only: ["root"], signed: drop("roles") },
  {
    name: "no role for the timestamp",
    only: ["root"],
    signed: at(["roles"], (roles) => drop("timestamp")(roles as Json)),
  },
  { name: "a threshold of nothing", only: PARENTS, signed: threshold(0) },
  { name: "a threshold in words", only: PARENTS, signed: threshold("1") },
  { name: "a threshold that nobody reaches", only: PARENTS, signed: threshold(9) },
  {
    name: "a key id that is listed twice",
    only: PARENTS,
    signed: roles((role) => {
      const [first] = role["keyids"] as string[];
      return { ...role, keyids: [first, first] };
    }),
  },
  {
    name: "a key of an unknown kind",
    only: PARENTS,
    signed: tables((key) => ({ ...key, keytype: "crayon", scheme: "crayon" })),
  },
  {
    name: "a key that cannot be read",
    only: PARENTS,
    signed: tables((key) => ({ ...key, keyval: { public: "zz" } })),
  },
  {
    name: "a key without a value",
    only: PARENTS,
    signed: tables((key) => ({ ...key, keyval: {} })),
  },
  { name: "no list of targets", only: LISTS, signed: drop("targets") },
  { name: "a list of targets that is null", only: LISTS, signed: set("targets", null) },
  {
    name: "a target without a length",
    only: LISTS,
    signed: set("targets", { "a/x": { hashes: { sha256: "ab" } } }),
  },
  {
    name: "a target without hashes",
    only: LISTS,
    signed: set("targets", { "a/x": { length: 1 } }),
  },
  {
    name: "a target of less than no length",
    only: LISTS,
    signed: set("targets", { "a/x": { length: -1, hashes: { sha256: "ab" } } }),
  },
  {
    name: "a target of another content",
    only: LISTS,
    signed: set("targets", { "a/x": { length: 10, hashes: { sha256: "ab".repeat(32) } } }),
  },
  {
    name: "targets with names that objects have",
    only: LISTS,
    signed: set("targets", JSON.parse('{"__proto__":{"length":1,"hashes":{"sha256":"ab"}}}')),
  },
  {
    name: "delegations without keys",
    only: ["targets", "a"],
    signed: at(["delegations"], () => ({ roles: [] })),
  },
  {
    name: "no way of delegating",
    only: ["targets", "a"],
    signed: roles((role) => drop("path_hash_prefixes")(drop("paths")(role))),
    stricter: NOT_ONE_WAY,
  },
  {
    name: "two ways of delegating",
    only: ["targets", "a"],
    signed: roles((role) => ({ ...role, paths: ["*"], path_hash_prefixes: ["00"] })),
  },
  {
    name: "a role that is delegated to twice",
    only: ["targets", "a"],
    signed: at(["delegations", "roles"], (list) => [...(list as Json[]), (list as Json[])[0]]),
  },
  ...["targets", "root", 7].map((name) => ({
    name: `a delegation to ${JSON.stringify(name)}`,
    only: ["targets", "a"] as const,
    signed: roles((role) => ({ ...role, name })),
  })),
  {
    name: "a delegation to a role without a name",
    only: ["targets", "a"],
    signed: roles((role) => ({ ...role, name: "" })),
    stricter: "a role has a name",
  },
  {
    name: "a delegation that does not say whether it ends the search",
    only: ["targets", "a"],
    signed: roles((role) => drop("terminating")(role)),
  },
  {
    name: "a delegation to itself",
    only: ["a"],
    signed: roles((role) => ({ ...role, name: "a", paths: ["a/*"] })),
  },

  // What happens to the file.
  { name: "is gone", bytes: () => undefined },
  { name: "is empty", bytes: () => Buffer.alloc(0) },
  { name: "is cut", bytes: (bytes) => bytes.subarray(0, bytes.length / 2) },
  { name: "is not JSON", bytes: () => Buffer.from("<html>404</html>") },
  { name: "is another kind of JSON", bytes: () => Buffer.from("[]") },
  { name: "is null", bytes: () => Buffer.from("null") },
  {
    name: "has bytes that are no text",
    bytes: (bytes) => Buffer.concat([bytes.subarray(0, -1), Buffer.from([0xff, 0x7d])]),
  },
  {
    name: "begins with a byte order mark",
    bytes: (bytes) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]),
  },
  { name: "goes on after its end", bytes: (bytes) => Buffer.concat([bytes, bytes]) },
  { name: "has no signatures", bytes: edit((json) => ({ ...json, signatures: [] })) },
  { name: "has no list of signatures", bytes: edit(drop("signatures")) },
  {
    name: "has one signature only",
    bytes: edit((json) => ({ ...json, signatures: signaturesOf(json).slice(0, 1) })),
  },
  {
    name: "has one signature twice",
    bytes: edit((json) => {
      const [first] = signaturesOf(json);
      return { ...json, signatures: [first, first] };
    }),
  },
  {
    name: "has signatures that are not hexadecimal",
    bytes: edit((json) => ({
      ...json,
      signatures: signaturesOf(json).map((item) => ({ ...item, sig: "xyz" })),
    })),
  },
  {
    name: "has empty signatures",
    bytes: edit((json) => ({
      ...json,
      signatures: signaturesOf(json).map((item) => ({ ...item, sig: "" })),
    })),
  },
  {
    name: "has each signature under the id of the other",
    bytes: edit((json) => {
      const list = signaturesOf(json);
      const ids = list.map((item) => item["keyid"]).reverse();
      return { ...json, signatures: list.map((item, i) => ({ ...item, keyid: ids[i] })) };
    }),
  },
  {
    name: "is signed by somebody else",
    bytes: (bytes) => signedBy(JSON.parse(bytes.toString()).signed, other),
  },
  {
    name: "lives longer than was signed",
    bytes: edit((json) => ({
      ...json,
      signed: set("expires", "2098-01-01T00:00:00Z")(json["signed"] as Json),
    })),
  },
  {
    name: "has a field more than was signed",
    bytes: edit((json) => ({ ...json, signed: set("x", 1)(json["signed"] as Json) })),
  },
  {
    name: "has a fraction for a version",
    bytes: edit((json) => ({ ...json, signed: set("version", 1.5)(json["signed"] as Json) })),
  },
  { name: "has nothing that is signed", bytes: edit(drop("signed")) },
  {
    name: "is another file of the repository",
    bytes: (_, { files }, file) =>
      [...files].find(
        ([path]) =>
          path.endsWith(file === "a" ? ".b.json" : ".a.json") || path === "metadata/b.json",
      )?.[1],
  },
  {
    name: "is the version before",
    rollback: true,
    bytes: (bytes, { files }, file) => {
      const version = Number(JSON.parse(bytes.toString()).signed.version);
      return files.get(`metadata/${version - 1}.${file}.json`);
    },
  },
];

function reversed(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, item]) => [key, reversed(item)]),
  );
}

function clearKeys(signed: Json): Json {
  return "keys" in signed
    ? { ...signed, keys: {} }
    : at(["delegations", "keys"], () => ({}))(signed);
}

/** Changes every role that a file names keys for, but not the root's own: a root must be able to sign itself. */
function roles(change: (role: Json) => Json): (signed: Json) => Json {
  return (signed) => {
    const top = at(["roles"], (all) =>
      Object.fromEntries(
        Object.entries(all as Record<string, Json>).map(([name, role]) => [
          name,
          name === "root" ? role : change(role),
        ]),
      ),
    )(signed);
    return at(["delegations", "roles"], (list) => (list as Json[]).map(change))(top);
  };
}

function threshold(value: unknown): (signed: Json) => Json {
  return roles((role) => ({ ...role, threshold: value }));
}

/** Changes every key of a file. */
function tables(change: (key: Json) => Json): (signed: Json) => Json {
  const all = (table: unknown): Json =>
    Object.fromEntries(
      Object.entries(table as Record<string, Json>).map(([id, key]) => [id, change(key)]),
    );
  return (signed) => at(["delegations", "keys"], all)(at(["keys"], all)(signed));
}
