/** Where a payload's seed lies: on a volume of the pod, or in a folder of it. */
import { dnsLabel } from "./values.ts";
import type { Value } from "./values.ts";

export interface SeedPlace {
  /** Name of the volume in the pod. */
  readonly volume: string;
  /** Relative to the volume; empty for all of it. */
  readonly path: string;
}

const PATH = /^(?!.*(^|\/)\.{1,2}(\/|$))[A-Za-z0-9._@+-]{1,255}(\/[A-Za-z0-9._@+-]{1,255}){0,31}$/;

export const seedPlace: Value<SeedPlace> = {
  allowed:
    "<name of a volume of the pod>, or <volume>/<path in it>, such as image/usr/share/models",
  parse(input) {
    const at = input.indexOf("/");
    const volume = dnsLabel.parse(at < 0 ? input : input.slice(0, at));
    const path = at < 0 ? "" : input.slice(at + 1);
    if (volume === undefined || (at >= 0 && !PATH.test(path))) return undefined;
    return { volume, path };
  },
  format: ({ volume, path }) => (path === "" ? volume : `${volume}/${path}`),
};
