/**
 * The pod contract: every annotation under `edgesync.dev/`, once. The parser (`pod-options.ts`), the sidecar's settings, the
 * reference page (`docs/annotations.md`) and the tests are made from these tables, so a new key is one new row.
 */
import { PERMITS } from "./annotations/permits.ts";
import { SECRETS } from "./annotations/secrets.ts";
import { SIDECAR } from "./annotations/sidecar.ts";
import { UPDATES } from "./annotations/updates.ts";
import { WORKLOAD } from "./annotations/workload.ts";

export type { Row, Section } from "./annotations/row.ts";
export { SECRET_ANNOTATIONS } from "./annotations/secrets.ts";

export const PREFIX = "edgesync.dev/";

/** On a namespace: `enabled` lets its annotated pods be injected. */
export const NAMESPACE_LABEL = "edgesync.dev/injection";

/** On a pod: `"true"` asks for injection in any namespace, `"false"` refuses it always. */
export const POD_LABEL = "edgesync.dev/inject";

export const ANNOTATIONS = { ...UPDATES, ...PERMITS, ...WORKLOAD, ...SECRETS, ...SIDECAR } as const;
