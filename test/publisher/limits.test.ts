import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { LIMITS } from "#core/trust/metadata.ts";
import { refuseFull } from "../../publisher/limits.ts";
import { viewRepository } from "../../publisher/repository.ts";
import type { View } from "../../publisher/repository.ts";
import { makePublisher } from "./world.ts";

/** A view in which roles have other sizes. */
function withSizes(view: View, sizes: Readonly<Record<string, number>>): View {
  const hashes = { sha256: "0".repeat(64) };
  const meta = Object.fromEntries(
    Object.entries(sizes).map(([name, length]) => [`${name}.json`, { version: 1, length, hashes }]),
  );
  const { snapshot } = view;
  const signed = { ...snapshot.signed, meta: { ...snapshot.signed.meta, ...meta } };
  return { ...view, snapshot: { ...snapshot, signed } };
}

describe("metadata that would become larger than sites read", () => {
  test("is refused while there is room to remove something, and names the role", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const view = await viewRepository(publisher.repository);
    refuseFull(view, "app.web");
    refuseFull(view, "app.other");
    const full = LIMITS.targets - 60_000;
    assert.throws(() => refuseFull(withSizes(view, { "app.web": full }), "app.web"), {
      code: "REPOSITORY_FULL",
      message: /app\.web/,
    });
    assert.throws(() => refuseFull(withSizes(view, { targets: full }), "app.other"), {
      code: "REPOSITORY_FULL",
      message: /targets/,
    });
    const many = Object.fromEntries(
      Array.from({ length: 16_000 }, (_, at) => [`channel.web.c${at}`, 1000]),
    );
    const crowded = withSizes(view, many);
    assert.throws(() => refuseFull(crowded, "app.other"), {
      code: "REPOSITORY_FULL",
      message: /snapshot/,
    });
    // Those that are there go on.
    refuseFull(crowded, "app.web");
  });
});
