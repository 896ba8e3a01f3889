/**
 * This client and tuf-js before the same repositories, generated, good and spoilt. They must come to the same verdict in each state, and
 * to the same bytes; where this client refuses what tuf-js takes, the corruption says why.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { FULL, SYSTEM } from "../system/full.ts";
import { CORRUPTIONS } from "./corruptions.ts";
import { FILES, PATHS, openRepository } from "./generated.ts";
import type { Corruption, Repository, Shape, Spoiling, Step } from "./generated.ts";
import { never, storeOf } from "./world.ts";

/** The part that is used; the library's own types need those of a package that it does not bring along. */
interface Updater {
  refresh(): Promise<void>;
  getTargetInfo(path: string): Promise<object | undefined>;
  downloadTarget(info: object): Promise<string>;
}
const require = createRequire(import.meta.url);
const { Updater } = require("tuf-js") as {
  readonly Updater: new (options: Readonly<Record<string, unknown>>) => Updater;
};
const { DownloadHTTPError } = require("tuf-js/dist/error.js") as {
  readonly DownloadHTTPError: new (message: string, status: number) => Error;
};

/** What a client makes of a state: that it refuses all of it, or what it has for each path. */
type Verdict = "refused" | Readonly<Record<string, string>>;

interface Client {
  look(): Promise<Verdict>;
}

async function verdictOf(
  look: () => Promise<(path: string) => Promise<string>>,
  isRefusal: (error: unknown) => boolean,
): Promise<Verdict> {
  const refused = (error: unknown): "refused" => {
    if (!isRefusal(error)) throw error;
    return "refused";
  };
  try {
    const fetch = await look();
    const found: Record<string, string> = {};
    for (const path of PATHS) found[path] = await fetch(path).catch(refused);
    return found;
  } catch (error) {
    return refused(error);
  }
}

