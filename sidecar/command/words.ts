/** A status in words. It may be that of another version, so nothing in it is relied on. */
import { isObject } from "#core/json.ts";
import { MAIN_PAYLOAD } from "#core/payloads.ts";
import { DELIVERY_REASONS, GATE_REASONS, ROLLBACK_REASONS, WAIT_REASONS } from "#core/reasons.ts";

/** What is at a path of keys; `undefined` when there is nothing. */
export function at(value: unknown, ...path: readonly string[]): unknown {
  let found = value;
  for (const key of path) found = isObject(found) ? found[key] : undefined;
  return found ?? undefined;
}

function textAt(value: unknown, ...path: readonly string[]): string | undefined {
  const found = at(value, ...path);
  return typeof found === "string" ? found : undefined;
}

export function listAt(value: unknown, ...path: readonly string[]): readonly unknown[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found : [];
}

/** The updates of a status by payload. */
export function updatesIn(document: unknown): readonly (readonly [string, unknown])[] {
  const others = at(document, "payloads");
  const all: readonly (readonly [string, unknown])[] = [
    [MAIN_PAYLOAD, at(document, "update")],
    ...Object.entries(isObject(others) ? others : {}),
  ];
  return all.filter(([, update]) => isObject(update));
}

/** Whether the start gate is open. */
export function isOpen(document: unknown): boolean {
  return at(document, "start", "reason") === "ok";
}

/** The whole of it in a few sentences, one to a line. */
export function summaryOf(document: unknown): readonly string[] {
  const gate = textAt(document, "start", "reason");
  const failed = at(document, "failed");
  return [
    ...(gate === undefined || gate === "ok"
      ? []
      : [`the start gate is closed: ${meaning(GATE_REASONS, gate)}`]),
    ...Object.entries(isObject(failed) ? failed : {}).map(
      ([part, code]) => `the ${part} does not come up: ${String(code)}`,
    ),
    ...updateLines(document),
    ...listAt(document, "delivering").map((one) => {
      const detail = textAt(one, "detail");
      const why = meaning(DELIVERY_REASONS, textAt(one, "waiting") ?? "");
      return `the application has not got it: ${why}${detail === undefined ? "" : ` (${detail})`}`;
    }),
    ...holdLines(listAt(document, "holds")),
    ...listAt(document, "holdProblems").map(
      (one) => `hold file ${textAt(one, "file") ?? ""}: ${textAt(one, "problem") ?? ""}`,
    ),
  ];
}

/** Where each payload is; its name stands before it where there are several. */
export function updateLines(document: unknown): readonly string[] {
  const updates = updatesIn(document);
  return updates.map(([name, update]) =>
    updates.length > 1 ? `${name}: ${updateLine(update)}` : updateLine(update),
  );
}

export function holdLines(holds: readonly unknown[]): readonly string[] {
  return holds.map((hold) => {
    const reason = textAt(hold, "reason");
    const why = reason === undefined ? "" : ` (${reason})`;
    return `held by ${textAt(hold, "owner") ?? ""} until ${textAt(hold, "until") ?? ""}${why}`;
  });
}

/** All that hold, in one line; of many the first. */
export function heldLine(holds: readonly unknown[]): readonly string[] {
  const [first] = holdLines(holds);
  if (first === undefined) return [];
  return [holds.length === 1 ? first : `${first}, and by ${holds.length - 1} more`];
}

function updateLine(update: unknown): string {
  const version = textAt(update, "release", "version");
  if (textAt(update, "phase") === "unknown")
    return ["what is installed runs on, and gets no updates", ...errorIn(update)].join("; ");
  const blocked = at(update, "blocked");
  return [
    version === undefined ? "nothing is installed" : `at ${version}`,
    ...doing(update),
    ...(blocked === undefined
      ? []
      : [`${blockedLine(blocked)}; edgesync update retry tries it again`]),
    ...errorIn(update),
  ].join("; ");
}

function errorIn(update: unknown): readonly string[] {
  const error = at(update, "error");
  return error === undefined
    ? []
    : [`${textAt(error, "code") ?? ""}: ${textAt(error, "message") ?? ""}`];
}

