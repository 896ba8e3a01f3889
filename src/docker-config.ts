/** The file in which `docker login` keeps its credentials, and in which image pull secrets have theirs. */
import { Buffer } from "node:buffer";
import * as v from "valibot";
import { EdgeSyncError } from "./errors.ts";

export interface Login {
  readonly username: string;
  readonly password: string;
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

/**
 * The entry whose key is the longest that the place begins with, as the kubelet takes it; undefined when none does.
 *
 * @param place `<host>[:<port>]/<path>` of what is asked for
 * @param file what the text is called in messages, which never show any of it
 * @throws EdgeSyncError CONFIG_INVALID
 */
export function loginIn(text: string, place: string, file: string): Login | undefined {
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
    .toSorted((a, b) => b.prefix.length - a.prefix.length);
  if (best === undefined) return undefined;
  const { auth, username, password } = best.entry;
  if (auth === undefined) {
    if (username === undefined || password === undefined) throw refuse();
    return { username, password };
  }
  const decoded = Buffer.from(auth, "base64").toString("utf8");
  const [, user, secret] = /^([^:]+):([\s\S]*)$/.exec(decoded) ?? [];
  if (user === undefined || secret === undefined) throw refuse();
  return { username: user, password: secret };
}

/** Keys are hosts, addresses, or addresses of an old API; Docker Hub's own is under another name than it is asked by. */
function placeOf(key: string): string {
  const plain = key
    .replace(/^https?:\/\//, "")
    .replace(/\/+$/, "")
    .replace(/\/v[12]$/, "");
  return plain === "index.docker.io" || plain === "docker.io" ? "registry-1.docker.io" : plain;
}
