/**
 * Whether the application has ended, from the sockets of the pod's network, which all containers of a pod share and Linux lists in
 * /proc/net (proc(5)). A native sidecar gets SIGTERM when the others have ended, and when it alone is restarted; nobody tells it which.
 * What is held must not be taken away by mistake, so only what was seen to be there can be seen to be gone.
 */

/** One that a process holds, and which is not the sidecar's own. */
export interface Socket {
  readonly inode: number;
  /** Of TCP only. */
  readonly port?: number;
  readonly isListening?: boolean;
}

/** What is known of the pod. */
export interface Network {
  /** TCP ports of the containers with the secrets. */
  readonly ports: ReadonlySet<number>;
  /** Whether others have sockets here that outlive the application: a mesh's proxy, or the processes of the node. */
  readonly isShared: boolean;
}

export interface Presence {
  /** Whether one of the ports was ever listened on. */
  readonly listened: boolean;
  /** `held`: some socket was there at each look since the first one. `broken`: not any more, so its absence says nothing. */
  readonly sockets: "none" | "held" | "broken";
}

export const unseen: Presence = { listened: false, sockets: "none" };

/** After a look at an application that may run. */
export function seen(before: Presence, now: readonly Socket[], { ports }: Network): Presence {
  return {
    listened: before.listened || now.some((socket) => isAt(ports, socket) && socket.isListening),
    sockets: now.length > 0 && before.sockets === "none" ? "held" : lost(before, now),
  };
}

function lost({ sockets }: Presence, now: readonly Socket[]): Presence["sockets"] {
  return now.length === 0 && sockets === "held" ? "broken" : sockets;
}

/**
 * Whether it is known to have ended. With a network of the pod's own, nothing may be left in it; with a shared one, nothing at the
 * application's ports, neither a listener nor a request under way.
 */
export function hasEnded(
  before: Presence,
  now: readonly Socket[],
  { ports, isShared }: Network,
): boolean {
  if (isShared) return before.listened && !now.some((socket) => isAt(ports, socket));
  return (before.listened || before.sockets === "held") && now.length === 0;
}

function isAt(ports: ReadonlySet<number>, { port }: Socket): boolean {
  return port !== undefined && ports.has(port);
}

/** As in the kernel's include/net/tcp_states.h. */
const TCP_LISTEN = "0A";

/** The sockets in a file of /proc/net: `tcp`, `tcp6`, `udp`, `udp6` or `unix`. What no process holds any more (inode 0) is left out. */
export function socketsOf(kind: "tcp" | "udp" | "unix", text: string): readonly Socket[] {
  return text
    .split("\n")
    .slice(1)
    .flatMap((line): readonly Socket[] => {
      const fields = line.trim().split(/\s+/);
      const inode = Number(fields[kind === "unix" ? 6 : 9] ?? 0);
      if (!Number.isSafeInteger(inode) || inode <= 0) return [];
      if (kind !== "tcp") return [{ inode }];
      const port = Number.parseInt(fields[1]?.split(":")[1] ?? "", 16);
      return [{ inode, port, isListening: fields[3] === TCP_LISTEN }];
    });
}
