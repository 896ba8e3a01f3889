import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { buildVerifier, writeRepository } from "../../bench/trust.ts";
import { temporaryFolder } from "../support/temporary.ts";

describe("a delegated role of 10,000 targets", () => {
  test("is verified in a fraction of a second, and in little memory", async () => {
    await using folder = await temporaryFolder();
    const repository = join(folder.path, "repository");
    await writeRepository(repository, 10_000);
    const verifier = await buildVerifier(folder.path);
    const { cpuMs, rssMiB } = await verifier.verify("edgesync", repository, 10_000);
    // `npm run bench -- trust` has the figures; here a step that is not linear would show.
    assert.ok(cpuMs < 1_000, `${cpuMs} ms of a processor`);
    assert.ok(rssMiB < 40, `${rssMiB} MiB`);
  });
});
