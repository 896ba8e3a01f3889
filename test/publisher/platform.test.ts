import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { platformMeant } from "../../publisher/platform.ts";

describe("a platform", () => {
  test("is what a site calls its own", () => {
    for (const name of [
      "linux-x64",
      "linux-arm64",
      "linux-arm",
      `${process.platform}-${process.arch}`,
    ])
      assert.equal(platformMeant(name), name);
  });

  for (const [name, meant] of [
    ["linux-amd64", "linux-x64"],
    ["linux/amd64", "linux-x64"],
    ["linux-x86_64", "linux-x64"],
    ["linux/arm64", "linux-arm64"],
    ["linux/arm/v7", "linux-arm"],
    ["Linux-aarch64", "linux-arm64"],
    ["arm64", "linux-arm64"],
    ["macos-arm64", "darwin-arm64"],
    ["linux-z80", undefined],
    ["templeos-x64", undefined],
    ["linux-", undefined],
    ["", undefined],
  ] as const)
    test(`is not ${JSON.stringify(name)}, by which ${meant ?? "none"} is meant`, () =>
      assert.equal(platformMeant(name), meant));
});
