import { K8S, VAULT, VSO, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

export const ROTATION: PeerSection = {
  title: "Telling the application",
  rows: [
    {
      peer: "Vault Agent Injector, Bank-Vaults",
      refs: [`${K8S}#127`, `${VAULT}#11076`, "bank-vaults/bank-vaults#668"],
      theirs:
        "The application does not learn that its secrets have changed, unless a shell in the agent's image can tell it.",
      ours: "`on-rotate`: an HTTP call, a signal, or a restart of its container by the kubelet, without a right at the API server.",
      tests: [
        held(
          "secrets/on-rotate",
          "on-rotate of a process",
          "http: is one call for what changes together, and none for the first set",
        ),
        held(
          "secrets/on-rotate",
          "on-rotate of a process",
          "signal: is one signal for what changes together, and none for the first set",
        ),
        held(
          "inject/rotate",
          "on-rotate: restart",
          "puts the probes of the containers with the secrets on the sidecar, and a second call changes nothing",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#196`, `${K8S}#370`],
      theirs:
        "The command runs for the first file already, once in the init container and once in the sidecar, when nobody is there to be told.",
      ours: "Nobody is told of the first set, nor before the application has been let start, nor again by a sidecar that was restarted.",
      tests: [
        held(
          "secrets/rotation",
          "on-rotate",
          "asks the application once for what changes together, never for the first set, and not again after a restart",
        ),
        held("secrets/rotation", "on-rotate", "waits until the application has been let start"),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#12566`],
      theirs:
        "A command that fails starts the templates anew, and each start asks Vault for everything.",
      ours: "A hook that fails is tried eight times and then left until the next change; Vault is asked for nothing.",
      tests: [
        held(
          "secrets/rotation",
          "on-rotate",
          "gives an application up that does not take it, says so, and tells it of the next change",
        ),
        held("secrets/complaints", "a hook that fails", "asks Vault for nothing"),
      ],
    },
    {
      peer: "Vault Secrets Operator",
      refs: [`${VSO}#285`, `${VSO}#734`],
      theirs: "A restart of the operator rolls out every workload with a dynamic secret.",
      ours: "What the application was told is saved before it is told; a restarted sidecar tells nothing and asks for nothing.",
      tests: [
        held(
          "secrets/rotation",
          "new secrets",
          "are told at most once for each change, however the sidecar ends in between",
        ),
        held(
          "secrets/restart",
          "a sidecar that is killed and started again",
          "goes on with the same token and the same lease, and the set is never away",
        ),
      ],
    },
    {
      peer: "Vault Secrets Operator",
      refs: [`${VSO}#644`],
      theirs: "Each of several secrets restarts the workload by itself.",
      ours: "What changes within two to ten seconds is one change, and restarts are a minute apart at least.",
      tests: [
        held(
          "secrets/rotation",
          "new secrets",
          "are told once they have been quiet for two seconds, and after ten at the latest",
        ),
        held(
          "secrets/restart-beside-trial",
          "on-rotate: restart",
          "keeps a release from its trial meanwhile, and comes a minute after the last at the earliest",
        ),
      ],
    },
    {
      peer: "SPIFFE Helper",
      refs: ["spiffe/spiffe-helper#250", "spiffe/spiffe-helper#251", "spiffe/spiffe-helper#252"],
      theirs:
        "The process is named by a pid file: while it restarts, the old one is signalled, the new one keeps the old certificate; before it has started there are errors.",
      ours: "The process is found by its name when it is told, a failure is tried again, and what starts anew reads the new set anyway.",
      tests: [
        held(
          "hooks/reload",
          "on-update: signal",
          "waits for a process that is not there yet, and says so",
        ),
        held(
          "hooks/reload",
          "on-update: signal",
          "reaches the process of the name, and not those that it has started",
        ),
      ],
    },
    {
      peer: "SPIFFE Helper, Vault Agent Injector",
      refs: [],
      theirs:
        "A signal needs a common process namespace; without it there is a line in a log, at run time, or the pod is changed unasked.",
      ours: "The pod is denied with the field that it takes, and admitted with a word of what that costs.",
      tests: [
        held(
          "inject/rotate",
          "on-rotate: signal",
          "is refused where the sidecar cannot see or signal the application",
        ),
        held(
          "inject/rotate",
          "on-rotate: signal",
          "is admitted with a warning that says what it costs",
        ),
      ],
    },
    {
      peer: "Vault Agent (exec mode), Bank-Vaults (vault-env)",
      refs: [],
      theirs:
        "The agent is the application's parent: it changes PID 1, needs the image's command, ends with it, and the kubelet sees no restart.",
      ours: "The kubelet restarts the container, with its grace and its hooks; the restart is not held against a release on trial.",
      tests: [
        held(
          "secrets/restart-beside-trial",
          "on-rotate: restart",
          "waits for the end of a release's trial, in which its restart would count as a start",
        ),
        held(
          "inject/any-pod",
          "any pod that Kubernetes allows",
          "never has exec probes changed, nor hooks, nor users, nor what its containers run",
        ),
      ],
    },
  ],
};
