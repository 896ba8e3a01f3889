/**
 * The journal: the state of the update machine as it lies on the payload volume, `state.json`. One line of JSON with a schema
 * number. What a trial has watched so far is left out: it is worth less than the writes, and a resumed trial begins anew.
 *
 * Versions of edgesync that follow each other read each other's journals, because a sidecar may be updated and taken back in the
 * middle of anything. So fields that are not known are passed over, and so is a reason; what is added later must mean no harm when it
 * is. A phase that is not known cannot be acted on: that is a journal that cannot be read.
 *
 * A journal that cannot be read is never written over and nothing is deleted on its account: the site goes on serving what
 * `current` names, takes no update, and reads it again at every look, so that a person may move it away or put it back.
 */
import * as s from "valibot";
import { EdgeSyncError } from "./errors.ts";
import { ROLLBACK_REASONS } from "./reasons.ts";
import type { RollbackReason } from "./reasons.ts";
import { NOTHING_SEEN } from "./update-state.ts";
import type { UpdateState } from "./update-state.ts";

/** Bytes; far above any journal that this code writes. */
export const JOURNAL_LIMIT = 1024 * 1024;

const SCHEMA = 1;

const count = s.pipe(s.number(), s.safeInteger(), s.minValue(0));
const sha256 = s.pipe(s.string(), s.regex(/^[0-9a-f]{64}$/));
const text = s.pipe(s.string(), s.minLength(1), s.maxLength(256));
const target = { channel: text, sequence: count, version: text };
const bank = s.object({
  ...target,
  // It becomes a path, so not even our own journal may say anything here.
  id: s.pipe(s.string(), s.regex(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,255}$/)),
  tree: sha256,
});
const reason = s.pipe(
  text,
  s.transform((word): RollbackReason => (isReason(word) ? word : "unknown")),
);
/** For people: a site is not to stand still for it. */
const failure = s.fallback(
  s.optional(s.object({ check: text, target: s.string(), result: s.string(), at: text })),
  undefined,
);
const common = {
  schema: s.literal(SCHEMA),
  channels: s.record(
    text,
    s.object({
      sequence: count,
      blocked: s.nullable(
        s.object({
          sequence: count,
          version: text,
          tree: s.nullable(sha256),
          reason,
          detail: s.optional(s.string()),
          failure,
          tries: s.optional(count),
        }),
      ),
      begun: s.optional(text),
      urgent: s.optional(s.literal(true)),
    }),
  ),
};

const notice = s.object({
  hook: s.picklist(["post-commit", "post-rollback"]),
  from: s.nullable(text),
});

const mayRun = s.optional(s.array(bank));

const journal = s.variant("phase", [
  s.object({ ...common, phase: s.literal("idle") }),
  s.object({
    ...common,
    phase: s.literal("downloading"),
    target: s.object(target),
    from: s.nullable(bank),
    mayRun,
  }),
  s.object({
    ...common,
    phase: s.literal("staged"),
    bank,
    from: bank,
    // A site is not to stand still for what only bounds a wait.
    heldSince: s.fallback(s.optional(count), undefined),
    withheld: s.optional(s.literal(true)),
    mayRun,
  }),
  s.object({
    ...common,
    phase: s.literal("trial"),
    bank,
    fallback: bank,
    stage: s.picklist(["restarting", "watching"]),
    resumed: count,
    starts: count,
    mayRun,
  }),
  s.object({ ...common, phase: s.literal("rolling-back"), failed: bank, to: bank, mayRun }),
  s.object({
    ...common,
    phase: s.literal("committed"),
    bank,
    previous: s.nullable(bank),
    // It may be of a kind that is not known here: then it is not for us to tell.
    notice: s.fallback(s.optional(notice), undefined),
  }),
]);

function isReason(word: string): word is RollbackReason {
  return Object.hasOwn(ROLLBACK_REASONS, word);
}

/** The text of a state: equal states have equal text, so that what is saved already is not written again. */
export function formatJournal(state: UpdateState): string {
  return `${JSON.stringify({ schema: SCHEMA, ...state }, inOrder)}\n`;
}

function inOrder(key: string, value: unknown): unknown {
  if (key === "watch") return undefined;
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * @param path for messages
 * @throws EdgeSyncError JOURNAL_INVALID
 */
export function parseJournal(bytes: Uint8Array, path = "state.json"): UpdateState {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new EdgeSyncError("JOURNAL_INVALID", `${path} is not JSON in UTF-8`, { cause });
  }
  const result = s.safeParse(journal, json, { abortEarly: true });
  if (!result.success) {
    const where = s.getDotPath(result.issues[0]) ?? "its top level";
    throw new EdgeSyncError("JOURNAL_INVALID", `${path}: ${where}: ${result.issues[0].message}`);
  }
  const { schema: _, ...state } = result.output;
  if (state.phase !== "trial") return state;
  return { ...state, watch: NOTHING_SEEN };
}
