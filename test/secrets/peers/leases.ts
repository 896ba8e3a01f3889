import { CT, K8S, VAULT, VSO, held } from "./row.ts";
import type { PeerSection } from "./row.ts";

export const LEASES: PeerSection = {
  title: "Tokens and leases",
  rows: [
    {
      peer: "Vault Agent, OpenBao",
      refs: [`${VAULT}#26382`, `${VAULT}#26383`, "openbao/openbao#4036"],
      theirs:
        "The pause after a failed renewal is computed and thrown away: the next try comes at once.",
      ours: "Pauses grow from a second, and no answer whatever makes more than 240 requests an hour for one secret.",
      tests: [
        held(
          "secrets/lease",
          "no storm",
          "comes of any sequence of answers: at most 240 requests in any hour for one secret",
        ),
        held(
          "secrets/hours",
          "hours of trouble",
          "never become a storm, for any sequence of answers: the pod's failures stay within their allowance",
        ),
      ],
    },
    {
      peer: "Consul Template",
      refs: [`${CT}#2166`],
      theirs: "Each failed renewal asks for another database user: about 600 a minute.",
      ours: "Renewals are tried until 95 % of the lease; then one new credential is asked for, with growing pauses.",
      tests: [
        held(
          "secrets/lease",
          "a renewable lease",
          "is tried again while renewals fail, and given up for one new credential at 95 %",
        ),
        held(
          "secrets/lease",
          "a renewable lease",
          "then retries the new credential with growing pauses, not at once",
        ),
        held(
          "secrets/lease",
          "no storm",
          "comes of a failing renewal: until 95 % nothing but renewals is asked for",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${K8S}#278`, `${VAULT}#10026`, `${VAULT}#17541`, `${VAULT}#19684`],
      theirs:
        "A database user that could be renewed is replaced before its time, or its renewal is missed.",
      ours: "A renewable lease is renewed, by one or two requests a term, for as long as Vault grants it.",
      tests: [
        held(
          "vault/agent",
          "the secrets agent",
          "keeps a lease by renewing it, with one user for all its files",
        ),
        held(
          "secrets/hours",
          "hours with a healthy Vault",
          "cost one renewal or two for each lease and no new credential",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [],
      theirs:
        "Tokens and leases are renewed with 27 to 30 % of their life left; an outage has only that to be over.",
      ours: "Renewal begins at 50 to 60 %, by chance, and goes on to 95 %.",
      tests: [
        held(
          "secrets/lease",
          "a renewable lease",
          "is renewed once 50 to 60 % of it are over, as chance has it",
        ),
      ],
    },
    {
      peer: "Consul Template",
      refs: [],
      theirs:
        "Where it sleeps instead of watching, a renewable secret is read again after a sixth to a third of its lease.",
      ours: "No lease is left for another one before 80 % of it are over.",
      tests: [
        held(
          "secrets/lease",
          "a lease that cannot be renewed",
          "is replaced once 80 to 90 % of it are over",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#22575`, `${VAULT}#26844`],
      theirs: "A renewal that is refused (403) is asked for again and again.",
      ours: "One 403 settles it: the lease is used to its end and replaced in time.",
      tests: [
        held(
          "secrets/agent",
          "a lease that may not be renewed",
          "is not asked about again and again: it is used to its end (403 on renew)",
        ),
        held(
          "secrets/lease",
          "a renewable lease",
          "is used to its end, and never asked about again, when Vault refuses to renew it",
        ),
      ],
    },
    {
      peer: "Vault Secrets Operator",
      refs: [`${VSO}#142`, `${VSO}#275`, `${VSO}#319`, `${VSO}#486`],
      theirs:
        "A credential that cannot be renewed, or is at its maximum, is not replaced in time, or at all.",
      ours: "It is replaced at 80 to 90 % of what is left, before the old one ends.",
      tests: [
        held(
          "vault/agent",
          "the secrets agent",
          "replaces a lease at its maximum before the old one ends",
        ),
        held(
          "secrets/lease",
          "a renewable lease",
          "is replaced in time when a renewal grants less than was asked for",
        ),
      ],
    },
    {
      peer: "Vault Secrets Operator",
      refs: [`${VSO}#146`, `${VSO}#228`],
      theirs: "A lease that was revoked in Vault is not noticed before its old end.",
      ours: "The next renewal tells, at the latest at 60 % of the term, and another credential comes at once.",
      tests: [
        held(
          "secrets/lease",
          "a renewable lease",
          "is replaced at once when Vault knows it no more",
        ),
        held(
          "secrets/agent",
          "a token",
          "that was revoked is replaced, and with it what it had issued: one login, one new user",
        ),
      ],
      open: "Until that renewal nobody knows: Vault tells nobody of a revocation.",
    },
    {
      peer: "External Secrets, Vault CSI provider",
      refs: ["external-secrets/external-secrets#2198", "hashicorp/vault-csi-provider#213"],
      theirs:
        "The token that a credential was issued to ends, and Vault revokes the credential with it; what is mounted is dead.",
      ours: "Every lease is moved to the next token before the old one ends, spread over half of what is left.",
      tests: [
        held(
          "secrets/hours",
          "the end of a token's life",
          "moves every lease to the next token, revokes the old ones after an overlap, and then the old token",
        ),
        held(
          "secrets/agent",
          "a token",
          "at the end of its life is followed by another before its leases end",
        ),
        held(
          "secrets/lease",
          "a renewable lease",
          "is replaced before the end of the token that it belongs to",
        ),
      ],
    },
    {
      peer: "External Secrets (its predecessor)",
      refs: ["external-secrets/kubernetes-external-secrets#468"],
      theirs: "Each secret logs in by itself: 23 logins in two seconds.",
      ours: "One login, and one token, for all secrets of a pod.",
      tests: [
        held(
          "secrets/complaints",
          "a pod with many secrets",
          "logs in once, and asks once for each",
        ),
      ],
    },
    {
      peer: "Vault Config Operator",
      refs: ["redhat-cop/vault-config-operator#138"],
      theirs:
        "A file of a database user and of something without a lease asks for another user every second.",
      ours: "Each thing that is asked for has a time of its own, whatever file it is in.",
      tests: [
        held(
          "secrets/complaints",
          "a file of a lease and of what has none",
          "takes the new value of one and keeps the other's user",
        ),
      ],
    },
    {
      peer: "Vault Agent",
      refs: [`${VAULT}#26283`, `${VAULT}#20645`],
      theirs:
        "One secret that cannot be had ends the process after twelve tries, or starts all templates anew; Vault is asked for everything again.",
      ours: "The process stays, the other secrets go on as they are, and only the one is tried again.",
      tests: [
        held(
          "secrets/agent",
          "one secret's failure",
          "harms no other: denied, absent, failing, answered with something else, or never",
        ),
        held(
          "secrets/templated",
          "a template",
          "that fails says where and nothing of the secret; its old file and all others go on",
        ),
      ],
    },
    {
      peer: "Vault Agent, Vault Secrets Operator",
      refs: [],
      theirs:
        "After an outage all clients are back within a quarter of their pause, or within seconds of each other.",
      ours: "Pauses are spread over their whole length, one request at a time tries whether Vault is back, and the rest follow over a minute.",
      tests: [
        held(
          "secrets/circuit",
          "a Vault that fails",
          "is tried once at a time, with growing pauses, by whoever waits",
        ),
        held(
          "secrets/circuit",
          "a Vault that works again",
          "is not asked by all at once, and not later than a minute after",
        ),
        held(
          "secrets/hours",
          "hours of trouble",
          "of an outage cost the whole pod no more than a try every few minutes",
        ),
      ],
    },
    {
      peer: "Vault Agent, Consul Template",
      refs: [],
      theirs: "A pause of minutes is waited out although the credential ends within it.",
      ours: "Near the end of what is held the pauses are shorter, so that a Vault that is back is asked in time.",
      tests: [
        held(
          "secrets/lease",
          "a lease that is about to end while Vault fails",
          "is tried for again before half of what is left is over, whatever the dice",
        ),
        held(
          "secrets/circuit",
          "a credential that ends while Vault fails",
          "is tried for once more before half of what is left is over, whatever the dice",
        ),
      ],
    },
    {
      peer: "Vault's Go client",
      refs: [],
      theirs: "A request may hang for a minute.",
      ours: "A request has ten seconds; Retry-After is obeyed with every status, up to ten minutes.",
      tests: [
        held(
          "secrets/vault",
          "an answer of Vault",
          "that does not come is given up after the time-out",
        ),
        held("secrets/lease", "Retry-After", "is obeyed, also past the time for a new credential"),
        held("secrets/lease", "Retry-After", "is not obeyed beyond ten minutes"),
      ],
    },
    {
      peer: "Consul Template",
      refs: [],
      theirs: "The time of a static role that is just being rotated (0) is an error.",
      ours: "It is read again in five seconds, and before that when Vault says that there will be a new password.",
      tests: [
        held(
          "secrets/vault",
          "the data of a secret",
          "of a static role is read again once it was rotated",
        ),
        held(
          "secrets/vault",
          "the data of a secret",
          "of a static role that is being rotated is read again soon, and is no error",
        ),
        held(
          "secrets/lease",
          "what has no lease",
          "is read when Vault says that there will be something new, and not before",
        ),
      ],
    },
    {
      peer: "Consul Template",
      refs: [],
      theirs: "A secret_id is replaced one second after it has ended.",
      ours: "It has an end like a certificate, and is replaced before it.",
      tests: [held("secrets/vault", "the data of a secret", "of a secret_id ends when that does")],
    },
    {
      peer: "Consul Template",
      refs: [],
      theirs: "What has no lease is read every five minutes, and always early: 4:15 to 4:45.",
      ours: "It is read at the interval that the pod states, a tenth of it either way.",
      tests: [
        held(
          "secrets/lease",
          "what has no lease",
          "is read again at the refresh interval, a tenth of it either way",
        ),
      ],
    },
    {
      peer: "Vault Agent, Consul Template",
      refs: [`${CT}#1394`],
      theirs:
        "Ends are computed by the node's clock; one that is off, or is set, makes credentials old or leaves them too long.",
      ours: "Times are monotonic, and an end is measured against the time of Vault's own answer.",
      tests: [
        held(
          "secrets/hours",
          "hours with a healthy Vault",
          "are not disturbed by a wall clock that is set a week on, or back",
        ),
        held(
          "secrets/vault",
          "the data of a secret",
          "of a certificate is good until it expires, by Vault's clock and not by this node's",
        ),
        held(
          "secrets/lease",
          "a credential that an earlier process left behind",
          "has no more left than it was granted, however the clock was set",
        ),
      ],
    },
  ],
};
