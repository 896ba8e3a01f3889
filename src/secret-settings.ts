/** One declared secret as the text of its variable: `secretText` and `readSecret` are inverses. */
import { jsonStrings } from "./json.ts";
import { readText } from "./pod-options.ts";
import type { SecretOptions } from "./pod-options.ts";
import { secretFormat } from "./secret-format.ts";
import { configMapTemplate, secretRequest } from "./secret-request.ts";
import * as v from "./values.ts";
import type { Value } from "./values.ts";

const FIELDS = {
  request: secretRequest,
  templateFile: configMapTemplate,
  format: secretFormat,
  file: v.fileName,
  mode: v.fileMode,
} as const;

export function secretText({ request, format, file, mode }: SecretOptions): string {
  return JSON.stringify({
    ...requestFields(request),
    format: FIELDS.format.format(format),
    file,
    ...(mode === undefined ? {} : { mode: FIELDS.mode.format(mode) }),
  });
}

/** A ConfigMap's template in a field of its own: an older sidecar would write its name into the file, and so it refuses it. */
function requestFields(request: SecretOptions["request"]): Readonly<Record<string, string>> {
  if (request.kind !== "template") return { request: FIELDS.request.format(request) };
  return "text" in request
    ? { template: request.text }
    : { templateFile: FIELDS.templateFile.format(request) };
}

/** @param problems to which each is added that there is */
export function readSecret(
  variable: string,
  name: string,
  text: string,
  problems: string[],
): SecretOptions | undefined {
  const fields = jsonStrings(text);
  if (fields === undefined || v.dnsLabel.parse(name) === undefined) {
    problems.push(`${variable} is not a secret; allowed: what the webhook writes`);
    return undefined;
  }
  const field = <T>(key: keyof typeof FIELDS, value: Value<T>): T | undefined =>
    readText(`${variable} (${key})`, { value }, fields[key] ?? "", problems);
  const { template, templateFile } = fields;
  const stated = (): SecretOptions["request"] | undefined =>
    templateFile === undefined
      ? field("request", FIELDS.request)
      : field("templateFile", FIELDS.templateFile);
  const request = template === undefined ? stated() : { kind: "template" as const, text: template };
  const format = field("format", FIELDS.format);
  const file = field("file", FIELDS.file);
  const mode = fields["mode"] === undefined ? undefined : field("mode", FIELDS.mode);
  if (request === undefined || format === undefined || file === undefined) return undefined;
  return { name, request, format, file, mode };
}
