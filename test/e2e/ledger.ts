/** The claims, one line for each, and how many of them hold. */

/** By the name that stories use; the order is that of the lines of what was not tried. */
export const CLAIMS = {
  install: "the base installs, both replicas are ready, and the API server trusts them",
  namespace: "pods of a labelled namespace are injected, and only those that ask",
  label: "a labelled pod of any namespace is injected",
  denial: "a misspelled annotation is refused by its name",
  held: "the start gate holds the application until payload and credentials are there",
  released: "the start gate lets it go then, and the pod becomes ready",
  delta: "a delta update restarts the application's container and nothing else",
  rollback: "a broken release is rolled back, and is not tried again",
  pulls: "8 pulls of the restart lever 15 s apart end with the last release",
  killed: "a killed sidecar comes back with the same credential",
  rotation: "credentials rotate while the application runs on",
  certificate: "the webhook's certificate rotates under load, and no admission fails",
  job: "a Job with a sidecar completes",
  down: "without the webhook pods that ask are refused, and others are not",
  recovery: "the webhook comes back, and so does injection",
  uninstall: "uninstalling leaves nothing",
  after: "injected pods run on after that until they are deleted",
} as const;
export type Claim = keyof typeof CLAIMS;

export interface Ledger {
  /**
   * Tries a claim: `work` resolves with details to print, or throws why it does not hold. Resolves with whether it does.
   */
  claim(id: Claim, work: () => Promise<string>): Promise<boolean>;
  /** A line for each claim that was not tried, and the last line. Resolves with how many failed. */
  finish(why: string): { readonly passed: number; readonly failed: number };
}

export interface LedgerDeps {
  readonly print: (line: string) => void;
  /** Milliseconds from an arbitrary start. */
  readonly monotonic: () => number;
}

export function openLedger({ print, monotonic }: LedgerDeps): Ledger {
  const results = new Map<Claim, boolean>();
  return {
    async claim(id, work) {
      const begin = monotonic();
      const outcome = await work().then(
        (details) => ({ ok: true, details }),
        (error: unknown) => ({ ok: false, details: messageOf(error) }),
      );
      const seconds = ((monotonic() - begin) / 1_000).toFixed(1);
      results.set(id, outcome.ok);
      const details = oneLine(outcome.details);
      print(
        outcome.ok
          ? `pass  ${CLAIMS[id]}  (${details === "" ? "" : `${details}, `}${seconds} s)`
          : `fail  ${CLAIMS[id]}: ${details}  (${seconds} s)`,
      );
      return outcome.ok;
    },
    finish(why) {
      for (const id of Object.keys(CLAIMS) as Claim[]) {
        if (results.has(id)) continue;
        results.set(id, false);
        print(`fail  ${CLAIMS[id]}: not tried, ${oneLine(why)}`);
      }
      const passed = [...results.values()].filter(Boolean).length;
      const failed = results.size - passed;
      print(`${passed} passed, ${failed} failed`);
      return { passed, failed };
    },
  };
}

/** With the messages of what caused it. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}
