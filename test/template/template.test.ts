import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { parseExactJson } from "#core/secret-file.ts";
import {
  MAX_CALLS,
  MAX_NESTING,
  MAX_TEMPLATE,
  MAX_TEXT,
  MAX_VARIABLES,
} from "#core/template/limits.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { RenderInputs, TemplateAnswer } from "#core/template/template.ts";

/** By path. */
type Secrets = Readonly<Record<string, TemplateAnswer["data"]>>;

const NOW = Date.UTC(2026, 10, 23, 4, 5, 6);

function inputs(secrets: Secrets, more: Partial<RenderInputs> = {}): RenderInputs {
  return {
    lookup({ path }) {
      const data = Object.hasOwn(secrets, path) ? secrets[path] : undefined;
      return data === undefined ? undefined : { data };
    },
    env: (name) => ({ NODE_NAME: "edge-7", EMPTY: "" })[name],
    now: NOW,
    ...more,
  };
}

function text(template: string, secrets: Secrets = {}, more?: Partial<RenderInputs>): string {
  const result = render(parseTemplate(template, { name: "t" }), inputs(secrets, more));
  assert.equal(result.kind, "text");
  return Buffer.from(result.bytes).toString("utf8");
}

function pathsNeeded(template: string, secrets: Secrets): readonly string[] {
  const result = render(parseTemplate(template, { name: "t" }), inputs(secrets));
  return result.kind === "needs" ? result.calls.map(({ path }) => path) : [];
}

function errorOf(template: string, secrets: Secrets = {}): EdgeSyncError {
  try {
    text(template, secrets);
  } catch (error) {
    if (error instanceof EdgeSyncError) return error;
    throw error;
  }
  throw new assert.AssertionError({ message: `no error: ${template.slice(0, 200)}` });
}

describe("what a template asks for", () => {
  const both = `{{ with secret "a/b" }}{{ .Data.x }}{{ end }}{{ with secret "c" }}{{ .Data.y }}{{ end }}`;

  test("is said at once for secrets that do not depend on each other", () => {
    assert.deepEqual(pathsNeeded(both, {}), ["a/b", "c"]);
    assert.deepEqual(pathsNeeded(both, { c: { y: 1 } }), ["a/b"]);
    assert.equal(text(both, { "a/b": { x: "1" }, c: { y: "2" } }), "12");
  });

  test("may come from another secret, in a later pass", () => {
    const template = `{{ with secret "names" }}{{ with secret (printf "kv/%s" .Data.app) }}{{ .Data.p }}{{ end }}{{ end }}`;
    assert.deepEqual(pathsNeeded(template, {}), ["names"]);
    assert.deepEqual(pathsNeeded(template, { names: { app: "shop" } }), ["kv/shop"]);
    assert.equal(text(template, { names: { app: "shop" }, "kv/shop": { p: "x" } }), "x");
  });

  test("comes before every error that a missing secret may have caused", () => {
    const template = `{{ (secret "a").Data.x | toUpper }}{{ with secret "b" }}{{ end }}`;
    assert.deepEqual(pathsNeeded(template, { b: {} }), ["a"]);
    assert.equal(text(template, { a: { x: "y" }, b: {} }), "Y");
  });

  test("is told apart by kind, path, query and parameters, in any order of these", () => {
    const calls = parseTemplate(
      `{{ secret "/a/b/" }}{{ secret "a/b?version=2" }}{{ secret "pki/issue/w" "ttl=1h" "common_name= x " }}` +
        `{{ secret "pki/issue/w" "common_name=x" "ttl=1h" }}{{ pkiCert "pki/issue/w" "common_name=x" "ttl=1h" }}`,
      { name: "t" },
    ).calls;
    assert.deepEqual(
      calls.map(({ kind, path, query, parameters }) => ({ kind, path, query, parameters })),
      [
        { kind: "read", path: "a/b", query: {}, parameters: {} },
        { kind: "read", path: "a/b", query: { version: "2" }, parameters: {} },
        {
          kind: "write",
          path: "pki/issue/w",
          query: {},
          parameters: { common_name: "x", ttl: "1h" },
        },
        {
          kind: "pki",
          path: "pki/issue/w",
          query: {},
          parameters: { common_name: "x", ttl: "1h" },
        },
      ],
    );
    assert.equal(new Set(calls.map(({ key }) => key)).size, calls.length);
  });

  test("is known from the text alone where no argument is computed, also in blocks and parentheses", () => {
    const template = `{{ define "d" }}{{ secret "in/define" }}{{ end }}{{ if (secret "in/if").Data }}{{ else }}{{ range $x := secret "in/else" "k=v" }}{{ end }}{{ end }}{{ template "d" (secret "in/template") }}{{ secret (print "a") }}`;
    assert.deepEqual(
      parseTemplate(template, { name: "t" }).calls.map(({ path }) => path),
      ["in/if", "in/else", "in/template", "in/define"],
    );
  });

  test("is refused when it is no path, or its parameters are none", () => {
    for (const template of [`{{ secret " / " }}`, `{{ secret "a" "k" }}`, `{{ secret "a%zz" }}`])
      assert.equal(errorOf(template).code, "TEMPLATE_FAILED");
  });
});

