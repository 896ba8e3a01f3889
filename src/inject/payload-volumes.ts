/** Which volumes the payloads of a pod need, and where the sidecar mounts them. What payloads have in common is one volume. */
import { MAIN_PAYLOAD } from "#core/payloads.ts";
import { payloadsOf } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { onceFor } from "#core/remember.ts";
import { PATHS, VOLUMES } from "./names.ts";

/** A volume by its name in the pod, and its mount path in the sidecar. */
export interface Mount {
  readonly volume: string;
  readonly path: string;
}

export interface PayloadVolumes {
  readonly name: string;
  /** As if it were the pod's only payload. */
  readonly options: PodOptions;
  readonly payload: Mount;
  /** Where the pod's own link lies: the claim may be another pod's too, and each swaps by itself. It is mounted below. */
  readonly link: Mount | undefined;
  readonly trust: Mount;
  readonly repositoryCa: Mount | undefined;
  readonly repositoryCredentials: Mount | undefined;
  readonly imports: Mount | undefined;
  readonly seed: Mount | undefined;
}

/** Every payload's, `main`'s first if there is one. */
export const payloadVolumes: (options: PodOptions) => readonly PayloadVolumes[] =
  onceFor(volumesOfPayloads);

function volumesOfPayloads(options: PodOptions): readonly PayloadVolumes[] {
  const payloads = payloadsOf(options);
  /** The first payload that names an object has the volume for it. */
  const firstWith = (key: keyof PodOptions, value: unknown): string =>
    payloads.find((payload) => payload.options[key] === value)?.name ?? MAIN_PAYLOAD;
  const common = (
    kind: "trust" | "repositoryCa" | "repositoryCredentials",
    key: keyof PodOptions,
    value: string | undefined,
  ): Mount | undefined => (value === undefined ? undefined : mountOf(kind, firstWith(key, value)));
  return payloads.map(({ name, options: own }) => {
    const { trustRoot, repositoryCa, repositoryCredentials, importVolume, payloadSeed } = own;
    const payload = mountOf("payload", name);
    // Also for options of which one could not be read.
    const { payloadStorage }: Partial<PodOptions> = own;
    const shared = payloadStorage?.kind === "claim";
    return {
      name,
      options: own,
      payload: shared ? { ...payload, path: belowLink(payload.path) } : payload,
      link: shared ? { volume: suffixed(VOLUMES.link, name), path: payload.path } : undefined,
      trust: mountOf("trust", firstWith("trustRoot", trustRoot)),
      repositoryCa: common("repositoryCa", "repositoryCa", repositoryCa),
      repositoryCredentials: common(
        "repositoryCredentials",
        "repositoryCredentials",
        repositoryCredentials,
      ),
      imports:
        importVolume === undefined
          ? undefined
          : {
              volume: importVolume,
              path: suffixed(PATHS.import, firstWith("importVolume", importVolume)),
            },
      // One mount for each payload: two may name folders of one volume.
      seed: payloadSeed && { volume: payloadSeed.volume, path: suffixed(PATHS.seed, name) },
    };
  });
}

/** Where a shared claim is mounted, below the folder of the pod's own link; that one's targets begin with it. */
export function belowLink(path: string): string {
  return `${path}/.volume`;
}

function mountOf(
  kind: "payload" | "trust" | "repositoryCa" | "repositoryCredentials",
  payload: string,
): Mount {
  return { volume: suffixed(VOLUMES[kind], payload), path: suffixed(PATHS[kind], payload) };
}

function suffixed(name: string, payload: string): string {
  return payload === MAIN_PAYLOAD ? name : `${name}-${payload}`;
}