async function tufJs(repository: Repository, folder: string): Promise<Client> {
  const [metadataDir, targetDir] = [
    await mkdtemp(join(folder, "m")),
    await mkdtemp(join(folder, "t")),
  ];
  writeFileSync(join(metadataDir, "root.json"), repository.initialRoot);
  const read = (url: string, limit: number): Buffer => {
    const bytes = repository.files.get(decodeURIComponent(url.replace(/^memory:\/*/, "")));
    if (bytes === undefined) throw new DownloadHTTPError("no such file", 404);
    if (bytes.length > limit) throw new Error("too long");
    return bytes;
  };
  const fetcher = {
    downloadBytes: async (url: string, limit: number) => read(url, limit),
    async downloadFile<T>(url: string, limit: number, handler: (path: string) => Promise<T>) {
      const path = join(targetDir, "download");
      writeFileSync(path, read(url, limit));
      return handler(path);
    },
  };
  const [metadataBaseUrl, targetBaseUrl] = ["memory://metadata", "memory://targets"];
  const options = { metadataDir, targetDir, metadataBaseUrl, targetBaseUrl, fetcher };
  return {
    look: () =>
      verdictOf(
        async () => {
          const updater = new Updater(options);
          await updater.refresh();
          return async (path) => {
            const info = await updater.getTargetInfo(path);
            return info === undefined
              ? "none"
              : readFileSync(await updater.downloadTarget(info), "utf8");
          };
        },
        // Whatever its class is: what is compared is that it refuses.
        () => true,
      ),
  };
}

function ours({ files, initialRoot }: Repository): Client {
  const read = (name: string, limit: number): Promise<Uint8Array | undefined> => {
    const bytes = files.get(decodeURIComponent(name));
    if (bytes !== undefined && bytes.length > limit)
      return Promise.reject(new EdgeSyncError("RESPONSE_TOO_LARGE", name));
    return Promise.resolve(bytes);
  };
  const source = {
    metadata: (name: string, limit: number) => read(`metadata/${name}`, limit),
    target: (path: string, limit: number) => read(`targets/${path}`, limit),
  };
  const store = storeOf(new Map());
  return {
    look: () =>
      verdictOf(
        async () => {
          const deps = { source, store, initialRoot, now: Date.now() };
          const trusted = await refresh(deps, never);
          return async (path) => {
            try {
              return Buffer.from(await fetchTarget(trusted, path, 10_000, deps, never)).toString();
            } catch (error) {
              if (error instanceof EdgeSyncError && error.code === "RELEASE_NOT_FOUND")
                return "none";
              throw error;
            }
          };
        },
        (error) => error instanceof EdgeSyncError,
      ),
  };
}

/** Whether this client refuses all of a state, or some of its paths, and has the same as tuf-js for the others. */
function isStricter(mine: Verdict, theirs: Verdict): boolean {
  if (mine === "refused" || theirs === "refused") return mine === "refused";
  return PATHS.every((path) => mine[path] === theirs[path] || mine[path] === "refused");
}

async function compare(
  shape: Shape,
  steps: readonly Step[],
  folder: string,
): Promise<{ readonly verdicts: readonly Verdict[]; readonly stricter: boolean }> {
  const repository = openRepository(shape);
  const [mine, theirs] = [ours(repository), await tufJs(repository, folder)];
  const verdicts: Verdict[] = [];
  const done: Spoiling[] = [];
  let forgets = false;
  for (const step of steps) {
    repository.advance(step);
    if (step.spoil !== undefined) done.push(step.spoil);
    forgets ||= step.rotate?.some((name) => name === "timestamp" || name === "snapshot") === true;
    const [a, b] = [await mine.look(), await theirs.look()];
    verdicts.push(a);
    if (JSON.stringify(a) === JSON.stringify(b)) continue;
    // From here on they live in different worlds: one has stored what the other has refused, now or before.
    if (done.some(({ how }) => how.stricter !== undefined) && isStricter(a, b))
      return { verdicts, stricter: true };
    // 5.3.11: when a key of one of the two is withdrawn both files are forgotten, and the versions in them. tuf-js forgets only the one
    // that the new keys do not verify.
    if (forgets && done.some(({ how }) => how.rollback === true) && b === "refused")
      return { verdicts, stricter: false };
    const history = done.map(({ file, how }) => `${file}: ${how.name}`).join(", ");
    assert.fail(`${history}: this client ${JSON.stringify(a)}, tuf-js ${JSON.stringify(b)}`);
  }
  return { verdicts, stricter: false };
}

const PLAIN: Shape = {
  consistent: true,
  info: "full",
  delegation: "paths",
  terminating: false,
  threshold: 1,
  keys: "ed25519",
  lists: { targets: ["top"], a: ["a/x"], b: ["b/y"], c: ["a/c1"] },
};
const FIRST: Step = { rotate: undefined, change: [], spoil: undefined };
const ALL: Step = { rotate: undefined, change: FILES, spoil: undefined };

describe("beside tuf-js, from generated repositories", () => {
  test("a good one of every shape leads to the same bytes", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const shapes: Shape[] = [
      { ...PLAIN, keys: "rsa" },
      { ...PLAIN, keys: "ecdsa", threshold: 2 },
    ];
    for (const threshold of [1, 2] as const)
      for (const consistent of [true, false])
        for (const info of ["full", "bare", "length"] as const)
          for (const delegation of ["paths", "prefixes"] as const)
            shapes.push({ ...PLAIN, threshold, consistent, info, delegation });
    for (const shape of shapes) {
      const rotate = { ...ALL, rotate: ["root", "timestamp"] as const };
      const { verdicts } = await compare(shape, [FIRST, ALL, rotate], folder.path);
      for (const [index, verdict] of verdicts.entries()) {
        assert.ok(verdict !== "refused");
        assert.equal(verdict["a/c1"], `a/c1 by c in ${index + 1}\n`);
        assert.equal(verdict["nowhere"], "none");
      }
    }
  });

  test("each thing that can be wrong with each file", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const met = new Set<string>();
    let refused = 0;
    let count = 0;
    for (const how of CORRUPTIONS)
      for (const file of how.only ?? FILES) {
        // By turns: a file that its parent describes whole is refused for that, one that it does not for what is wrong with it.
        const bare = { ...PLAIN, info: "bare", threshold: count % 4 < 2 ? 1 : 2 } as const;
        const rotate = file === "root" ? (["targets"] as const) : undefined;
        const spoil = { file, how };
        const steps = [FIRST, { ...ALL, rotate, spoil }, ALL];
        const shape = count++ % 8 === 0 ? PLAIN : bare;
        const { verdicts, stricter } = await compare(shape, steps, folder.path);
        if (JSON.stringify(verdicts[1]).includes("refused")) refused += 1;
        if (stricter) met.add(how.name);
        // Also where nothing is known yet that it could go back from.
        if (file !== "timestamp") continue;
        const first = await compare(shape, [{ ...FIRST, spoil }, ALL], folder.path);
        if (first.stricter) met.add(how.name);
      }
    // So that the corruptions are known to be some.
    assert.ok(refused > 250, `${refused} of ${count}`);
    const claimed = CORRUPTIONS.filter((how) => how.stricter !== undefined);
    assert.deepEqual(
      claimed.filter((how) => !met.has(how.name)).map((how) => how.name),
      [],
      "where this client is said to be stricter, it is",
    );
  });

  test("any history of any repository", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const names = ["targets", "a", "b", "c"] as const;
    const some = fc.subarray(PATHS.slice(0, 4));
    const shapes = fc.record({
      consistent: fc.boolean(),
      info: fc.constantFrom("full", "bare", "length"),
      delegation: fc.constantFrom("paths", "prefixes"),
      terminating: fc.boolean(),
      threshold: fc.constantFrom(1, 2),
      keys: fc.constantFrom("ed25519", "ecdsa"),
      lists: fc.record({ targets: some, a: some, b: some, c: some }),
    });
    const spoilings = fc
      .constantFrom(...CORRUPTIONS)
      .chain((how: Corruption) =>
        fc.record({ how: fc.constant(how), file: fc.constantFrom(...(how.only ?? FILES)) }),
      );
    const steps = fc.array(
      fc.record({
        rotate: fc.option(fc.subarray(["root", "timestamp", "snapshot", "targets"] as const), {
          nil: undefined,
        }),
        change: fc.subarray(["timestamp", "snapshot", ...names] as const),
        spoil: fc.option(spoilings, { nil: undefined }),
      }),
      { minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(shapes, steps, async (shape, list) => {
        await compare(shape, list, folder.path);
      }),
      { numRuns: FULL ? 300 : SYSTEM ? 60 : 20, seed: 20261122 },
    );
  });
});
