/** Private keys in binary form, told from everything else that is DER: certificates, public keys, signatures. */
import { createPrivateKey } from "node:crypto";

/** ITU-T X.690: a SEQUENCE in the definite form. */
const SEQUENCE = 0x30;
/** 1.2.840.113549.1, which everything of PKCS begins with. */
const PKCS = "2a864886f70d01";
/**
 * How the content of the outer SEQUENCE of a key behind a passphrase begins: EncryptedPrivateKeyInfo of RFC 5958 with the schemes of PKCS#5
 * (`.5`) or PKCS#12 (`.12.1`), and the version and content type of a PKCS#12 file, which can hardly be without a key.
 */
const ENCRYPTED = new RegExp(`^30(?:[0-7].|81..|82....)06(?:09${PKCS}05|0a${PKCS}0c01)`);
const PKCS12 = new RegExp(`^02010330(?:[0-7].|81..|82....)0609${PKCS}0701`);

/** @param bytes of a whole file */
export function isPrivateDer(bytes: Uint8Array): boolean {
  const start = contentOf(bytes);
  if (start === undefined) return false;
  const head = Buffer.from(bytes.subarray(start, start + 32)).toString("hex");
  if (ENCRYPTED.test(head) || PKCS12.test(head)) return true;
  return (["pkcs8", "sec1", "pkcs1"] as const).some((type) => {
    try {
      createPrivateKey({ key: Buffer.from(bytes), format: "der", type });
      return true;
    } catch {
      // Not of this kind.
      return false;
    }
  });
}

/** Where the content of a SEQUENCE begins that fills the file; behind it there may be a line feed. */
function contentOf(bytes: Uint8Array): number | undefined {
  const [tag, first = 0] = bytes;
  if (tag !== SEQUENCE) return undefined;
  const count = first < 0x80 ? 0 : first - 0x80;
  if (count > 3) return undefined;
  const length =
    count === 0 ? first : bytes.subarray(2, 2 + count).reduce((sum, byte) => sum * 256 + byte, 0);
  const rest = bytes.length - (2 + count + length);
  return rest >= 0 && rest <= 2 ? 2 + count : undefined;
}
