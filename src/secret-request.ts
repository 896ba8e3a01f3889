/** What is asked for a secret, and of whom: Vault, a Kubernetes Secret that is mounted, or a sealed file of a release. */
import { unreachable } from "./errors.ts";
import { duration, integer, objectName, oneOf, vaultName } from "./values.ts";
import type { Value } from "./values.ts";

export type SecretRequest = VaultRequest | MountedRequest | SealedRequest;

/** A path that is read, or written when it has parameters or a key. */
export interface VaultRequest {
  readonly kind: "vault";
  readonly path: string;
  /** Of a secret in KV version 2; absent for the newest. */
  readonly version?: number;
  /** The fields of a path that is written. */
  readonly parameters: Readonly<Record<string, string>>;
  /** Of the private key that the pod makes for itself; the request for its certificate is written as the field `csr`. */
  readonly key?: KeyType;
  /** Milliseconds for which Vault keeps the answer, for whoever has the token for it, once. */
  readonly wrapMs?: number;
  /** Per cent of its life after which what cannot be renewed, such as a certificate, is replaced; up to ten more by chance. */
  readonly replaceAt?: number;
}

/** The keys of a Kubernetes Secret, which only the sidecar mounts. */
export interface MountedRequest {
  readonly kind: "mounted";
  readonly secret: string;
}

/** A file of the current release, sealed to the site's key. */
export interface SealedRequest {
  readonly kind: "sealed";
  readonly path: string;
}

/** A template, whose calls say what is asked for: its text, or the key of a ConfigMap that holds it. */
export type TemplateRequest =
  | { readonly kind: "template"; readonly text: string }
  | { readonly kind: "template"; readonly configMap: string; readonly key: string };

export const KEY_TYPES = ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"] as const;
export type KeyType = (typeof KEY_TYPES)[number];

const keyType = oneOf(...KEY_TYPES);

const version = integer(1, 2_147_483_647);
const wrapTime = duration("1s", "1h");
const percent = integer(5, 80);
/** Characters; a certificate request has about two thousand. */
const MAX_VALUE = 8_192;

const MOUNTED = "mounted:";
const SEALED = "sealed:";
const RELEASE_PATH =
  /^(?!(.*\/)?\.{1,2}(\/|$))[A-Za-z0-9._@+-]{1,255}(\/[A-Za-z0-9._@+-]{1,255}){0,31}$/;

const CONFIG_MAP = "configmap:";
/** As the API server takes it, which is the name of a file. */
const CONFIG_MAP_KEY = /^(?!\.\.?$)(?!\.\.)[-._A-Za-z0-9]{1,253}$/;

/** The key of a ConfigMap as `<name>/<key>`. */
export const configMapTemplate: Value<TemplateRequest> = {
  allowed: "<name of a ConfigMap>/<key>",
  parse(input) {
    const slash = input.indexOf("/");
    const [name, key] = [input.slice(0, Math.max(0, slash)), input.slice(slash + 1)];
    const configMap = objectName.parse(name);
    return configMap === undefined || !CONFIG_MAP_KEY.test(key)
      ? undefined
      : { kind: "template", configMap, key };
  },
  format: (request) => ("text" in request ? request.text : `${request.configMap}/${request.key}`),
};

export const templateRequest: Value<TemplateRequest> = {
  allowed:
    "the text of a template, in the syntax of Vault Agent's; or configmap:<name of a ConfigMap>/<key>",
  parse(input) {
    // A text that begins so is taken for a mistake, and not for a template that says nothing.
    if (input.startsWith(CONFIG_MAP))
      return configMapTemplate.parse(input.slice(CONFIG_MAP.length));
    return input === "" || input.includes("\0") ? undefined : { kind: "template", text: input };
  },
  format: (request) => ("text" in request ? "" : CONFIG_MAP) + configMapTemplate.format(request),
};

export const secretRequest: Value<SecretRequest> = {
  allowed:
    "a Vault path, such as secret/data/web or secret/data/web?version=3, with -key=<type>, -wrap-ttl=<duration>, -replace-at=<5 to 80>% and, for a path that is written, key=value behind it; or mounted:<name of a Secret>; or sealed:<path in the release>",
  parse(input) {
    if (input.startsWith(MOUNTED)) {
      const secret = objectName.parse(input.slice(MOUNTED.length));
      return secret === undefined ? undefined : { kind: "mounted", secret };
    }
    if (input.startsWith(SEALED)) {
      const path = input.slice(SEALED.length);
      return RELEASE_PATH.test(path) ? { kind: "sealed", path } : undefined;
    }
    return parseVaultRequest(input);
  },
  problem(input) {
    const [place, ...words] = wordsOf(input) ?? [];
    const [, query] = /^[^?]+\?(.*)$/.exec(place?.name ?? "") ?? [];
    if (place?.value === undefined && query === undefined) return keyProblem(words);
    const isVersion = query === "version" && version.parse(place?.value ?? "") !== undefined;
    return isVersion
      ? "a version is only read: nothing can be written beside it"
      : "behind the path only ?version=<number> is allowed; what is written follows as key=value after a space";
  },
  format(request) {
    switch (request.kind) {
      case "vault":
        return formatVaultRequest(request);
      case "mounted":
        return MOUNTED + request.secret;
      case "sealed":
        return SEALED + request.path;
      default:
        return unreachable(request);
    }
  },
};

