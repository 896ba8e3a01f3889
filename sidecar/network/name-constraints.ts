/** What authorities allow those below them to be called: RFC 5280, 4.2.1.10, for names of hosts and addresses; other kinds are refused. */
import { isIP } from "node:net";
import { OctetString } from "asn1js";
import { AltName, NameConstraints } from "pkijs";
import type { Certificate, GeneralName, GeneralSubtree } from "pkijs";

const SUBJECT_ALT_NAME = "2.5.29.17";
const NAME_CONSTRAINTS = "2.5.29.30";

/** Tags of GeneralName. */
const DNS = 2;
const IP = 7;

/** Names times constraints; a certificate of a reasonable authority has a handful of each. */
const MAX_COMPARISONS = 100_000;

interface Name {
  readonly type: number;
  /** In lower case for a host; the bytes for an address. */
  readonly value: string | Uint8Array;
}

/**
 * @param path the server's certificate first, the root last
 * @param host what is connected to; whatever names the certificate has, this one must be allowed
 */
export function nameProblem(path: readonly Certificate[], host: string): string | undefined {
  const names: Name[] = [hostName(host)];
  let comparisons = 0;
  for (const [index, certificate] of path.entries()) {
    const constraints = extensionOf(certificate, NAME_CONSTRAINTS);
    // An authority's constraints are for what is below it.
    if (constraints !== undefined && index > 0) {
      if (!(constraints instanceof NameConstraints)) return "its name constraints cannot be read";
      const { permittedSubtrees: permitted = [], excludedSubtrees: excluded = [] } = constraints;
      if (![...permitted, ...excluded].every(isUnderstood))
        return "there are name constraints of a kind that is not known";
      comparisons += names.length * (permitted.length + excluded.length);
      if (comparisons > MAX_COMPARISONS) return "there are too many name constraints";
      for (const name of names)
        if (!isAllowed(name, permitted, excluded))
          return "an authority above it does not allow one of its names";
    }
    names.push(...namesOf(certificate));
  }
  return undefined;
}

function extensionOf({ extensions = [] }: Certificate, oid: string): unknown {
  return extensions.find(({ extnID }) => extnID === oid)?.parsedValue;
}

function hostName(host: string): Name {
  const version = isIP(host);
  return version === 0
    ? { type: DNS, value: host.toLowerCase().replace(/\.$/, "") }
    : { type: IP, value: addressBytes(host) };
}

function addressBytes(address: string): Uint8Array {
  if (isIP(address) === 4) return Uint8Array.from(address.split("."), Number);
  // Normal form: groups of hexadecimal digits, and "::" at most once.
  const { hostname } = new URL(`http://[${address}]`);
  const [head = "", tail] = hostname.slice(1, -1).split("::");
  const groups = (text: string | undefined): readonly string[] =>
    text === undefined || text === "" ? [] : text.split(":");
  const [before, after] = [groups(head), groups(tail)];
  const between = tail === undefined ? 0 : 8 - before.length - after.length;
  return Uint8Array.from(
    [...before, ...Array.from({ length: between }, () => "0"), ...after].flatMap((group) => {
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 0xff];
    }),
  );
}

function namesOf(certificate: Certificate): readonly Name[] {
  const value = extensionOf(certificate, SUBJECT_ALT_NAME);
  if (!(value instanceof AltName)) return [];
  return value.altNames.map(({ type, value: name }: GeneralName): Name => {
    if (type === IP) return { type, value: bytesOf(name) };
    return { type, value: typeof name === "string" ? name.toLowerCase() : "" };
  });
}

function bytesOf(value: unknown): Uint8Array {
  return value instanceof OctetString ? value.valueBlock.valueHexView : new Uint8Array();
}

function isUnderstood({ base, minimum, maximum }: GeneralSubtree): boolean {
  const plain = minimum === 0 && maximum === undefined;
  if (base.type === IP) return plain && [8, 32].includes(bytesOf(base.value).byteLength);
  return plain && base.type === DNS && typeof base.value === "string";
}

function isAllowed(
  name: Name,
  permitted: readonly GeneralSubtree[],
  excluded: readonly GeneralSubtree[],
): boolean {
  const ofType = permitted.filter(({ base }) => base.type === name.type);
  return (
    (ofType.length === 0 || ofType.some(({ base }) => isBelow(name, base))) &&
    !excluded.some(({ base }) => base.type === name.type && isBelow(name, base))
  );
}

function isBelow({ value }: Name, base: GeneralName): boolean {
  if (typeof value !== "string") return isInNetwork(value, bytesOf(base.value));
  const suffix = String(base.value).toLowerCase();
  if (suffix === "") return true;
  return suffix.startsWith(".")
    ? value.endsWith(suffix)
    : value === suffix || value.endsWith(`.${suffix}`);
}

/** @param network the address, and its mask of the same length */
function isInNetwork(address: Uint8Array, network: Uint8Array): boolean {
  const length = network.byteLength / 2;
  return (
    address.byteLength === length &&
    address.every((byte, index) => {
      const mask = network[length + index] ?? 0;
      return (byte & mask) === ((network[index] ?? 0) & mask);
    })
  );
}
