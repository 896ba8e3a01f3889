/** time.Format of Go for UTC: a layout shows how its reference time, Mon Jan 2 15:04:05 2006, would be written. */

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

type Part = (date: Date) => string;

const two = (number: number): string => String(number).padStart(2, "0");
const hour12 = (date: Date): number => date.getUTCHours() % 12 || 12;
const month = (date: Date): string => MONTHS[date.getUTCMonth()] ?? "";
const day = (date: Date): string => DAYS[date.getUTCDay()] ?? "";
const yearDay = (date: Date): string =>
  String(Math.floor((date.getTime() - Date.UTC(date.getUTCFullYear(), 0, 1)) / 86_400_000) + 1);

/** Longest first where one begins with another. */
const PARTS: readonly (readonly [string, Part])[] = [
  ["January", month],
  ["Monday", day],
  ["MST", () => "UTC"],
  ["2006", (date) => String(date.getUTCFullYear()).padStart(4, "0")],
  ["002", (date) => yearDay(date).padStart(3, "0")],
  ["01", (date) => two(date.getUTCMonth() + 1)],
  ["02", (date) => two(date.getUTCDate())],
  ["03", (date) => two(hour12(date))],
  ["04", (date) => two(date.getUTCMinutes())],
  ["05", (date) => two(date.getUTCSeconds())],
  ["06", (date) => two(date.getUTCFullYear() % 100)],
  ["15", (date) => two(date.getUTCHours())],
  ["1", (date) => String(date.getUTCMonth() + 1)],
  ["2", (date) => String(date.getUTCDate())],
  ["_2006", (date) => `_${String(date.getUTCFullYear()).padStart(4, "0")}`],
  ["__2", (date) => yearDay(date).padStart(3, " ")],
  ["_2", (date) => String(date.getUTCDate()).padStart(2, " ")],
  ["3", (date) => String(hour12(date))],
  ["4", (date) => String(date.getUTCMinutes())],
  ["5", (date) => String(date.getUTCSeconds())],
  ["PM", (date) => (date.getUTCHours() >= 12 ? "PM" : "AM")],
  ["pm", (date) => (date.getUTCHours() >= 12 ? "pm" : "am")],
  ["-07:00:00", () => "+00:00:00"],
  ["-070000", () => "+000000"],
  ["-07:00", () => "+00:00"],
  ["-0700", () => "+0000"],
  ["-07", () => "+00"],
  ["Z07:00:00", () => "Z"],
  ["Z070000", () => "Z"],
  ["Z07:00", () => "Z"],
  ["Z0700", () => "Z"],
  ["Z07", () => "Z"],
];

const SHORT_NAMES: readonly (readonly [string, Part])[] = [
  ["Jan", (date) => month(date).slice(0, 3)],
  ["Mon", (date) => day(date).slice(0, 3)],
];

/** @param now milliseconds since the epoch */
export function formatTime(now: number, layout: string): string {
  const date = new Date(now);
  let text = "";
  for (let at = 0; at < layout.length;) {
    const part =
      PARTS.find(([name]) => layout.startsWith(name, at)) ??
      SHORT_NAMES.find(
        ([name]) => layout.startsWith(name, at) && !/[a-z]/.test(layout.charAt(at + 3)),
      );
    const fraction = part === undefined ? fractionAt(layout, at) : undefined;
    if (part !== undefined) {
      text += part[1](date);
      at += part[0].length;
    } else if (fraction === undefined) {
      text += layout.charAt(at);
      at++;
    } else {
      text += fractionOf(date, fraction);
      at += fraction.length;
    }
  }
  return text;
}

/** A point or comma with zeros or nines behind it, and no other digit. */
function fractionAt(layout: string, at: number): string | undefined {
  const pattern = /[.,](?:0+|9+)(?![0-9])/y;
  pattern.lastIndex = at;
  return pattern.exec(layout)?.[0];
}

function fractionOf(date: Date, fraction: string): string {
  const digits = String(date.getUTCMilliseconds())
    .padStart(3, "0")
    .padEnd(fraction.length - 1, "0")
    .slice(0, fraction.length - 1);
  if (fraction[1] === "0") return fraction.charAt(0) + digits;
  const kept = digits.replace(/0+$/, "");
  return kept === "" ? "" : fraction.charAt(0) + kept;
}
