/** A source of metadata and targets that looks into the news of the timestamp before it asks the repository. */
import { newsIn } from "#core/news.ts";
import type { News } from "#core/news.ts";
import type { MetadataSource } from "#core/trust/refresh.ts";

export function withNews(source: MetadataSource): MetadataSource {
  let news: News = new Map();
  const find = (path: string, limit: number): Uint8Array | undefined => {
    const bytes = news.get(path);
    return bytes !== undefined && bytes.length <= limit ? bytes : undefined;
  };
  return {
    async metadata(name, limit, signal) {
      // Roots and timestamps are never news: the first are looked for before, the second bring them.
      const known = find(`metadata/${name}`, limit);
      if (known !== undefined && !/root\.json$|^timestamp\.json$/.test(name)) return known;
      const bytes = await source.metadata(name, limit, signal);
      if (name === "timestamp.json" && bytes !== undefined) news = newsIn(bytes);
      return bytes;
    },
    async target(path, limit, signal) {
      return find(`targets/${path}`, limit) ?? (await source.target(path, limit, signal));
    },
  };
}
