/** The sidecar as a person or Prometheus sees it from outside: its status and its metrics. */
import { setTimeout as sleep } from "node:timers/promises";

/** Samples by name and labels, as written: `edgesync_sidecar_commits_total`, `…{kind="delta"}`. */
export type Samples = ReadonlyMap<string, number>;

export interface SidecarView {
  scrape(): Promise<Samples>;
  /** Status code and body of one of its routes. */
  get(route: string): Promise<{ readonly status: number; readonly body: string }>;
  /** Waits until the samples satisfy `holds`; rejects with `what` after the time. */
  until(what: string, withinMs: number, holds: (samples: Samples) => boolean): Promise<Samples>;
}

export function viewSidecar(port: number): SidecarView {
  const get = async (route: string): Promise<{ status: number; body: string }> => {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, {
      signal: AbortSignal.timeout(2_000),
    });
    return { status: response.status, body: await response.text() };
  };
  const scrape = async (): Promise<Samples> => parse((await get("/metrics")).body);
  return {
    get,
    scrape,
    until: (what, withinMs, holds) =>
      waitFor(what, withinMs, async () => {
        const samples = await scrape();
        return holds(samples) ? samples : undefined;
      }),
  };
}

/** Prometheus' text format, version 0.0.4. */
function parse(text: string): Samples {
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][^ ]*(?:\{.*\})?) (\S+)$/.exec(line);
    if (match?.[1] !== undefined) samples.set(match[1], Number(match[2]));
  }
  return samples;
}

/** The sum over all label values of a metric, or over those with one label, such as `kind="delta"`. */
export function total(samples: Samples, name: string, label: string = ""): number {
  return [...samples]
    .filter(([key]) => key === name || key.startsWith(`${name}{`))
    .filter(([key]) => key.includes(label))
    .reduce((sum, [, value]) => sum + value, 0);
}

/** Asks again and again until there is an answer that is not undefined; an error counts as none. */
export async function waitFor<T>(
  what: string,
  withinMs: number,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = Date.now() + withinMs;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      last = error;
    }
    await sleep(50);
  }
  throw new Error(`not within ${withinMs / 1000} s: ${what}`, { cause: last });
}
