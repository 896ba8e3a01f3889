/** Arithmetic on whole numbers of 64 bits and floats. As in Consul Template the first argument is the second operand: `{{ 5 | subtract 2 }}` is 3. */
import type { GoFunction, Surroundings } from "./function.ts";
import { goInt, isKind, typeOf } from "./values.ts";
import type { GoInt, GoValue } from "./values.ts";

interface Operation {
  readonly whole: (a: bigint, b: bigint) => bigint;
  readonly float: ((a: number, b: number) => number) | undefined;
  readonly divides?: true;
}

function isUnsigned({ type }: GoInt): boolean {
  return type === "uint8" || type === "uint64";
}

function wrapped(value: bigint, unsigned: boolean): GoInt {
  return unsigned
    ? goInt(BigInt.asUintN(64, value), "uint64")
    : goInt(BigInt.asIntN(64, value), "int64");
}

/** @throws EdgeSyncError when one of them is no number; a number of a secret is a text, and none */
function operands(
  a: GoValue,
  b: GoValue,
  around: Surroundings,
): readonly [GoInt | number, GoInt | number] {
  const isNumber = (value: GoValue): value is GoInt | number =>
    typeof value === "number" || isKind(value, "int");
  if (isNumber(a) && isNumber(b)) return [a, b];
  return around.fail(
    `expected numbers; got ${typeOf(b)} and ${typeOf(a)} (parseInt and parseFloat make them of texts)`,
  );
}

/** @param call gets the operands in the order in which they are written on paper */
function ofTwo(
  help: string,
  call: (a: GoInt | number, b: GoInt | number, around: Surroundings) => GoValue,
): GoFunction {
  return {
    form: "b a",
    help,
    from: "Consul Template",
    parameters: ["any", "any"],
    call: ([second, first], around) => call(...operands(first, second, around), around),
  };
}

function arithmetic(help: string, { whole, float, divides }: Operation): GoFunction {
  return ofTwo(help, (a, b, around) => {
    if (typeof a === "number" || typeof b === "number")
      return float === undefined
        ? around.fail("expected whole numbers; got a float")
        : float(toFloat(a), toFloat(b));
    if (divides === true && b.value === 0n) return around.fail("division by zero");
    return wrapped(whole(...likened(a, b)), isUnsigned(a) && isUnsigned(b));
  });
}

/** Where only one of two has a sign, the other is read as if it had one too. */
function likened(a: GoInt, b: GoInt): readonly [bigint, bigint] {
  return isUnsigned(a) && isUnsigned(b)
    ? [a.value, b.value]
    : [BigInt.asIntN(64, a.value), BigInt.asIntN(64, b.value)];
}

function toFloat(value: GoInt | number): number {
  return typeof value === "number" ? value : Number(value.value);
}

function chosen(
  help: string,
  takesFirst: (isLess: boolean, isGreater: boolean) => boolean,
): GoFunction {
  return ofTwo(help, (a, b) => {
    const [x, y] =
      typeof a === "number" || typeof b === "number" ? [toFloat(a), toFloat(b)] : likened(a, b);
    const [isLess, isGreater] = [x < y, x > y];
    const winner = takesFirst(isLess, isGreater) ? a : b;
    return typeof winner === "number" ? winner : wrapped(winner.value, isUnsigned(winner));
  });
}

export const MATH_FUNCTIONS: Readonly<Record<string, GoFunction>> = {
  add: arithmetic("a + b.", { whole: (a, b) => a + b, float: (a, b) => a + b }),
  subtract: arithmetic("a - b.", { whole: (a, b) => a - b, float: (a, b) => a - b }),
  multiply: arithmetic("a * b.", { whole: (a, b) => a * b, float: (a, b) => a * b }),
  divide: arithmetic("a / b; of whole numbers without a rest.", {
    whole: (a, b) => a / b,
    float: (a, b) => a / b,
    divides: true,
  }),
  modulo: arithmetic("a % b, of whole numbers.", {
    whole: (a, b) => a % b,
    float: undefined,
    divides: true,
  }),
  minimum: chosen("The smaller one of two numbers.", (isLess) => isLess),
  maximum: chosen("The larger one of two numbers.", (_isLess, isGreater) => isGreater),
};
