/** The command that looks at templates where they are written, without a cluster or a Vault. */
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { isSecretData, parseExactJson } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import { secretRequest } from "#core/secret-request.ts";
import { MAX_FOLLOWED } from "#core/template/limits.ts";
import { VARIABLES, requestOf } from "#core/template/request.ts";
import { parseTemplate, render } from "#core/template/template.ts";
import type { Template, TemplateAnswer, TemplateCall } from "#core/template/template.ts";
import type { Arguments, Command, Result } from "../command.ts";
import { countOf, usage } from "./shared.ts";

interface Checked {
  readonly file: string;
  readonly calls: readonly TemplateCall[];
  readonly problem?: { readonly code: ErrorCode; readonly message: string };
}

const check: Command = {
  name: "template check",
  summary:
    "Says whether templates are such as a sidecar renders, and what they call for; with --data, what comes of one.",
  example: "edgesync template check db.conf.tpl",
  examples: [
    "vault kv get -format=json secret/shop >db.json && edgesync template check db.conf.tpl --data db.json",
    "edgesync template check tls.tpl --data answers.json --env POD_NAME=web-0",
  ],
  notes: `Errors name file, line and column. The exit status is ${ERRORS.TEMPLATE_INVALID.exit} when a template is not valid or cannot be rendered. The file of --data holds one answer of Vault, as vault read and vault kv get write it with -format=json, which is then that of every call; or an object of them, each by its path, or by its path with ?version=… or the parameters behind it, as secret.<name> states them. It holds the secret in plain text, and so does what is printed.`,
  positionals: ["<file>…"],
  options: {
    data: "JSON file with Vault's answers: the one template that is given is rendered, to standard output",
  },
  lists: { env: `variable for the function env, as NAME=value: ${VARIABLES.join(", ")}` },
  async run(args, shell) {
    const data = args.optional("data");
    const [file = "", ...others] = args.positionals;
    if (data !== undefined && others.length > 0)
      throw usage("template check renders one template at a time with --data");
    const variables = variablesOf(args);
    if (data !== undefined)
      return rendered(await readTemplate(file), await readAnswers(data), variables, shell.now());
    return told(await Promise.all(args.positionals.map(checkFile)));
  },
};

async function readText(path: string): Promise<string> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new EdgeSyncError("TEMPLATE_INVALID", `${path} cannot be read`, { cause });
  });
  if (isUtf8(bytes)) return bytes.toString("utf8");
  throw new EdgeSyncError("TEMPLATE_INVALID", `${path} is no text in UTF-8`);
}

/** @throws EdgeSyncError TEMPLATE_INVALID, or TEMPLATE_FAILED for a call that no sidecar makes */
async function readTemplate(path: string): Promise<Template> {
  const template = parseTemplate(await readText(path), { name: path });
  for (const call of template.calls) requestOf(call, path);
  if (template.calls.length > MAX_FOLLOWED)
    throw new EdgeSyncError(
      "TEMPLATE_FAILED",
      `${path}: it calls for ${template.calls.length} secrets; a sidecar follows ${MAX_FOLLOWED}`,
    );
  return template;
}

async function checkFile(file: string): Promise<Checked> {
  try {
    return { file, calls: (await readTemplate(file)).calls };
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    return { file, calls: [], problem: { code: codeOf(error), message: error.message } };
  }
}

function told(files: readonly Checked[]): Result {
  const lines = files.flatMap(({ file, calls, problem }) =>
    problem === undefined
      ? [
          calls.length === 0
            ? `${file} calls for nothing that can be told without a secret`
            : `${file} calls for ${countOf(calls.length, "secret")}`,
          ...calls.map((call) => `  ${VERBS[call.kind].padEnd(5)}  ${described(call)}`),
        ]
      : [problem.message],
  );
  const problems = files.flatMap(({ problem }) => problem ?? []);
  return {
    lines,
    json: {
      files: files.map(({ file, calls, problem }) => ({
        file,
        calls: calls.map((call) => ({
          kind: call.kind,
          path: pathOf(call),
          parameters: Object.keys(call.parameters),
        })),
        ...problem,
      })),
    },
    ...(problems[0] === undefined ? {} : { exit: ERRORS[problems[0].code].exit }),
  };
}

