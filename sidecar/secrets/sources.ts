/** A source for each distinct request of a pod, and for what its templates call for. */
import { join } from "node:path";
import { unreachable } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import { secretRequest } from "#core/secret-request.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import type { Settings } from "#core/settings.ts";
import { required } from "./login.ts";
import { openMounted } from "./mounted.ts";
import { openSource } from "./source.ts";
import type { ResumedVersion, Source, SourceDeps } from "./source.ts";

export interface Sources {
  /** Grows when a template calls for what nothing has asked for before. */
  readonly list: readonly Source[];
  /** From now on, what is opened is handed to `start`. */
  begin(start: (source: Source) => void): void;
}

type OpenSealed = (
  key: string,
  path: string,
  secrets: readonly SecretOptions[],
  deps: SourceDeps,
) => Source;

/** @throws EdgeSyncError CONFIG_INVALID when a setting that a source needs is missing, or a template is none */
export async function openSources(
  settings: Settings,
  deps: SourceDeps,
  resumed: ReadonlyMap<string, ResumedVersion> | undefined,
  openSealed: OpenSealed | undefined,
): Promise<Sources> {
  const list: Source[] = [];
  let started: ((source: Source) => void) | undefined;
  const openVaults = (
    key: string,
    request: VaultRequest,
    secrets: readonly SecretOptions[],
  ): Source => openSource(key, request, secrets, deps, resumed?.get(key));
  /** For a template: what nothing else asks for is followed from now on. */
  const ask = (request: VaultRequest): Source => {
    const key = secretRequest.format(request);
    const found = list.find((source) => source.key === key);
    if (found !== undefined) return found;
    const source = openVaults(key, request, []);
    list.push(source);
    started?.(source);
    return source;
  };

  const groups = Map.groupBy(
    settings.secrets.filter(({ request }) => request.kind !== "template"),
    ({ request }) => (request.kind === "template" ? "" : secretRequest.format(request)),
  );
  for (const [key, secrets] of groups) {
    const request = secrets[0]?.request;
    switch (request?.kind) {
      case "vault":
        list.push(openVaults(key, request, secrets));
        break;
      case "mounted": {
        const parent = required(settings.mountedDir, "mounted-dir");
        list.push(openMounted(key, join(parent, request.secret), secrets, deps));
        break;
      }
      case "sealed":
        list.push(required(openSealed, "sealed-key-dir")(key, request.path, secrets, deps));
        break;
      case "template":
      case undefined:
        break;
      default:
        unreachable(request);
    }
  }
  // Last: what they call for may be declared as well, and is then the same.
  for (const secret of settings.secrets)
    if (secret.request.kind === "template") {
      const { openTemplated } = await import("./templated.ts");
      const { clock, log } = deps;
      const now = (): number => clock.now();
      const { text } = secret.request;
      list.push(
        openTemplated(`template.${secret.name}`, secret, text, { settings, now, log, ask }),
      );
    }
  return {
    list,
    begin(start) {
      started = start;
    },
  };
}
