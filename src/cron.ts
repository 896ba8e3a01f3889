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

/** `undefined` for what is no cron, or would never come, such as the 30th of February. */
export function parseCron(fields: readonly string[]): Cron | undefined {
  const [minute = "", hour = "", day = "", month = "", weekday = ""] = fields;
  const minutes = parseField(minute, 0, 59);
  const hours = parseField(hour, 0, 23);
  const days = parseField(day, 1, 31);
  const months = parseField(month, 1, 12, MONTHS);
  const given = parseField(weekday, 0, 7, WEEKDAYS);
  if (!minutes || !hours || !days || !months || !given || fields.length !== 5) return undefined;
  const weekdays = new Set([...given].map((number) => number % 7));
  const [anyHour, anyDay, anyWeekday] = [hour, day, weekday].map((text) => text.startsWith("*"));
  const cron = { minutes, hours, days, months, weekdays };
  const any = { anyHour: anyHour === true, anyDay: anyDay === true };
  const parsed = { ...cron, ...any, anyWeekday: anyWeekday === true };
  return comesAtAll(parsed) ? parsed : undefined;
}

/** A comma-separated list of `*`, `a`, `a-b`, each with `/step` if wanted. */
function parseField(
  text: string,
  least: number,
  most: number,
  names: readonly string[] = [],
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
