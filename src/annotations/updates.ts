/** Annotations that say what a pod follows, and how it comes to it. */
import { repositoryUrl, repositoryUrls } from "../addresses.ts";
import { clockSkew } from "../clock-skew.ts";
import { daemonOnUpdate, onUpdate } from "../on-update.ts";
import * as v from "../values.ts";
import type { Row } from "./row.ts";

export const UPDATES = {
  channel: {
    section: "Updates",
    help: "The update channel that the pod follows.",
    value: v.channelRef,
    otherwise: "the pod has no payload",
    sidecar: true,
  },
  repository: {
    section: "Updates",
    help: "Address of the repository, at a web server or in a registry; the operator's list must allow it.",
    value: repositoryUrl,
    otherwise: "the cluster's default",
    sidecar: true,
  },
  "repository-mirrors": {
    section: "Updates",
    help: "Other addresses of the same repository, tried in this order when one does not do; the operator's list must allow each.",
    value: repositoryUrls,
    otherwise: "the cluster's default, or none where the pod names a repository",
    sidecar: true,
  },
  "repository-credentials": {
    section: "Updates",
    help: "Secret that the sidecar alone mounts, with a token, a username and password, or a .dockerconfigjson for the repository and its mirrors.",
    value: v.objectName,
    otherwise: "the repository is read without credentials",
    sidecar: false,
  },
  "import-volume": {
    section: "Updates",
    help: "A volume of the pod, by its name there, on which bundles of `edgesync export` may appear; the sidecar alone mounts it, read-only.",
    value: v.dnsLabel,
    otherwise: "releases come over the network only",
    sidecar: false,
  },
  "repository-ca": {
    section: "Updates",
    help: "ConfigMap whose key ca.crt holds the certificates that the repository's must chain to.",
    value: v.objectName,
    otherwise: "the public authorities that Node knows",
    sidecar: false,
  },
  "trust-root": {
    section: "Updates",
    help: "ConfigMap whose key root.json holds the first trusted TUF root.",
    value: v.objectName,
    default: "edgesync-trust-root",
    sidecar: false,
  },
  "payload-path": {
    section: "Updates",
    help: "Where the payload volume is mounted in the application's containers; the release is under current/ in it.",
    value: v.absolutePath,
    default: "/payload",
    sidecar: false,
  },
  "payload-containers": {
    section: "Updates",
    help: "The containers that mount the payload volume, read-only.",
    value: v.containerNames,
    otherwise: "the main container",
    sidecar: false,
  },
  "payload-storage": {
    section: "Updates",
    help: "Where the payload lives: ephemeral ends with the pod, a claim outlives it.",
    value: v.payloadStorage,
    default: "ephemeral",
    sidecar: false,
  },
  "payload-size": {
    section: "Updates",
    help: "The most that the payload volume may hold, banks and downloads together.",
    value: v.bytes("1Mi", "16Ti"),
    otherwise: "what the volume has room for",
    sidecar: true,
  },
  site: {
    section: "Updates",
    help: "Name of the site, from which follows when its turn comes in a roll-out; pods with the same name have the same turn.",
    value: v.siteName,
    otherwise:
      "the cluster's default, else the node's name, else a random one that is kept on the payload volume",
    sidecar: true,
  },
  "poll-interval": {
    section: "Updates",
    help: "Time between two looks at the channel; each is moved by up to a tenth at random.",
    value: v.duration("1s", "168h"),
    default: "15m",
    sidecar: true,
  },
  "clock-skew": {
    section: "Updates",
    help: "How long metadata counts beyond its signed expiry, because clocks differ; with several roles each has its own.",
    value: clockSkew,
    default: "24h",
    sidecar: true,
  },
  "full-fallback": {
    section: "Updates",
    help: "Whether files may be fetched whole when no delta fits; a first installation always may.",
    value: v.fullFallback,
    default: "always",
    sidecar: true,
  },
  "on-update": {
    section: "Updates",
    help: "How the application gets a new release: restart goes through its liveness probe, http is a POST that asks it to load the release, signal is sent to a process of the pod, none leaves it to the application.",
    value: onUpdate,
    daemon: daemonOnUpdate,
    default: "restart",
    sidecar: true,
  },
  "restart-window": {
    section: "Updates",
    help: "How long the kubelet tolerates a sidecar that does not answer before it restarts the main container; a restart for a release takes as long. The application's own window is kept where it is longer.",
    value: v.duration("2s", "10m"),
    default: "30s",
    sidecar: false,
  },
  health: {
    section: "Updates",
    help: "What tells that a release on trial is healthy.",
    value: v.healthCheck,
    default: "probe",
    sidecar: true,
  },
  "trial-duration": {
    section: "Updates",
    help: "How long a release must stay healthy without a break before it is committed.",
    value: v.duration("1s", "24h"),
    default: "1m",
    sidecar: true,
  },
  "trial-timeout": {
    section: "Updates",
    help: "After this time a release that is not yet committed is rolled back.",
    value: v.duration("2s", "48h"),
    default: "10m",
    sidecar: true,
  },
  "trial-starts": {
    section: "Updates",
    help: "How often the main container may start during a trial before it is rolled back.",
    value: v.integer(1, 10),
    default: "2",
    sidecar: true,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
