import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { PEERS } from "./peers/all.ts";
import type { NamedTest } from "./peers/row.ts";

interface Found {
  readonly subject: string;
  readonly title: string;
  /** As they are written, with `${…}` where a loop fills them in. */
  readonly isRun: boolean;
}

const CALL =
  /^[ \t]*(describe|test)((?:\.\w+)*)\(\s*(?:"((?:[^"\\]|\\.)*)"|`((?:[^`\\]|\\.)*)`)(\s*,\s*\{[^}]*\})?/gm;
const NOT_RUN = /\b(skip|todo)\b/;

/** The tests of a file, in order: a test belongs to the `describe` before it. One that is left out, or may leave itself out, is not run. */
function testsOf(text: string): readonly Found[] {
  const calls = [...text.replaceAll(/\/\*[\s\S]*?\*\//g, "").matchAll(CALL)];
  const found: Found[] = [];
  let subject = "";
  let isSubjectRun = true;
  calls.forEach((call, index) => {
    const [, kind, modifiers = "", plain, template, options = ""] = call;
    const title = plain?.replaceAll(/\\(.)/g, "$1") ?? template ?? "";
    const end = calls[index + 1]?.index ?? text.length;
    const isRun = !NOT_RUN.test(modifiers + options);
    if (kind === "describe") {
      subject = title;
      isSubjectRun = isRun;
    } else {
      const leavesItself = /\.(skip|todo)\(/.test(call.input.slice(call.index, end));
      found.push({ subject, title, isRun: isRun && isSubjectRun && !leavesItself });
    }
  });
  return found;
}

/** Whether a title as it runs is the one that is written; what fills a gap must stand in the file as well. */
function isTitle(written: string, title: string, text: string): boolean {
  if (!written.includes("${")) return written === title;
  const parts = written.split(/\$\{[^}]*\}/).map((part) => RegExp.escape(part));
  const match = new RegExp(`^${parts.join("(.+)")}$`).exec(title);
  return match?.slice(1).every((filling) => text.includes(filling)) ?? false;
}

function problemOf({ subject, title }: NamedTest, text: string): string | undefined {
  const found = testsOf(text).filter(
    (one) => isTitle(one.subject, subject, text) && isTitle(one.title, title, text),
  );
  if (found.length === 0) return "there is no such test";
  return found.every(({ isRun }) => isRun) ? undefined : "the test is not run";
}

describe("the table of peers' faults", () => {
  const rows = PEERS.flatMap((section) => section.rows);

  test("names tests that there are, by their exact titles, and that are run", async () => {
    const texts = new Map<string, string>();
    const problems: string[] = [];
    for (const named of rows.flatMap((row) => row.tests)) {
      const text =
        texts.get(named.file) ?? (await readFile(named.file, "utf8").catch(() => undefined)) ?? "";
      texts.set(named.file, text);
      const problem = problemOf(named, text);
      if (problem !== undefined)
        problems.push(`${named.file}: ${named.subject}: ${named.title}: ${problem}`);
    }
    assert.deepEqual(problems, []);
  });

  test("has for each a test, or says what is not done and why", () => {
    for (const { theirs, tests, open } of rows)
      assert.ok(tests.length > 0 || open !== undefined, theirs);
  });

  test("names issues by repository and number, and says nothing twice", () => {
    for (const ref of rows.flatMap((row) => row.refs))
      assert.match(ref, /^[\w.-]+\/[\w.-]+#[1-9]\d*$/);
    const texts = rows.map(({ theirs }) => theirs);
    assert.equal(new Set(texts).size, texts.length);
  });
});

describe("a test that a row names", () => {
  const LEFT_OUT = ["sk", "ip"].join("");
  const named = { file: "", subject: "a door", title: "opens" };
  const cases: readonly (readonly [what: string, text: string, isHeld: boolean])[] = [
    ["is there", 'describe("a door", () => {\n  test("opens", () => {});\n});', true],
    [
      "is of another title",
      'describe("a door", () => {\n  test("opens not", () => {});\n});',
      false,
    ],
    ["is of another subject", 'describe("a gate", () => {\n  test("opens", () => {});\n});', false],
    ["is a comment", 'describe("a door", () => {\n  // test("opens", () => {});\n});', false],
    ["is cut out", 'describe("a door", () => {\n/*\n  test("opens", () => {});\n*/\n});', false],
    [
      "is left out",
      `describe("a door", () => {\n  test.${LEFT_OUT}("opens", () => {});\n});`,
      false,
    ],
    [
      "is left out by an option",
      `describe("a door", () => {\n  test("opens", { ${LEFT_OUT}: true }, () => {});\n});`,
      false,
    ],
    [
      "is left out with its subject",
      `describe.${LEFT_OUT}("a door", () => {\n  test("opens", () => {});\n});`,
      false,
    ],
    [
      "may leave itself out",
      `describe("a door", () => {\n  test("opens", (t) => {\n    t.${LEFT_OUT}();\n  });\n});`,
      false,
    ],
    ["is of a loop", 'for (const what of ["opens"])\n  test(`${what}`, () => {});\n', false],
    [
      "is of a loop of its subject",
      'describe("a door", () => {\n  for (const what of ["opens"])\n    test(`${what}`, () => {});\n});',
      true,
    ],
    [
      "is of a loop that has not got it",
      'describe("a door", () => {\n  for (const what of ["shuts"])\n    test(`${what}`, () => {});\n});',
      false,
    ],
  ];
  for (const [what, text, isHeld] of cases)
    test(`${isHeld ? "counts" : "does not count"} when it ${what}`, () => {
      assert.equal(problemOf(named, text) === undefined, isHeld);
    });
});
