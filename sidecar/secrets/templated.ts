/**
 * A file that is rendered from a template. What it calls for is asked of Vault like any declared secret, and with an equal request it is
 * the same credential. It is rendered from what its sources hold at that moment, so a set never mixes two versions of one credential.
 *
 * The template of a ConfigMap is followed. Another text takes over when it has been rendered once; until then, and for as long as it cannot be,
 * the one before goes on, so that credentials that are replaced meanwhile reach the application.
 * A file of its own in the bundle, because few pods have templates.
 */
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import type { Settings } from "#core/settings.ts";
import { MAX_FOLLOWED } from "#core/template/limits.ts";
import { VARIABLES, requestOf } from "#core/template/request.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { Template, TemplateCall } from "#core/template/template.ts";
import { openAlarm } from "./alarm.ts";
import type { Asked } from "./asked.ts";
import type { Source, SourceDeps, Version } from "./source.ts";
import { openKept, openTemplateFile } from "./template-file.ts";
import type { TemplateFile } from "./template-file.ts";

export interface TemplatedDeps extends Pick<SourceDeps, "clock" | "log" | "metrics" | "changed"> {
  readonly settings: Settings;
  readonly asked: Asked;
}

/** Where the text is: in the settings, or in a folder that the kubelet keeps up to date. */
export type TemplatePlace = { readonly text: string } | TemplateFile;

/** Milliseconds between two looks at a ConfigMap. */
const POLL_MS = 2_000;

/** A template that is in use, or may be. */
interface Form {
  readonly text: string;
  readonly template: Template;
  /** By the key of the call. */
  readonly sources: Map<string, Source>;
  /** What the sources held when it was rendered last, whatever came of it. */
  tried: ReadonlyMap<Source, Version> | undefined;
  /** Why that failed. */
  code: ErrorCode | undefined;
}

/**
 * @throws EdgeSyncError CONFIG_INVALID when the text in the settings is no template, or calls for what is no path of Vault. A file may
 *   become one, so what is wrong with it is said in the status.
 */