const VERBS = { read: "read", write: "write", pki: "issue" } as const;

/** The names of parameters alone: their values may be secrets. */
function described(call: TemplateCall): string {
  const names = Object.keys(call.parameters);
  return pathOf(call) + (names.length === 0 ? "" : ` with ${names.join(", ")}`);
}

function pathOf({ path, query: { version } }: TemplateCall): string {
  return version === undefined ? path : `${path}?version=${version}`;
}

function variablesOf(args: Arguments): ReadonlyMap<string, string> {
  const variables = new Map<string, string>(VARIABLES.map((name) => [name, ""]));
  for (const text of args.all("env")) {
    const [, name = "", value = ""] = /^([A-Z_]+)=([^]*)$/.exec(text) ?? [];
    if (!variables.has(name))
      throw usage(`--env takes NAME=value with one of ${VARIABLES.join(", ")}`);
    variables.set(name, value);
  }
  return variables;
}

type Answers = (call: TemplateCall) => TemplateAnswer | undefined;

/** @throws EdgeSyncError SECRET_INVALID, which quotes nothing of it */
async function readAnswers(path: string): Promise<Answers> {
  let answers: unknown;
  try {
    answers = parseExactJson(await readFile(path, "utf8"));
  } catch (error) {
    // The parser's message quotes the text, so it is no cause.
    const cause = error instanceof SyntaxError ? undefined : error;
    throw new EdgeSyncError("SECRET_INVALID", `${path} cannot be read as JSON`, { cause });
  }
  if (!isSecretData(answers)) throw unlike(path, "Vault's answers");
  // A path has a slash in it, so this is no path.
  if ("data" in answers) {
    const one = answerOf(answers, path);
    return () => one;
  }
  const byRequest = new Map(
    Object.entries(answers).map(([name, answer]) => {
      const request = secretRequest.parse(name);
      if (request?.kind !== "vault") throw unlike(path, "paths of Vault, each with its answer");
      return [secretRequest.format(request), answerOf(answer, path)];
    }),
  );
  return (call) =>
    byRequest.get(secretRequest.format(requestOf(call, path))) ?? byRequest.get(call.path);
}

function answerOf(answer: unknown, path: string): TemplateAnswer {
  const { data, ...more }: SecretData = isSecretData(answer) ? answer : {};
  if (!isSecretData(data)) throw unlike(path, "answers of Vault, each with its data");
  const { lease_id: leaseId, lease_duration: leaseDuration, request_id: id, renewable } = more;
  return {
    data,
    ...(typeof leaseId === "string" ? { leaseId } : {}),
    ...(typeof leaseDuration === "number" ? { leaseDuration } : {}),
    ...(typeof id === "string" ? { requestId: id } : {}),
    ...(typeof renewable === "boolean" ? { renewable } : {}),
  };
}

function unlike(path: string, expected: string): EdgeSyncError {
  return new EdgeSyncError("SECRET_INVALID", `${path} does not hold ${expected}`);
}

function rendered(
  template: Template,
  lookup: Answers,
  variables: ReadonlyMap<string, string>,
  now: number,
): Result {
  const result = render(template, { lookup, env: (name) => variables.get(name), now });
  if (result.kind === "needs")
    throw new EdgeSyncError(
      "SECRET_INVALID",
      `--data has nothing for ${result.calls.map(described).join("; ")}`,
    );
  const { bytes } = result;
  const text = Buffer.from(bytes);
  const json = isUtf8(text) ? { text: text.toString("utf8") } : { base64: text.toString("base64") };
  return { lines: [], bytes, json };
}

export const templateCommands: readonly Command[] = [check];
