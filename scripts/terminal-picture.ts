/**
 * What a program printed, as a picture for the README: `npm run -s demo | node scripts/terminal-picture.ts > docs/demo.svg`.
 * Headings, ticks and notes get the colours that a terminal shows; long lines are cut.
 */
import { text } from "node:stream/consumers";

const COLUMNS = 118;
const LINE_PX = 17;
const CHAR_PX = 7.8;
const PAD_PX = 16;

const STYLES: readonly (readonly [pattern: RegExp, style: string])[] = [
  [/^\d+\. /, 'fill="#e6edf3" font-weight="600"'],
  [/^ ✓/, 'fill="#56d364"'],
  [/^ ✗/, 'fill="#f85149"'],
  [/^\{/, 'fill="#79c0ff"'],
];

function line(content: string, index: number): string {
  const cut = content.length > COLUMNS ? `${content.slice(0, COLUMNS - 1)}…` : content;
  const style = STYLES.find(([pattern]) => pattern.test(content))?.[1] ?? 'fill="#9da7b3"';
  const escaped = cut.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${PAD_PX}" y="${PAD_PX + (index + 1) * LINE_PX}" ${style}>${escaped}</text>`;
}

const lines = (await text(process.stdin)).trim().split("\n");
const width = Math.ceil(2 * PAD_PX + COLUMNS * CHAR_PX);
const height = 3 * PAD_PX + lines.length * LINE_PX;
process.stdout.write(
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="Output of npm run demo">`,
    `<rect width="${width}" height="${height}" rx="10" fill="#0d1117"/>`,
    `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" xml:space="preserve">`,
    ...lines.map(line),
    "</g>\n</svg>\n",
  ].join("\n"),
);
