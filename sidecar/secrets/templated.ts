/**
 * A file that is rendered from a template. What it calls for is asked of Vault like any declared secret, and with an equal request it is
 * the same credential. It is rendered from what its sources hold at that moment, so a set never mixes two versions of one credential.
 * A file of its own in the bundle, because few pods have templates.
 */
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import { secretRequest } from "#core/secret-request.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import type { Settings } from "#core/settings.ts";
import type { Log } from "#core/telemetry.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { Template, TemplateCall } from "#core/template/template.ts";
import { aborted } from "../aborted.ts";
import type { Source, Version } from "./source.ts";

export interface TemplatedDeps {
  readonly settings: Settings;
  readonly now: () => number;
  readonly log: Log;
  /** The source of a request, which is opened when there is none yet. */
  readonly ask: (request: VaultRequest) => Source;
}

/** Different secrets that one template may call for: their paths may be computed, pass by pass. */
const MAX_CALLS = 64;

/** @throws EdgeSyncError CONFIG_INVALID when it is no template, or calls for what is no path of Vault */
export function openTemplated(
  key: string,
  secret: SecretOptions,
  text: string,
  deps: TemplatedDeps,
): Source {
  const { name, file } = secret;
  const mode = secret.mode ?? deps.settings.secretsMode;
  const template = parsed(text, name);
  const sources = new Map<string, Source>();
  let last: (Version & { readonly used: ReadonlyMap<Source, Version> }) | undefined;
  let code: ErrorCode | undefined;
  /** What the sources held when it was rendered last, whatever came of it. */
  let tried: ReadonlyMap<Source, Version> | undefined;

  const ask = (call: TemplateCall): Source => {
    const found = sources.get(call.key);
    if (found !== undefined) return found;
    if (sources.size >= MAX_CALLS)
      throw new EdgeSyncError(
        "TEMPLATE_FAILED",
        `${name}: it calls for more than ${MAX_CALLS} secrets`,
      );
    const source = deps.ask(requestOf(call, name));
    sources.set(call.key, source);
    return source;
  };
  for (const call of template.calls) ask(call);

  const update = (): void => {
    if (tried !== undefined && [...tried].every(([source, version]) => source.current === version))
      return;
    const used = new Map<Source, Version>();
    try {
      const result = render(template, {
        lookup(call) {
          const source = ask(call);
          const version = source.current;
          if (version === undefined) return undefined;
          used.set(source, version);
          return answerOf(version);
        },
        env: (variable) => variableOf(deps.settings, variable),
        now: deps.now(),
      });
      if (result.kind === "needs") return;
      const files = [{ name: file, bytes: result.bytes, mode }];
      last = versionOf(files, used);
      code = undefined;
      tried = used;
    } catch (error) {
      tried = used;
      code = codeOf(error);
      // Its message has the line and the column, and nothing of a secret.
      deps.log.warn({ secret: name, code, err: error }, "the template could not be rendered");
    }
  };
  return {
    key,
    kind: "template",
    secrets: [secret],
    get current() {
      update();
      return last;
    },
    get code() {
      return code ?? Array.from(sources.values(), (source) => source.code).find(isCode);
    },
    run: aborted,
    superseded: () => undefined,
  };
}

function isCode(code: ErrorCode | undefined): boolean {
  return code !== undefined;
}

function parsed(text: string, name: string): Template {
  try {
    return parseTemplate(text, { name });
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : name;
    throw new EdgeSyncError("CONFIG_INVALID", `template.${message}`, { cause });
  }
}

function requestOf({ path, query, parameters }: TemplateCall, name: string): VaultRequest {
  const { version, ...more } = query;
  const request: VaultRequest = {
    kind: "vault",
    path,
    ...(version === undefined ? {} : { version: Number(version) }),
    parameters,
  };
  const read = secretRequest.parse(secretRequest.format(request));
  if (read?.kind !== "vault" || Object.keys(more).length > 0)
    throw new EdgeSyncError(
      "TEMPLATE_FAILED",
      `${name}: it calls for what is no path of Vault, or writes a path with ?version`,
    );
  return read;
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
    /** As soon as any of what is in it ends. */
    get expiresAt() {
      const ends = Array.from(used.values(), ({ expiresAt }) => expiresAt);
      const times = ends.filter((at) => at !== undefined);
      return times.length === 0 ? undefined : Math.min(...times);
    },
  };
}

/** What a template may know of where it is: nothing else of the environment is for it. */
function variableOf(settings: Settings, name: string): string | undefined {
  const allowed = new Map([
    ["POD_NAME", settings.podName],
    ["POD_NAMESPACE", settings.podNamespace],
    ["POD_UID", settings.podUid],
    ["NODE_NAME", settings.nodeName],
    ["SITE", settings.site],
  ]);
  return allowed.has(name) ? (allowed.get(name) ?? "") : undefined;
}
