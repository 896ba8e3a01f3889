/**
 * The kinds of value that annotations and settings hold: each knows its text form in both directions and can say, in words,
 * what it allows. `parse(format(x))` is `x` for every kind (property-tested), which is what makes the webhook and the sidecar agree.
 */

export interface Value<T> {
  /** Completes the sentence "allowed: …". */
  readonly allowed: string;
  /** `undefined` when the text is not allowed. */
  parse(text: string): T | undefined;
  /** What of a text that is not allowed is wrong, where that can be said better than by what is allowed. */
  readonly problem?: (text: string) => string | undefined;
  format(value: T): string;
}

export type TypeOf<V> = V extends Value<infer T> ? T : never;

function text(allowed: string, pattern: RegExp): Value<string> {
  return {
    allowed,
    parse: (input) => (pattern.test(input) ? input : undefined),
    format: (value) => value,
  };
}

const LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/** RFC 1123 label, as Kubernetes names containers. */
export const dnsLabel: Value<string> = text(
  "a lower-case name of letters, digits and '-', at most 63 characters",
  new RegExp(`^${LABEL}$`),
);

/** RFC 1123 subdomain, as Kubernetes names ConfigMaps. */
export const objectName: Value<string> = text(
  "the name of an object in the pod's namespace, such as edgesync-trust-root",
  new RegExp(`^(?=.{1,253}$)${LABEL}(\\.${LABEL})*$`),
);

export const fileName: Value<string> = text(
  "a file name of letters, digits, '.', '_' and '-' that does not begin with '.'",
  /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/,
);

export const absolutePath: Value<string> = text(
  "an absolute path without '..', '//' or a '/' at the end",
  /^(?!.*\/\.{1,2}(\/|$))(\/[A-Za-z0-9._@+-]{1,255}){1,32}$/,
);

/** Loose on purpose: the registry has the last word; this keeps spaces and control characters out of a pod. */
export const imageReference: Value<string> = text(
  "an image reference such as registry.example/edgesync:1.2.3",
  /^[a-z0-9][A-Za-z0-9._:/@-]{0,511}$/,
);

/** A Vault mount or role: path segments, none of them a dot segment. */
export const vaultName: Value<string> = text(
  "a Vault name or path such as kubernetes or team-a/reader",
  /^(?!.*(^|\/)\.{1,2}(\/|$))[A-Za-z0-9_.-]{1,128}(\/[A-Za-z0-9_.-]{1,128}){0,15}$/,
);

/** Names of nodes are such names too. */
export const siteName: Value<string> = text(
  "a name of letters, digits and . _ : @ -, at most 253 characters, that begins and ends with a letter or digit",
  /^[A-Za-z0-9]([A-Za-z0-9._:@-]{0,251}[A-Za-z0-9])?$/,
);

