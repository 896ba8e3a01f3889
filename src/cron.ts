/** The five fields of cron: minute, hour, day of the month, month, day of the week. */

export interface Cron {
  readonly minutes: ReadonlySet<number>;
  readonly hours: ReadonlySet<number>;
  /** Of the month. */
  readonly days: ReadonlySet<number>;
  /** From 1. */
  readonly months: ReadonlySet<number>;
  /** From 0, Sunday. */
  readonly weekdays: ReadonlySet<number>;
  /** The field begins with `*`. A day must be in both fields of days, or in either where both are stated: cron's own rule. */
  readonly anyHour: boolean;
  readonly anyDay: boolean;
  readonly anyWeekday: boolean;
}

const MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split(" ");
const WEEKDAYS = "sun mon tue wed thu fri sat".split(" ");

interface Field {
  readonly name: string;
  readonly least: number;
  readonly most: number;
  readonly names?: readonly string[];
}

const FIELDS: readonly Field[] = [
  { name: "minute", least: 0, most: 59 },
  { name: "hour", least: 0, most: 23 },
  { name: "day of the month", least: 1, most: 31 },
  { name: "month", least: 1, most: 12, names: MONTHS },
  { name: "day of the week", least: 0, most: 7, names: WEEKDAYS },
];

/** `undefined` for what is no cron, or would never come, such as the 30th of February. */
export function parseCron(fields: readonly string[]): Cron | undefined {
  const sets = FIELDS.map((field, index) => parseField(fields[index] ?? "", field));
  const [minutes, hours, days, months, given] = sets;
  if (!minutes || !hours || !days || !months || !given || fields.length !== 5) return undefined;
  const weekdays = new Set([...given].map((number) => number % 7));
  const [, hour, day, , weekday] = fields.map((text) => text.startsWith("*"));
  const cron = { minutes, hours, days, months, weekdays };
  const stars = { anyHour: hour === true, anyDay: day === true, anyWeekday: weekday === true };
  const parsed = { ...cron, ...stars };
  return comesAtAll(parsed) ? parsed : undefined;
}

/** What of five fields is wrong; `undefined` when nothing is. */
export function cronProblem(fields: readonly string[]): string | undefined {
  for (const [index, field] of FIELDS.entries()) {
    const text = fields[index] ?? "";
    if (parseField(text, field) === undefined) return fieldProblem(text, field);
  }
  const [, , day = "", month = ""] = fields;
  return parseCron(fields) === undefined ? `day ${day} of month ${month} never comes` : undefined;
}

function fieldProblem(text: string, { name, least, most, names = [] }: Field): string {
  const said = `the ${name} ${JSON.stringify(text.slice(0, 40))}`;
  const wrong = text
    .split(",")
    .find((part) => parseField(part, { name, least, most, names }) === undefined);
  const [, from, to, step] = /^(\w+)(?:-(\w+))?(\/\d+)?$/.exec(wrong ?? "") ?? [];
  if (from !== undefined && to === undefined && step !== undefined)
    return `${said} has a step without a range, such as ${from}-${most}${step}`;
  const turned = from !== undefined && to !== undefined && step === undefined;
  if (turned && parseField(`${to}-${from}`, { name, least, most, names }) !== undefined)
    return `${said} goes from a later one to an earlier one; that is ${from}-${most},${least}-${to}`;
  const words = names.length === 0 ? "" : `, ${names[0] ?? ""} to ${names.at(-1) ?? ""}`;
  return `${said} must be of numbers from ${least} to ${most}${words}, as in *, */2, ${least}-${least + 4} or ${least},${least + 2}`;
}

/** A comma-separated list of `*`, `a`, `a-b`, each with `/step` if wanted. */
function parseField(
  text: string,
  { least, most, names = [] }: Field,
): ReadonlySet<number> | undefined {
  const numbers = new Set<number>();
  const numberOf = (word: string): number => {
    if (/^\d{1,2}$/.test(word)) return Number(word);
    const index = names.indexOf(word.toLowerCase());
    return index === -1 ? Number.NaN : index + least;
  };
  for (const part of text.split(",")) {
    const match = /^(?:(\*)|(\w{1,3})(?:-(\w{1,3}))?)(?:\/(\d{1,2}))?$/.exec(part);
    if (match === null) return undefined;
    const [, star, from = "", to, step] = match;
    const low = star === undefined ? numberOf(from) : least;
    // As in cron: `5/10` means nothing, and `*/10` steps through all.
    if (star === undefined && to === undefined && step !== undefined) return undefined;
    const high = star !== undefined ? most : to === undefined ? low : numberOf(to);
    const stride = step === undefined ? 1 : Number(step);
    if (!(low >= least && high <= most && low <= high && stride >= 1)) return undefined;
    for (let number = low; number <= high; number += stride) numbers.add(number);
  }
  return numbers;
}

const LONGEST = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

function comesAtAll({ days, months, anyDay, anyWeekday }: Cron): boolean {
  if (anyDay || !anyWeekday) return true;
  return [...months].some((month) => [...days].some((day) => day <= (LONGEST[month - 1] ?? 0)));
}

/** Whether a day is one of cron's. @param day days since the epoch, in the calendar that the fields are meant in */
export function isCronDay(
  { days, months, weekdays, anyDay, anyWeekday }: Cron,
  day: number,
): boolean {
  const date = new Date(day * 86_400_000);
  if (!months.has(date.getUTCMonth() + 1)) return false;
  const byDay = days.has(date.getUTCDate());
  const byWeekday = weekdays.has(date.getUTCDay());
  return anyDay || anyWeekday ? byDay && byWeekday : byDay || byWeekday;
}
