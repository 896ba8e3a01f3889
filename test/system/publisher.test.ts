import { describe, test } from "node:test";
import { CHANGES, killAtEachStep } from "../publisher/kills.ts";

describe("a change of a repository that is killed", { concurrency: 2 }, () => {
  for (const name of Object.keys(CHANGES) as (keyof typeof CHANGES)[])
    test(`at any step of ${name} leaves what was published, and the next one completes`, () =>
      killAtEachStep(name));
});
