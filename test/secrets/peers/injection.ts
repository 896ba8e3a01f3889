import { BANK, HELM, K8S, VAULT, VSO, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

export const INJECTION: PeerSection = {
  title: "Injection and the webhook",
  rows: [
    {
      peer: "Vault Agent Injector, Bank-Vaults",
      refs: [`${K8S}#620`, `${K8S}#659`, `${VAULT}#29444`, `${BANK}#414`],
      theirs: "No native sidecars: nothing orders the start, and there are two containers.",
      ours: "A native sidecar where every kubelet knows them; else the first container, whose start hook waits.",
      tests: [
        held(
          "inject/inject",
          "the sidecar",
          "is a native sidecar whose start is never given up on",
        ),
        held(
          "inject/modes",
          "where native sidecars are not to be had, the sidecar",
          "is the first container, and its start hook waits",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#120`, `${K8S}#133`, `${HELM}#527`],
      theirs: "Jobs and CronJobs never end: the agent goes on.",
      ours: "A native sidecar is ended by the kubelet; elsewhere an init container gets the credentials and ends.",
      tests: [
        held(
          "inject/modes",
          "a pod whose containers end",
          "has a native sidecar where it can (Never), which the kubelet ends",
        ),
        held(
          "inject/modes",
          "a pod whose containers end",
          "has an init container that ends by itself elsewhere, before its own",
        ),
        held(
          "sidecar/start-gate",
          "edgesync agent --once",
          "ends well when the credentials are there, and leaves them for the application",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#141`, `${K8S}#165`, `${HELM}#580`, `${HELM}#704`, `${HELM}#787`],
      theirs:
        '"bad certificate" at each change of the leader: a certificate is served before its authority is trusted.',
      ours: "The authority goes into every caBundle and is read back; a minute later its certificate is served.",
      tests: [
        held(
          "webhook/rotation",
          "a rotation under load",
          "fails no admission, whichever replica it goes to, through several rotations, conflicts and an overloaded API server",
        ),
        held(
          "webhook/serving-certificate",
          "any two leaders and two replicas, in any order",
          "never serve what an API server does not trust",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector, Bank-Vaults",
      refs: [`${K8S}#40`, `${K8S}#208`, `${HELM}#238`, `${HELM}#399`],
      theirs:
        "While the injector is down, pods start without their secrets (failurePolicy Ignore).",
      ours: "failurePolicy Fail: such a pod is not created, and the owner tries again.",
      tests: [
        held(
          "manifests/manifests",
          "the base",
          "calls the webhook for created pods only, and never for its own namespace",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#258`, `${HELM}#609`, `${HELM}#1078`],
      theirs:
        "With Fail, the injector's own pods cannot start while it is down, and pods that ask for nothing are held up.",
      ours: "Its own namespace and kube-system are never asked about, and others only by our label.",
      tests: [
        held(
          "manifests/manifests",
          "the base",
          "calls the webhook for created pods only, and never for its own namespace",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector, Linkerd",
      refs: [`${K8S}#500`, `${K8S}#546`, `${VAULT}#11064`, "linkerd/linkerd2#2889"],
      theirs: "Updates of a pod are changed too, and its deletion is refused.",
      ours: "Only the creation of a pod concerns the webhook.",
      tests: [
        held(
          "manifests/manifests",
          "the base",
          "calls the webhook for created pods only, and never for its own namespace",
        ),
        held(
          "webhook/server",
          "the webhook",
          "leaves a pod that does not ask, and anything but a creation, as it is",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#377`, `${K8S}#599`],
      theirs: "What is injected is not allowed under the restricted Pod Security Standard.",
      ours: "Every field of it is stated on the sidecar.",
      tests: [
        held(
          "inject/any-pod",
          "any pod that Kubernetes allows",
          "has a sidecar that the restricted Pod Security Standard allows, with requests and limits",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${K8S}#59`, `${VAULT}#9165`],
      theirs: "A fixed user is refused where the platform assigns them (OpenShift).",
      ours: "`run-as: assigned` leaves the user to the platform.",
      tests: [
        held(
          "inject/advice",
          "run-as: assigned",
          "leaves the user to the pod or to the platform, as OpenShift's ranges want it",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector, Linkerd",
      refs: [
        `${K8S}#41`,
        `${K8S}#53`,
        `${HELM}#160`,
        `${HELM}#288`,
        "linkerd/linkerd2#4758",
        "linkerd/linkerd2#7999",
        "linkerd/linkerd2#11124",
      ],
      theirs: "Beside a mesh, the agent has no network, or comes in the wrong place.",
      ours: "Behind a native proxy, before the redirection of a classic one.",
      tests: [
        held(
          "inject/hostile",
          "shapes of pods that others make",
          "of a classic mesh: the sidecar comes before the redirection, which leaves no network",
        ),
        held(
          "inject/hostile",
          "shapes of pods that others make",
          "of a native mesh: the sidecar comes behind the proxy, which is its network",
        ),
      ],
    },
    {
      peer: "Istio, OpenTelemetry Operator",
      refs: [
        "istio/istio#25931",
        "istio/istio#38354",
        "istio/istio#43074",
        "istio/istio#54562",
        "open-telemetry/opentelemetry-operator#3349",
      ],
      theirs: "Several injectors fight over a pod, and a second call changes it again.",
      ours: "A second call changes nothing, whatever others have put in between.",
      tests: [
        held(
          "inject/any-pod",
          "any pod that Kubernetes allows",
          "is left alone the second time, whatever the nodes are by then",
        ),
        held(
          "inject/fixed-point",
          "a second call",
          "changes nothing behind a webhook that put containers before, between and after",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector",
      refs: [`${HELM}#472`],
      theirs: "Each pod reserves 250m of CPU and 64 MiB, and uses 2m and 13 MiB.",
      ours: "It requests 5m of CPU and 48 MiB; the limit counts the volume for secrets.",
      tests: [
        held(
          "inject/inject",
          "the sidecar",
          "has requests and limits, with the secrets' memory on top",
        ),
      ],
      open: "A process of Node takes more memory than those 13 MiB: `npm run bench -- memory` says how much. One process does updates and secrets.",
    },
    {
      peer: "Vault Secrets Operator, Bank-Vaults",
      refs: [`${VSO}#230`, `${VSO}#969`, `${VSO}#973`, "bank-vaults/vault-env#392"],
      theirs:
        "One process for all secrets of a cluster grows until it is killed for memory, and takes all of them along.",
      ours: "One process a pod, with answers, templates and the volume bounded.",
      tests: [
        held("secrets/vault", "an answer of Vault", "of more than a mebibyte is not read on"),
        held(
          "template/template",
          "a template that asks too much",
          "of text, of steps, of depth or of secrets ends in an error, soon",
        ),
      ],
    },
  ],
};
