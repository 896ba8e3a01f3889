/** Annotations that say when a release may be fetched, how fast, and when the application may be given it. */
import { hold } from "../permission.ts";
import { bytes, duration } from "../values.ts";
import { windows } from "../window.ts";
import type { Row } from "./row.ts";

export const PERMITS = {
  hold: {
    section: "Updates",
    help: "Keeps the pod at the release that it has: nothing is fetched and nothing swapped, not even what is urgent. A pod that has none yet still gets one.",
    value: hold,
    default: "false",
    sidecar: true,
  },
  "download-window": {
    section: "Updates",
    help: "When releases may be fetched: a cron that opens, for how long, and in which time zone. What has been fetched when it closes is gone on from when it opens again. A first release waits for no window.",
    value: windows,
    otherwise: "at any time",
    sidecar: true,
  },
  "swap-window": {
    section: "Updates",
    help: "When the application may be given a release that has been fetched. A trial that has begun is finished.",
    value: windows,
    otherwise: "at any time",
    sidecar: true,
  },
  "download-budget": {
    section: "Updates",
    help: "The most that is fetched on one day in UTC, metadata included. Looks at the channel go on when it is spent.",
    value: bytes("64Ki", "16Ti"),
    otherwise: "no limit",
    sidecar: true,
  },
  "download-rate": {
    section: "Updates",
    help: "The most bytes a second at which releases are fetched, on average; after a pause the bytes of one second may come at once.",
    value: bytes("1Ki", "1Ti"),
    otherwise: "as fast as the link is",
    sidecar: true,
  },
  "restart-spacing": {
    section: "Updates",
    help: "The least time between two restarts of the application for releases: the kubelet makes it wait for ever longer when they come close together, and forgets after ten minutes. Going back never waits.",
    value: duration("0s", "24h"),
    default: "10m",
    sidecar: true,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
