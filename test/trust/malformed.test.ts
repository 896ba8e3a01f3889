import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { refresh } from "#core/trust/refresh.ts";
import { makeWorld, never } from "./world.ts";
import type { World } from "./world.ts";

const INVALID = { code: "METADATA_INVALID" };

function refreshed(world: World): ReturnType<typeof refresh> {
  return refresh(world.deps, never);
}

describe("malformed metadata", () => {
  for (const version of [0, -1, 1.5, 2 ** 53])
    test(`version ${version} is refused`, async () => {
      const world = makeWorld();
      world.publish();
      const { signed } = JSON.parse((world.files.get("metadata/timestamp.json") ?? "").toString());
      const text = JSON.stringify({ signed: { ...signed, version }, signatures: [] });
      world.files.set("metadata/timestamp.json", Buffer.from(text));
      await assert.rejects(refreshed(world), INVALID);
    });

  for (const [what, bytes] of [
    ["bytes that are not UTF-8", Buffer.from([0xff, 0xfe])],
    ["text that is not JSON", Buffer.from("<html>")],
    ["JSON that is not metadata", Buffer.from("[]")],
    ["nothing", Buffer.alloc(0)],
  ] as const)
    test(`${what} is refused`, async () => {
      const world = makeWorld();
      world.publish();
      world.files.set("metadata/timestamp.json", bytes);
      await assert.rejects(refreshed(world), INVALID);
    });
});
