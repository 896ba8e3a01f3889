/** The control port: what containers of the pod, and `edgesync status` and `edgesync update`, may ask the sidecar for. */

export const CONTROL_PORT = 9903;

export const STATUS_PATH = "/v1/status";
export const HOLDS_PATH = "/v1/holds";

/** What may be asked of the update agent at once: to look at the channel, or to try again what it has blocked. */
export const UPDATE_ORDERS = ["look", "retry"] as const;
export type UpdateOrder = (typeof UPDATE_ORDERS)[number];

/** Options that each of the commands takes. */
const WHERE = "[--config <file> | --port <number>] [--json]";

/** The commands that talk to it, for the help and the reference page. */
export const CONTROL_COMMANDS = [
  {
    name: "status",
    synopsis: `edgesync status [--wait [--timeout <duration>]] ${WHERE}`,
    summary:
      "Shows what the sidecar of this pod, or the agent of this machine, is doing; with --wait when the start gate is open, and not before, telling meanwhile what is missing.",
    example: "kubectl exec detector-0 -c edgesync -- node /app/edgesync.mjs status",
  },
  {
    name: "update hold",
    synopsis: `edgesync update hold [--for <duration>] [--owner <name>] [--reason <text>] ${WHERE}`,
    summary:
      "Keeps releases from being swapped in for a while, an hour unless told otherwise; the same owner, operator unless told otherwise, may ask again.",
    example: "edgesync update hold --for 2h --owner night-shift --reason 'inventory'",
  },
  {
    name: "update release",
    synopsis: `edgesync update release [--owner <name>] ${WHERE}`,
    summary: "Ends a hold before its time.",
    example: "edgesync update release --owner night-shift",
  },
  {
    name: "update retry",
    synopsis: `edgesync update retry ${WHERE}`,
    summary: "Forgets that a release was rolled back or refused here, so that it is tried again.",
    example: "edgesync update retry",
  },
  {
    name: "update look",
    synopsis: `edgesync update look ${WHERE}`,
    summary:
      "Looks at the channel now instead of at the next poll-interval, and says what came of it.",
    example: "edgesync update look --config /etc/edgesync/edgesync.json",
  },
] as const;

/** The exit statuses of these commands, for the help and the reference page. */
export const CONTROL_STATUSES = [
  [0, "done"],
  [64, "the command line is wrong"],
  [66, "there was nothing to end or to try again"],
  [69, "nobody answers"],
  [75, "the answer is not now, or the gate did not open in time"],
  [78, "the file that --config names cannot be used"],
] as const;

/** The hosts by which a program of this machine calls it. A page in a browser may reach the port too, but not under such a name. */
const LOCAL_HOST = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i;

/**
 * Whether a request is one that a web page cannot have caused: under the name of another host a page would get past the same-origin
 * rule (DNS rebinding), and what a page sends elsewhere carries its origin.
 */
export function isLocalCaller(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
): boolean {
  const { host, origin } = headers;
  const site = headers["sec-fetch-site"];
  return (
    typeof host === "string" &&
    LOCAL_HOST.test(host) &&
    origin === undefined &&
    (site === undefined || site === "none")
  );
}
