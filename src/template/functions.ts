/** What a template can call: the table that the evaluator, the parser and docs/templates.md go by. */
import { BUILTIN_FUNCTIONS } from "./builtin-functions.ts";
import { DATA_FUNCTIONS } from "./data-functions.ts";
import { MATH_FUNCTIONS } from "./math-functions.ts";
import type { GoFunction } from "./function.ts";
import { TEXT_FUNCTIONS } from "./text-functions.ts";

/** By name. */
export const FUNCTIONS: Readonly<Record<string, GoFunction>> = {
  ...DATA_FUNCTIONS,
  ...BUILTIN_FUNCTIONS,
  ...TEXT_FUNCTIONS,
  ...MATH_FUNCTIONS,
};

const FILES = "templates read and write no files; they have what Vault holds";
const ORDER = "its output is YAML or TOML, which edgesync does not write byte for byte";
const REGEX =
  "there are no regular expressions, whose time has no bound; see contains, replaceAll and split";

/** Functions of Vault Agent that there are not, and why. */
export const REFUSED: Readonly<Record<string, string>> = {
  call: "no value of a template is a function",
  executeTemplate: 'use {{ template "name" . }}',
  envOrDefault: 'use {{ env "NAME" | sprig_default "…" }}',
  file: FILES,
  mergeMap: "maps are not merged",
  mergeMapWithOverride: "maps are not merged",
  parseYAML: "see parseJSON",
  plugin: "templates run no programs",
  regexMatch: REGEX,
  regexReplaceAll: REGEX,
  scratch: "use variables: {{ $x := … }}",
  secrets: "paths are not listed; name each secret",
  sockaddr: "templates know nothing of the machine's network",
  spew_dump: 'see printf "%#v"',
  spew_printf: 'see printf "%#v"',
  spew_sdump: 'see printf "%#v"',
  spew_sprintf: 'see printf "%#v"',
  toTOML: ORDER,
  toYAML: `${ORDER}; JSON is YAML too: see toJSONPretty`,
  writeToFile: `${FILES}; give each file a template of its own`,
};
