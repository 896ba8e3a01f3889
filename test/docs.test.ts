import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { pages } from "../scripts/docs.ts";

describe("the reference pages", async () => {
  for (const [path, text] of await pages())
    test(`${path} says what the tables say (npm run docs makes it anew)`, async () => {
      assert.equal(await readFile(path, "utf8"), text);
    });
});

describe("the README", () => {
  test("shows a stranger the two commands that matter", async () => {
    const readme = await readFile("README.md", "utf8");
    assert.match(readme, /npm ci && npm run demo/);
    assert.match(readme, /npm ci && npm test/);
  });
});
