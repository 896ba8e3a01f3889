import { CT, VAULT, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

const ISSUED_ONCE = held(
  "secrets/complaints",
  "a certificate",
  "is issued once, whatever becomes of the token, the refresh interval and the sidecar",
);

export const CERTIFICATES: PeerSection = {
  title: "Certificates and logins",
  rows: [
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#10676`],
      theirs: "A certificate of 30 days is issued anew with every new token, each hour.",
      ours: "A certificate has no lease, so it outlives the token that it was issued to.",
      tests: [ISSUED_ONCE],
    },
    {
      peer: "Consul Template",
      refs: [`${CT}#1071`, `${CT}#1272`],
      theirs:
        "Certificates that are good for hours are issued anew all the time, and applications restarted for them.",
      ours: "The next one is asked for at 80 to 90 % of its life, and not when anything else is read.",
      tests: [ISSUED_ONCE],
    },
    {
      peer: "Consul Template",
      refs: [`${CT}#1775`],
      theirs:
        "The spread of pkiCert is lost in a division of integers, so all of a fleet ask at 90 %; with a spread, the wait is repeated until shortly before the end.",
      ours: "Chance decides between 80 and 90 %, once for each certificate.",
      tests: [
        held(
          "secrets/lease",
          "a lease that cannot be renewed",
          "is replaced once 80 to 90 % of it are over",
        ),
      ],
    },
    {
      peer: "Consul Template",
      refs: [`${CT}#966`, `${CT}#985`],
      theirs: "A certificate of one minute is replaced after two and a half.",
      ours: "No least time: one of four seconds is replaced before it ends.",
      tests: [
        held(
          "vault/kinds",
          "a certificate",
          "is replaced before it ends, key and certificate together",
        ),
      ],
    },
    {
      peer: "Consul Template",
      refs: [`${CT}#1612`],
      theirs:
        "After a restart the certificate is found in its file and its key is not: the key's file is emptied or removed.",
      ours: "Key and certificate are one version, kept and published together.",
      tests: [
        ISSUED_ONCE,
        held(
          "secrets/secret-file",
          "a key and its certificate in one file",
          "are the key, the certificate and what has signed it, each once and on lines of its own",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#17306`, `${CT}#1646`],
      theirs:
        "When a certificate is replaced cannot be set; a site that must outlast a week without Vault needs certificates of 47 days.",
      ours: "`-replace-at=15%` replaces it at 15 to 25 % of its life, spread over a fleet all the same; and a pod starts without Vault on what is sealed.",
      tests: [
        held(
          "secrets/lease",
          "a lease that cannot be renewed",
          "is replaced earlier where the pod says so, also by the next process",
        ),
        held(
          "secrets/offline",
          "after a reboot without a link",
          "a pod starts on the sealed set, says so, and takes Vault's as soon as it answers",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#32101`, `${VAULT}#32129`],
      theirs: "A certificate cannot be replaced in a maintenance window, or on demand.",
      ours: "What is disturbed can be chosen: `on-rotate: none`, or an HTTP hook in which the application decides when to load it.",
      tests: [
        held(
          "secrets/rotation",
          "on-rotate",
          "gives an application up that does not take it, says so, and tells it of the next change",
        ),
      ],
      open: "No window and no command: a credential that waits for a window can end in it.",
    },
    {
      peer: "cert-manager CSI driver",
      refs: ["cert-manager/csi-driver#119"],
      theirs:
        "A container that crashes gets a new certificate at each start, until the issuer's quota is spent.",
      ours: "Nothing is asked for when a container starts: the set lives in the pod's memory, and the sidecar resumes it.",
      tests: [ISSUED_ONCE],
    },
    {
      peer: "cert-manager CSI driver",
      refs: ["cert-manager/csi-driver#16", "cert-manager/csi-lib#45"],
      theirs:
        "A request that stays pending is waited for without an end, and the certificate ends meanwhile.",
      ours: "Each request has its time, and is tried again with growing pauses.",
      tests: [
        held(
          "secrets/vault",
          "an answer of Vault",
          "that does not come is given up after the time-out",
        ),
        held(
          "secrets/agent",
          "one secret's failure",
          "harms no other: denied, absent, failing, answered with something else, or never",
        ),
      ],
    },
    {
      peer: "cert-manager CSI driver",
      refs: ["cert-manager/csi-driver#636"],
      theirs: "The main container starts although there is no certificate, and none comes later.",
      ours: "It is not started before every declared secret is there.",
      tests: [
        held("secrets/agent", "a start", "shows nothing before every declared secret is there"),
        held(
          "sidecar/agent",
          "the sidecar as a process",
          "holds the start while Vault cannot be reached, and keeps Vault's paths to itself",
        ),
      ],
    },
    {
      peer: "cert-manager CSI driver",
      refs: [],
      theirs:
        "What it does well: the key never leaves the node. Vault Agent has every key made in Vault.",
      ours: "With `-key` the key is made in the pod, RSA or EC, and Vault signs a request.",
      tests: [
        held("vault/kinds", "a certificate", "is signed for a key that never leaves: ec-p256"),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#26367`],
      theirs:
        "The certificate of its login is read once: the token cannot be renewed any more when that has ended.",
      ours: "It is read at each login, each token is renewed with the one that it was had with, and a refusal says what has ended.",
      tests: [
        held(
          "vault/logins",
          "a login by certificate",
          "reads the certificate anew, and renews each token with the one it was had with",
        ),
        held(
          "vault/logins",
          "a login by certificate",
          "says that the certificate has ended, by Vault's clock",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "The JWT of a login is removed once it is read, and a new one is not used before the token ends.",
      ours: "It is read at each login and never touched.",
      tests: [
        held(
          "secrets/vault",
          "a login",
          "reads the token file anew each time, because the kubelet replaces it",
        ),
        held(
          "vault/logins",
          "a login by jwt",
          "says that the token has ended, by Vault's clock, when nobody has replaced it",
        ),
        held("vault/logins", "a login by AppRole", "reads role_id and secret_id anew"),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "A secret_id that came wrapped (`secret_id_response_wrapping_path`) is unwrapped into the agent's memory only: an agent that is restarted has none.",
      ours: "It is kept beside the token, in memory, and serves the next sidecar of the pod. One that somebody else took is missed, and said to be.",
      tests: [
        held(
          "secrets/secret-id",
          "a secret_id that came wrapped",
          "is unwrapped once, and serves the logins of a restarted sidecar too",
        ),
        held(
          "secrets/secret-id",
          "a secret_id that came wrapped",
          "that somebody else took first is missed, and said to be",
        ),
      ],
    },
    {
      peer: "Vault Agent Injector, Linkerd",
      refs: ["hashicorp/vault-k8s#601", "hashicorp/vault-k8s#335", "linkerd/linkerd2#4651"],
      theirs:
        "Injection fails where service-account tokens are not mounted, takes another volume for the token, or shows the pod's token to all.",
      ours: "The sidecar has a token of its own with an audience, mounted by nobody else, whatever the pod says of its own.",
      tests: [
        held(
          "inject/inject",
          "the sidecar",
          "has its own token with the audience that is asked for, and nobody else mounts it",
        ),
        held(
          "inject/hostile",
          "shapes of pods that others make",
          "that state no token keep none, and the sidecar has its own for Vault alone",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "A login that is refused is tried for ever with nothing but log lines, or ends the process.",
      ours: "It keeps trying, slowly, and status, log and start gate say the code.",
      tests: [
        held(
          "secrets/agent",
          "a start",
          "with a role that does not let it in keeps trying, slowly, and says so",
        ),
        held("secrets/lease", "a denial", "is tried again slowly, and for ever"),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "All that helps where a clock is wrong is an annotation that skips the check of Vault's certificate.",
      ours: "There is no such annotation: with `tls-clock-skew`, everything but the time is still verified before a byte is sent.",
      tests: [
        held(
          "network/off-clock",
          "a clock that may be off",
          "is not asked about when Node says that something else is wrong",
        ),
        held(
          "sidecar/clients",
          "a certificate that only the clock puts out of its time",
          "is counted, logged and shown when it is accepted",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs: "A wrapped token cannot be renewed, so the login waits until somebody unwraps it.",
      ours: "Wrapping is for one secret's way, is undone at once, and the lease is the pod's.",
      tests: [held("vault/kinds", "a wrapped answer", "is unwrapped, and its lease is the pod's")],
    },
  ],
};
