/** Bars of ratios as an SVG that reads on light and on dark pages. */

export interface Bar {
  readonly label: string;
  readonly ratio: number;
}

const WIDTH = 960;
const LEFT = 470;
const TOP = 44;
const ROW = 26;
/** Pixels for a ratio of 1. */
const UNIT = 400;

export function chart(bars: readonly Bar[]): string {
  const height = TOP + bars.length * ROW + 16;
  const rows = bars.map(({ label, ratio }, index) => {
    const y = TOP + index * ROW;
    const length = Math.min(ratio, 1.1) * UNIT;
    return [
      `<text class="l" x="${LEFT - 10}" y="${y + 15}" text-anchor="end">${escape(label)}</text>`,
      `<rect x="${LEFT}" y="${y + 3}" width="${length.toFixed(1)}" height="16" rx="2" fill="#0b7285"/>`,
      `<text class="v" x="${(LEFT + length + 6).toFixed(1)}" y="${y + 15}">${ratio.toFixed(2)}</text>`,
    ].join("\n");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Size of edgesync's deltas as a share of the best peer's, by corpus">
<style>
text{font:13px system-ui,sans-serif;fill:#1f2933}.v{font-weight:600}
</style>
<rect width="${WIDTH}" height="${height}" rx="6" fill="#f6f8fa"/>
<text x="${LEFT}" y="22">bytes of edgesync's delta ÷ bytes of the best peer's</text>
<line x1="${LEFT + UNIT}" y1="${TOP - 8}" x2="${LEFT + UNIT}" y2="${height - 12}" stroke="#c92a2a" stroke-dasharray="4 3"/>
<text x="${LEFT + UNIT}" y="22" text-anchor="middle" style="fill:#c92a2a">1</text>
${rows.join("\n")}
</svg>
`;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
