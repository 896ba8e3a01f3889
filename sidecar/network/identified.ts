/** An HTTP client that shows a certificate of its own, for servers that ask for one (mutual TLS). */
import { X509Certificate, createPrivateKey } from "node:crypto";
import { EdgeSyncError } from "#core/errors.ts";
import { readProof } from "../disk/proof-file.ts";
import { openHttp } from "./http.ts";
import type { Http, HttpOptions, Identity } from "./http.ts";

export interface IdentifiedHttp extends Http {
  /**
   * Reads the certificate and its key again. What is connected from now on shows them; what is under way ends as it began.
   *
   * @throws EdgeSyncError CONFIG_INVALID when they cannot be read, or do not belong together
   * @returns the certificate, PEM
   */
  identify(): Promise<string>;
}

/** @param folder with tls.crt, which may go on with the certificates of its authorities, and tls.key */
export function openIdentified(options: HttpOptions, folder: string): IdentifiedHttp {
  let shown: Identity | undefined;
  let current: Http | undefined;
  const all = new Set<Http>();
  const closeAll = (): void => {
    for (const http of all) http.close();
    all.clear();
  };
  const identify = async (): Promise<Http> => {
    const identity = await readIdentity(folder);
    if (current !== undefined && shown?.cert === identity.cert && shown.key === identity.key)
      return current;
    const http = openHttp({ ...options, identity });
    // Of those before, the last may be busy; its connections close soon when they are not used.
    for (const old of all)
      if (old !== current) {
        old.close();
        all.delete(old);
      }
    all.add(http);
    current = http;
    shown = identity;
    return http;
  };
  return {
    async request(request, signal) {
      return (current ?? (await identify())).request(request, signal);
    },
    async identify() {
      await identify();
      return shown?.cert ?? "";
    },
    close: closeAll,
  };
}

/** Both are replaced at once, but read one after the other. */
async function readIdentity(folder: string): Promise<Identity> {
  try {
    return await readPair(folder);
  } catch {
    // Perhaps halves of two; the second look tells.
  }
  try {
    return await readPair(folder);
  } catch (cause) {
    const message = `the certificate in ${folder} cannot be used; expected tls.crt, and tls.key that belongs to it and has no passphrase`;
    throw new EdgeSyncError("CONFIG_INVALID", message, { cause });
  }
}

async function readPair(folder: string): Promise<Identity> {
  const cert = await readProof(`${folder}/tls.crt`);
  const key = await readProof(`${folder}/tls.key`);
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)))
    throw new TypeError("the key is of another certificate");
  return { cert, key };
}
