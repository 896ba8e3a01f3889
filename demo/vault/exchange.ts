/** What goes in and out of the development Vault, in the shapes of the real one's HTTP API. */
import { randomUUID } from "node:crypto";

export type Fields = Readonly<Record<string, unknown>>;

export type Operation = "read" | "list" | "write" | "delete";

export interface Call {
  readonly operation: Operation;
  /** Below `/v1/`, without a slash at either end. */
  readonly path: string;
  readonly fields: Fields;
  /** What the client showed when it connected, PEM. */
  readonly certificate?: string | undefined;
}

export interface Answer {
  readonly status: number;
  /** Absent for 204. */
  readonly body?: Fields;
}

/** An answer that is an error: `{"errors": […]}` with a status. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly status: number;
  /** Vault adds data to a few refusals, such as the metadata of a deleted version. */
  readonly body: Fields;

  constructor(status: number, errors: readonly string[], body: Fields = { errors }) {
    super(errors.join("; "));
    this.status = status;
    this.body = body;
  }
}

export const denied = (): Refusal => new Refusal(403, ["permission denied"]);

/** Vault says nothing about what is not there. */
export const absent = (): Refusal => new Refusal(404, []);

export const invalid = (message: string): Refusal => new Refusal(400, [message]);

export const NO_CONTENT: Answer = { status: 204 };

/** The envelope around every answer that has a body. */
export function answer(parts: {
  readonly data?: Fields;
  readonly auth?: Fields;
  readonly lease?: {
    readonly id: string;
    readonly renewable: boolean;
    /** Seconds. */ readonly duration: number;
  };
}): Answer {
  return {
    status: 200,
    body: {
      request_id: randomUUID(),
      lease_id: parts.lease?.id ?? "",
      renewable: parts.lease?.renewable ?? false,
      lease_duration: parts.lease?.duration ?? 0,
      data: parts.data ?? null,
      wrap_info: null,
      warnings: null,
      auth: parts.auth ?? null,
    },
  };
}

export function text(fields: Fields, key: string): string | undefined {
  const value = fields[key];
  return typeof value === "string" && value !== "" ? value : undefined;
}

export function needed(fields: Fields, key: string): string {
  const value = text(fields, key);
  if (value === undefined) throw invalid(`missing ${key}`);
  return value;
}

export function flag(fields: Fields, key: string, otherwise: boolean): boolean {
  const value = fields[key];
  return typeof value === "boolean" ? value : value === "true" || (value !== "false" && otherwise);
}

/** A list, or what Vault takes for one: a text with commas. */
export function list(fields: Fields, key: string): readonly string[] {
  const value = fields[key];
  if (typeof value === "string") return value === "" ? [] : value.split(",").map((s) => s.trim());
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

export function record(fields: Fields, key: string): Fields {
  const value = fields[key];
  return isRecord(value) ? value : {};
}

export function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const UNIT_MS = { "": 1_000, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Milliseconds of a number of seconds, or of a text such as `90s`, `10m` or `1h`; 0 when the key is absent. */
export function durationMs(fields: Fields, key: string): number {
  const value = fields[key];
  if (value === undefined || value === null) return 0;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value * 1_000;
  const match = typeof value === "string" ? /^(\d{1,9})([smhd]?)$/.exec(value) : null;
  const unit = match?.[2] ?? "";
  if (
    match === null ||
    !(unit === "" || unit === "s" || unit === "m" || unit === "h" || unit === "d")
  )
    throw invalid(`${key} is not a duration`);
  return Number(match[1]) * UNIT_MS[unit];
}
