import { BANK, K8S, VAULT, VSO, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

const PUBLISHED = "a published set";

export const FILES: PeerSection = {
  title: "Files",
  rows: [
    {
      peer: "Vault Agent, Consul Template",
      refs: [],
      theirs:
        "Each file is renamed into place by itself, so a reader can find the new user with the old password.",
      ours: "The whole set changes by one rename.",
      tests: [
        held(
          "secrets/publication",
          PUBLISHED,
          "never shows a reader one file of one version and one of another",
        ),
        held(
          "secrets/agent",
          "a rotation",
          "keeps user and password together for whoever reads while it happens",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#136`, `${K8S}#715`, `${VAULT}#15313`],
      theirs:
        "Files are 0644, and change their owner after they can be seen; mode and owner are hard to get right.",
      ours: "0440 where the pod states a group, else 0444 in a volume that only the named containers mount; set before the file can be seen.",
      tests: [
        held(
          "secrets/publication",
          PUBLISHED,
          "has the modes that were asked for, whatever the umask is",
        ),
        held(
          "inject/inject",
          "who can read the secrets",
          "is the main container's group, when the pod states it",
        ),
      ],
    },
    {
      peer: "SPIFFE Helper",
      refs: ["spiffe/spiffe-helper#422"],
      theirs:
        "A token's file is written in place, so a reader can find it empty; its mode counts for the first write only.",
      ours: "A version is written apart, with its modes, and never changed after it can be seen.",
      tests: [
        held(
          "secrets/publication",
          PUBLISHED,
          "is reached by one link for each file, through the version that holds",
        ),
        held(
          "secrets/publication",
          PUBLISHED,
          "keeps the version before for its readers, until it is tidied",
        ),
      ],
    },
    {
      peer: "cert-manager CSI driver",
      refs: ["cert-manager/csi-lib#8"],
      theirs:
        "A driver that is killed in the middle leaves data behind, and goes on issuing for pods that are gone.",
      ours: "What was not finished is removed at the next start, and so are files of secrets that nobody declares any more.",
      tests: [
        held("secrets/publication", PUBLISHED, "is freed of what a killed process left unfinished"),
        held("secrets/publication", PUBLISHED, "loses the links of files that are no longer in it"),
      ],
    },
    {
      peer: "Vault Agent, Consul Template",
      refs: [],
      theirs:
        "A field that is missing is written as `<no value>`, unless somebody has set `error_on_missing_key`.",
      ours: "It is an error, the old file stays, and a lease that came for nothing is given back.",
      tests: [
        held(
          "secrets/secret-file",
          "one field of a secret",
          "is refused by its name when it is absent or null, whatever else there is",
        ),
        held(
          "template/template",
          "a secret's data",
          "lacks a field: an error unless the template says that this is well",
        ),
        held(
          "secrets/agent",
          "one secret's failure",
          "of a missing field does not take the old file away",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs: "A deleted version of KV and a wrong path look alike.",
      ours: "The message says which version is deleted or destroyed, or that data/ is missing in the path.",
      tests: [
        held(
          "vault/kinds",
          "a version of KV version 2",
          "3 that is gone is invalid, for its own reason",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [],
      theirs:
        "Without a template, a secret of KV version 2 is written as Go's `map[…]`; with one, writeToFile followed links out of its folder until it was mended.",
      ours: "json, env, one field or pem without a template; with one, the same bytes, and no function that writes or runs.",
      tests: [
        held(
          "secrets/secret-file",
          "a secret as json",
          "is the same bytes whatever order the server chose",
        ),
        held(
          "template/template",
          "an error",
          "says what there is instead of a function of Vault Agent that there is not",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector, Bank-Vaults",
      refs: [`${K8S}#14`, `${K8S}#45`, `${K8S}#228`, `${BANK}#252`, `${BANK}#742`, `${BANK}#974`],
      theirs:
        "Secrets are wanted as variables; who gives them must know the image's entrypoint, and asks registries at admission.",
      ours: "A file of variables (`env`) that a shell reads as they were. No admission asks a registry.",
      tests: [
        held("secrets/secret-file", "a secret as variables", "is read by a shell as it was"),
        held(
          "inject/any-pod",
          "any pod that Kubernetes allows",
          "never has exec probes changed, nor hooks, nor users, nor what its containers run",
        ),
      ],
      open: "No secret becomes an environment variable of a container: it would show in /proc and in crash reports, and could not rotate.",
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs: "The Vault token can be written beside the secrets, for the application to use.",
      ours: "It is in the sidecar's memory and in a folder of mode 0700 of its own volume in memory, and in no log, metric or file besides.",
      tests: [
        held(
          "secrets/restart",
          "a sidecar that is killed and started again",
          "keeps its state where only it can read it",
        ),
        held(
          "secrets/canary",
          "what is secret",
          "is nowhere but in memory, through the whole life of a sidecar",
        ),
      ],
    },
    {
      peer: "External Secrets, Vault Secrets Operator, Secrets Store CSI",
      refs: ["kubernetes-sigs/secrets-store-csi-driver#298"],
      theirs:
        "Secrets are copied into Kubernetes Secrets: they lie in etcd, and for finished pods they stay and grow old.",
      ours: "They are written to tmpfs only, of the one pod, and refused elsewhere.",
      tests: [
        held(
          "secrets/agent",
          "a start",
          "is refused when the secrets' folder is on a disk, before Vault is asked for anything",
        ),
        held(
          "secrets/canary",
          "what is secret",
          "is nowhere but in memory, through the whole life of a sidecar",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [],
      theirs:
        "Memory for secrets is taken for safe, and is swapped to the node's disk like any other.",
      ours: "Swap is looked for before each write: a reason, a metric, and a refusal under `require: noswap`.",
      tests: [
        held(
          "secrets/memory",
          "an agent on a node that swaps",
          "publishes and says why that is not well, or, under require: noswap, writes nothing",
        ),
      ],
    },
    {
      peer: "Secrets Store CSI",
      refs: [
        "kubernetes-sigs/secrets-store-csi-driver#372",
        "Azure/secrets-store-csi-driver-provider-azure#815",
      ],
      theirs:
        "A mounted secret stays as it was when the pod was made, unless a feature of the driver is switched on.",
      ours: "What changes in Vault is published in the running pod.",
      tests: [
        held(
          "vault/agent",
          "the secrets agent",
          "reads a secret without a lease again, and swaps the set when it has changed",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#390`],
      theirs:
        "All containers mount the secrets, read-write, and init containers whether they are named or not.",
      ours: "The main one alone, or those that are named, read-only.",
      tests: [
        held(
          "inject/inject",
          "the application's containers",
          "mount payload and secrets read-only, the main one alone unless others are named",
        ),
        held(
          "inject/inject",
          "the application's containers",
          "mount what they are named for, init containers behind the sidecar too",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#526`],
      theirs: "The volume in memory has no size limit, so it can take the node's memory.",
      ours: "It has one, and the sidecar's memory limit counts it.",
      tests: [
        held(
          "inject/inject",
          "the sidecar",
          "has requests and limits, with the secrets' memory on top",
        ),
        held("inject/inject", "the sidecar", "writes secrets into memory of a stated size"),
        held(
          "secrets/restart",
          "a volume that cannot be written",
          "leaves the set as it is and is reported, and is tried again",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#28305`, `${VSO}#309`, `${VSO}#99`],
      theirs:
        "After a reboot without a link nothing starts: the cache on disk needs Vault before it can be used, and lies beside its key.",
      ours: "With `offline-secrets` the last good set lies sealed on the payload volume, the key elsewhere, up to an age and to the first end in it.",
      tests: [
        held(
          "secrets/offline",
          "after a reboot without a link",
          "a pod starts on the sealed set, says so, and takes Vault's as soon as it answers",
        ),
        held(
          "secrets/offline",
          "after a reboot without a link",
          "a set in use is withdrawn when Vault refuses the login",
        ),
        held(
          "secrets/offline",
          "the sealed set",
          "is nothing but ciphertext, of the sidecar's own mode",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#197`],
      theirs: "All of the configuration is one variable, and breaks at 128 KiB.",
      ours: "Each setting and each secret is a variable of its own, and one that is too large is denied by its name.",
      tests: [
        held(
          "contract/settings",
          "the settings",
          "are refused when one is too large for a variable, with its key and the limit",
        ),
        held(
          "contract/settings",
          "the settings",
          "have a variable of their own each, in the form that shells take",
        ),
      ],
    },
  ],
};
