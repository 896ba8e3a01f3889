/** Annotation `on-rotate`: what tells the application that its secrets have changed, by the same means as `on-update`. */
import type { Settings } from "#core/settings.ts";
import type { Turn } from "../claim/turn.ts";
import type { RotateHook } from "../secrets/rotation.ts";
import { reload } from "./reload.ts";
import type { ReloadDeps } from "./reload.ts";
import type { ObservedWorkload } from "./workload.ts";

export interface RotateDeps extends Omit<ReloadDeps, "channel" | "refused" | "hook"> {
  readonly settings: Settings;
  readonly workload: Pick<ObservedWorkload, "of">;
  /** Of the restart lever, which a release on trial needs for itself. */
  readonly turn: Turn;
  /** Whether the application has not been let start yet. */
  readonly held: () => boolean;
}

/** Attempts to tell the application, after which it is given up until the next change. */
const ATTEMPTS = 8;
/** Milliseconds in which a restart must have been seen. */
const RESTART_LIMIT_MS = 3_600_000;
/** Milliseconds between two restarts, at least: the kubelet makes containers wait that are restarted often. */
const SPACING_MS = 60_000;

/** `undefined` when nobody is to be told. */
export function openRotateHook(deps: RotateDeps): RotateHook | undefined {
  const { settings, turn, clock } = deps;
  const { onRotate: way, rotateContainers } = settings;
  if (way.kind === "none") return undefined;
  const app = settings.app.filter(
    ({ container }) => rotateContainers?.includes(container) !== false,
  );
  const workload = deps.workload.of({ ...settings, channel: undefined, onUpdate: way, app });
  const isRestart = way.kind === "restart";
  turn.follow(false);

  const restart = async (signal: AbortSignal): Promise<string | undefined> => {
    const late = new AbortController();
    const over = new AbortController();
    void clock.sleep(RESTART_LIMIT_MS, AbortSignal.any([signal, over.signal])).then(
      () => late.abort(),
      () => undefined,
    );
    try {
      await workload.restart(AbortSignal.any([signal, late.signal]));
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      if (late.signal.aborted) return "no restart was seen";
      throw error;
    } finally {
      over.abort();
    }
  };

  return {
    mayTell() {
      if (deps.held()) return false;
      if (!isRestart) return true;
      if ((workload.sinceRestartMs() ?? SPACING_MS) < SPACING_MS) return false;
      return turn.ask();
    },
    async tell(signal) {
      if (isRestart) return await restart(signal);
      const enough = new AbortController();
      let attempts = 0;
      let last = "";
      const refused = ({ detail }: { readonly detail: string }): void => {
        last = detail;
        if (++attempts >= ATTEMPTS) enough.abort();
      };
      try {
        const either = AbortSignal.any([signal, enough.signal]);
        await reload(way, { ...deps, channel: undefined, hook: "rotate", refused }, either);
        return undefined;
      } catch (error) {
        signal.throwIfAborted();
        if (enough.signal.aborted) return last;
        throw error;
      }
    },
    ended() {
      if (isRestart) turn.follow(false);
    },
  };
}
