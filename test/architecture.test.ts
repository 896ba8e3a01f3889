/** The direction of imports: programs know the core, the core knows nobody, programs never know each other. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { glob, readFile } from "node:fs/promises";
import { dirname, join, normalize, sep } from "node:path";
import { describe, test } from "node:test";

const PROGRAMS = ["webhook", "sidecar", "publisher"] as const;
const CORE_LIBRARIES = ["valibot"];
/** Modules that compute and touch nothing outside of the process. */
const CORE_NODE = [
  "node:crypto",
  "node:zlib",
  "node:path",
  "node:path/posix",
  "node:buffer",
  "node:util",
  "node:stream",
  "node:stream/promises",
  "node:assert",
];
/** What would not fit beside every pod. */
const TOO_HEAVY = ["express", "@kubernetes/client-node", "node-forge", "yaml"];

interface Import {
  readonly file: string;
  /** A package, a `node:` module, or a path from the root of the project. */
  readonly to: string;
  readonly typeOnly: boolean;
}

async function importsOf(folder: string): Promise<readonly Import[]> {
  const found: Import[] = [];
  for await (const file of glob(`${folder}/**/*.ts`))
    found.push(...importsIn(file, await readFile(file, "utf8")));
  return found;
}

function importsIn(file: string, source: string): readonly Import[] {
  const statements = source.matchAll(
    /^\s*(?:import|export)\s+(type\s+)?(?:[^"';]*?\sfrom\s+)?"([^"]+)"|\bimport\(\s*"([^"]+)"/gm,
  );
  return [...statements].map(([, type, fixed, dynamic]) => ({
    file,
    to: resolve(file, fixed ?? dynamic ?? ""),
    typeOnly: type !== undefined,
  }));
}

function resolve(file: string, specifier: string): string {
  if (specifier.startsWith("#core/")) return `src/${specifier.slice("#core/".length)}`;
  if (specifier.startsWith("."))
    return normalize(join(dirname(file), specifier))
      .split(sep)
      .join("/");
  return specifier;
}

function isLocal(to: string): boolean {
  return /^(src|webhook|sidecar|publisher|bin|demo|test|bench|scripts)\//.test(to);
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

const show = (list: readonly Import[]): string[] => list.map(({ file, to }) => `${file} -> ${to}`);

describe("the core", () => {
  test("imports itself, pure parts of Node and its one library, and nothing else", async () => {
    const imports = await importsOf("src");
    assert.ok(imports.length > 20, "the scan found the core's imports");
    const wrong = imports.filter(
      ({ to }) =>
        !to.startsWith("src/") &&
        !CORE_NODE.includes(to) &&
        !CORE_LIBRARIES.includes(packageOf(to)),
    );
    assert.deepEqual(show(wrong), []);
  });

  test("reads no clock, chance or environment of its own", async () => {
    const wrong: string[] = [];
    for await (const file of glob("src/**/*.ts")) {
      const source = await readFile(file, "utf8");
      const code = source.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      if (
        /\bDate\.now\(|new Date\(\)|\bMath\.random\(|\bprocess\.|\bsetTimeout\(|\bfetch\(/.test(
          code,
        )
      )
        wrong.push(file);
    }
    assert.deepEqual(wrong, []);
  });
});

describe("a program", () => {
  for (const program of PROGRAMS)
    test(`${program} imports the core and itself, and no other folder`, async () => {
      const imports = await importsOf(program);
      assert.ok(imports.length > 5, "the scan found the program's imports");
      const wrong = imports.filter(
        ({ to }) => isLocal(to) && !to.startsWith("src/") && !to.startsWith(`${program}/`),
      );
      assert.deepEqual(show(wrong), []);
    });

  test("keeps the process to its main file", async () => {
    const wrong: string[] = [];
    for (const program of PROGRAMS)
      for await (const file of glob(`${program}/**/*.ts`)) {
        if (file === join(program, "main.ts")) continue;
        const source = await readFile(file, "utf8");
        const code = source.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
        if (
          /\bprocess\.(env|exit\b|exitCode|argv|on\b|once\b)|\bDate\.now\(|\bMath\.random\(/.test(
            code,
          )
        )
          wrong.push(file);
      }
    assert.deepEqual(wrong, []);
  });

  test("the sidecar loads nothing that is too heavy to run beside every pod", async () => {
    const imports = await importsOf("sidecar");
    assert.deepEqual(show(imports.filter(({ to }) => TOO_HEAVY.includes(packageOf(to)))), []);
  });
});

describe("the one command", () => {
  test("only dispatches: it loads the main file of one program, lazily", () => {
    const source = readFileSync("bin/edgesync.ts", "utf8");
    const programs = importsIn("bin/edgesync.ts", source).filter(
      ({ to }) => isLocal(to) && !to.startsWith("src/"),
    );
    assert.deepEqual(
      [...new Set(programs.map(({ to }) => to))].toSorted(),
      PROGRAMS.map((program) => `${program}/main.ts`).toSorted(),
    );
    assert.doesNotMatch(source, /^import [^"]*"\.\.\/(webhook|sidecar|publisher)\//m);
  });
});

describe("the tests", () => {
  test("draw the cases of their properties from the one seed", async () => {
    const imports = await importsOf("test");
    const direct = imports.filter(({ to }) => packageOf(to) === "fast-check");
    assert.deepEqual([...new Set(direct.map(({ file }) => file))], ["test/support/property.ts"]);
  });
});
