import { CERTIFICATES } from "./certificates.ts";
import { FILES } from "./files.ts";
import { INJECTION } from "./injection.ts";
import { LEASES } from "./leases.ts";
import { PODS } from "./pods.ts";
import { ROTATION } from "./rotation.ts";
import type { PeerSection } from "./row.ts";

export const PEERS: readonly PeerSection[] = [
  LEASES,
  PODS,
  CERTIFICATES,
  FILES,
  ROTATION,
  INJECTION,
];
