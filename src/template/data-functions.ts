/** Functions that bring data into a template: secrets, variables, time, JSON. */
import type { GoFunction, Surroundings } from "./function.ts";
import { formatTime } from "./go-time.ts";
import { parseJson, toJson } from "./go-json.ts";
import type { JsonForm } from "./go-json.ts";
import { MAX_LAYOUT } from "./limits.ts";
import { bytesOf, textOf } from "./runes.ts";
import { goMap, isKind } from "./values.ts";
import type { GoValue } from "./values.ts";

const text = (value: GoValue): string => (typeof value === "string" ? value : "");

function json(form: JsonForm, help: string): GoFunction {
  return {
    form: "value",
    help,
    from: "Consul Template",
    parameters: ["any"],
    call: ([value], around) => toJson(value, form, around),
  };
}

function variable(name: GoValue, around: Surroundings): string {
  const value = around.env(textOf(text(name)));
  if (value === undefined)
    return around.fail("this variable is not on the list of those that templates may read");
  return bytesOf(value);
}

export const DATA_FUNCTIONS: Readonly<Record<string, GoFunction>> = {
  secret: {
    form: '"path" ["k=v"…]',
    help: "Reads a path of Vault; with parameters it is written, as `vault write` does, and gives the answer. The answer is in `.Data`, of KV v2 in `.Data.data`.",
    from: "Consul Template",
    parameters: [],
    more: "string",
    call: (args, around) => around.ask("secret", args.map(text)),
  },
  pkiCert: {
    form: '"path" "common_name=…" ["k=v"…]',
    help: "A certificate of a PKI engine, issued anew when it is about to end: `.Cert`, `.Key` and `.CA`.",
    from: "Consul Template",
    parameters: [],
    more: "string",
    call: (args, around) => around.ask("pki", args.map(text)),
  },
  env: {
    form: '"NAME"',
    help: "A variable of the environment, of those that are allowed; empty when it is not set.",
    from: "Consul Template",
    parameters: ["string"],
    call: ([name], around) => variable(name, around),
  },
  mustEnv: {
    form: '"NAME"',
    help: "As env; an error when it is empty.",
    from: "Consul Template",
    parameters: ["string"],
    call: ([name], around) =>
      variable(name, around) || around.fail("this variable is required and is empty"),
  },
  timestamp: {
    form: '["layout"]',
    help: "The time in UTC as RFC 3339, as seconds with `unix`, or in a layout of Go such as `2006-01-02 15:04:05`.",
    from: "Consul Template",
    parameters: [],
    more: "string",
    call(args, around) {
      if (args.length > 1) return around.fail("timestamp takes one layout at most");
      const layout = text(args[0]);
      if (args.length === 1 && layout === "unix") return String(Math.floor(around.now / 1000));
      if (layout.length > MAX_LAYOUT) return around.fail(`a layout may have ${MAX_LAYOUT} bytes`);
      around.reserve(layout.length * 10);
      return formatTime(around.now, args.length === 0 ? "2006-01-02T15:04:05Z07:00" : layout);
    },
  },
  toJSON: json(
    { escapesHtml: true, isPretty: false },
    "JSON in one line; angle brackets and `&` as `\\u003c`…",
  ),
  toJSONPretty: json({ escapesHtml: true, isPretty: true }, "JSON, indented by two spaces."),
  toUnescapedJSON: json(
    { escapesHtml: false, isPretty: false },
    "As toJSON, with angle brackets and `&` as they are.",
  ),
  toUnescapedJSONPretty: json(
    { escapesHtml: false, isPretty: true },
    "As toJSONPretty, with angle brackets and `&` as they are.",
  ),
  parseJSON: {
    form: "text",
    help: "The value that JSON describes; numbers become floats, nothing an empty map.",
    from: "Consul Template",
    parameters: ["string"],
    call: ([value], around) => (value === "" ? goMap([]) : parseJson(text(value), around)),
  },
  explodeMap: {
    form: "map",
    help: "Makes maps in maps of keys with slashes.",
    from: "Consul Template",
    parameters: ["map[string]interface {}"],
    call: ([value], around) => explode(value, around),
  },
};

interface Branch {
  readonly leaves: Map<string, Branch | GoValue>;
}

function isBranch(value: Branch | GoValue): value is Branch {
  return typeof value === "object" && value !== null && "leaves" in value;
}

function explode(value: GoValue, around: Surroundings): GoValue {
  const root: Branch = { leaves: new Map() };
  for (const [key, item] of isKind(value, "map") ? value.entries : []) {
    around.reserve(key.length + 1);
    let at = root;
    const parts = key.split("/");
    if (parts.length > 100) around.fail("a key has too many slashes");
    for (const part of parts.slice(0, -1)) {
      const old = at.leaves.get(part);
      const next = old === undefined ? { leaves: new Map() } : branchOf(old);
      if (next === undefined)
        return around.fail("a key is within another that has a value already");
      at.leaves.set(part, next);
      at = next;
    }
    const last = parts.at(-1) ?? "";
    if (last !== "") at.leaves.set(last, item);
  }
  return joined(root);
}

function branchOf(value: Branch | GoValue): Branch | undefined {
  if (isBranch(value)) return value;
  return isKind(value, "map") ? { leaves: new Map(value.entries) } : undefined;
}

function joined({ leaves }: Branch): GoValue {
  return goMap(
    [...leaves].map(([key, item]) => [key, isBranch(item) ? joined(item) : item] as const),
  );
}
