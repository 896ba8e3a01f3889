/** The delta engine as a plain tool: no repository, no keys. */
import type { Command } from "../command.ts";
import { applyDelta } from "../delta-apply.ts";

const deltaMake: Command = {
  name: "delta make",
  summary:
    "Makes a delta between two files or two folders, to try the engine on releases of one's own.",
  example: "edgesync delta make ./app-1.4.0 ./app-1.5.0 --output app.delta",
  positionals: ["<old>", "<new>"],
  options: { output: "file to write the delta to; also -o" },
  async run(args, shell, signal) {
    const [from = "", to = ""] = args.positionals;
    const output = args.required("output");
    const { makeDelta } = await import("../delta-tool.ts");
    const made = await makeDelta(from, to, output, shell.progress, signal);
    return {
      lines: [
        `${output}  ${made.deltaBytes} bytes, ${percent(made.deltaBytes, made.newBytes)} of ${made.newBytes}`,
      ],
      json: { ...made },
    };
  },
};

const deltaApply: Command = {
  name: "delta apply",
  summary:
    "Makes the new file or folder from the old one and a delta; whatever ends it, it is whole and verified, or absent.",
  example: "edgesync delta apply ./app-1.4.0 app.delta --output ./app-1.5.0",
  positionals: ["<old>", "<delta>"],
  options: { output: "file or folder to make; also -o" },
  async run(args, _, signal) {
    const [from = "", delta = ""] = args.positionals;
    const output = args.required("output");
    const { newBytes } = await applyDelta(from, delta, output, signal);
    return { lines: [`${output}  ${newBytes} bytes`], json: { newBytes } };
  },
};

const deltaInfo: Command = {
  name: "delta info",
  summary: "Says how a delta was made, and where its bytes went.",
  example: "edgesync delta info app.delta",
  positionals: ["<delta>"],
  options: {},
  async run(args, _, signal) {
    const [path = ""] = args.positionals;
    const { describeDelta } = await import("../delta-tool.ts");
    const report = await describeDelta(path, signal);
    const { oldBytes, newBytes, deltaBytes, segments } = report;
    return {
      lines: [
        `${deltaBytes} bytes for ${newBytes} new ones (${percent(deltaBytes, newBytes)}), from ${oldBytes} old ones`,
        ...segments.flatMap(({ codec, newBytes, streams }) => [
          `${codec.padEnd(12)} ${newBytes} bytes`,
          ...streams.map(
            ({ name, method, bytes }) => `  ${name.padEnd(14)} ${method.padEnd(8)} ${bytes}`,
          ),
        ]),
      ],
      json: { ...report },
    };
  },
};

function percent(part: number, whole: number): string {
  return whole === 0 ? "0 %" : `${((100 * part) / whole).toFixed(2)} %`;
}

export const deltaToolCommands: readonly Command[] = [deltaMake, deltaApply, deltaInfo];
