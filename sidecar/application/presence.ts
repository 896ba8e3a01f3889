/** Looks at the sockets of the pod's network, so that the end of the application can be told from a restart of the sidecar alone. */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import type { Clock } from "#core/clock.ts";
import { hasEnded, seen, socketsOf, unseen } from "#core/presence.ts";
import type { Network, Presence, Socket } from "#core/presence.ts";
import type { Settings } from "#core/settings.ts";
import type { Log } from "#core/telemetry.ts";
import { errnoOf } from "../disk/durable.ts";
import { healthPlan } from "./health-plan.ts";

export interface ApplicationPresence {
  /** Looks now and then, until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** Whether the application is known to have ended. Where nothing can be seen, it is not. */
  ended(signal: AbortSignal): Promise<boolean>;
}

export interface PresenceDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Log;
  /** All sockets that are not this process's own; tests have others. */
  readonly look?: () => readonly Socket[];
}

/**
 * Milliseconds between two looks: few at first, because a short job must be seen as well, then more and more: for /proc/net/tcp the kernel
 * walks a table of the whole machine, which takes milliseconds.
 */
const PAUSES = { first: 1_000, growth: 1.2, longest: 30_000 };

/** The kernel closes sockets when it ends a process, but what it does for the network comes a moment later. */
const LAST_LOOKS = 5;
const LAST_PAUSE_MS = 60;

export function openPresence(deps: PresenceDeps): ApplicationPresence {
  const { clock, log, look = foreignSockets } = deps;
  const network = networkOf(deps.settings);
  let presence: Presence = unseen;
  return {
    async run(signal) {
      for (let pause = PAUSES.first; ; pause *= PAUSES.growth) {
        // A look that fails, as where there is no /proc/net, says nothing.
        const first = tried(look) ?? [];
        // Seen twice: a socket of this process that was opened or closed during a look was not.
        const again = first.length === 0 ? first : (tried(look) ?? []);
        const both = first.filter(({ inode }) => again.some((other) => other.inode === inode));
        const before = presence;
        presence = seen(before, both, network);
        if (isSeen(presence) && !isSeen(before)) log.info({}, "the application was seen to run");
        // Of what has listened nothing more is to be learned.
        await clock.sleep(presence.listened ? Infinity : Math.min(pause, PAUSES.longest), signal);
      }
    },
    async ended(signal) {
      for (let looks = 1; ; looks++) {
        const now = tried(look);
        if (now === undefined) return false;
        if (hasEnded(presence, now, network)) return true;
        if (looks === LAST_LOOKS) return false;
        await clock.sleep(LAST_PAUSE_MS, signal);
      }
    },
  };
}

function isSeen({ listened, sockets }: Presence): boolean {
  return listened || sockets === "held";
}

/** Undefined when it fails. */
function tried(look: () => readonly Socket[]): readonly Socket[] | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** Outside of a pod the network is the machine's, and the only port that is known is that of the health check. */
function networkOf(settings: Settings): Network {
  const handlers = healthPlan(settings).checks.map(({ handler }) => handler);
  const checked = handlers.flatMap((handler) => ("port" in handler ? handler.port : []));
  return {
    ports: new Set(settings.secretsPorts ?? checked),
    isShared: settings.podNetwork === "shared" || settings.podName === undefined,
  };
}

const FILES = [
  ["tcp", "tcp"],
  ["tcp6", "tcp"],
  ["udp", "udp"],
  ["udp6", "udp"],
  ["unix", "unix"],
] as const;

/** Nothing here waits for a disk, and a hundred ways through Node's threads would take most of a resting sidecar's processor time. */
function foreignSockets(): readonly Socket[] {
  const before = ownSockets();
  const all = FILES.flatMap(([file, kind]) => socketsOf(kind, readNet(file)));
  const after = ownSockets();
  return all.filter(({ inode }) => !before.has(inode) && !after.has(inode));
}

/** A kernel without IPv6 has no such files; without any, nothing is known. */
function readNet(file: string): string {
  try {
    return readFileSync(`/proc/net/${file}`, "utf8");
  } catch (error) {
    if (file !== "tcp" && errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}

function ownSockets(): ReadonlySet<number> {
  const folder = "/proc/self/fd";
  return new Set(readdirSync(folder).map((name) => inodeOf(`${folder}/${name}`)));
}

/** 0 for what is no socket, and for one that has been closed meanwhile. */
function inodeOf(link: string): number {
  try {
    return Number(/^socket:\[(\d+)\]$/.exec(readlinkSync(link))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
