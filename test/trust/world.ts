/** A repository of TUF metadata in memory, in which everything can be wrong. */
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { canonicalize } from "@tufjs/canonical-json";
import { EdgeSyncError } from "#core/errors.ts";
import type { MetadataSource, MetadataStore, TrustDeps } from "#core/trust/refresh.ts";

export const NOW: number = Date.parse("2026-11-22T12:00:00Z");
export const LATER = "2026-12-22T12:00:00Z";
export const EARLIER = "2026-11-22T11:59:59Z";
export const never: AbortSignal = new AbortController().signal;

export interface TestKey {
  readonly id: string;
  readonly json: object;
  sign(data: Buffer): string;
}

export function makeKey(type: "ed25519" | "ecdsa" | "rsa" = "ed25519"): TestKey {
  if (type === "ed25519") {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const { x = "" } = publicKey.export({ format: "jwk" });
    const hex = Buffer.from(x, "base64url").toString("hex");
    const json = { keytype: "ed25519", scheme: "ed25519", keyval: { public: hex } };
    return keyOf(json, (data) => sign(null, data, privateKey));
  }
  const { publicKey, privateKey } =
    type === "ecdsa"
      ? generateKeyPairSync("ec", { namedCurve: "prime256v1" })
      : generateKeyPairSync("rsa", { modulusLength: 2048 });
  const pem = publicKey.export({ type: "spki", format: "pem" });
  const scheme = type === "ecdsa" ? "ecdsa-sha2-nistp256" : "rsassa-pss-sha256";
  const padding = 6;
  return keyOf({ keytype: type, scheme, keyval: { public: pem } }, (data) =>
    sign("sha256", data, type === "rsa" ? { key: privateKey, padding } : privateKey),
  );
}

function keyOf(json: object, signer: (data: Buffer) => Buffer): TestKey {
  const id = createHash("sha256").update(canonicalize(json)).digest("hex");
  return { id, json, sign: (data) => signer(data).toString("hex") };
}

export function signedBy(signed: object, ...keys: readonly TestKey[]): Buffer {
  const data = Buffer.from(canonicalize(signed));
  const signatures = keys.map((key) => ({ keyid: key.id, sig: key.sign(data) }));
  return Buffer.from(JSON.stringify({ signatures, signed }));
}

