/** Chains of three certificates, of which a test says what is out of the ordinary. */
import type { KeyObject } from "node:crypto";
import { DIGITAL_SIGNATURE, KEY_CERT_SIGN, SERVER_AUTH, issue, newKey } from "../support/chains.ts";
import type { Issued, KeyKind, Spec } from "../support/chains.ts";

export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

export type Change = Partial<Spec>;

export interface Shape {
  readonly leaf?: Change;
  readonly middle?: Change;
  readonly root?: Change;
  /** The root that is trusted is another one of the same name. */
  readonly stranger?: true;
  /** What the server presents beside its own certificate. */
  readonly presents?: (made: Made) => readonly Issued[];
  /** What is trusted. */
  readonly trusts?: (made: Made) => readonly Issued[];
  readonly weak?: "leaf" | "middle" | "root";
  /** The host that is asked for. */
  readonly host?: string;
}

export interface Made {
  readonly root: Issued;
  readonly middle: Issued;
  readonly leaf: Issued;
  /** The same, of a root that nobody trusts. */
  readonly other: Issued;
}

export interface Chain {
  readonly host: string;
  /** The server's own first. */
  readonly presented: readonly Issued[];
  readonly trusted: readonly Issued[];
}

const LONG = { fromMs: -2 * DAY_MS, untilMs: 2 * DAY_MS } as const;

/** By kind and owner: keys take long to make. */
const keys = new Map<string, KeyObject>();

function keyOf(kind: KeyKind, owner: string, weak: string | undefined): KeyObject {
  const strength = owner === weak ? "weak" : "good";
  const id = `${kind} ${owner} ${strength}`;
  const key = keys.get(id) ?? newKey(kind, strength);
  keys.set(id, key);
  return key;
}

export function chainOf(kind: KeyKind, shape: Shape): Chain {
  const key = (owner: string): { key: KeyObject } => ({ key: keyOf(kind, owner, shape.weak) });
  const authority = { ...LONG, ca: true, usage: KEY_CERT_SIGN };
  const rootSpec = { name: "test root", ...authority, ...key("root"), ...shape.root };
  const root = issue(rootSpec);
  const other = issue({ ...rootSpec, ...key("other") });
  const middle = issue(
    { name: "test intermediate", ...authority, pathLength: 0, ...key("middle"), ...shape.middle },
    root,
  );
  const leaf = issue(
    {
      name: "localhost",
      ...LONG,
      ca: false,
      usage: DIGITAL_SIGNATURE,
      purposes: [SERVER_AUTH],
      names: ["localhost"],
      ...key("leaf"),
      ...shape.leaf,
    },
    middle,
  );
  const made = { root, middle, leaf, other };
  return {
    host: shape.host ?? "localhost",
    presented: [leaf, ...(shape.presents?.(made) ?? [middle])],
    trusted: shape.trusts?.(made) ?? [shape.stranger === true ? other : root],
  };
}

/** As a server has them. */
export function identityOf({ presented }: Chain): { readonly cert: string; readonly key: string } {
  return {
    cert: presented.map(({ cert }) => cert).join(""),
    key: presented[0]?.keyPem ?? "",
  };
}

export function authoritiesOf({ trusted }: Chain): string {
  return trusted.map(({ cert }) => cert).join("");
}

export const EXPIRED: Change = { untilMs: -30 * MINUTE_MS };
export const EARLY: Change = { fromMs: 30 * MINUTE_MS };

/** Each within the allowance of an hour, and good. */
export const ACCEPTED: Readonly<Record<string, Shape>> = {
  "has expired by less than the allowance": { leaf: EXPIRED },
  "is not valid yet, by less than the allowance": { leaf: EARLY },
  "is below an intermediate that has expired by less": { middle: EXPIRED },
  "is below a root that has expired by less": { root: EXPIRED },
  "is named by a wildcard": {
    leaf: { ...EXPIRED, names: ["*.vault.example"] },
    host: "a.vault.example",
  },
  "names an address": { leaf: { ...EXPIRED, names: ["127.0.0.1"] }, host: "127.0.0.1" },
  "has a name that is permitted": {
    leaf: { ...EXPIRED, names: ["a.vault.example"] },
    middle: { permitted: ["vault.example"], excluded: ["b.vault.example"] },
    host: "a.vault.example",
  },
  "has an address that is permitted": {
    leaf: { ...EXPIRED, names: ["127.0.0.1"] },
    middle: { permitted: ["127.0.0.0/255.0.0.0"] },
    host: "127.0.0.1",
  },
  "comes with certificates in another order": {
    leaf: EXPIRED,
    presents: ({ root, other, middle }) => [other, root, middle],
  },
  "is one of a root among others": { leaf: EXPIRED, trusts: ({ other, root }) => [other, root] },
};

