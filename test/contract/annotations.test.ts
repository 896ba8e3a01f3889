import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ANNOTATIONS, SECRET_ANNOTATIONS } from "#core/annotations.ts";
import type { Row } from "#core/annotations.ts";
import { hasAnnotations, parseAnnotations, readAnnotations } from "#core/pod-options.ts";
import { settingRows, variableOf } from "#core/settings.ts";
import { prefixed } from "../support/inject.ts";

type Annotations = Readonly<Record<string, string>>;

const rows: readonly (readonly [string, Row<unknown>])[] = [
  ...Object.entries(ANNOTATIONS),
  ...Object.entries(SECRET_ANNOTATIONS),
];

function refused(annotations: Annotations, ...named: readonly string[]): void {
  assert.throws(
    () => parseAnnotations(prefixed(annotations)),
    (error: { code?: string; message?: string }) => {
      assert.equal(error.code, "ANNOTATION_INVALID");
      for (const text of named)
        assert.ok(error.message?.includes(text), `${text}: ${error.message}`);
      return true;
    },
  );
}

describe("the table of annotations", () => {
  for (const [key, row] of rows)
    test(`describes ${key} in a sentence, and what stands in its absence`, () => {
      assert.match(key, /^(hook\.)?[a-z]+(-[a-z]+)*$/);
      assert.match(row.help, /^[A-Z][^\n]*\.$/);
      assert.match(row.value.allowed, /^[^A-Z\n][^\n]*[^.\n]$|^<app>/);
      assert.notEqual(row.default === undefined, row.otherwise === undefined, "one of the two");
      if (row.default === undefined) return;
      const parsed = row.value.parse(row.default);
      assert.notEqual(parsed, undefined, "its own default is allowed");
      assert.equal(row.value.format(parsed), row.default, "and is in the usual form");
    });

  test("has no key that could be taken for another's variable", () => {
    const variables = settingRows().map(([key]) => variableOf(key));
    assert.equal(new Set(variables).size, variables.length);
    assert.ok(!variables.some((variable) => variable.startsWith("EDGESYNC_SECRET_")));
  });
});

describe("the annotations of a pod", () => {
  test("stand at their defaults when there are none", () => {
    const options = parseAnnotations({});
    assert.equal(options.channel, undefined);
    assert.equal(options.pollInterval, 900_000);
    assert.deepEqual(options.gate, ["payload", "secrets"]);
    assert.deepEqual(options.secrets, []);
  });

  test("of others are none of ours", () => {
    const others = { "example.com/edgesync.dev/channel": "x", "edgesync.dev.evil/channel": "x" };
    assert.deepEqual(parseAnnotations(others), parseAnnotations({}));
    assert.equal(hasAnnotations(others), false);
    assert.equal(hasAnnotations({ "edgesync.dev/": "" }), true);
  });

  const wrong: readonly (readonly [string, Annotations, readonly string[]])[] = [
    ["an unknown key", { "pol-interval": "1m" }, ["edgesync.dev/pol-interval", "poll-interval?"]],
    ["a key that is nothing like ours", { zzzzzzzz: "1" }, ["edgesync.dev/zzzzzzzz"]],
    ["an empty key", { "": "1" }, ["edgesync.dev/"]],
    ["a key of another case", { Channel: "web/stable" }, ["edgesync.dev/Channel"]],
    ["a key that objects have by themselves", { constructor: "x" }, ["edgesync.dev/constructor"]],
    ["a bad duration", { "poll-interval": "1 hour" }, ["edgesync.dev/poll-interval", "1 hour"]],
    ["a duration out of bounds", { "poll-interval": "1ms" }, ["edgesync.dev/poll-interval"]],
    [
      "a wrong address",
      { repository: "http://a.example" },
      ["edgesync.dev/repository", "https://"],
    ],
    ["a path with dots", { "payload-path": "/a/../../etc" }, ["edgesync.dev/payload-path"]],
    ["an empty value", { channel: "" }, ["edgesync.dev/channel"]],
    ["a family without a name", { secret: "a/b" }, ["edgesync.dev/secret"]],
  ];
  for (const [what, annotations, named] of wrong)
    test(`are refused for ${what}, which is named`, () => {
      refused(annotations, ...named);
    });

  test("are refused for everything at once", () => {
    refused(
      { channel: "x", repository: "y", "run-as": "0", unknown: "1", "secret.db": "z" },
      "edgesync.dev/channel",
      "edgesync.dev/repository",
      "edgesync.dev/run-as",
      "edgesync.dev/unknown",
      "edgesync.dev/secret.db",
    );
  });

  test("are shown short and without control characters", () => {
    const { problems } = readAnnotations(prefixed({ channel: `\u001b[2J${"x".repeat(10_000)}` }));
    assert.equal(problems.length, 1);
    assert.ok((problems[0] ?? "").length < 300);
    assert.ok(!problems.join().includes("\u001b"));
  });
});

describe("the annotations of a secret", () => {
  test("make one secret of each name, with the file of that name", () => {
    const { secrets } = parseAnnotations(
      prefixed({
        "secret.db": "database/creds/web",
        "secret.cert": "pki/issue/web common_name=web.example ttl=1h",
        "file.cert": "tls.pem",
        "format.cert": "raw:certificate",
        "mode.cert": "0400",
      }),
    );
    assert.deepEqual(secrets, [
      {
        name: "cert",
        request: {
          kind: "vault",
          path: "pki/issue/web",
          parameters: { common_name: "web.example", ttl: "1h" },
        },
        format: { kind: "raw", field: "certificate" },
        file: "tls.pem",
        mode: 0o400,
      },
      {
        name: "db",
        request: { kind: "vault", path: "database/creds/web", parameters: {} },
        format: { kind: "json" },
        file: "db",
        mode: undefined,
      },
    ]);
  });

  test("are refused when they refine a secret that is not declared", () => {
    refused({ "file.db": "db.json" }, "edgesync.dev/secret.db");
  });
  test("are refused with a name that is no label", () => {
    refused({ "secret.DB": "a/b" }, "edgesync.dev/secret.DB");
    refused({ "secret.": "a/b" }, "edgesync.dev/secret.");
    refused({ "secret.a.b": "a/b" }, "edgesync.dev/secret.a.b");
  });
  test("are refused when two secrets would be one file", () => {
    refused(
      { "secret.a": "x/a", "secret.b": "x/b", "file.b": "a" },
      "edgesync.dev/file.b",
      "secret a",
    );
  });
  test("are refused with a path that leaves its place, and with modes for everybody to write", () => {
    refused({ "secret.a": "secret/data/../../sys/seal" }, "edgesync.dev/secret.a");
    refused({ "secret.a": "x/a", "mode.a": "0666" }, "edgesync.dev/mode.a");
    refused({ "secret.a": "x/a", "file.a": "../a" }, "edgesync.dev/file.a");
  });
});
