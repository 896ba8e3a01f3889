/** Floats as Go's strconv writes them: the shortest digits that are read as the same number, or exactly as many as are asked for. */

import { unreachable } from "../errors.ts";

export interface FloatForm {
  readonly verb: "e" | "E" | "f" | "g" | "G";
  /** Digits behind the point (`e`, `f`) or in all (`g`); -1 for the shortest. */
  readonly precision: number;
}

interface Digits {
  /** Without zeros at its ends; empty for zero. */
  readonly digits: string;
  /** The number is 0.digits times ten to the power of this. */
  readonly point: number;
}

export function formatFloat(value: number, { verb, precision }: FloatForm): string {
  if (Number.isNaN(value)) return "NaN";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (!Number.isFinite(value)) return sign === "" ? "+Inf" : "-Inf";
  const size = Math.abs(value);
  const shortest = precision < 0;
  const letter = verb === "E" || verb === "G" ? "E" : "e";
  switch (verb) {
    case "e":
    case "E": {
      const read = shortest ? shortestOf(size) : rounded(exactOf(size), precision + 1);
      return sign + exponential(read, shortest ? read.digits.length - 1 : precision, letter);
    }
    case "f": {
      const exact = shortest ? shortestOf(size) : exactOf(size);
      const read = shortest ? exact : rounded(exact, exact.point + precision);
      return (
        sign + fixed(read, shortest ? Math.max(read.digits.length - read.point, 0) : precision)
      );
    }
    case "g":
    case "G": {
      const most = precision === 0 ? 1 : precision;
      const read = shortest ? shortestOf(size) : rounded(exactOf(size), most);
      const { length } = read.digits;
      let large = shortest ? 6 : most;
      if (!shortest && large > length && length >= read.point) large = length;
      const exponent = read.point - 1;
      if (length > 0 && (exponent < -4 || exponent >= large))
        return sign + exponential(read, length - 1, letter);
      return sign + fixed(read, Math.max(length - read.point, 0));
    }
    default:
      return unreachable(verb);
  }
}

function shortestOf(size: number): Digits {
  if (size === 0) return { digits: "", point: 0 };
  const [mantissa = "", exponent = "0"] = size.toExponential().split("e");
  return trimmed(mantissa.replace(".", ""), Number(exponent) + 1);
}

/** All the digits that a float has. */
function exactOf(size: number): Digits {
  if (size === 0) return { digits: "", point: 0 };
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, size);
  const bits = view.getBigUint64(0);
  const exponent = Number(bits >> 52n);
  const mantissa = (bits & ((1n << 52n) - 1n)) | (exponent === 0 ? 0n : 1n << 52n);
  const power = Math.max(exponent, 1) - 1075;
  if (power >= 0) {
    const digits = (mantissa << BigInt(power)).toString();
    return trimmed(digits, digits.length);
  }
  const digits = (mantissa * 5n ** BigInt(-power)).toString();
  return trimmed(digits, digits.length + power);
}

function trimmed(digits: string, point: number): Digits {
  const kept = digits.replace(/0+$/, "");
  return { digits: kept, point: kept === "" ? 0 : point };
}

/** To so many digits; a tie goes to the even one. */
function rounded({ digits, point }: Digits, count: number): Digits {
  if (count >= digits.length) return { digits, point };
  if (count < 0) return { digits: "", point: 0 };
  const kept = digits.slice(0, count);
  const rest = digits.slice(count);
  const odd = count > 0 && Number(digits[count - 1]) % 2 === 1;
  const up = rest === "5" ? odd : rest >= "5";
  if (!up) return trimmed(kept, point);
  const raised = (BigInt(kept === "" ? "0" : kept) + 1n).toString();
  const padded = raised.padStart(count, "0");
  return trimmed(padded, point + padded.length - count);
}

function exponential({ digits, point }: Digits, precision: number, letter: string): string {
  const first = digits.slice(0, 1) || "0";
  const rest = precision > 0 ? `.${digits.slice(1, 1 + precision).padEnd(precision, "0")}` : "";
  const exponent = digits === "" ? 0 : point - 1;
  const size = String(Math.abs(exponent)).padStart(2, "0");
  return `${first}${rest}${letter}${exponent < 0 ? "-" : "+"}${size}`;
}

function fixed({ digits, point }: Digits, precision: number): string {
  const whole = point > 0 ? digits.slice(0, point).padEnd(point, "0") : "0";
  if (precision <= 0) return whole;
  const zeros = "0".repeat(Math.min(Math.max(-point, 0), precision));
  const part = zeros + digits.slice(Math.max(point, 0));
  return `${whole}.${part.slice(0, precision).padEnd(precision, "0")}`;
}
