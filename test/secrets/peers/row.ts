/** What is known to go wrong elsewhere, or is complained of, and the tests that hold edgesync to better. `docs/secrets-peers.md` is made of it. */

/** A test by its file and its exact title; of one in a loop, the title as it is when it runs. */
export interface NamedTest {
  /** From the root of the project. */
  readonly file: string;
  /** Of the `describe` around it. */
  readonly subject: string;
  readonly title: string;
}

export interface PeerRow {
  readonly peer: string;
  /** Issues and pull requests, as `owner/name#number`; none for a default that is read in the source. */
  readonly refs: readonly string[];
  /** What goes wrong there, or is asked for. */
  readonly theirs: string;
  /** What edgesync does. */
  readonly ours: string;
  readonly tests: readonly NamedTest[];
  /** What of it edgesync does not do, and why. */
  readonly open?: string;
}

export interface PeerSection {
  readonly title: string;
  readonly rows: readonly PeerRow[];
}

/** @param file of `test/`, without its ending */
export function held(file: string, subject: string, title: string): NamedTest {
  return { file: `test/${file}.test.ts`, subject, title };
}

export const VAULT = "hashicorp/vault";
export const K8S = "hashicorp/vault-k8s";
export const HELM = "hashicorp/vault-helm";
export const CT = "hashicorp/consul-template";
export const VSO = "hashicorp/vault-secrets-operator";
export const BANK = "bank-vaults/vault-secrets-webhook";