export function infoOf(version: number, bytes: Buffer): object {
  return { version, length: bytes.length, hashes: { sha256: sha256(bytes) } };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function role(threshold: number, ...keys: readonly TestKey[]): object {
  return { keyids: keys.map((key) => key.id), threshold };
}

export function keysOf(...keys: readonly TestKey[]): object {
  return Object.fromEntries(keys.map((key) => [key.id, key.json]));
}

export interface Versions {
  readonly timestamp?: number;
  readonly snapshot?: number;
  readonly targets?: number;
}

export interface World {
  /** Files by name, below `metadata/` and `targets/`. */
  readonly files: Map<string, Buffer>;
  readonly stored: Map<string, Uint8Array>;
  readonly keys: Record<"root" | "timestamp" | "snapshot" | "targets" | "app", TestKey>;
  /** Who signs in the place of that one key. */
  readonly signers: Partial<Record<keyof Change, readonly TestKey[]>>;
  /** Who may sign for the app, where it is not its one key with a threshold of one. */
  appRole?: { readonly threshold: number; readonly keys: readonly TestKey[] };
  readonly requests: string[];
  readonly deps: TrustDeps;
  /** Writes a whole, good repository of these versions; `change` may then spoil what a role says before it is signed. */
  publish(versions?: Versions, change?: Change): void;
  root(version: number, change?: object): object;
  /** Serves a root of this version with the keys as they are now, and with others where they are given, signed by `signers`. */
  publishRoot(version: number, roles?: Roles, signers?: readonly TestKey[]): void;
}

export type TopRole = "root" | "timestamp" | "snapshot" | "targets";
export type Roles = Partial<
  Record<TopRole, { readonly threshold: number; readonly keys: readonly TestKey[] }>
>;

export type Change = Partial<
  Record<"timestamp" | "snapshot" | "targets" | "app", (signed: Record<string, unknown>) => object>
>;

export const TARGET = "releases/web/1/linux-x64.json";
export const TARGET_BYTES: Buffer = Buffer.from("a manifest\n");

const common = { spec_version: "1.0.34", expires: LATER };

export function makeWorld(now: number = NOW, expires: string = LATER): World {
  const files = new Map<string, Buffer>();
  const stored = new Map<string, Uint8Array>();
  const requests: string[] = [];
  const keys = {
    root: makeKey(),
    timestamp: makeKey(),
    snapshot: makeKey(),
    targets: makeKey(),
    app: makeKey(),
  };
  const base = { ...common, expires };
  const root = (version: number, change: object = {}): object => ({
    _type: "root",
    ...base,
    version,
    consistent_snapshot: true,
    keys: keysOf(keys.root, keys.timestamp, keys.snapshot, keys.targets),
    roles: {
      root: role(1, keys.root),
      timestamp: role(1, keys.timestamp),
      snapshot: role(1, keys.snapshot),
      targets: role(1, keys.targets),
    },
    ...change,
  });
  const first = signedBy(root(1), keys.root);
  files.set("metadata/1.root.json", first);

  const read = (name: string, limit: number): Promise<Uint8Array | undefined> => {
    requests.push(name);
    const bytes = files.get(name);
    if (bytes !== undefined && bytes.length > limit)
      return Promise.reject(new EdgeSyncError("RESPONSE_TOO_LARGE", name));
    return Promise.resolve(bytes);
  };
  const source: MetadataSource = {
    metadata: (name, limit) => read(`metadata/${name}`, limit),
    target: (path, limit) => read(`targets/${path}`, limit),
  };
  const world: World = {
    files,
    stored,
    keys,
    signers: {},
    requests,
    root,
    publishRoot(version, roles = {}, signers = [keys.root]) {
      const all = (["root", "timestamp", "snapshot", "targets"] as const).map((name) => {
        const one = { threshold: 1, keys: [keys[name]] };
        return [name, roles[name] ?? one] as const;
      });
      const signed = root(version, {
        keys: keysOf(...all.flatMap(([, role]) => role.keys)),
        roles: Object.fromEntries(
          all.map(([name, { threshold, keys }]) => [name, role(threshold, ...keys)]),
        ),
      });
      files.set(`metadata/${version}.root.json`, signedBy(signed, ...signers));
    },
    deps: { source, store: storeOf(stored), initialRoot: first, now },
    publish({ timestamp = 1, snapshot = 1, targets = 1 } = {}, change = {}) {
      const { appRole = { threshold: 1, keys: [keys.app] } } = world;
      const put = (name: string, bytes: Buffer): Buffer => {
        files.set(`metadata/${name}`, bytes);
        return bytes;
      };
      const say = (name: keyof Change, signed: Record<string, unknown>): Buffer =>
        signedBy(change[name]?.(signed) ?? signed, ...(world.signers[name] ?? [keys[name]]));
      const listed = { length: TARGET_BYTES.length, hashes: { sha256: sha256(TARGET_BYTES) } };
      const app = say("app", {
        _type: "targets",
        ...base,
        version: targets,
        targets: { [TARGET]: listed },
      });
      put(`${targets}.app.web.json`, app);
      const delegation = {
        ...role(appRole.threshold, ...appRole.keys),
        name: "app.web",
        terminating: true,
        paths: ["releases/web/*/*"],
      };
      const top = say("targets", {
        _type: "targets",
        ...base,
        version: targets,
        targets: {},
        delegations: { keys: keysOf(...appRole.keys), roles: [delegation] },
      });
      put(`${targets}.targets.json`, top);
      const list = say("snapshot", {
        _type: "snapshot",
        ...base,
        version: snapshot,
        meta: { "targets.json": infoOf(targets, top), "app.web.json": infoOf(targets, app) },
      });
      put(`${snapshot}.snapshot.json`, list);
      put(
        "timestamp.json",
        say("timestamp", {
          _type: "timestamp",
          ...base,
          version: timestamp,
          meta: { "snapshot.json": infoOf(snapshot, list) },
        }),
      );
      files.set(`targets/releases/web/1/${sha256(TARGET_BYTES)}.linux-x64.json`, TARGET_BYTES);
    },
  };
  return world;
}

export function storeOf(stored: Map<string, Uint8Array>): MetadataStore {
  return {
    load: (name) => Promise.resolve(stored.get(name)),
    save: (name, bytes) => Promise.resolve(void stored.set(name, bytes)),
    remove: (name) => Promise.resolve(void stored.delete(name)),
  };
}