export async function openTemplated(
  secret: SecretOptions,
  place: TemplatePlace,
  { settings, asked, clock, log, metrics, changed }: TemplatedDeps,
): Promise<Source> {
  const { name, file } = secret;
  const mode = secret.mode ?? settings.secretsMode;
  /** Rung when something is no longer called for: to end it takes a moment at which nobody goes through the list of sources. */
  const tidy = openAlarm(clock);
  const leftOver: Source[] = [];
  let good: Form | undefined;
  /** Has not been rendered yet. */
  let coming: Form | undefined;
  let last: (Version & { readonly used: ReadonlyMap<Source, Version> }) | undefined;
  /** Why there is no newest text, and why it is no template. */
  let readCode: ErrorCode | undefined;
  let textCode: ErrorCode | undefined;
  const readFile = "folder" in place ? openTemplateFile(place) : undefined;
  const kept = openKept(settings.secretsDir ?? "", name);
  let keptText: string | undefined;

  const leave = (sources: Iterable<Source>): void => {
    leftOver.push(...sources);
    if (leftOver.length > 0) tidy.ring();
  };
  const ask = (form: Form, call: TemplateCall): Source => {
    const found = form.sources.get(call.key);
    if (found !== undefined) return found;
    if (form.sources.size >= MAX_FOLLOWED)
      throw new EdgeSyncError(
        "TEMPLATE_FAILED",
        `${name}: it calls for more than ${MAX_FOLLOWED} secrets`,
      );
    const source = asked.claim(requestOf(call, name));
    form.sources.set(call.key, source);
    return source;
  };
  const formOf = (text: string): Form => {
    const template = parseTemplate(text, { name });
    const form: Form = { text, template, sources: new Map(), tried: undefined, code: undefined };
    try {
      for (const call of template.calls) ask(form, call);
    } catch (error) {
      leave(form.sources.values());
      throw error;
    }
    return form;
  };
  /** Takes a text in; it is rendered when it is asked for. */
  const adopt = (text: string): void => {
    const form = formOf(text);
    leave(coming?.sources.values() ?? []);
    coming = form;
  };

  /** Renders it when there is something new in its sources. @returns whether it was */
  const attempt = (form: Form): boolean => {
    const { template, sources, tried } = form;
    if (tried !== undefined && [...tried].every(([source, version]) => source.current === version))
      return false;
    const used = new Map<Source, Version>();
    try {
      const result = render(template, {
        lookup(call) {
          const source = ask(form, call);
          const version = source.current;
          if (version === undefined) return undefined;
          used.set(source, version);
          return answerOf(version);
        },
        env: (variable) => variableOf(settings, variable),
        now: clock.now(),
      });
      if (result.kind === "needs") return false;
      last = versionOf([{ name: file, bytes: result.bytes, mode }], used);
      form.code = undefined;
    } catch (error) {
      form.code = codeOf(error);
      // Its message has the line and the column, and nothing of a secret.
      log.warn({ secret: name, code: form.code, err: error }, "the template could not be rendered");
    }
    form.tried = used;
    if (form.code !== undefined) return false;
    const written = new Set(template.calls.map(({ key }) => key));
    for (const [key, source] of sources)
      if (!written.has(key) && !used.has(source)) {
        sources.delete(key);
        leave([source]);
      }
    return true;
  };
  const ownCode = (): ErrorCode | undefined => readCode ?? textCode ?? coming?.code ?? good?.code;
  const tell = (): void =>
    metrics.set(
      "edgesync_sidecar_template_failing",
      { secret: name },
      ownCode() === undefined ? 0 : 1,
    );
  const update = (): void => {
    if (coming !== undefined && attempt(coming)) {
      leave(good?.sources.values() ?? []);
      good = coming;
      coming = undefined;
      tidy.ring();
    } else if (good !== undefined) attempt(good);
    tell();
  };

  /** What is wrong is logged once: it is looked at again and again. */
  const look = async (read: NonNullable<typeof readFile>): Promise<void> => {
    const before = ownCode();
    let text: string | undefined;
    try {
      text = await read();
      readCode = undefined;
    } catch (error) {
      const code = codeOf(error);
      if (code !== readCode)
        log.warn({ secret: name, code, err: error }, "the template could not be read");
      readCode = code;
    }
    if (text !== undefined)
      try {
        adopt(text);
        textCode = undefined;
        log.info({ secret: name }, "another text of the template is taken in");
      } catch (error) {
        textCode = codeOf(error);
        const fields = { secret: name, code: textCode, err: error };
        log.warn(fields, "the template is not valid; the one before goes on");
      }
    if (text === undefined && ownCode() === before) return;
    tell();
    changed();
  };
  /** What was in force when the sidecar before ended. */
  const resume = async (): Promise<void> => {
    keptText = await kept.read();
    if (keptText === undefined) return;
    try {
      good = formOf(keptText);
    } catch (error) {
      // Of another version of the sidecar, say: what the ConfigMap holds counts alone.
      log.info({ secret: name, code: codeOf(error) }, "the template that was kept is of no use");
    }
  };
  const keep = async (): Promise<void> => {
    if (good === undefined || good.text === keptText) return;
    const { text } = good;
    try {
      await kept.write(text);
      keptText = text;
    } catch (error) {
      log.warn({ secret: name, code: codeOf(error), err: error }, "the template could not be kept");
    }
  };
  if (readFile !== undefined) {
    await resume();
    await look(readFile);
  } else if ("text" in place) adoptStated(place.text, name, adopt);

  return {
    key: `template.${name}`,
    kind: "template",
    secrets: [secret],
    get current() {
      update();
      return last;
    },
    get code() {
      const sources = [...(coming?.sources.values() ?? []), ...(good?.sources.values() ?? [])];
      return ownCode() ?? sources.map((source) => source.code).find(isCode);
    },
    async run(signal) {
      for (;;) {
        const pause = readFile === undefined ? Number.POSITIVE_INFINITY : POLL_MS;
        await tidy.until(clock.monotonic() + pause, signal);
        const ended = leftOver.splice(0);
        for (const source of ended) asked.release(source);
        if (ended.length > 0) changed();
        if (readFile === undefined) continue;
        await keep();
        await look(readFile);
      }
    },
    superseded: () => undefined,
  };
}

function isCode(code: ErrorCode | undefined): boolean {
  return code !== undefined;
}

/** @throws EdgeSyncError CONFIG_INVALID: what is stated does not become right by itself */
function adoptStated(text: string, name: string, adopt: (text: string) => void): void {
  try {
    adopt(text);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : name;
    throw new EdgeSyncError("CONFIG_INVALID", `template.${message}`, { cause });
  }
}

function answerOf({ data, leaseId, grant }: Version): {
  readonly data: Version["data"];
  readonly leaseId?: string;
  readonly leaseDuration?: number;
  readonly renewable?: boolean;
} {
  return {
    data,
    ...(leaseId === undefined ? {} : { leaseId }),
    ...(grant === undefined
      ? {}
      : { leaseDuration: Math.round(grant.durationMs / 1_000), renewable: grant.renewable }),
  };
}

function versionOf(
  files: Version["files"],
  used: ReadonlyMap<Source, Version>,
): Version & { readonly used: ReadonlyMap<Source, Version> } {
  return {
    data: {},
    files,
    used,
    leaseId: undefined,
    generation: 0,
    grant: undefined,
    /** When the first of what is in it ends. */
    get expiresAt() {
      const ends = Array.from(used.values(), ({ expiresAt }) => expiresAt);
      const times = ends.filter((at) => at !== undefined);
      return times.length === 0 ? undefined : Math.min(...times);
    },
  };
}

function variableOf(settings: Settings, name: string): string | undefined {
  const values: Record<(typeof VARIABLES)[number], string | undefined> = {
    POD_NAME: settings.podName,
    POD_NAMESPACE: settings.podNamespace,
    POD_UID: settings.podUid,
    NODE_NAME: settings.nodeName,
    SITE: settings.site,
  };
  const known = VARIABLES.find((variable) => variable === name);
  return known && (values[known] ?? "");
}
