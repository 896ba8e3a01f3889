/** What a site would do: the plan that a sidecar makes, with everything that it may use. */
import { knownCodecs } from "#core/delta/codec-names.ts";
import { makePlan } from "#core/plan.ts";
import type { Plan } from "#core/plan.ts";
import type { Content, PlacedBlob, Release, Step } from "#core/release.ts";
import { blobsOf, openRoutes } from "#core/route.ts";
import type { Means, Source } from "#core/route.ts";

const codecs: ReadonlySet<string> = new Set(knownCodecs);
const nothing: ReadonlySet<string> = new Set();

function meansOf(installed: Pick<Release, "find"> | undefined): Means {
  const available = { has: (sha256: string) => installed?.find(sha256) !== undefined };
  return { available, damaged: nothing, codecs, rejected: nothing };
}

/** @param installed what the site has; undefined for nothing */
export function sitePlan(release: Release, installed: Release | undefined): Plan {
  return makePlan({
    ...meansOf(installed),
    release,
    installed: installed?.version ?? null,
    foreign: nothing,
    fallback: { kind: "always" },
    first: installed === undefined,
  });
}

/** Contents and steps that are no release yet. */
export interface Draft {
  readonly contents: readonly Content[];
  readonly steps: readonly Step[];
}

/** How a site with an earlier release comes to each content. */
export function* sitesSources(
  base: Pick<Release, "find">,
  { contents, steps }: Draft,
): Generator<Source> {
  const numbers = new Map(steps.map(({ sha256 }, index) => [sha256, index]));
  const findStep = (sha256: string): number | undefined => numbers.get(sha256);
  const at = (index: number): Step => {
    const step = steps[index];
    if (step === undefined) throw new RangeError(`${index} is not below ${steps.length}`);
    return step;
  };
  const list = { length: steps.length, at, [Symbol.iterator]: () => steps.values() };
  const routes = openRoutes({ steps: list, findStep }, meansOf(base));
  for (const content of contents) yield routes.source(content, routes.choose(content));
}

/** The blobs that a site with an earlier release fetches; one may be named more than once. */
export function* neededFrom(base: Pick<Release, "find">, draft: Draft): Generator<PlacedBlob> {
  for (const source of sitesSources(base, draft)) yield* blobsOf(source);
}