/** A name as the DNS has it, and certificates: no address. */
export const hostName: Value<string> = text(
  "the name of a host, such as vault.example",
  /^(?=.{1,253}$)(?!.*\.[0-9]+$)(?![0-9]+$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/,
);

export const ipAddress: Value<string> = text(
  "an IPv4 or IPv6 address, such as 127.0.0.1 or ::1",
  /^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$|^(?=.*:)[0-9a-fA-F:]{2,39}$/,
);

export const audience: Value<string> = text(
  "an audience of printable characters without spaces",
  /^[\x21-\x7e]{1,253}$/,
);

export function oneOf<const T extends string>(...words: readonly T[]): Value<T> {
  return {
    allowed: words.join(", "),
    parse: (input) => words.find((word) => word === input),
    format: (value) => value,
  };
}

/** A set of words, kept in the table's order so that equal sets have equal text. */
export function someOf<const T extends string>(...words: readonly T[]): Value<readonly T[]> {
  return {
    allowed: `a comma-separated list of ${words.join(", ")}; or none`,
    parse(input) {
      if (input === "none") return [];
      const given = input.split(",").map((word) => word.trim());
      if (!given.every((word) => words.some((known) => known === word))) return undefined;
      return words.filter((word) => given.includes(word));
    },
    format: (value) => (value.length === 0 ? "none" : value.join(",")),
  };
}

const MAX_CONTAINER_NAMES = 64;

export const containerNames: Value<readonly string[]> = {
  allowed: `a comma-separated list of at most ${MAX_CONTAINER_NAMES} container names`,
  parse(input) {
    const names = input.split(",", MAX_CONTAINER_NAMES + 1).map((name) => name.trim());
    if (names.length > MAX_CONTAINER_NAMES) return undefined;
    const valid = names.every((name) => dnsLabel.parse(name) !== undefined);
    return valid && new Set(names).size === names.length ? names : undefined;
  },
  format: (value) => value.join(","),
};

export function integer(min: number, max: number): Value<number> {
  return {
    allowed: `a whole number from ${min} to ${max}`,
    parse(input) {
      if (!/^\d{1,15}$/.test(input)) return undefined;
      const value = Number(input);
      return value >= min && value <= max ? value : undefined;
    },
    format: String,
  };
}

const UNITS_MS = [
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
  ["ms", 1],
] as const;

/** Go's duration syntax with whole numbers; the value is in milliseconds. */
export function duration(min: string, max: string): Value<number> {
  const low = durationMs(min) ?? 0;
  const high = durationMs(max) ?? Number.MAX_SAFE_INTEGER;
  const isWithin = (value: number): boolean => value >= low && value <= high;
  const fitting = ["30s", "10m", "1h30m"].filter((text) => isWithin(durationMs(text) ?? -1));
  return {
    allowed: `a duration from ${min} to ${max}${fitting.length === 0 ? "" : `, such as ${fitting.join(" or ")}`}`,
    parse(input) {
      const value = durationMs(input);
      return value !== undefined && isWithin(value) ? value : undefined;
    },
    problem(input) {
      const [, whole, rest = ""] = /^(\d{1,6})(.*)$/.exec(input) ?? [];
      if (whole === undefined) return undefined;
      const bounds = `; allowed: from ${min} to ${max}`;
      if (rest === "") return `it has no unit, as in ${whole}s, ${whole}m or ${whole}h${bounds}`;
      if (rest === "d") return `a day is written 24h${bounds}`;
      if (rest.startsWith("."))
        return `a fraction is written with a smaller unit, as in 1h30m${bounds}`;
      return undefined;
    },
    format: formatDuration,
  };
}

function durationMs(input: string): number | undefined {
  const match = /^(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?(?:(\d{1,12})ms)?$/.exec(input);
  if (match === null || input === "") return undefined;
  return UNITS_MS.reduce((sum, [, ms], index) => sum + Number(match[index + 1] ?? 0) * ms, 0);
}

/** The shortest text for a duration in milliseconds, such as `1h30m`; `0s` for none. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  let rest = ms;
  let out = "";
  for (const [unit, size] of UNITS_MS) {
    const count = Math.floor(rest / size);
    if (count > 0) out += `${count}${unit}`;
    rest -= count * size;
  }
  return out;
}

const SUFFIXES = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
} as const satisfies Record<string, number>;

function isSuffix(input: string): input is keyof typeof SUFFIXES {
  return Object.hasOwn(SUFFIXES, input);
}

/** A Kubernetes quantity of bytes, whole numbers only. */
export function bytes(min: string, max: string): Value<number> {
  const low = parseBytes(min) ?? 0;
  const high = parseBytes(max) ?? Number.MAX_SAFE_INTEGER;
  return {
    allowed: `a size from ${min} to ${max}, such as 64Mi or 10M`,
    parse(input) {
      const value = parseBytes(input);
      return value !== undefined && value >= low && value <= high ? value : undefined;
    },
    format: formatBytes,
  };
}

/** Bytes of a Kubernetes quantity such as `64Mi`; `undefined` when it is not a whole number of bytes. */
export function parseBytes(input: string): number | undefined {
  const match = /^(\d{1,15})([A-Za-z]{0,2})$/.exec(input);
  const suffix = match?.[2] ?? "";
  if (match === null || !isSuffix(suffix)) return undefined;
  const value = Number(match[1]) * SUFFIXES[suffix];
  return Number.isSafeInteger(value) ? value : undefined;
}

/** The shortest exact quantity for a number of bytes. */
export function formatBytes(value: number): string {
  for (const suffix of ["Ti", "Gi", "Mi", "Ki"] as const) {
    const size = SUFFIXES[suffix];
    if (value !== 0 && value % size === 0) return `${value / size}${suffix}`;
  }
  return String(value);
}

/** A Kubernetes CPU quantity, in millicores. */
export const cpu: Value<number> = {
  allowed: "an amount of CPU such as 5m, 100m or 1",
  parse(input) {
    const match = /^(\d{1,6})(m?)$/.exec(input);
    if (match === null) return undefined;
    const value = Number(match[1]) * (match[2] === "m" ? 1 : 1000);
    return value > 0 ? value : undefined;
  },
  format: (value) => (value % 1000 === 0 ? String(value / 1000) : `${value}m`),
};

/** A file mode: regular permission bits only, readable by its owner, never writable by others. */
export const fileMode: Value<number> = {
  allowed: "an octal file mode from 0400 to 0775 that others cannot write, such as 0440",
  parse(input) {
    if (!/^0?[4-7][0-7][0-7]$/.test(input)) return undefined;
    const value = Number.parseInt(input, 8);
    return (value & 0o002) === 0 ? value : undefined;
  },
  format: (value) => value.toString(8).padStart(4, "0"),
};

const LOOPBACK = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/;

/** `https`, or `http` to this machine only: there is no network in between that could be listened to. */
export const serverUrl: Value<string> = {
  allowed: "an https:// address without credentials, query or fragment",
  parse(input) {
    if (!URL.canParse(input) || input.length > 2048) return undefined;
    const url = new URL(input);
    const secure =
      url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.test(url.hostname));
    const plain =
      url.username === "" && url.password === "" && url.search === "" && url.hash === "";
    // `new URL` would repair a missing slash or a back-slash; what was written must be what is used.
    if (!secure || !plain || !/^https?:\/\/[^\\\s?#]+$/.test(input)) return undefined;
    return url.href.replace(/\/$/, "");
  },
  format: (value) => value,
};

/** What a pod follows: `<app>/<channel>`. */
export interface ChannelRef {
  readonly app: string;
  readonly channel: string;
}

export const channelRef: Value<ChannelRef> = {
  allowed: "<app>/<channel>, such as detector/stable",
  parse(input) {
    const [app, channel, ...rest] = input.split("/");
    if (app === undefined || channel === undefined || rest.length > 0) return undefined;
    return isAppName(app) && isAppName(channel) ? { app, channel } : undefined;
  },
  format: ({ app, channel }) => `${app}/${channel}`,
};

/**
 * Whether a text can name an app or a channel: a DNS label with a letter in it. Names of digits only are refused because
 * JavaScript reorders integer-like keys, which would change the bytes that a signature covers.
 */
export function isAppName(input: string): boolean {
  return dnsLabel.parse(input) !== undefined && /[a-z]/.test(input);
}

/** When a whole file may be fetched because no delta fits. Bytes are those on the wire. */
export type FullFallback =
  | { readonly kind: "never" }
  | { readonly kind: "always" }
  | { readonly kind: "up-to"; readonly bytes: number };

const fallbackBytes = bytes("1", "1Ti");

export const fullFallback: Value<FullFallback> = {
  allowed: "never, always, or the largest size in bytes, such as 20Mi",
  parse(input) {
    if (input === "never" || input === "always") return { kind: input };
    const limit = fallbackBytes.parse(input);
    return limit === undefined ? undefined : { kind: "up-to", bytes: limit };
  },
  format: (value) => (value.kind === "up-to" ? fallbackBytes.format(value.bytes) : value.kind),
};

export type PayloadStorage =
  { readonly kind: "ephemeral" } | { readonly kind: "claim"; readonly claim: string };

export const payloadStorage: Value<PayloadStorage> = {
  allowed: "ephemeral, or claim/<name of a PersistentVolumeClaim>",
  parse(input) {
    if (input === "ephemeral") return { kind: "ephemeral" };
    const claim = input.startsWith("claim/")
      ? objectName.parse(input.slice("claim/".length))
      : undefined;
    return claim === undefined ? undefined : { kind: "claim", claim };
  },
  format: (value) => (value.kind === "claim" ? `claim/${value.claim}` : "ephemeral"),
};

/** The user and group that the sidecar runs as. */
export interface RunAs {
  /** Absent: what the pod states for all, or the platform assigns, as OpenShift does from the range of the namespace. */
  readonly uid?: number;
  /** Absent: the main container's group when the pod states one, else the same number as `uid`. */
  readonly gid?: number;
}

/** The API server refuses larger ones (apimachinery IsValidUserID). */
const identity = integer(1, 2_147_483_647);

const ASSIGNED = "assigned";

export const runAs: Value<RunAs> = {
  allowed: `<uid> or <uid>:<gid>, neither of them 0, such as 65532:65532; or ${ASSIGNED}, for the pod's own user or the one that the platform assigns`,
  parse(input) {
    if (input === ASSIGNED) return {};
    const [user, group, ...rest] = input.split(":");
    const uid = identity.parse(user ?? "");
    if (uid === undefined || rest.length > 0) return undefined;
    if (group === undefined) return { uid };
    const gid = identity.parse(group);
    return gid === undefined ? undefined : { uid, gid };
  },
  format: ({ uid, gid }) =>
    uid === undefined ? ASSIGNED : gid === undefined ? String(uid) : `${uid}:${gid}`,
};

/** `never`, or the age in milliseconds up to which a sealed set of secrets is used. */
export type OfflineSecrets = "never" | number;

const offlineAge = duration("1m", "8760h");

export const offlineSecrets: Value<OfflineSecrets> = {
  allowed: `never, or ${offlineAge.allowed}`,
  parse: (input) => (input === "never" ? input : offlineAge.parse(input)),
  format: (value) => (value === "never" ? value : offlineAge.format(value)),
};
