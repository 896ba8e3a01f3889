import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { isSeq, parseDocument } from "yaml";
import { sbom } from "../../scripts/sbom.ts";

const ROOT = new URL("../../", import.meta.url);
const read = (path: string): Promise<string> => readFile(new URL(path, ROOT), "utf8");

describe("the image", async () => {
  const text = await read("Dockerfile.multiarch");
  const lines = text.split("\n").filter((line) => /^[A-Z]+ /.test(line));

  test("runs nothing while it is built, so that it needs neither an emulator nor a network", () => {
    assert.deepEqual(
      lines.filter((line) => /^(?:RUN|ADD) /.test(line)),
      [],
    );
    assert.equal(lines.filter((line) => line.startsWith("FROM ")).length, 2);
  });

  test("is nobody's in particular, and opens no inspector", async () => {
    assert.ok(lines.includes("USER 65532:65532"));
    const entry = lines.find((line) => line.startsWith("ENTRYPOINT "));
    assert.ok(entry?.includes('"--disable-sigusr1"'));
    const deployment = parseDocument(await read("manifests/base/deployment.yaml"));
    const command = deployment.getIn(["spec", "template", "spec", "containers", 0, "command"]);
    assert.ok(isSeq<{ value: string }>(command));
    assert.ok(command.items.some(({ value }) => value === "--disable-sigusr1"));
  });

  test("is of this version, with the Node that the tests run", async () => {
    const { version } = JSON.parse(await read("package.json")) as { version: string };
    assert.ok(lines.includes(`ARG VERSION=${version}`));
    assert.ok(lines.includes(`ARG NODE=${process.version.slice(1)}`));
  });

  test("gets nothing but the bundles from where it is built", async () => {
    const ignored = (await read(".dockerignore")).split("\n").filter((line) => /^[^#]/.test(line));
    assert.deepEqual(ignored, ["*", "!dist", "dist/*.map"]);
  });

  test("says what is in it, in the same bytes each time", async () => {
    const root = ROOT.pathname;
    const first = await sbom(root, ["pino", "express"]);
    assert.equal(await sbom(root, ["express", "pino"]), first);
    const { components } = JSON.parse(first) as { components: { purl: string }[] };
    const { dependencies } = JSON.parse(await read("package.json")) as {
      dependencies: Record<string, string>;
    };
    assert.deepEqual(
      components.map(({ purl }) => purl),
      ["express", "pino"].map((name) => `pkg:npm/${name}@${dependencies[name]}`),
    );
  });
});
