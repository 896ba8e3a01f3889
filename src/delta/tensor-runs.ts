/** Which units of the regions are coded, and which stay as they are. */
import { WIDTHS } from "./tensor-differences.ts";
import type { Differ, Region } from "./tensor-differences.ts";

/** Log2 of the elements in the smallest unit that is considered. */
const FINE_LOG = 6;
const UNIT_LOGS = [6, 8, 10, 12] as const;
/** Elements: a row of fewer that stay is coded with its neighbours, which costs less than two more runs. */
const LEAST_STAYS = [64, 256, 1024, 4096, 16_384] as const;

export interface Runs {
  readonly unitLog: number;
  /** By region: in units, those that stay and those that are coded in turn. */
  readonly byRegion: readonly (readonly number[])[];
  readonly changed: number;
}

/** The cheapest way to tell units that changed from those that stay. */
export function findRuns(differ: Differ, regions: readonly Region[]): Runs {
  let changed = 0;
  const flags = regions.map((region) => {
    const elements = region.size / WIDTHS[region.dtype];
    const units = new Uint8Array(Math.ceil(elements / 2 ** FINE_LOG));
    differ.visit(region, 0, elements, ({ values }, start, count) => {
      for (let index = 0; index < count; index++)
        if (values[index] !== 0) {
          units[(start + index) >>> FINE_LOG] = 1;
          changed++;
        }
    });
    return units;
  });
  let best: { readonly cost: number; readonly runs: Runs } | undefined;
  for (const unitLog of UNIT_LOGS)
    for (const stay of LEAST_STAYS) {
      if (stay < 2 ** unitLog) continue;
      const runs = {
        unitLog,
        changed,
        byRegion: flags.map((units) => runsOf(units, unitLog, stay / 2 ** unitLog)),
      };
      const cost = costOf(runs);
      if (best === undefined || cost < best.cost) best = { cost, runs };
    }
  return best?.runs ?? { unitLog: FINE_LOG, byRegion: [], changed };
}

function runsOf(fine: Uint8Array, unitLog: number, leastStay: number): readonly number[] {
  const ratio = 2 ** (unitLog - FINE_LOG);
  const count = Math.ceil(fine.length / ratio);
  const runs: number[] = [];
  let [stay, coded] = [0, 0];
  for (let unit = 0; unit < count; unit++) {
    let isChanged = false;
    for (let index = unit * ratio; index < Math.min(fine.length, (unit + 1) * ratio); index++)
      isChanged ||= fine[index] === 1;
    if (!isChanged) {
      stay++;
      continue;
    }
    if (coded > 0 && stay < leastStay) coded += stay;
    else {
      if (coded > 0) runs.push(coded);
      runs.push(stay);
      coded = 0;
    }
    coded++;
    stay = 0;
  }
  if (coded > 0) runs.push(coded);
  if (stay > 0) runs.push(stay);
  return runs;
}

/** Bits, about: for the runs, and for telling changed elements from others within those that are coded. */
function costOf({ unitLog, byRegion, changed }: Runs): number {
  const lengths = [new Map<number, number>(), new Map<number, number>()] as const;
  let elements = 0;
  for (const runs of byRegion)
    for (const [index, length] of runs.entries()) {
      const which = index % 2 === 0 ? lengths[0] : lengths[1];
      which.set(length, (which.get(length) ?? 0) + 1);
      if (index % 2 === 1) elements += length * 2 ** unitLog;
    }
  return (
    entropy([...lengths[0].values()]) +
    entropy([...lengths[1].values()]) +
    8 * (lengths[0].size + lengths[1].size) +
    entropy([changed, elements - changed])
  );
}

/** Bits for things that occur so often. */
export function entropy(counts: readonly number[]): number {
  let total = 0;
  let bits = 0;
  for (const count of counts) {
    if (count <= 0) continue;
    total += count;
    bits -= count * Math.log2(count);
  }
  return total === 0 ? 0 : bits + total * Math.log2(total);
}
