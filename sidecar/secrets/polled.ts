/** A source beside Vault: something on a volume that is looked at now and then, has no lease, and is read again when it is another. */
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { Log } from "#core/telemetry.ts";
import type { FilesOf } from "./files.ts";
import type { Source, Version } from "./source.ts";

export interface PolledDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly filesOf: FilesOf;
  /** There is something to publish. */
  readonly changed: () => void;
}

export interface Place {
  readonly kind: Source["kind"];
  /**
   * Another text whenever there is another version.
   *
   * @param isFirst whether nothing has been read yet
   * @returns undefined when it is not to be read now
   */
  mark(isFirst: boolean): Promise<string | undefined>;
  read(mark: string): Promise<SecretData>;
  /** For the log, when it fails. */
  readonly failure: string;
}

/** Milliseconds between two looks. */
const POLL_MS = 2_000;

export function openPolled(
  key: string,
  place: Place,
  secrets: readonly SecretOptions[],
  { clock, log, filesOf, changed }: PolledDeps,
): Source {
  const names = secrets.map((secret) => secret.name).join(",");
  let current: Version | undefined;
  let code: ErrorCode | undefined;
  /** The mark of what was read last. */
  let seen: string | undefined;

  const look = async (): Promise<void> => {
    try {
      const mark = await place.mark(current === undefined);
      if (mark === undefined || (mark === seen && code === undefined)) return;
      const data = await place.read(mark);
      const files = filesOf(secrets, data);
      const version = { leaseId: undefined, generation: 0, grant: undefined, expiresAt: undefined };
      current = { data, files, ...version };
      code = undefined;
      seen = mark;
      changed();
    } catch (error) {
      const failure = codeOf(error);
      // Once for each reason: it is looked at again and again.
      if (failure !== code) log.warn({ secret: names, code: failure, err: error }, place.failure);
      code = failure;
    }
  };
  return {
    key,
    kind: place.kind,
    secrets,
    get current() {
      return current;
    },
    get code() {
      return code;
    },
    async run(signal) {
      for (;;) {
        await look();
        await clock.sleep(POLL_MS, signal);
      }
    },
    superseded: () => undefined,
  };
}
