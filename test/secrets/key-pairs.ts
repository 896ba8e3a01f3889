/** Keys with certificates and chains, as Vault's PKI engine answers them. */
import type { SecretData } from "#core/secret-file.ts";
import { KEY_CERT_SIGN, SERVER_AUTH, issue, newKey } from "../support/chains.ts";
import type { KeyKind } from "../support/chains.ts";

const DAY_MS = 86_400_000;
const VALID = { fromMs: -DAY_MS, untilMs: DAY_MS } as const;

export interface KeyPair {
  readonly data: SecretData & { readonly private_key: string; readonly certificate: string };
  readonly root: string;
}

/** For `localhost`, under an authority below a root. */
export function keyPair(kind: KeyKind): KeyPair {
  const signer = { ...VALID, ca: true, usage: KEY_CERT_SIGN } as const;
  const root = issue({ ...signer, name: "root", key: newKey("ec") });
  const middle = issue({ ...signer, name: "middle", key: newKey("ec") }, root);
  const key = newKey(kind);
  const names = ["localhost"];
  const leaf = issue({ ...VALID, name: "leaf", names, purposes: [SERVER_AUTH], key }, middle);
  return {
    root: root.cert,
    data: {
      certificate: leaf.cert.trimEnd(),
      private_key: leaf.keyPem.trimEnd(),
      ca_chain: [middle.cert.trimEnd(), root.cert.trimEnd()],
      issuing_ca: middle.cert.trimEnd(),
      expiration: 1,
    },
  };
}
