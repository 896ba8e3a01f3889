/** What templates call for: one source for equal requests, and none for what nothing calls for any more. */
import { secretRequest } from "#core/secret-request.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import { aborted } from "../aborted.ts";
import type { Source, Version } from "./source.ts";

export interface Asked {
  /** The source of a request, which is opened when there is none yet. Each call is a claim on it. */
  claim(request: VaultRequest): Source;
  /** Takes back one claim. With the last one the source ends, and what it was given goes the way of what has been followed. */
  release(source: Source): void;
  /** From now on, what is opened is handed to `start`. */
  begin(start: (source: Source) => void): void;
}

/**
 * @param list of all sources of the pod; those that are declared are shared and stay
 * @param replaced is told of what a source that has ended was given
 */
export function openAsked(
  list: Source[],
  open: (key: string, request: VaultRequest) => Source,
  replaced: (version: Version) => void,
): Asked {
  const claims = new Map<Source, { count: number; readonly end: () => void }>();
  let started: ((source: Source) => void) | undefined;
  return {
    claim(request) {
      const key = secretRequest.format(request);
      const found = list.find((source) => source.key === key);
      const claim = found && claims.get(found);
      if (claim !== undefined) claim.count++;
      if (found !== undefined) return found;
      const { source, end } = endable(open(key, request));
      claims.set(source, { count: 1, end });
      list.push(source);
      started?.(source);
      return source;
    },
    release(source) {
      const claim = claims.get(source);
      if (claim === undefined || --claim.count > 0) return;
      claims.delete(source);
      claim.end();
      list.splice(list.indexOf(source), 1);
      if (source.current !== undefined) replaced(source.current);
    },
    begin(start) {
      started = start;
    },
  };
}

/** A source that can end before the agent does. Whoever runs it again would have it again, so then it only waits. */
function endable(source: Source): { readonly source: Source; readonly end: () => void } {
  const stop = new AbortController();
  const { key, kind, secrets } = source;
  return {
    end: () => stop.abort(),
    source: {
      key,
      kind,
      secrets,
      get current() {
        return source.current;
      },
      get code() {
        return source.code;
      },
      async run(signal) {
        try {
          await source.run(AbortSignal.any([signal, stop.signal]));
        } catch (error) {
          if (!stop.signal.aborted) throw error;
        }
        await aborted(signal);
      },
      superseded: (generation, expiresAt) => source.superseded(generation, expiresAt),
    },
  };
}
