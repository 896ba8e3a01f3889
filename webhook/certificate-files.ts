/** The serving certificate as files that somebody else replaces, such as a mounted Secret: looked at again and again, and swapped live. */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import type { Clock } from "#core/clock.ts";
import { codeOf, EdgeSyncError } from "#core/errors.ts";
import type { Log } from "#core/telemetry.ts";

export interface Certificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** @throws EdgeSyncError CONFIG_INVALID when a file is missing, or the key is not the certificate's */
export async function loadCertificate(folder: string): Promise<Certificate> {
  try {
    const [cert, key] = await Promise.all([
      readFile(join(folder, "tls.crt"), "utf8"),
      readFile(join(folder, "tls.key"), "utf8"),
    ]);
    // Throws when the two do not belong together, as while they are being replaced.
    createSecureContext({ cert, key });
    const { validFromDate, validToDate } = new X509Certificate(cert);
    return { cert, key, notBefore: validFromDate.getTime(), notAfter: validToDate.getTime() };
  } catch (cause) {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `cannot use tls.crt and tls.key in ${folder} (EDGESYNC_TLS_DIR); expected a PEM certificate and its key`,
      { cause },
    );
  }
}

export interface WatchOptions {
  readonly folder: string;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Called with the first certificate and with each that differs from the one before. */
  readonly use: (certificate: Certificate) => void;
  /** Told after each look why no admission should be sent here; `undefined` when it should. */
  readonly judge: (problem: string | undefined) => void;
}

/**
 * Looks until the signal aborts; a certificate that cannot be used leaves the one before in use. A poll and no file watch: a mounted
 * Secret changes by a symlink two folders away, which a watch on the file never sees.
 */
export async function watchCertificate(options: WatchOptions, signal: AbortSignal): Promise<void> {
  const { folder, pollMs, clock, log, use, judge } = options;
  let current = "";
  let used: Certificate | undefined;
  let failure = "";
  while (!signal.aborted) {
    try {
      const found = await loadCertificate(folder);
      const text = found.cert + found.key;
      if (text !== current) {
        use(found);
        used = found;
        judge(timeProblem(found, clock.now()));
        log.info(
          { expiresAt: new Date(found.notAfter).toISOString() },
          "serving certificate loaded",
        );
      }
      current = text;
      failure = "";
    } catch (err) {
      const told = String(err);
      // Once for each new failure, not at every look.
      if (told !== failure) log.error({ err, code: codeOf(err) }, "serving certificate not usable");
      failure = told;
    }
    judge(used === undefined ? "no serving certificate" : timeProblem(used, clock.now()));
    // An abort only ends the wait: whoever aborts knows why.
    await clock.sleep(pollMs, signal).catch(() => {});
  }
}

function timeProblem({ notBefore, notAfter }: Certificate, now: number): string | undefined {
  if (now < notBefore) return "the serving certificate is not valid yet";
  if (now >= notAfter) return "the serving certificate has expired";
  return undefined;
}
