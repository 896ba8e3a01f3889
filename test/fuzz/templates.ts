/** What a changed template may do: be rendered, or be refused with a place. Never hang, and never take much memory. */
import { readFileSync } from "node:fs";
import { codeOf } from "#core/errors.ts";
import { MAX_TEXT } from "#core/template/limits.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { RenderInputs, TemplateAnswer } from "#core/template/template.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import type { Chance } from "../../bench/delta/generated.ts";
import { RUN_LIMIT_MS } from "./judge.ts";
import type { Fuzzer, Outcome } from "./judge.ts";

/** Milliseconds: a template's steps and work are bounded, so that the worst takes a few seconds of a slow machine. */
const LIMIT_MS = RUN_LIMIT_MS / 2;

const PIECES = [
  "{{", "}}", "{{- ", " -}}", "(", ")", "|", "$", "$x", ":=", "=", ",", ".", '"', "`", "\\", "%", "%[1]*", "1000000", "-1", "9223372036854775807", "1e308", "nil", "\n", "{{ end }}", "{{ else }}", "{{ range 9999999 }}", "{{ if 1 }}", '{{ define "q" }}', '{{ template "q" . }}', "{{ break }}", "{{ continue }}", " | toJSONPretty", " | replaceAll \"\" ", " | indent 1000 ", " | printf \"%1000000v\"", " | split \"\"", " | parseJSON", "loop 99999999", "{{ $s = print $s $s }}",
]; // prettier-ignore

interface Vectors {
  readonly secrets: readonly { readonly path: string; readonly answer: TemplateAnswer }[];
  readonly cases: readonly { readonly template: string; readonly error?: string }[];
}

export function openTemplateFuzzer(): Fuzzer {
  const files = ["written", "generated"].map((name) => {
    const file = new URL(`../vectors/template/${name}.json`, import.meta.url);
    return JSON.parse(readFileSync(file, "utf8")) as Vectors;
  });
  const seeds = files.flatMap(({ cases }) =>
    cases.flatMap(({ template, error }) => (error === undefined ? [template] : [])),
  );
  const answers = new Map(
    files.flatMap(({ secrets }) => secrets.map(({ path, answer }) => [path, answer] as const)),
  );
  const inputs: RenderInputs = {
    lookup: ({ path }) => answers.get(path),
    env: () => "x",
    now: 0,
    missingKey: "no-value",
  };
  return {
    run(seed, number) {
      const chance = chanceFrom(
        (Math.imul(seed, 0x85eb_ca6b) ^ Math.imul(number, 0x9e37_79b1)) >>> 0,
      );
      const one = pick(chance, seeds);
      const changed = mutate(chance, one, seeds);
      const name = `template: seed ${seed}, run ${number}`;
      const begun = performance.now();
      const outcome = outcomeOf(changed, inputs, name);
      const ms = performance.now() - begun;
      if (ms > LIMIT_MS) throw new Error(`${name} took ${Math.round(ms)} ms`);
      return Promise.resolve(changed === one && outcome === "different" ? "same" : outcome);
    },
  };
}

function outcomeOf(text: string, inputs: RenderInputs, name: string): Outcome {
  try {
    const result = render(parseTemplate(text, { name: "t" }), inputs);
    if (result.kind === "text" && result.bytes.length > MAX_TEXT)
      throw new Error(`${result.bytes.length} bytes`);
    return "different";
  } catch (error) {
    const code = codeOf(error);
    if (code === "TEMPLATE_INVALID" || code === "TEMPLATE_FAILED") return "refused";
    throw new Error(name, { cause: error });
  }
}

function pick<T>(chance: Chance, from: readonly T[]): T {
  const one = from[Math.floor(chance.uniform() * from.length)];
  if (one === undefined) throw new Error("there is nothing to pick from");
  return one;
}

function mutate(chance: Chance, template: string, others: readonly string[]): string {
  let text = template;
  for (let count = Math.floor(chance.uniform() ** 2 * 8); count > 0; count--) {
    const at = Math.floor(chance.uniform() * (text.length + 1));
    const some = 1 + Math.floor(chance.uniform() * 30);
    const [before, after] = [text.slice(0, at), text.slice(at)];
    const other = pick(chance, others);
    const changes = [
      before + after.slice(some),
      before + pick(chance, PIECES) + after,
      before + pick(chance, PIECES) + after.slice(some),
      before + text.slice(at, at + some).repeat(1 + Math.floor(chance.uniform() * 20)) + after,
      before + String.fromCharCode(Math.floor(chance.uniform() ** 3 * 0x1_0000)) + after,
      before + other + after,
      text + other,
      before + other.slice(0, some) + after.slice(some),
    ];
    text = pick(chance, changes).slice(0, 20_000);
  }
  return text;
}