describe("a secret's data", () => {
  test("has names that objects of JavaScript have too, and nothing that they inherit", () => {
    const data = parseExactJson(`{"__proto__":"p","constructor":"c"}`) as TemplateAnswer["data"];
    const names = `{{ with secret "a" }}{{ .Data.__proto__ }}{{ .Data.constructor }}{{ index .Data "toString" }}{{ end }}`;
    assert.equal(text(names, { a: data }), "pc<no value>");
    for (const name of [
      "toString",
      "hasOwnProperty",
      "valueOf",
      "__proto__",
      "constructor",
      "get",
    ]) {
      assert.equal(errorOf(`{{ (secret "a").Data.${name} }}`, { a: {} }).code, "TEMPLATE_FAILED");
      assert.equal(errorOf(`{{ (secret "a").${name} }}`, { a: {} }).code, "TEMPLATE_FAILED");
      assert.equal(errorOf(`{{ ${name} 1 }}`).code, "TEMPLATE_INVALID");
    }
  });

  test("keeps every digit of its numbers", () => {
    const data = parseExactJson(`{"n":12345678901234567890.50}`) as TemplateAnswer["data"];
    const template = `{{ with secret "a" }}{{ .Data.n }} {{ .Data | toJSON }}{{ end }}`;
    assert.equal(
      text(template, { a: data }),
      `12345678901234567890.50 {"n":12345678901234567890.50}`,
    );
  });

  test("may be bytes that are no text", () => {
    const result = render(
      parseTemplate(`{{ (secret "a").Data.keystore | base64Decode }}`, { name: "t" }),
      inputs({ a: { keystore: "/v8AgGE=" } }),
    );
    assert.equal(result.kind, "text");
    assert.deepEqual([...result.bytes], [0xfe, 0xff, 0, 0x80, 0x61]);
  });

  test("lacks a field: an error unless the template says that this is well", () => {
    const template = `{{ with secret "a" }}{{ .Data.nope }}{{ end }}`;
    assert.equal(errorOf(template, { a: { x: 1 } }).code, "TEMPLATE_FAILED");
    assert.equal(text(template, { a: { x: 1 } }, { missingKey: "no-value" }), "<no value>");
    assert.equal(text(`{{ index (secret "a").Data "nope" | default "d" }}`, { a: { x: 1 } }), "d");
  });

  test("nested more deeply than any secret is refused", () => {
    const deep = JSON.parse("[".repeat(300) + "]".repeat(300)) as unknown;
    assert.equal(errorOf(`{{ secret "a" }}`, { a: { deep } }).code, "TEMPLATE_FAILED");
  });

  test("is in no error, whatever is done with it", () => {
    const canary = "c4n4ry";
    const secrets = { a: { x: canary, n: 5, list: [canary], map: { [canary]: canary } } };
    const uses = [
      "toUpper .Data.list",
      ".Data.x.y",
      "index .Data.list 7",
      "index .Data.map .Data.n",
      "eq .Data.x 1",
      "lt .Data.x true",
      "add 1 .Data.x",
      "parseInt .Data.x",
      "parseFloat .Data.x",
      "parseBool .Data.x",
      "parseJSON .Data.x",
      'base64Decode (print .Data.x "!")',
      'secret (print .Data.x "%zz")',
      'secret "a" .Data.x',
      "range .Data.x",
      "env .Data.x",
      "loop .Data.x",
      "len .Data.n.Int64",
      "join .Data.x .Data.map",
      "slice .Data.x 40",
      "explodeMap .Data.x",
      "printf .Data.x .Data.x | indent .Data.x",
      "timestamp .Data.x .Data.x",
    ];
    for (const use of uses) {
      const block = use.startsWith("range") ? `{{ ${use} }}{{ end }}` : `{{ ${use} }}`;
      const { code, message, cause } = errorOf(`{{ with secret "a" }}${block}{{ end }}`, secrets);
      assert.equal(code, "TEMPLATE_FAILED", use);
      assert.ok(!message.includes(canary), use);
      assert.equal(cause, undefined, use);
    }
  });
});

