/** What the demo says as it goes: sections, steps with their time, claims with a tick or a cross. A spinner on a terminal only. */
import { clearLine, cursorTo } from "node:readline";
import type { WriteStream } from "node:tty";

export interface Screen {
  section(title: string): void;
  note(text: string): void;
  /** Shows `text` while the work goes on, then with the time it took. */
  step<T>(text: string, work: Promise<T>): Promise<T>;
  /** Records and shows whether something that edgesync promises was seen to hold. */
  claim(holds: boolean, text: string): void;
  /** Every claim that did not hold. */
  readonly broken: readonly string[];
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

export function openScreen(out: WriteStream): Screen {
  const broken: string[] = [];
  const paint = (code: number, text: string): string =>
    out.isTTY && !process.env["NO_COLOR"] ? `\u001B[${code}m${text}\u001B[0m` : text;
  const print = (text: string): void => {
    out.write(`${text}\n`);
  };
  let sections = 0;
  return {
    broken,
    section(title) {
      sections += 1;
      print(`\n${paint(1, `${sections}. ${title}`)}`);
    },
    note: (text) => print(`   ${paint(2, text)}`),
    claim(holds, text) {
      if (!holds) broken.push(text);
      print(` ${holds ? paint(32, "✓") : paint(31, "✗")} ${text}`);
    },
    async step(text, work) {
      const begin = performance.now();
      const seconds = (): string => `${((performance.now() - begin) / 1000).toFixed(1)} s`;
      let frame = 0;
      const draw = (): void => {
        clearLine(out, 0);
        cursorTo(out, 0);
        out.write(
          ` ${paint(36, FRAMES[frame++ % FRAMES.length] ?? "")} ${text} ${paint(2, seconds())}`,
        );
      };
      const timer = out.isTTY ? setInterval(draw, 100) : undefined;
      const wipe = (): void => {
        clearInterval(timer);
        if (out.isTTY) {
          clearLine(out, 0);
          cursorTo(out, 0);
        }
      };
      try {
        const result = await work;
        wipe();
        print(`   ${text} ${paint(2, `(${seconds()})`)}`);
        return result;
      } catch (error) {
        wipe();
        print(` ${paint(31, "✗")} ${text}`);
        throw error;
      }
    },
  };
}

/** `11.4 MB`, `168 kB`: decimal units, as a data plan counts them. */
export function humanBytes(count: number): string {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}
