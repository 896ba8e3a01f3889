/** How far the clocks of a publisher and of a site may be apart. */
import { duration, formatDuration } from "./values.ts";
import type { Value } from "./values.ts";

const ROLES = ["root", "timestamp", "snapshot", "targets"] as const;
export type SkewedRole = (typeof ROLES)[number];

/** Milliseconds for which metadata of a role counts beyond its signed expiry; `targets` is for every role that it delegates to, too. */
export type ClockSkew = Readonly<Record<SkewedRole, number>>;

export const NO_SKEW: ClockSkew = { root: 0, timestamp: 0, snapshot: 0, targets: 0 };

const one = duration("0s", "720h");

export const clockSkew: Value<ClockSkew> = {
  allowed:
    "a duration from 0s to 720h for every role, such as 24h, or one for each of root, timestamp, snapshot and targets, such as 24h,timestamp=1h",
  parse(input) {
    const words = input.split(",", ROLES.length + 2).map((word) => word.trim());
    const general = words.filter((word) => !word.includes("="));
    const given = new Map<string, number>();
    for (const word of words) {
      const [role = "", text = ""] = word.includes("=") ? word.split("=", 2) : ["", word];
      const ms = one.parse(text);
      const known = role === "" ? general.length === 1 : ROLES.some((name) => name === role);
      if (ms === undefined || !known || given.has(role)) return undefined;
      given.set(role, ms);
    }
    const of = (role: SkewedRole): number | undefined => given.get(role) ?? given.get("");
    const [root, timestamp, snapshot, targets] = ROLES.map(of);
    if (root === undefined || timestamp === undefined) return undefined;
    return snapshot === undefined || targets === undefined
      ? undefined
      : { root, timestamp, snapshot, targets };
  },
  format(value) {
    const general = value.root;
    const others = ROLES.filter((role) => value[role] !== general);
    return [
      formatDuration(general),
      ...others.map((role) => `${role}=${formatDuration(value[role])}`),
    ].join(",");
  },
};