/** The check that failed, if one did. */
function failureIn(value: unknown): string {
  const failure = at(value, "failure");
  if (failure === undefined) return "";
  const [check = "", target = "", result = ""] = ["check", "target", "result"].map((key) =>
    textAt(failure, key),
  );
  return `; ${check} at ${target}: ${result}`;
}

/** What is blocked, and why. */
function blockedLine(blocked: unknown): string {
  return `${textAt(blocked, "version") ?? ""} is blocked: ${blockedWhy(blocked)}`;
}

/** What is not blocked any more, and why it was. */
export function retriedLine(blocked: unknown): string {
  return `${textAt(blocked, "version") ?? ""} is tried again; it was blocked: ${blockedWhy(blocked)}`;
}

function blockedWhy(blocked: unknown): string {
  const why = meaning(ROLLBACK_REASONS, textAt(blocked, "reason") ?? "");
  const detail = textAt(blocked, "detail");
  const said = detail === undefined || detail === "" ? "" : ` (${detail})`;
  return `${why}${said}${failureIn(blocked)}`;
}

function doing(update: unknown): readonly string[] {
  const target = textAt(update, "target", "version") ?? "a release";
  const waiting = at(update, "waiting");
  const waits = (version: string, reason: string, until: string | undefined): string =>
    `${version} waits: ${meaning(WAIT_REASONS, reason)}${until === undefined ? "" : `, until ${until}`}`;
  if (waiting !== undefined)
    return [
      waits(target, textAt(waiting, "reason") ?? "", textAt(waiting, "until")) + failureIn(waiting),
    ];
  switch (textAt(update, "phase") ?? "") {
    case "downloading":
      return [`${target} is being fetched${amountOf(update)}`];
    case "staged":
      return [`${target} is about to be swapped in`];
    case "trial": {
      const fallback = textAt(update, "trial", "fallback") ?? "before";
      return [`on trial, and back to ${fallback} if it fails${failureIn(at(update, "trial"))}`];
    }
    case "rolling-back":
      return ["going back to the release before"];
    default:
      break;
  }
  const turn = textAt(update, "rollout", "turn");
  const reason = textAt(update, "rollout", "waiting");
  if (reason !== undefined)
    return [waits(textAt(update, "rollout", "version") ?? "a release", reason, turn)];
  const looked = textAt(update, "lastLook");
  if (looked === undefined)
    return at(update, "error") === undefined
      ? ["the channel has not been read since the start"]
      : [];
  const sequence = at(update, "sequence");
  const isNewest = sequence !== undefined && sequence === at(update, "release", "sequence");
  return isNewest ? [`the channel offered nothing newer at ${looked}`] : [];
}

function amountOf(update: unknown): string {
  const [all, received] = ["downloadBytes", "receivedBytes"].map((key) => at(update, "plan", key));
  const isOfIt = at(update, "plan", "version") === at(update, "target", "version");
  return isOfIt && typeof all === "number" && typeof received === "number"
    ? `, ${mega(received)} of ${mega(all)} MB`
    : "";
}

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function meaning(table: Readonly<Record<string, string>>, reason: string): string {
  const means = table[reason];
  return means === undefined ? reason : `${reason} (${means})`;
}

/** A document as lines for people; what is empty, or not so, is left out. */
export function linesOf(value: unknown, indent = ""): string {
  if (typeof value !== "object" || value === null) return `${indent}${String(value)}\n`;
  return Object.entries(value)
    .filter(([, item]) => !isEmpty(item))
    .map(([key, item]) => {
      const label = Array.isArray(value) ? "-" : `${key}:`;
      if (typeof item !== "object") return `${indent}${label} ${String(item)}\n`;
      return `${indent}${label}\n${linesOf(item, `${indent}  `)}`;
    })
    .join("");
}

function isEmpty(item: unknown): boolean {
  if (item === null || item === undefined) return true;
  return typeof item === "object" && Object.values(item).every((inner) => isEmpty(inner));
}
