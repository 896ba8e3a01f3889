/**
 * The credentials of the repository, in a folder as a Secret is mounted: `token`; or `username` and `password`; or the
 * `.dockerconfigjson` of an image pull secret. They are read anew at each use, because a Secret changes under a running pod. Nothing of
 * them is in any message.
 */
import { join } from "node:path";
import * as v from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import { readSmallFile } from "./durable.ts";
import type { Disk } from "./durable.ts";

export type Credential =
  | { readonly kind: "bearer"; readonly token: string }
  | { readonly kind: "basic"; readonly username: string; readonly password: string };

export interface Credentials {
  /**
   * @param place `<host>[:<port>]/<path>` of the repository, for a file that holds credentials of several
   * @throws EdgeSyncError CONFIG_INVALID when the folder holds none, or ones that cannot be read
   */
  read(place: string): Promise<Credential | undefined>;
}

const LIMIT = 256 * 1024;

export function openCredentials(folder: string, disk: Disk): Credentials {
  async function text(name: string): Promise<string | undefined> {
    const bytes = await readSmallFile(disk, join(folder, name), LIMIT);
    return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
  }
  /** Editors end files with a new line; a header cannot hold one. */
  async function word(name: string): Promise<string | undefined> {
    const value = (await text(name))?.replace(/\r?\n$/, "");
    if (value === undefined) return undefined;
    if (value === "" || /\p{Cc}/u.test(value))
      throw new EdgeSyncError("CONFIG_INVALID", `${join(folder, name)} is not one line of text`);
    return value;
  }
  return {
    async read(place) {
      const token = await word("token");
      if (token !== undefined) {
        if (!/^[\x21-\x7e]+$/.test(token))
          throw new EdgeSyncError("CONFIG_INVALID", `${join(folder, "token")} is no token`);
        return { kind: "bearer", token };
      }
      const username = await word("username");
      const password = await word("password");
      if (username !== undefined && password !== undefined && !username.includes(":"))
        return { kind: "basic", username, password };
      const config = await text(".dockerconfigjson");
      if (config !== undefined)
        return fromDockerConfig(config, place, join(folder, ".dockerconfigjson"));
      throw new EdgeSyncError(
        "CONFIG_INVALID",
        `${folder} has neither token, nor username and password, nor .dockerconfigjson`,
      );
    },
  };
}

const dockerConfig = v.object({
  auths: v.optional(
    v.record(
      v.string(),
      v.object({
        auth: v.optional(v.string()),
        username: v.optional(v.string()),
        password: v.optional(v.string()),
      }),
    ),
    {},
  ),
});

/** The entry whose key is the longest that the place begins with, as the kubelet takes it; undefined when none does. */
function fromDockerConfig(text: string, place: string, file: string): Credential | undefined {
  const refuse = (): EdgeSyncError =>
    new EdgeSyncError("CONFIG_INVALID", `${file} is not the configuration of docker login`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // The cause would show a part of the file.
    throw refuse();
  }
  const parsed = v.safeParse(dockerConfig, json);
  if (!parsed.success) throw refuse();
  const [best] = Object.entries(parsed.output.auths)
    .map(([key, entry]) => ({ prefix: placeOf(key), entry }))
    .filter(({ prefix }) => place === prefix || place.startsWith(`${prefix}/`))
    .sort((a, b) => b.prefix.length - a.prefix.length);
  if (best === undefined) return undefined;
  const { auth, username, password } = best.entry;
  if (auth === undefined) {
    if (username === undefined || password === undefined) throw refuse();
    return { kind: "basic", username, password };
  }
  const [, user, secret] =
    /^([^:]+):([\s\S]*)$/.exec(Buffer.from(auth, "base64").toString("utf8")) ?? [];
  if (user === undefined || secret === undefined) throw refuse();
  return { kind: "basic", username: user, password: secret };
}

/** Keys are hosts, addresses, or addresses of an old API; Docker Hub's own is under another name than it is asked by. */
function placeOf(key: string): string {
  const plain = key
    .replace(/^https?:\/\//, "")
    .replace(/\/+$/, "")
    .replace(/\/v[12]$/, "");
  return plain === "index.docker.io" || plain === "docker.io" ? "registry-1.docker.io" : plain;
}
