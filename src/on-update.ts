/** How the application is told of a new release: the kinds of the annotation `on-update`. */
import { unreachable } from "./errors.ts";
import { formatHttpTarget, parseHttpTarget } from "./http-target.ts";
import type { HttpTarget } from "./http-target.ts";
import type { Value } from "./values.ts";

export type OnUpdate =
  /** The kubelet restarts the container, because the sidecar fails its liveness probe. */
  | { readonly kind: "restart" }
  /** The application finds out by itself. */
  | { readonly kind: "none" }
  /** A POST to the application, which loads the release and answers. */
  | HttpTarget
  /** A signal to a process of the pod; `process` is its name. */
  | { readonly kind: "signal"; readonly signal: ReloadSignal; readonly process: string }
  /** A command with its arguments, without a shell; for a daemon only. */
  | { readonly kind: "command"; readonly argv: readonly string[] };

/** Those that a program may take for "load it anew" or "end in good order"; SIGKILL is neither. */
const RELOAD_SIGNALS = ["HUP", "USR1", "USR2", "WINCH", "INT", "TERM", "QUIT"] as const;
export type ReloadSignal = (typeof RELOAD_SIGNALS)[number];

const SIGNAL_FORM = `signal:<name>:<process> with ${RELOAD_SIGNALS.join(", ")}, as in signal:HUP:nginx`;

export const onUpdate: Value<OnUpdate> = {
  allowed: `restart, none, http:<port>/<path>, or ${SIGNAL_FORM}`,
  parse(input) {
    if (input === "restart" || input === "none") return { kind: input };
    return parseHttpTarget(input) ?? parseSignal(input);
  },
  format(value) {
    switch (value.kind) {
      case "http":
        return formatHttpTarget(value);
      case "signal":
        return `signal:${value.signal}:${value.process}`;
      case "command":
        return `command:${value.argv.join(" ")}`;
      case "restart":
      case "none":
        return value.kind;
      default:
        return unreachable(value);
    }
  },
};

/** The process by the name of its program; a kernel keeps 15 bytes of it, so a longer one is compared with its command line. */
function parseSignal(input: string): OnUpdate | undefined {
  const [, name, process] = /^signal:([A-Z0-9]+):([A-Za-z0-9._+-]{1,64})$/.exec(input) ?? [];
  const signal = RELOAD_SIGNALS.find((known) => known === name);
  return signal === undefined || process === undefined
    ? undefined
    : { kind: "signal", signal, process };
}

/** As {@link onUpdate}, with a command: for the configuration of a daemon, which nobody but root and its own user may write. */
export const daemonOnUpdate: Value<OnUpdate> = {
  allowed: `none, http:<port>/<path>, command:<program> <argument> …, or ${SIGNAL_FORM}`,
  parse(input) {
    const argv = /^command:(.{1,4096})$/.exec(input)?.[1]?.trim().split(/ +/);
    if (argv !== undefined)
      return argv[0]?.startsWith("/") === true || /^[A-Za-z0-9._-]+$/.test(argv[0] ?? "")
        ? { kind: "command", argv }
        : undefined;
    const value = onUpdate.parse(input);
    // There is no kubelet whose probe could be failed.
    return value?.kind === "restart" ? undefined : value;
  },
  format: (value) => onUpdate.format(value),
};

/** Where it goes, for people: a command's arguments may hold anything. */
export function onUpdateTarget(way: OnUpdate): string {
  return way.kind === "command" ? `command:${way.argv[0] ?? ""}` : onUpdate.format(way);
}

/** What becomes of the application's process: replaced by a new one, told to load, or nothing that anybody knows of. */
export type Delivery = "restart" | "reload" | "none";

export function deliveryOf({ kind }: OnUpdate): Delivery {
  return kind === "restart" || kind === "none" ? kind : "reload";
}
