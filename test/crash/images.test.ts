/** Power cuts in a model of a disk: a sample of the images, and what is found when a protection is taken out. */
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { crashDisk } from "../support/crash-model.ts";
import { imagesAt } from "./support/images.ts";
import type { Sync } from "./support/lying-disk.ts";
import { lyingDisk } from "./support/lying-disk.ts";
import { publishAll } from "./support/play.ts";
import type { Repository } from "./support/play.ts";
import { cutsOf, judge, judgeAll, scenariosOf } from "./support/proof.ts";
import type { Scenario } from "./support/proof.ts";

const SAMPLE = { seed: "npm test", random: 1, few: 16 };
/** Of so many images one is judged here; `npm run test:system` judges them all. */
const STRIDE = 12;

const ROOT = "/site/payload";

interface Protection {
  readonly what: string;
  /** The scenario that shows what it is for. */
  readonly shown: string;
  readonly is: (sync: Sync) => boolean;
  /** Whether it shows soon, because something else makes it durable later. */
  readonly early?: true;
}

/** What makes something durable, by the line of code that does it. */
const PROTECTIONS: readonly Protection[] = [
  {
    what: "the bytes of a file that takes the place of another",
    shown: "install",
    is: ({ operation, path }) => operation === "sync" && path.endsWith(".new"),
  },
  {
    what: "the name of a file that took the place of another",
    shown: "install",
    is: ({ operation, after }) =>
      operation === "syncDirectory" && /^rename .*\/(?:state\.json|site|trust\/[^/]+)$/.test(after),
  },
  {
    what: "the link that was swapped",
    shown: "rollback",
    is: ({ operation, after }) =>
      operation === "syncDirectory" && after === `rename ${ROOT}/current`,
  },
  {
    what: "the link that is right already",
    shown: "install on a disk that fails once in the swap",
    is: ({ operation, path, after }) =>
      operation === "syncDirectory" && path === ROOT && after === `syncDirectory ${ROOT}`,
  },
  {
    what: "the folders of a volume",
    shown: "install without stored trust",
    is: ({ operation, path, after }) =>
      operation === "syncDirectory" && path === ROOT && after.startsWith("makeDirectory"),
    early: true,
  },
  {
    what: "the bytes of the files of a bank",
    shown: "install",
    is: ({ operation, path }) => operation === "sync" && path.includes(".building-"),
  },
  {
    what: "the folders in a bank",
    shown: "install",
    is: ({ operation, path }) => operation === "syncDirectory" && /\.building-\d+\/./.test(path),
  },
  {
    what: "the folder of a bank",
    shown: "install",
    is: ({ operation, path }) => operation === "syncDirectory" && /\.building-\d+$/.test(path),
  },
  {
    what: "the manifest, before the bank has its name",
    shown: "install",
    is: ({ operation, after }) =>
      operation === "syncDirectory" && /^rename .*\/banks\/.*\.json$/.test(after),
  },
  {
    what: "the name of a bank, before the journal relies on it",
    shown: "install",
    is: ({ operation, after }) =>
      operation === "syncDirectory" && /^rename .*-[0-9a-f]{12}$/.test(after),
  },
  {
    what: "the name that a bank has lost, before it is taken apart",
    shown: "update",
    is: ({ operation, after }) =>
      operation === "syncDirectory" && /^rename .*\.removing-\d+$/.test(after),
  },
  {
    what: "the bytes of a file that repairs another",
    shown: "repair",
    is: ({ operation }) => operation === "sync",
  },
  {
    what: "the name of a download",
    shown: "install",
    is: ({ operation, path }) => operation === "syncDirectory" && path.endsWith("/partial"),
  },
  {
    what: "the bytes of downloads and manifests",
    shown: "install",
    is: ({ operation, path }) => operation === "sync" && path.includes("/partial/"),
  },
];

describe("a power cut", () => {
  let repository: Repository;
  let scenarios: readonly Scenario[];
  before(async () => {
    repository = await publishAll();
    scenarios = await scenariosOf(repository);
  });

  test("at any operation leaves a volume that keeps the promises and is recovered", async (t) => {
    const { images, violations } = await judgeAll(scenarios, repository, SAMPLE, STRIDE);
    t.diagnostic(`crash images: ${images}, violations: ${violations.length}`);
    assert.deepEqual(violations, []);
    assert.ok(images > 150, `${images} images`);
  });

  test("draws the same images again with the same seed, and others with another", async () => {
    const model = crashDisk();
    for (let number = 0; number < 12; number++) {
      await using file = await model.disk.create(`/file-${number}`, 0o600);
      await file.write(Buffer.alloc(9_000, number));
    }
    const drawn = (seed: string): readonly string[] =>
      imagesAt(model, { seed, random: 20, few: 16 }).map(({ fingerprint }) => fingerprint);
    assert.deepEqual(drawn("one"), drawn("one"));
    assert.notDeepEqual(drawn("one"), drawn("two"));
  });

  for (const { what, shown, is, early } of PROTECTIONS)
    test(`breaks a promise when this is not made durable: ${what}`, async (t) => {
      const scenario = scenarios.find(({ name }) => name === shown);
      assert.ok(scenario !== undefined);
      let passedOver = 0;
      const { cuts, needed } = await cutsOf(scenario, {
        repository,
        sample: { ...SAMPLE, random: 3 },
        between: (disk) =>
          lyingDisk(disk, (sync) => {
            if (!is(sync)) return "made";
            passedOver += 1;
            return "passed over";
          }),
        wanted: () => passedOver > 0,
      });
      // What was never made durable shows in the end.
      for (const cut of early === true ? cuts : cuts.toReversed()) {
        const complaint = await judge(cut, repository, needed);
        if (complaint === undefined) continue;
        t.diagnostic(`${cut.name}, before ${cut.operation}: ${complaint}`);
        return;
      }
      assert.fail("no image shows that it is needed");
    });
});
