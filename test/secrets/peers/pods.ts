import { K8S, VAULT, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

export const PODS: PeerSection = {
  title: "A credential and its pod",
  rows: [
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#125`, `${K8S}#162`, `${VAULT}#14634`, `${VAULT}#27739`],
      theirs:
        "Init container and sidecar each log in and each make a user; the application reads the one that nobody renews.",
      ours: "One container from start to end, and one credential for the pod's life, also over kills of the sidecar.",
      tests: [
        held(
          "secrets/restart",
          "a sidecar that is killed and started again",
          "goes on with the same token and the same lease, and the set is never away",
        ),
        held(
          "secrets/kills",
          "a sidecar that is killed at its worst steps",
          "has at most one credential more than it needs, and shows whole sets",
        ),
        held(
          "inject/inject",
          "the sidecar",
          "is a native sidecar whose start is never given up on",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${VAULT}#6492`, `${K8S}#210`, `${K8S}#593`],
      theirs:
        "Credentials are revoked by a preStop hook with a sleep, while the application still runs, or not at all.",
      ours: "On SIGTERM, when the application has ended, within a second and a half. A sidecar that ends alone revokes nothing.",
      tests: [
        held(
          "sidecar/agent",
          "the sidecar as a process",
          "revokes its credentials on SIGTERM when the application has ended",
        ),
        held(
          "sidecar/agent",
          "the sidecar as a process",
          "revokes nothing on SIGTERM when the application still runs",
        ),
        held(
          "secrets/restart",
          "revocation",
          "is over in a second and a half when Vault does not answer",
        ),
      ],
      open: "What is killed with its node revokes nothing: the leases end by themselves.",
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "Nothing ties the end of the old credential to the time at which the application has the new one.",
      ours: "It is kept for an overlap after its successor is published, and until the application has been told of that; then it is revoked.",
      tests: [
        held(
          "secrets/agent",
          "an old lease",
          "is still good right after its successor was published",
        ),
        held(
          "vault/database",
          "a database's credential",
          "is rotated without a query that fails, for a client that connects again",
        ),
      ],
    },
  ],
};