function keyProblem(words: readonly Word[]): string | undefined {
  const key = words.find(({ name }) => name === "-key")?.value;
  return key !== undefined && keyType.parse(key) === undefined
    ? `-key is of a type that is not known; allowed: ${keyType.allowed}`
    : undefined;
}

function parseVaultRequest(input: string): VaultRequest | undefined {
  const [place, ...words] = wordsOf(input) ?? [];
  if (place === undefined) return undefined;
  const path = place.value === undefined ? place.name : place.name.replace(/\?version$/, "");
  const wanted = place.value === undefined ? undefined : version.parse(place.value);
  // A `?` that is left is no part of a path.
  if (vaultName.parse(path) === undefined || !path.includes("/")) return undefined;
  if (place.value !== undefined && (wanted === undefined || path === place.name)) return undefined;
  const options = new Map<string, string>();
  const parameters = new Map<string, string>();
  for (const { name, value } of words) {
    const own = name.startsWith("-") ? options : parameters;
    if (value === undefined || value.length > MAX_VALUE || own.has(name)) return undefined;
    if (own === parameters && !/^\w{1,64}$/.test(name)) return undefined;
    own.set(name, value);
  }
  const [keyText, wrapText] = [options.get("-key"), options.get("-wrap-ttl")];
  const key = keyText === undefined ? undefined : keyType.parse(keyText);
  const wrapMs = wrapText === undefined ? undefined : wrapTime.parse(wrapText);
  const [, replaceText = ""] = /^(\d+)%$/.exec(options.get("-replace-at") ?? "") ?? [];
  const replaceAt = percent.parse(replaceText);
  const known = [key, wrapMs, replaceAt].filter((option) => option !== undefined).length;
  if (options.size !== known || (key !== undefined && parameters.has("csr"))) return undefined;
  if (wanted !== undefined && (key !== undefined || parameters.size > 0)) return undefined;
  return {
    kind: "vault",
    path,
    ...(wanted === undefined ? {} : { version: wanted }),
    parameters: Object.fromEntries(parameters),
    ...(key === undefined ? {} : { key }),
    ...(wrapMs === undefined ? {} : { wrapMs }),
    ...(replaceAt === undefined ? {} : { replaceAt }),
  };
}

function formatVaultRequest(request: VaultRequest): string {
  const { path, parameters, key, wrapMs, replaceAt } = request;
  return [
    request.version === undefined ? path : `${path}?version=${request.version}`,
    ...(key === undefined ? [] : [`-key=${key}`]),
    ...(wrapMs === undefined ? [] : [`-wrap-ttl=${wrapTime.format(wrapMs)}`]),
    ...(replaceAt === undefined ? [] : [`-replace-at=${replaceAt}%`]),
    ...Object.entries(parameters).map(([name, value]) => `${name}=${quoted(value)}`),
  ].join(" ");
}

interface Word {
  readonly name: string;
  readonly value: string | undefined;
}

/** What stands between spaces; a value that is a JSON text in double quotes may hold some. */
const WORD = /([^ ="]+)(?:=("(?:[^"\\]|\\.)*"|(?!")[\x21-\x7e]*))?(?: +|$)/y;

function wordsOf(input: string): readonly Word[] | undefined {
  const words: Word[] = [];
  const text = input.trimStart();
  for (WORD.lastIndex = 0; WORD.lastIndex < text.length;) {
    const match = WORD.exec(text);
    if (match?.[1] === undefined) return undefined;
    const value = match[2]?.startsWith('"') === true ? unquoted(match[2]) : match[2];
    if (match[2] !== undefined && value === undefined) return undefined;
    words.push({ name: match[1], value });
  }
  return words;
}

function quoted(value: string): string {
  return /^(?!")[\x21-\x7e]*$/.test(value) ? value : JSON.stringify(value);
}

function unquoted(text: string): string | undefined {
  try {
    return String(JSON.parse(text));
  } catch {
    // No JSON text: the caller refuses the whole.
    return undefined;
  }
}
