/** A source for each distinct request of a pod, and for what its templates call for. */
import { join } from "node:path";
import { unreachable } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import { secretRequest } from "#core/secret-request.ts";
import type { TemplateRequest, VaultRequest } from "#core/secret-request.ts";
import type { Settings } from "#core/settings.ts";
import { openAsked } from "./asked.ts";
import { required } from "./login.ts";
import { openMounted } from "./mounted.ts";
import { openSource } from "./source.ts";
import type { ResumedVersion, Source, SourceDeps } from "./source.ts";
import type { TemplatePlace } from "./templated.ts";

export interface Sources {
  /** Grows when a template calls for what nothing has asked for before, and shrinks when none calls for it any more. */
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
  const openVaults = (
    key: string,
    request: VaultRequest,
    secrets: readonly SecretOptions[],
  ): Source => openSource(key, request, secrets, deps, resumed?.get(key));
  const open = (key: string, request: VaultRequest): Source => openVaults(key, request, []);
  const asked = openAsked(list, open, deps.replaced);

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
      const place = placeOf(secret.request, settings);
      list.push(await openTemplated(secret, place, { ...deps, settings, asked }));
    }
  return { list, begin: (start) => asked.begin(start) };
}

function placeOf(request: TemplateRequest, settings: Settings): TemplatePlace {
  if ("text" in request) return request;
  const parent = required(settings.templatesDir, "templates-dir");
  return { folder: join(parent, request.configMap), key: request.key };
}
