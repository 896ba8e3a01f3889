/** Annotations that concern the sidecar itself: what it waits for, and what it takes. */
import * as v from "../values.ts";
import type { Row } from "./row.ts";

export const SIDECAR = {
  gate: {
    section: "Gate",
    help: "What the main container's start waits for.",
    value: v.someOf("payload", "secrets"),
    default: "payload,secrets",
    sidecar: true,
  },
  "ready-grace": {
    section: "Gate",
    help: "How long a pod with expired credentials that cannot be renewed stays ready.",
    value: v.duration("0s", "8760h"),
    default: "1h",
    sidecar: true,
  },
  image: {
    section: "Sidecar",
    help: "Image of the sidecar; the operator's list must allow it.",
    value: v.imageReference,
    otherwise: "the cluster's default",
    sidecar: false,
  },
  "cpu-request": {
    section: "Sidecar",
    help: "CPU request of the sidecar; in a Guaranteed pod it equals the limit.",
    value: v.cpu,
    default: "5m",
    sidecar: false,
  },
  "cpu-limit": {
    section: "Sidecar",
    help: "CPU limit of the sidecar.",
    value: v.cpu,
    otherwise: "500m or a larger request; in a Guaranteed pod 100m or a larger request",
    sidecar: false,
  },
  "memory-request": {
    section: "Sidecar",
    help: "Memory request of the sidecar; in a Guaranteed pod it equals the limit.",
    value: v.bytes("16Mi", "16Gi"),
    default: "48Mi",
    sidecar: false,
  },
  "memory-limit": {
    section: "Sidecar",
    help: "Memory limit of the sidecar.",
    value: v.bytes("64Mi", "16Gi"),
    otherwise: "128Mi, 16Mi for each payload beside main, and secrets-size where there are secrets",
    sidecar: false,
  },
  "sidecar-mode": {
    section: "Sidecar",
    help: "How the sidecar runs: native, as an init container that goes on running, which auto chooses where the kubelet of every node can; or container, as the first container, for kubelets before 1.29, and in pods whose containers end, such as those of Jobs, as an init container that ends before they start.",
    value: v.oneOf("auto", "native", "container"),
    default: "auto",
    sidecar: false,
  },
  "sidecar-port": {
    section: "Sidecar",
    help: "Port of the sidecar's probes, status and metrics on the pod's network. On the network of the node it must be stated, as control-port must be where there are updates: two pods of one node cannot have the same.",
    value: v.integer(1024, 65535),
    otherwise: "the cluster's default",
    sidecar: false,
  },
  "tls-clock-skew": {
    section: "Sidecar",
    help: "How far a node's clock may be off for the certificates of Vault and of repositories: one outside of its validity by no more is accepted if everything else of its chain holds. 0s for not at all.",
    value: v.duration("0s", "720h"),
    default: "1h",
    sidecar: true,
  },
  "log-level": {
    section: "Sidecar",
    help: "Least level of the sidecar's log.",
    value: v.oneOf("debug", "info", "warn", "error"),
    default: "info",
    sidecar: true,
  },
  "run-as": {
    section: "Sidecar",
    help: "User and group of the sidecar. With assigned neither is stated, for platforms that assign users by namespace, such as OpenShift.",
    value: v.runAs,
    otherwise: "65532, and the main container's group where the pod states one",
    sidecar: false,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
