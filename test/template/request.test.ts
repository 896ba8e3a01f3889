import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { requestOf } from "#core/template/request.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { TemplateCall } from "#core/template/template.ts";

/** What a template asks for when a secret of another says which path it is. */
function asked(word: string): TemplateCall {
  const text = '{{ with secret "kv/which" }}{{ secret (print "kv/" .Data.word) }}{{ end }}';
  const result = render(parseTemplate(text, { name: "t" }), {
    lookup: ({ path }) => (path === "kv/which" ? { data: { word } } : undefined),
    env: () => "",
    now: 0,
  });
  const [call] = result.kind === "needs" ? result.calls : [];
  assert.ok(call !== undefined);
  return call;
}

describe("a path that a template has computed", () => {
  test("is asked for, in the version that it states", () => {
    assert.deepEqual(requestOf(asked("till"), "t"), {
      kind: "vault",
      path: "kv/till",
      parameters: {},
    });
    assert.equal(requestOf(asked("till?version=3"), "t").version, 3);
  });

  for (const word of [
    "till%20value=mine",
    "till%20-wrap-ttl=1h",
    "till%20-key=ec-p256",
    "till%3Fversion=3",
    "%2E%2E/sys/seal",
  ])
    test(`is a path and nothing else: ${word} is refused, and nothing is written`, () => {
      assert.throws(() => requestOf(asked(word), "t"), { code: "TEMPLATE_FAILED" });
    });
});
