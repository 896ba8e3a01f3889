import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { ERRORS } from "#core/errors.ts";
import { GATE_REASONS, OFFLINE_REASONS, STORAGE_REASONS } from "#core/reasons.ts";
import { pages } from "../scripts/docs.ts";

describe("the reference pages", async () => {
  for (const [path, text] of await pages())
    test(`${path} says what the tables say (npm run docs makes it anew)`, async () => {
      assert.equal(await readFile(path, "utf8"), text);
    });
});

describe("the operator's page", () => {
  test("says of each code and reason of secrets what to look at, and what to do", async () => {
    const text = await readFile("docs/operations.md", "utf8");
    const [, section = ""] = /\n## Secrets\n([^]*?)\n## /.exec(text) ?? [];
    const rows = section.split("\n").filter((line) => line.startsWith("| "));
    const ofSecrets =
      /^(VAULT_|SECRET_|TEMPLATE_|DISK_|TLS_UNTRUSTED|RESPONSE_TOO_LARGE|CONFIG_INVALID|INTERNAL)/;
    const words = [
      ...Object.keys(ERRORS).filter((code) => ofSecrets.test(code)),
      ...Object.keys({ ...OFFLINE_REASONS, ...STORAGE_REASONS }),
      ...Object.keys(GATE_REASONS).filter((reason) => reason.startsWith("secrets_")),
    ];
    const missing = words.filter((word) => {
      const row = rows.find((line) => line.split("|", 2)[1]?.includes(`\`${word}\``));
      return row?.split("|").length !== 5;
    });
    assert.deepEqual(missing, []);
  });
});

describe("the README", () => {
  test("shows a stranger the two commands that matter", async () => {
    const readme = await readFile("README.md", "utf8");
    assert.match(readme, /npm ci && npm run demo/);
    assert.match(readme, /npm ci && npm test/);
  });
});
