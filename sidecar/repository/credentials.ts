/**
 * The credentials of the repository, in a folder as a Secret is mounted: `token`; or `username` and `password`; or the
 * `.dockerconfigjson` of an image pull secret. They are read anew at each use, because a Secret changes under a running pod. Nothing of
 * them is in any message.
 */
import { join } from "node:path";
import { loginIn } from "#core/docker-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { readSmallFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

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
          throw new EdgeSyncError(
            "CONFIG_INVALID",
            `${join(folder, "token")} is no token; expected printable characters without spaces`,
          );
        return { kind: "bearer", token };
      }
      const username = await word("username");
      const password = await word("password");
      if (username !== undefined && password !== undefined && !username.includes(":"))
        return { kind: "basic", username, password };
      const config = await text(".dockerconfigjson");
      if (config !== undefined) {
        const login = loginIn(config, place, join(folder, ".dockerconfigjson"));
        return login === undefined ? undefined : { kind: "basic", ...login };
      }
      throw new EdgeSyncError(
        "CONFIG_INVALID",
        `${folder} has neither token, nor username and password, nor .dockerconfigjson`,
      );
    },
  };
}
