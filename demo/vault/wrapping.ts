/** Wrapped answers of the development Vault: kept for a while, and given once to whoever has the token. */
import { randomUUID } from "node:crypto";
import { invalid } from "./exchange.ts";
import type { Answer, Fields } from "./exchange.ts";

export interface Wrapping {
  /** @param ttl as the header X-Vault-Wrap-TTL has it: seconds, perhaps with an `s` */
  wrap(path: string, answer: Answer, ttl: string): Answer;
  /** @throws Refusal 400 when there is nothing, or no more */
  unwrap(token: string): Answer;
  /** Where it is from; leaves it there. @throws Refusal 400 as `unwrap` */
  lookup(token: string): Answer;
}

interface Kept {
  readonly path: string;
  readonly answer: Answer;
  readonly until: number;
}

export function openWrapping(now: () => number): Wrapping {
  const kept = new Map<string, Kept>();
  const find = (token: string): Kept => {
    const found = kept.get(token);
    if (found !== undefined && found.until > now()) return found;
    kept.delete(token);
    throw invalid("wrapping token is not valid or does not exist");
  };
  return {
    wrap(path, answer, ttl) {
      const seconds = Number(/^(\d{1,6})s?$/.exec(ttl)?.[1] ?? Number.NaN);
      if (!(seconds > 0)) throw invalid("invalid wrap TTL");
      const token = `s.${randomUUID()}`;
      kept.set(token, { path, answer, until: now() + seconds * 1_000 });
      const info: Fields = {
        token,
        accessor: randomUUID(),
        ttl: seconds,
        creation_time: new Date(now()).toISOString(),
        creation_path: path,
      };
      const body: Fields = {
        request_id: randomUUID(),
        lease_id: "",
        renewable: false,
        lease_duration: 0,
        data: null,
        wrap_info: info,
        warnings: null,
        auth: null,
      };
      return { status: 200, body };
    },
    unwrap(token) {
      const { answer } = find(token);
      kept.delete(token);
      return answer;
    },
    lookup: (token) => ({
      status: 200,
      body: { data: { creation_path: find(token).path } },
    }),
  };
}