/** Each would be within the allowance, and something else is wrong. */
export const REFUSED: Readonly<Record<string, Shape>> = {
  "has expired by more than the allowance": { leaf: { untilMs: -61 * MINUTE_MS } },
  "is not valid yet, by more than the allowance": { leaf: { fromMs: 61 * MINUTE_MS } },
  "is of another host": { leaf: { ...EXPIRED, names: ["other.example"] } },
  "is of another address": {
    leaf: { ...EXPIRED, names: ["127.0.0.2", "localhost"] },
    host: "127.0.0.1",
  },
  "has a wildcard for fewer labels": {
    leaf: { ...EXPIRED, names: ["*.example"] },
    host: "a.vault.example",
  },
  "has a name in its subject only": { leaf: { ...EXPIRED, names: undefined } },
  "has an address, and its name in its subject only": {
    leaf: { ...EXPIRED, names: ["127.0.0.1"] },
  },
  "is of an authority that is not known": { leaf: EXPIRED, stranger: true },
  "is of no authority that is known, by name": {
    leaf: EXPIRED,
    root: { name: "a root" },
    trusts: ({ middle }) => [middle],
  },
  "is not valid at any time at which its intermediate is": {
    leaf: { fromMs: -20 * MINUTE_MS, untilMs: -10 * MINUTE_MS },
    middle: { fromMs: -5 * MINUTE_MS },
  },
  "is below an intermediate that has expired by more": {
    leaf: EXPIRED,
    middle: { untilMs: -61 * MINUTE_MS },
  },
  "is below a root that has expired by more": {
    leaf: EXPIRED,
    root: { untilMs: -61 * MINUTE_MS },
  },
  "is below one that is no authority": { leaf: EXPIRED, middle: { ca: false } },
  "is below one that does not say that it is an authority": {
    leaf: EXPIRED,
    middle: { ca: undefined },
  },
  "is below a root that is no authority": { leaf: EXPIRED, root: { ca: false } },
  "is further down than the root allows": { leaf: EXPIRED, root: { pathLength: 0 } },
  "is not for servers": { leaf: { ...EXPIRED, purposes: ["1.3.6.1.5.5.7.3.2"] } },
  "does not say that it is for servers": { leaf: { ...EXPIRED, purposes: undefined } },
  "has a key that is not for TLS": { leaf: { ...EXPIRED, usage: 0x06 } },
  "is below one that is not for servers": {
    leaf: EXPIRED,
    middle: { purposes: ["1.3.6.1.5.5.7.3.2"] },
  },
  "is below one whose key is not for certificates": { leaf: EXPIRED, middle: { usage: 0x02 } },
  "is below a root whose key is not for certificates": { leaf: EXPIRED, root: { usage: 0x02 } },
  "comes without its intermediate": { leaf: EXPIRED, presents: () => [] },
  "has a signature that is not good": { leaf: { ...EXPIRED, tampered: true } },
  "is below one whose signature is not good": { leaf: EXPIRED, middle: { tampered: true } },
  "has a name that is not permitted": {
    leaf: { ...EXPIRED, names: ["localhost", "a.vault.example"] },
    middle: { permitted: ["localhost"] },
  },
  "has a name that is excluded": { leaf: EXPIRED, root: { excluded: ["localhost"] } },
  "has a wildcard, and the host is excluded": {
    leaf: { ...EXPIRED, names: ["*.vault.example"] },
    middle: { excluded: ["a.vault.example"] },
    host: "a.vault.example",
  },
  "has an address that is not permitted": {
    leaf: { ...EXPIRED, names: ["127.0.0.1"] },
    middle: { permitted: ["10.0.0.0/255.0.0.0"] },
    host: "127.0.0.1",
  },
  "is below constraints of a kind that is not known": {
    leaf: EXPIRED,
    middle: { permitted: ["user@vault.example"] },
  },
  "has a critical extension that nobody knows": { leaf: { ...EXPIRED, unknown: ["1.2.3.4"] } },
  "is below one with a critical extension that nobody knows": {
    leaf: EXPIRED,
    middle: { unknown: ["1.2.3.4"] },
  },
  "has an extension twice": { leaf: { ...EXPIRED, twice: "2.5.29.37" } },
  "is below one of version 1": { leaf: EXPIRED, middle: { version: 0 } },
  "is below one of version 2": { leaf: EXPIRED, middle: { version: 1 } },
  "names another issuer than the one that signed it": {
    leaf: { ...EXPIRED, issuerName: "somebody else" },
  },
};

/** As above; OpenSSL would not even let a server have them. */
export const REFUSED_UNSERVED: Readonly<Record<string, Shape>> = {
  "has a weak key": { leaf: EXPIRED, weak: "leaf" },
  "is below one with a weak key": { leaf: EXPIRED, weak: "middle" },
  "is below a root with a weak key": { leaf: EXPIRED, weak: "root" },
  "is signed with SHA-1": { leaf: { ...EXPIRED, hash: "sha1" } },
  "is below one that is signed with SHA-1": { leaf: EXPIRED, middle: { hash: "sha1" } },
};

/** Signed by its own key and nobody else's. */
export function selfSigned(kind: KeyKind, change: Change = {}): Chain {
  const own = chainOf(kind, {}).presented[0];
  if (own === undefined) throw new TypeError("no certificate");
  const alone = issue({ ...own.spec, ...EXPIRED, key: own.key, ...change });
  return { host: "localhost", presented: [alone], trusted: [alone] };
}
