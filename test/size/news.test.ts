import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import * as fc from "../support/property.ts";
import { NEWS_FIELD, formatNews, newsIn } from "#core/news.ts";

const timestamp = (news: unknown): Buffer =>
  Buffer.from(JSON.stringify({ signed: { [NEWS_FIELD]: news }, signatures: [] }));
const textOf = (news: ReturnType<typeof newsIn>): Record<string, string> =>
  Object.fromEntries([...news].map(([path, bytes]) => [path, Buffer.from(bytes).toString()]));

describe("news", () => {
  test("are what was put into them", () => {
    const files = { "metadata/2.snapshot.json": "{}", "targets/é": "text\n" };
    const news = formatNews(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
    assert.deepEqual(textOf(newsIn(timestamp(news))), files);
  });

  test("are never more than a timestamp has room for, and leave out what is too large", () => {
    const noise = (length: number): string =>
      Array.from({ length }, (_, index) => ((index * 2_654_435_761) >>> 7).toString(36)).join("");
    const news = formatNews([
      ["metadata/huge", Buffer.from(noise(5_000))],
      ["metadata/small", Buffer.from("small")],
    ]);
    assert.ok(news !== undefined && news.length <= 8192);
    assert.deepEqual(textOf(newsIn(timestamp(news))), { "metadata/small": "small" });
    assert.equal(formatNews([]), undefined);
  });

  test("that cannot be read are none, and cost no memory", () => {
    const bomb = zstdCompressSync(Buffer.alloc(100_000_000)).toString("base64");
    for (const news of [bomb, "", "garbage", 7, null, zstdCompressSync("[1]").toString("base64")])
      assert.equal(newsIn(timestamp(news)).size, 0);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        assert.equal(newsIn(bytes).size, 0);
        assert.equal(newsIn(timestamp(Buffer.from(bytes).toString("base64"))).size, 0);
      }),
    );
  });
});
