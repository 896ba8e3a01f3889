/** What the test and the site's pod say to each other; both import this. */

/** Of the site's pod. */
export const PORTS = {
  control: 8080,
  repository: 8443,
  vault: 8200,
  broker: 15672,
  tunnel: 8201,
} as const;

/** Of the applications under test. */
export const APP_PORT = 8080;

/** Of the injected sidecar, unless annotated. */
export const SIDECAR_PORT = 19465;

/** Header of every request to the control port but those of applications. */
export const KEY_HEADER = "x-e2e-key";

/** Where files of the test are mounted in its pods. */
export const FILES = "/e2e";

export interface SiteState {
  /** The pod's address as it is in URLs. */
  readonly host: string;
  /** As releases are published for it. */
  readonly platform: string;
  /** PEM of the authority of its certificates. */
  readonly ca: string;
  /** Milliseconds since the epoch, as all times in its answers. */
  readonly now: number;
  readonly starts: readonly Start[];
}

/** An application has started. */
export interface Start {
  readonly pod: string;
  readonly version: string;
  readonly at: number;
}

export interface CommandResult {
  readonly done: boolean;
  readonly code?: number;
  readonly output?: string;
  readonly errors?: string;
  /** When it ended. */
  readonly at?: number;
}

/** A release to be made. */
export interface Tree {
  readonly folder: string;
  readonly version: string;
  readonly healthy: boolean;
  /** Of a file that differs a little from version to version. */
  readonly bytes: number;
}

export interface VaultAnswer {
  readonly status: number;
  readonly body: string;
}

/** A request on its way to a Vault that only the test reaches. */
export interface Asked {
  readonly id: number;
  readonly method: string;
  readonly path: string;
  readonly token?: string;
  readonly body: string;
}

export interface Told {
  readonly id: number;
  readonly status: number;
  readonly body: string;
  readonly retryAfter?: string;
}
