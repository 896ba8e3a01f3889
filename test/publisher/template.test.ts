import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/temporary.ts";
import { run } from "./shell.ts";

const CANARY = "canary-value";
const EDGESYNC = resolve(import.meta.dirname, "../../bin/edgesync.ts");

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder[Symbol.asyncDispose]());

async function file(name: string, contents: string | Uint8Array): Promise<string> {
  const path = join(folder.path, name);
  await writeFile(path, contents);
  return path;
}

/** What a template becomes; as bytes, one character each. */
async function made(text: string, data: unknown, more: readonly string[] = []): Promise<string> {
  const template = await file("t", text);
  const answers = await file("d", `${JSON.stringify(data)}\n`);
  const result = await run(["template", "check", template, "--data", answers, ...more]);
  return Buffer.from(result.bytes ?? []).toString("latin1");
}

describe("edgesync template check", () => {
  test("lists what is asked of Vault, and no value that is sent", async () => {
    const path = await file(
      "good",
      `{{ with secret "secret/data/shop?version=3" }}{{ end }}{{ with secret "pki/sign/web" "common_name=${CANARY}" "ttl=1h" }}{{ end }}{{ with pkiCert "pki/issue/web" "ttl=1h" }}{{ end }}`,
    );
    const { lines, exit } = await run(["template", "check", path]);
    assert.deepEqual(lines, [
      `${path} calls for 3 secrets`,
      "  read   secret/data/shop?version=3",
      "  write  pki/sign/web with common_name, ttl",
      "  issue  pki/issue/web with ttl",
    ]);
    assert.equal(exit, undefined);
  });

  test("looks at every file, and says for each line and column of what is wrong", async () => {
    const good = await file("one", "{{ env `SITE` }}");
    const wrong = await file("two", "ü {{ if true }}\n  {{ readFile `x` }}{{ end }}");
    const foreign = await file("three", '{{ with secret "sys/x?list=true" }}{{ end }}');
    const binary = await file("four", Uint8Array.of(0xff));
    const many = Array.from({ length: 65 }, (_, i) => `{{ with secret "a/${i}" }}{{ end }}`);
    const greedy = await file("five", many.join(""));
    const absent = join(folder.path, "none");
    const files = [good, wrong, foreign, binary, greedy, absent];
    const { json, exit, lines } = await run(["template", "check", ...files]);
    assert.equal(exit, 65);
    assert.equal(lines.length, files.length);
    const told = json["files"] as readonly { file: string; code?: string; message?: string }[];
    assert.deepEqual(
      told.map(({ code }) => code),
      [
        undefined,
        "TEMPLATE_INVALID",
        "TEMPLATE_FAILED",
        "TEMPLATE_INVALID",
        "TEMPLATE_FAILED",
        "TEMPLATE_INVALID",
      ],
    );
    const { message = "" } = told[1] ?? {};
    assert.ok(message.startsWith(`${wrong}:2:6: `), message);
  });

  test("renders with one answer, which is that of every call, as Vault's own commands write it", async () => {
    const text =
      '{{ with secret "secret/data/shop" }}{{ .Data.data.port }} {{ .LeaseID }}{{ end }}';
    const data = { data: { port: 12_345_678_901_234, password: CANARY }, metadata: {} };
    assert.equal(await made(text, { request_id: "1", lease_id: "l", data }), "12345678901234 l");
  });

  test("renders with answers by path, and by path with what is sent", async () => {
    const text =
      '{{ with secret "a/b" }}{{ .Data.x }}{{ end }}{{ with secret "a/c?version=2" }}{{ .Data.x }}{{ end }}{{ with secret "a/d" "k=v w" }}{{ .Data.x }}{{ end }}{{ with secret "a/d" }}{{ .Data.x }}{{ end }}';
    const answers = {
      "a/b": { data: { x: 1 } },
      "a/c?version=2": { data: { x: 2 } },
      'a/d k="v w"': { data: { x: 3 } },
      "a/d": { data: { x: 4 } },
    };
    assert.equal(await made(text, answers), "1234");
  });

  test("gives the variables that are stated, and others empty", async () => {
    const text = '{{ env "POD_NAME" }}.{{ env "SITE" }}.{{ timestamp "2006" | len }}';
    assert.equal(await made(text, {}, ["--env", "POD_NAME=web=0"]), "web=0..4");
    await assert.rejects(made(text, {}, ["--env", "HOME=/"]), { code: "USAGE" });
    await assert.rejects(made('{{ env "HOME" }}', {}), { code: "TEMPLATE_FAILED" });
  });

  test("prints every byte and nothing besides", async () => {
    const template = await file("t", '{{ with secret "a/b" }}{{ base64Decode .Data.x }}{{ end }}');
    const answers = await file("d", JSON.stringify({ "a/b": { data: { x: "/wAK" } } }));
    const line = [EDGESYNC, "template", "check", template, "--data", answers];
    const { stdout } = await promisify(execFile)(process.execPath, line, { encoding: "buffer" });
    assert.deepEqual(stdout, Buffer.of(0xff, 0x00, 0x0a));
  });

  test("is refused without the data, with other data, and quotes none of it", async () => {
    const text = '{{ with secret "a/b" }}{{ .Data.x }}{{ end }}';
    await assert.rejects(made(text, {}), { code: "SECRET_INVALID", message: /a\/b/ });
    await assert.rejects(made(text, { data: { y: CANARY } }), { code: "TEMPLATE_FAILED" });
    const template = await file("t", text);
    for (const wrong of [
      `{"${CANARY}": 1}`,
      `{"a/b": "${CANARY}"}`,
      `[${CANARY}`,
      `["${CANARY}"]`,
      `{"data":"${CANARY}"}`,
    ])
      await assert.rejects(
        run(["template", "check", template, "--data", await file("d", wrong)]),
        (error: Error & { code?: string }) =>
          error.code === "SECRET_INVALID" &&
          !`${error.message}${String(error.cause)}`.includes("canary"),
      );
    const two = ["template", "check", template, template, "--data", template];
    await assert.rejects(run(two), { code: "USAGE" });
    await assert.rejects(run(["template", "check"]), { code: "USAGE" });
  });
});