describe("an error", () => {
  test("names line and column, in characters", () => {
    const cases = [
      ["{{ nope }}", "TEMPLATE_INVALID", "t:1:4: "],
      ["a\r\nž 🐎 {{ if }}", "TEMPLATE_INVALID", "t:2:11: "],
      ["a\n\n  {{ range . }}x", "TEMPLATE_INVALID", "t:3:6: "],
      ['x\n{{ printf "%s" 1\n', "TEMPLATE_INVALID", "t:2:1: "],
      ['\n{{ add 1\n  "x" }}', "TEMPLATE_FAILED", "t:2:4: "],
      ["{{ with 1 }}\n  {{ .x }}{{ end }}", "TEMPLATE_FAILED", "t:2:6: "],
    ] as const;
    for (const [template, code, begin] of cases) {
      const error = errorOf(template);
      assert.equal(error.code, code, template);
      assert.ok(error.message.startsWith(begin), error.message);
    }
  });

  test("says what there is instead of a function of Vault Agent that there is not", () => {
    for (const [name, hint] of [
      ["toYAML", "toJSONPretty"],
      ["writeToFile", "template of its own"],
      ["regexMatch", "contains"],
      ["toUper", "toUpper"],
    ] as const) {
      const { code, message } = errorOf(`{{ ${name} "x" }}`);
      assert.equal(code, "TEMPLATE_INVALID");
      assert.ok(message.includes(hint), message);
    }
  });
});

describe("the surroundings of a template", () => {
  test("are the variables of the list, and no others", () => {
    assert.equal(text(`{{ env "NODE_NAME" }}|{{ env "EMPTY" }}`), "edge-7|");
    assert.equal(errorOf(`{{ env "VAULT_TOKEN" }}`).code, "TEMPLATE_FAILED");
    assert.equal(errorOf(`{{ mustEnv "EMPTY" }}`).code, "TEMPLATE_FAILED");
  });

  test("have the time that they are given", () => {
    assert.equal(text(`{{ timestamp }} {{ timestamp "unix" }}`), "2026-11-23T04:05:06Z 1795406706");
  });

  test("are enough for the words that people know from elsewhere", () => {
    assert.equal(text(`{{ "a" | upper }}{{ "B" | lower }}{{ "" | default "c" }}`), "Abc");
  });
});

