/**
 * The certificate that the webhook serves, and the one that comes after it: what is to be done next, from what is kept in the Secret and what the
 * API server trusts (the caBundle of every entry of the webhook configuration). Every certificate comes with an authority of its own, whose key is
 * thrown away. The order that loses no admission: the new authority is trusted everywhere, some time passes, the new certificate is served by
 * everybody, some time passes, the old authority is dropped.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";

/** PEM: a leaf, with what else belongs to its chain, its key, and the authority that a client must trust. */
export interface Identity {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** What the Secret holds. */
export interface Kept {
  readonly serving: Identity | undefined;
  /** Made, and not served before every API server knows its authority. */
  readonly next: Identity | undefined;
  /** Authority of the certificate that was served before; a replica may still serve it. */
  readonly previousCa: string | undefined;
}

export interface Seen {
  readonly kept: Kept;
  /** What this replica serves. */
  readonly served: Identity | undefined;
  /** caBundle of every entry, PEM; empty where there is none. */
  readonly bundles: readonly string[];
  /** Name by which the API server calls the webhook. */
  readonly host: string;
  /** Milliseconds since the epoch by the clock of the API server, which is the one that checks. */
  readonly now: number;
  /** Milliseconds for which this replica has seen the same certificates wanted and trusted, by a clock that never jumps. */
  readonly settledMs: number;
  /** An operator has asked for a new certificate. */
  readonly asked: boolean;
  readonly times: Times;
}

/** Milliseconds. */
export interface Times {
  /** Between a new authority in every caBundle and the first use of its certificate. API servers follow their configuration within seconds. */
  readonly settleMs: number;
  /** For how long an authority stays trusted when its certificate is served no more. */
  readonly keepMs: number;
}

export type Step =
  | { readonly step: "make"; readonly as: "serving" | "next" }
  /** Keeps what is served, because the Secret has lost it. */
  | { readonly step: "restore"; readonly identity: Identity }
  /** PEM for the caBundle of every entry. */
  | { readonly step: "trust"; readonly bundle: string }
  | { readonly step: "promote"; readonly identity: Identity; readonly previousCa: string }
  | { readonly step: "forget" }
  | { readonly step: "wait"; readonly ms: number };

/** A certificate is replaced when this part of its life has passed. */
const RENEW_AT = 2 / 3;
/** How long before it was made a certificate says that it began: a clock may be behind. */
export const EARLIER_MS = 24 * 3_600_000;

/** What the leader does now. Every step may be repeated, and each is seen in what is read after it. */
export function nextStep(seen: Seen): Step {
  const { kept, served, bundles, host, now, settledMs, asked, times } = seen;
  const { serving, next, previousCa } = kept;
  const good = (identity: Identity | undefined): identity is Identity =>
    identity !== undefined && problemOf(identity, identity.ca, host, now) === undefined;
  if (serving === undefined || !isWhole(serving)) {
    // Not an expired one: that is replaced below, in the same order as every other one.
    return good(served) ? { step: "restore", identity: served } : { step: "make", as: "serving" };
  }
  // The same one without its authority, or with another's: an empty caBundle would be trusted by nobody until the next one is served.
  if (served?.certificate === serving.certificate && !good(serving) && good(served))
    return { step: "restore", identity: served };
  const wanted = [serving.ca, next?.ca, previousCa].filter((pem) => pem !== undefined);
  if (bundles.some((bundle) => !sameCertificates(bundle, wanted.join(""))))
    return { step: "trust", bundle: wanted.join("") };
  if (next !== undefined) {
    if (!good(next)) return { step: "make", as: "next" };
    // Waiting is for those who trust what is served now; nobody trusts one that is not valid.
    const left = good(serving) ? times.settleMs - settledMs : 0;
    return left <= 0
      ? { step: "promote", identity: next, previousCa: serving.ca }
      : { step: "wait", ms: left };
  }
  const untilRenewal = renewalAt(serving) - now;
  if (asked || !good(serving) || untilRenewal <= 0) return { step: "make", as: "next" };
  if (previousCa === undefined) return { step: "wait", ms: untilRenewal };
  const left = times.keepMs - settledMs;
  return left <= 0 ? { step: "forget" } : { step: "wait", ms: Math.min(left, untilRenewal) };
}

/** What `settledMs` is measured for: it begins anew when this changes. */
export function wantedKey({ serving, next, previousCa }: Kept): string {
  return [serving?.ca, next?.ca, previousCa].map((pem) => pem ?? "").join("|");
}

/** Milliseconds since the epoch. */
function renewalAt({ certificate }: Identity): number {
  const { validFromDate, validToDate } = new X509Certificate(certificate);
  const made = Math.min(validFromDate.getTime() + EARLIER_MS, validToDate.getTime());
  return made + RENEW_AT * (validToDate.getTime() - made);
}

/** Whether the certificate can be read, with all of its chain, as a TLS server does, and the key is its own. */
export function isWhole({ certificate, key }: Identity): boolean {
  const stated = certificate.split("-----BEGIN CERTIFICATE-----").length - 1;
  try {
    return (
      certificatesIn(certificate).length === stated &&
      new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
    );
  } catch {
    // Not PEM at all.
    return false;
  }
}

/**
 * What to serve: what is kept, unless the API server trusts what is served now and not yet, or no more, what is kept.
 */
export function choose({
  kept: { serving },
  served,
  bundles,
  host,
  now,
}: Pick<Seen, "kept" | "served" | "bundles" | "host" | "now">): Identity | undefined {
  if (serving === undefined || !isWhole(serving)) return served;
  if (served === undefined || untrusted(serving, bundles, host, now) === undefined) return serving;
  return untrusted(served, bundles, host, now) === undefined ? served : serving;
}

/** Why a call of the webhook would fail by any of its entries; `undefined` when none would. */
export function untrusted(
  identity: Identity,
  bundles: readonly string[],
  host: string,
  now: number,
): string | undefined {
  if (bundles.length === 0) return "the webhook configuration has no entry";
  for (const bundle of bundles) {
    const problem = problemOf(identity, bundle, host, now);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Certificates between a leaf and its root; more is nobody's. */
const DEEPEST = 4;

/** As an API server verifies: some path from the leaf to the bundle, everything on it valid now, and the name of the Service. */
function problemOf(
  { certificate }: Identity,
  bundle: string,
  host: string,
  now: number,
): string | undefined {
  const [leaf, ...chain] = certificatesIn(certificate);
  if (leaf === undefined) return "the serving certificate cannot be read";
  if (leaf.checkHost(host) === undefined) return `the serving certificate is not for ${host}`;
  const roots = certificatesIn(bundle);
  let problem = "the serving certificate is not trusted by the caBundle";
  let level: readonly X509Certificate[] = [leaf];
  for (let depth = 0; depth < DEEPEST && level.length > 0; depth++) {
    const above: X509Certificate[] = [];
    for (const one of level) {
      const time = timeProblem(one, now);
      if (time !== undefined) {
        problem = time;
        continue;
      }
      for (const root of roots)
        if (isIssuedBy(one, root)) {
          const late = timeProblem(root, now);
          if (late === undefined) return undefined;
          problem = late;
        }
      above.push(...chain.filter((other) => other !== one && isIssuedBy(one, other)));
    }
    level = above;
  }
  return problem;
}

function isIssuedBy(one: X509Certificate, issuer: X509Certificate): boolean {
  return one.checkIssued(issuer) && one.verify(issuer.publicKey);
}

function timeProblem(
  { validFromDate, validToDate }: X509Certificate,
  now: number,
): string | undefined {
  if (now < validFromDate.getTime()) return "the serving certificate is not valid yet";
  if (now >= validToDate.getTime()) return "the serving certificate has expired";
  return undefined;
}

const PEM = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** Those that can be read; a bundle may hold others'. */
function certificatesIn(pem: string): readonly X509Certificate[] {
  return (pem.match(PEM) ?? []).flatMap((one) => {
    try {
      return [new X509Certificate(one)];
    } catch {
      // Base64 of something else.
      return [];
    }
  });
}

function sameCertificates(one: string, other: string): boolean {
  const prints = (pem: string): string =>
    [...new Set(certificatesIn(pem).map(({ fingerprint256 }) => fingerprint256))].toSorted().join();
  return prints(one) === prints(other);
}
