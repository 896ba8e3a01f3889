/** Annotations that say which credentials a pod gets, and from where. */
import { secretFormat } from "../secret-format.ts";
import { secretRequest, templateRequest } from "../secret-request.ts";
import { daemonOnUpdate, onUpdate } from "../on-update.ts";
import * as v from "../values.ts";
import type { Row } from "./row.ts";

export const SECRETS = {
  "vault-address": {
    section: "Secrets",
    help: "Address of Vault or OpenBao; the operator's list must allow it.",
    value: v.serverUrl,
    otherwise: "the cluster's default",
    sidecar: true,
  },
  "vault-ca": {
    section: "Secrets",
    help: "ConfigMap whose key ca.crt holds the certificates that Vault's must chain to.",
    value: v.objectName,
    otherwise: "the public authorities that Node knows",
    sidecar: false,
  },
  "vault-auth": {
    section: "Secrets",
    help: "The auth method of the login; jwt is for sites whose API server Vault cannot reach, cert and approle log in with what a Secret holds.",
    value: v.oneOf("kubernetes", "jwt", "cert", "approle"),
    default: "kubernetes",
    sidecar: true,
  },
  "vault-mount": {
    section: "Secrets",
    help: "Path at which the auth method is mounted.",
    value: v.vaultName,
    otherwise: "the method's name",
    sidecar: true,
  },
  "vault-role": {
    section: "Secrets",
    help: "Role of the login; with approle the Secret's role_id says it.",
    value: v.vaultName,
    otherwise: "the pod's service account; with cert, the role that the certificate matches",
    sidecar: true,
  },
  "vault-audience": {
    section: "Secrets",
    help: "Audience of the sidecar's service-account token; required for jwt, and left out for kubernetes, whose TokenReview fails on a foreign one.",
    value: v.audience,
    otherwise: "the API server's own",
    sidecar: false,
  },
  "vault-tls-secret": {
    section: "Secrets",
    help: "Secret whose keys tls.crt and tls.key hold the certificate that the sidecar shows to Vault, and its private key; required for cert. Mounted in the sidecar only.",
    value: v.objectName,
    otherwise: "no certificate is shown",
    sidecar: false,
  },
  "vault-approle-secret": {
    section: "Secrets",
    help: "Secret whose keys role_id and secret_id, which may be wrapped, hold the credentials of approle, for which it is required. Mounted in the sidecar only.",
    value: v.objectName,
    otherwise: "none",
    sidecar: false,
  },
  "vault-server-name": {
    section: "Secrets",
    help: "Name that Vault's certificate must have, and that the sidecar asks for (SNI), where it is not the host of vault-address.",
    value: v.hostName,
    otherwise: "the host of vault-address",
    sidecar: true,
  },
  "vault-proxy": {
    section: "Secrets",
    help: "Whether Vault is reached through a proxy: never, or as the environment says in HTTPS_PROXY and NO_PROXY, which the operator states for the cluster.",
    value: v.oneOf("never", "environment"),
    default: "never",
    sidecar: true,
  },
  "vault-namespace": {
    section: "Secrets",
    help: "Vault namespace of all requests.",
    value: v.vaultName,
    otherwise: "the root namespace",
    sidecar: true,
  },
  "secrets-path": {
    section: "Secrets",
    help: "Where the secret files are mounted in the application's containers.",
    value: v.absolutePath,
    default: "/run/secrets/edgesync",
    sidecar: false,
  },
  "secrets-containers": {
    section: "Secrets",
    help: "The containers that mount the secret files, read-only.",
    value: v.containerNames,
    otherwise: "the main container",
    sidecar: false,
  },
  "secrets-size": {
    section: "Secrets",
    help: "Size of the memory volume for secrets; two versions of the set must fit.",
    value: v.bytes("64Ki", "64Mi"),
    default: "8Mi",
    sidecar: false,
  },
  require: {
    section: "Secrets",
    help: "What must be so before secrets are written: with noswap, that the node does not swap, or that the memory volume is mounted with noswap (Linux 6.4); else nothing is published.",
    value: v.oneOf("nothing", "noswap"),
    default: "nothing",
    sidecar: true,
  },
  "on-rotate": {
    section: "Secrets",
    help: "How the application is told that its secrets have changed, after the first set: by the same means as with on-update; restart goes through the liveness probes of the containers with the secrets, and waits while a release is on trial.",
    value: onUpdate,
    daemon: daemonOnUpdate,
    default: "none",
    sidecar: true,
  },
  "secrets-refresh-interval": {
    section: "Secrets",
    help: "Time between two reads of a secret that has no lease; each is moved by up to a tenth at random.",
    value: v.duration("1s", "24h"),
    default: "5m",
    sidecar: true,
  },
  "offline-secrets": {
    section: "Secrets",
    help: "Keeps the last good set of secrets sealed on the payload volume, for a start while Vault cannot be reached; used up to this age.",
    value: v.offlineSecrets,
    default: "never",
    sidecar: true,
  },
  "sealed-key": {
    section: "Secrets",
    help: "Secret whose key `key` holds the site's private key, a JWK or PEM, which opens the sealed files of releases; required with secret.<name>: sealed:<path>. Mounted in the sidecar only.",
    value: v.objectName,
    otherwise: "none",
    sidecar: false,
  },
  "offline-key": {
    section: "Secrets",
    help: "Secret whose key `key` holds the key that the set is sealed with: 32 random bytes, or base64 of them; required with offline-secrets. Mounted in the sidecar only.",
    value: v.objectName,
    otherwise: "none",
    sidecar: false,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;

/** Families: `edgesync.dev/<family>.<name>`, one name for each secret. `secret` declares it; the others refine it. */
export const SECRET_ANNOTATIONS = {
  secret: {
    section: "Secrets",
    help: "What to ask for: a path of Vault, and parameters where it is written; or a Secret that only the sidecar mounts.",
    value: secretRequest,
    otherwise: "required for each name",
    sidecar: true,
  },
  template: {
    section: "Secrets",
    help: "A template, as Vault Agent has them, instead of a secret: its calls of secret and pkiCert say what is asked for. Its text, or the key of a ConfigMap, which only the sidecar mounts and follows.",
    value: templateRequest,
    otherwise: "none",
    sidecar: true,
  },
  format: {
    section: "Secrets",
    help: "Form of the secret's file: all fields as json or env, a key with its certificate and their chain as pem or as a key store (pkcs12), or one field as it is. A key store's password is changeit, or none, or what a field of the secret holds.",
    value: secretFormat,
    default: "json",
    sidecar: true,
  },
  file: {
    section: "Secrets",
    help: "Name of the secret's file.",
    value: v.fileName,
    otherwise: "the secret's name",
    sidecar: true,
  },
  mode: {
    section: "Secrets",
    help: "Mode of the secret's file.",
    value: v.fileMode,
    otherwise: "0440 where the pod states the main container's group, else 0444",
    sidecar: true,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
