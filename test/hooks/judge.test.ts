import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { HOOKS, SILENCE_MS, SILENT_RETRY_MS, detailOf, isReached, judge } from "#core/hook.ts";
import type { HookName, HookReply } from "#core/hook.ts";

const NOW = Date.parse("2026-11-22T12:00:00Z");

function http(status: number, retryAfter?: string, text = ""): HookReply {
  return { kind: "http", status, retryAfter, text };
}

function afterMs(reply: HookReply): number | undefined {
  const answer = judge("pre-swap", reply, NOW, 0);
  return answer.answer === "later" ? answer.afterMs : undefined;
}

describe("the answer of a hook", () => {
  test("is go for every 2xx and for a program that ends well", () => {
    for (const status of [200, 201, 204, 299])
      assert.deepEqual(judge("pre-swap", http(status), NOW, 0), { answer: "go" });
    const exit = { kind: "exit", status: 0, text: "" } as const;
    assert.deepEqual(judge("pre-swap", exit, NOW, 0), { answer: "go" });
  });

  test("is later for 503, for as long as Retry-After says in seconds or as a date", () => {
    assert.equal(afterMs(http(503, "90")), 90_000);
    assert.equal(afterMs(http(503, "Sun, 22 Nov 2026 12:05:00 GMT")), 300_000);
  });

  test("puts nothing off for no time, or for longer than an hour at once", () => {
    assert.equal(afterMs(http(503, "0")), 1_000);
    assert.equal(afterMs(http(503, "Sun, 22 Nov 2020 12:05:00 GMT")), 1_000);
    assert.equal(afterMs(http(503, "999999999")), 3_600_000);
  });

  test("is later by a minute when 503 does not say when, or a program ends with 75", () => {
    for (const header of [undefined, "", "soon", "-5"])
      assert.equal(afterMs(http(503, header)), 60_000);
    assert.equal(afterMs({ kind: "exit", status: 75, text: "" }), 60_000);
  });

  test("is no for everything else, with the first line of what was said", () => {
    assert.deepEqual(judge("pre-swap", http(409, undefined, "  a batch runs\nmore"), NOW, 0), {
      answer: "no",
      detail: "a batch runs",
    });
    for (const [reply, detail] of [
      [http(302), "HTTP status 302"],
      [http(500, "10"), "HTTP status 500"],
      [{ kind: "exit", status: 1, text: "" }, "exit status 1"],
      [{ kind: "exit", status: null, text: "" }, "ended by a signal"],
    ] as const)
      assert.deepEqual(judge("pre-swap", reply, NOW, 0), { answer: "no", detail });
  });

  test("is no answer where the address says that it is none, but for what the release itself has to answer", () => {
    for (const hook of Object.keys(HOOKS) as HookName[])
      for (const status of [404, 405, 501]) {
        const { answer, ...rest } = judge(hook, http(status, undefined, "not found"), NOW, 0);
        const own = hook === "post-swap" || hook === "health";
        assert.equal(answer, own ? "no" : "broken");
        assert.ok("detail" in rest && rest.detail.includes(`HTTP status ${status}: nothing`));
        assert.equal(isReached(http(status)), false);
      }
    const absent = { kind: "broken", text: "/nowhere is not a file" } as const;
    assert.equal(judge("post-swap", absent, NOW, 0).answer, "broken");
    assert.equal(isReached(absent), false);
  });

  test("is later while nobody answers, and go after ten minutes of that before a swap only", () => {
    const later = { answer: "later", afterMs: SILENT_RETRY_MS, silent: true } as const;
    for (const hook of Object.keys(HOOKS) as HookName[]) {
      assert.deepEqual(
        judge(hook, { kind: "silent", text: "timeout", reached: true }, NOW, SILENCE_MS - 1),
        later,
      );
      const patient = hook === "pre-download" || hook === "pre-swap";
      assert.deepEqual(
        judge(hook, { kind: "silent", text: "timeout", reached: true }, NOW, SILENCE_MS),
        patient ? { answer: "go" } : later,
      );
    }
  });

  test("shows of other people's text one line of at most 200 characters, and nothing that moves a terminal", () => {
    assert.equal(detailOf("\u001b[31mred\u0007\u202e\r\nnext"), "[31mred");
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 400 }), (text) => {
        const detail = detailOf(text);
        assert.ok(detail.length <= 200);
        assert.doesNotMatch(detail, /\p{Cc}|\p{Cf}/u);
      }),
    );
  });
});