describe("a template that asks too much", () => {
  const long = `{{ $a := "${"x".repeat(1000)}" }}`;
  const double = "{{ $a = print $a $a }}";

  test("of text, of steps, of depth or of secrets ends in an error, soon", () => {
    const cases: readonly (readonly [string, string])[] = [
      ["x".repeat(MAX_TEMPLATE + 1), "TEMPLATE_INVALID"],
      [
        "{{ (".repeat(1) + "(".repeat(MAX_NESTING) + "1" + ")".repeat(MAX_NESTING + 1) + "}}",
        "TEMPLATE_INVALID",
      ],
      [
        "{{ if 1 }}".repeat(MAX_NESTING + 1) + "{{ end }}".repeat(MAX_NESTING + 1),
        "TEMPLATE_INVALID",
      ],
      ["{{ $a := 1 }}".repeat(MAX_VARIABLES), "TEMPLATE_INVALID"],
      [`{{ ${"9".repeat(100_000)} }}`, "TEMPLATE_INVALID"],
      [long + double.repeat(12), "TEMPLATE_FAILED"],
      [`${long}{{ range 2000 }}{{ $a }}{{ end }}`, "TEMPLATE_FAILED"],
      [`{{ range 9223372036854775807 }}{{ end }}`, "TEMPLATE_FAILED"],
      [
        `{{ range loop 9223372036854775807 }}{{ range loop 9223372036854775807 }}{{ break }}{{ end }}{{ end }}`,
        "TEMPLATE_FAILED",
      ],
      [`{{ define "r" }}{{ template "r" }}{{ end }}{{ template "r" }}`, "TEMPLATE_FAILED"],
      [
        `{{ define "r" }}{{ range 1 }}{{ if (((1))) }}{{ with 1 }}{{ template "r" (((.))) }}{{ end }}{{ end }}{{ end }}{{ end }}{{ template "r" }}`,
        "TEMPLATE_FAILED",
      ],
      [
        `{{ define "a" }}{{ template "b" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ range 1000 }}{{ range 1000 }}{{ end }}{{ end }}{{ end }}{{ template "a" }}`,
        "TEMPLATE_FAILED",
      ],
      [`{{ printf "%8000000d" 1 }}`, "TEMPLATE_FAILED"],
      [`{{ printf "%.8000000f" 1.5 }}`, "TEMPLATE_FAILED"],
      [
        `{{ printf "%.1000000e" 1.5 | len }}{{ range 100 }}{{ printf "%.1000000e" 1.5 | len }}{{ end }}`,
        "TEMPLATE_FAILED",
      ],
      [`{{ indent 1000000000 "a" }}`, "TEMPLATE_FAILED"],
      [`${long}${double.repeat(9)}{{ replaceAll "x" $a $a }}`, "TEMPLATE_FAILED"],
      [`${long}${double.repeat(9)}{{ replaceAll "" $a $a }}`, "TEMPLATE_FAILED"],
      [
        `${long}${double.repeat(9)}{{ contains (print (slice $a 0 400000) "y") $a }}`,
        "TEMPLATE_FAILED",
      ],
      [
        `${long}${double.repeat(9)}{{ $b := print $a }}{{ range 30000 }}{{ eq $a $b }}{{ end }}`,
        "TEMPLATE_FAILED",
      ],
      [
        `{{ range $i := loop ${MAX_CALLS + 1} }}{{ with secret (print $i) }}{{ end }}{{ end }}`,
        "TEMPLATE_FAILED",
      ],
      [`{{ timestamp "${".0".repeat(1000)}" }}`, "TEMPLATE_FAILED"],
    ];
    const begun = performance.now();
    for (const [template, code] of cases) {
      const all: RenderInputs = { ...inputs({}), lookup: () => ({ data: { a: 1 } }) };
      assert.throws(
        () => render(parseTemplate(template, { name: "t" }), all),
        (error) => codeOf(error) === code,
        template.slice(0, 100),
      );
    }
    // 22 of them: some hundred milliseconds, and minutes or all memory without a bound.
    assert.ok(performance.now() - begun < 20_000);
  });

  test("may have as much as is allowed", () => {
    assert.equal(text("x".repeat(MAX_TEMPLATE)).length, MAX_TEMPLATE);
    assert.equal(text(`{{ printf "%1000000d" 1 }}`).length, 1_000_000);
    assert.ok(MAX_TEXT > 1_000_000);
    const inner = `${"{{ if 1 }}".repeat(MAX_NESTING)}x${"{{ end }}".repeat(MAX_NESTING)}`;
    assert.equal(text(inner), "x");
  });
});

describe("any template", () => {
  const pieces = fc.constantFrom(
    "{{", "}}", "{{- ", " -}}", " ", "\n", ".", ".Data.x", "$x", ":=", "=", ",", "|", "(", ")", '"', "`", "'", "if ", "range ", "with ", "else ", "end", "define ", "template ", "block ", "break", "continue", "nil", "true", "1", "0x", "1e9", "/*", "*/", "printf ", '"%v"', '"%[2]*.*d"', "secret ", '"a"', "index ", "toJSON ", "ž", "\0", "\\",
  ); // prettier-ignore

  test("is rendered, or ends in an error with a place", () => {
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
        try {
          const template = parseTemplate(parts.join(""), { name: "t" });
          render(template, inputs({ a: { x: "y" } }));
        } catch (error) {
          assert.match(codeOf(error), /^TEMPLATE_(INVALID|FAILED)$/);
          assert.match(String(error), /t:\d+:\d+: /);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("without an action is its own text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (one) => {
        fc.pre(!one.includes("{{"));
        assert.equal(text(one), one);
      }),
    );
  });
});

describe("500 templates", () => {
  test("are rendered while nobody notices", () => {
    const template = parseTemplate(
      `{{- with secret "a" -}}\nurl=postgres://{{ .Data.user | urlquery }}:{{ .Data.password | urlquery }}@db/app\n{{ range $k, $v := .Data }}{{ $k | toUpper }}={{ $v | toJSON }}\n{{ end }}{{ end }}`,
      { name: "t" },
    );
    const secrets = { a: { user: "app", password: "p w", port: 5432 } };
    const begun = performance.now();
    for (let count = 0; count < 500; count++) render(template, inputs(secrets));
    assert.ok(performance.now() - begun < 5000);
  });
});
