import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Clock } from "#core/clock.ts";
import { openLogLines } from "../../webhook/log-lines.ts";

/** A clock whose sleepers wait until they are told, and what comes out. */
function lines(): {
  readonly log: ReturnType<typeof openLogLines>;
  readonly written: string[];
  /** Lets everybody who sleeps wake up. */
  readonly pass: () => Promise<void>;
} {
  const sleepers: (() => void)[] = [];
  const clock: Clock = {
    now: () => 0,
    monotonic: () => 0,
    sleep: () => new Promise((resolve) => sleepers.push(resolve)),
  };
  const written: string[] = [];
  const out = { write: (text: string) => written.push(text) };
  return {
    log: openLogLines(out, clock, new AbortController().signal),
    written,
    async pass() {
      for (const wake of sleepers.splice(0)) wake();
      await Promise.resolve();
    },
  };
}

describe("the log's lines", () => {
  test("go out together, in their order, when the first has waited", async () => {
    const { log, written, pass } = lines();
    log.write("eins\n");
    log.write("zwölf €😀\n");
    assert.deepEqual(written, []);
    await pass();
    assert.deepEqual(written, ["eins\nzwölf €😀\n"]);
    log.write("drei\n");
    await pass();
    assert.deepEqual(written, ["eins\nzwölf €😀\n", "drei\n"]);
  });

  test("are neither lost nor cut when more come than there is room for, or one is larger than that", async () => {
    const { log, written, pass } = lines();
    const all = Array.from({ length: 3_000 }, (_, index) => `${index} ${"€".repeat(index % 90)}\n`);
    all[1_500] = `${"€".repeat(100_000)}\n`;
    for (const line of all) log.write(line);
    await pass();
    assert.equal(written.join(""), all.join(""));
    assert.ok(written.length < 30, `${written.length} writes`);
  });

  test("go out at once at the end of the process", () => {
    const { log, written } = lines();
    log.write("last\n");
    log.flush();
    log.flush();
    assert.deepEqual(written, ["last\n"]);
  });
});
