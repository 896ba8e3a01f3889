import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseExactJson } from "#core/secret-file.ts";
import { openStateStore } from "../../sidecar/secrets/state.ts";
import type { SavedState } from "../../sidecar/secrets/state.ts";
import { temporaryFolder } from "../support/temporary.ts";

describe("the saved state", () => {
  test("comes back as it was, whatever the fields of a secret are called", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const store = await openStateStore(folder.path);
    const data = parseExactJson(
      '{"constructor":"a","prototype":"b","toString":"c","n":12345678901234567890}',
    ) as Readonly<Record<string, unknown>>;
    const state: SavedState = {
      identity: "x",
      secrets: [{ request: "secret/data/web", data, generation: 1 }],
      retired: [],
    };
    await store.save(state);
    const loaded = await (await openStateStore(folder.path)).load();
    assert.equal(JSON.stringify(loaded?.secrets), JSON.stringify(state.secrets));
  });
});
