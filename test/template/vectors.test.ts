/**
 * Templates and what OpenBao Agent's own library makes of them: test/vectors/template. They were made by a small Go program around
 * github.com/openbao/openbao-template 1.0.1, the fork of consul-template that OpenBao Agent is built with, by Go 1.26.8: its
 * template.Execute with the secrets of the file in its Brain, and its clock replaced. `error` stands for any error of it.
 */
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { describe, test } from "node:test";
import { codeOf } from "#core/errors.ts";
import { parseExactJson } from "#core/secret-file.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { RenderInputs, TemplateAnswer, TemplateCall } from "#core/template/template.ts";

interface Vectors {
  readonly now: number;
  readonly env: Readonly<Record<string, string>>;
  readonly secrets: readonly {
    readonly kind: TemplateCall["kind"];
    readonly path: string;
    readonly parameters?: Readonly<Record<string, string>>;
    readonly answer: TemplateAnswer;
  }[];
  readonly cases: readonly {
    readonly template: string;
    readonly now?: number;
    readonly missingKey?: "error";
    readonly text?: string;
    readonly base64?: string;
    readonly error?: string;
  }[];
}

const FOLDER = new URL("../vectors/template/", import.meta.url);

type Identity = Pick<TemplateCall, "kind" | "path"> & {
  readonly parameters?: Readonly<Record<string, string>>;
};

function identityOf({ kind, path, parameters = {} }: Identity): string {
  const sorted = Object.entries(parameters).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([kind, path, sorted]);
}

function rendered(text: string, inputs: RenderInputs): string {
  try {
    const result = render(parseTemplate(text, { name: "t" }), inputs);
    return result.kind === "text" ? Buffer.from(result.bytes).toString("base64") : result.kind;
  } catch (error) {
    return codeOf(error);
  }
}

describe("templates that OpenBao Agent's library has rendered", async () => {
  for (const file of await readdir(FOLDER)) {
    const read = parseExactJson(await readFile(new URL(file, FOLDER), "utf8"));
    const { now, env, secrets, cases } = read as Vectors;
    const answers = new Map(secrets.map((one) => [identityOf(one), one.answer]));

    test(`are rendered the same, byte for byte (${file}, ${cases.length} of them)`, () => {
      assert.ok(cases.length >= 400);
      for (const one of cases) {
        const got = rendered(one.template, {
          lookup: (call) => answers.get(identityOf(call)),
          env: (name) => env[name],
          now: one.now ?? now,
          missingKey: one.missingKey ?? "no-value",
        });
        const base64 = one.base64 ?? Buffer.from(one.text ?? "").toString("base64");
        assert.equal(got, one.error ?? base64, one.template);
      }
    });
  }
});
