/** An explanation as lines for a terminal. */
import { unreachable } from "#core/errors.ts";
import type { Explanation, InjectedExplanation } from "./explain.ts";
import { MODES } from "./mode.ts";
import type { Resources } from "./pod.ts";

/** @param title which object it is about, such as `Deployment shop/detector` */
export function explanationLines(title: string, told: Explanation): readonly string[] {
  switch (told.outcome) {
    case "skipped":
      return [`${title}: not injected (${told.reason}): ${told.means}`];
    case "denied":
      return [
        `${title}: denied (${told.reason}): ${told.means}`,
        ...told.problems.map((problem) => `  - ${problem}`),
      ];
    case "injected":
      return [`${title}: injected`, ...injectedLines(told)];
    default:
      return unreachable(told);
  }
}

function injectedLines(told: InjectedExplanation): readonly string[] {
  const { needs, after } = told;
  const facts: readonly (readonly [string, string])[] = [
    ...(needs === null ? [] : [["needs", needs] as const]),
    ["sidecar", MODES[told.mode]],
    ["starts", after.length === 0 ? "before all others" : `behind ${after.join(", ")}`],
    ["image", told.image],
    ["user", told.user],
    ["requests", amounts(told.resources.requests)],
    ["limits", amounts(told.resources.limits)],
    ["main", told.main],
  ];
  const section = (head: string, rows: readonly (readonly string[])[]): readonly string[] =>
    rows.length === 0 ? [] : ["", `  ${head}`, ...aligned(rows).map((row) => `    ${row}`)];
  return [
    ...aligned(facts).map((row) => `  ${row}`),
    ...section(
      "volumes",
      told.volumes.map(({ name, source }) => [name, source]),
    ),
    ...section(
      "mounts",
      told.mounts.map(({ container, path, volume, access }) => [container, path, volume, access]),
    ),
    ...section(
      "probes",
      told.probes.map(({ container, probe, before, after: now }) => [
        container,
        probe,
        before === now ? `${before} (unchanged)` : `${before} -> ${now}`,
      ]),
    ),
    ...section(
      "warnings",
      told.warnings.map((warning) => [`- ${warning}`]),
    ),
  ];
}

function amounts(list: Resources["limits"]): string {
  return Object.entries(list ?? {})
    .map(([name, quantity]) => `${name} ${quantity}`)
    .join(", ");
}

/** Columns two spaces apart; nothing is padded behind the last one. */
function aligned(rows: readonly (readonly string[])[]): readonly string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries())
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join("  "),
  );
}
