/** Walks the nodes of a template as Go's text/template/exec does. */
import { unreachable } from "../errors.ts";
import { printed, zeroOf } from "./builtin-functions.ts";
import { parseCall } from "./calls.ts";
import type { TemplateCall } from "./calls.ts";
import { fault } from "./fault.ts";
import type { Source } from "./fault.ts";
import type { ParameterType, Surroundings } from "./function.ts";
import { FUNCTIONS } from "./functions.ts";
import { MAX_CALLS, MAX_DEPTH, MAX_STEPS, MAX_TEXT, MAX_WORK } from "./limits.ts";
import type { BlockNode, Command, Node, Operand, Pipe } from "./nodes.ts";
import type { Parsed } from "./parser.ts";
import { goInt, isKind, isTrue, typeOf } from "./values.ts";
import type { GoMap, GoValue } from "./values.ts";

export interface Inputs {
  readonly source: Source;
  readonly parsed: Parsed;
  readonly missingKey: "error" | "no-value";
  env(name: string): string | undefined;
  readonly now: number;
  /** `null` for what is not there yet. */
  ask(call: TemplateCall): GoValue;
}

interface Variable {
  readonly name: string;
  value: GoValue;
}

/** No value comes through a pipe; Go's own is a value of a type that nothing else has. */
const NONE = Symbol("none");
type Piped = GoValue | typeof NONE;

type Jump = "break" | "continue" | undefined;

/** The text as bytes. @throws EdgeSyncError TEMPLATE_FAILED */
export function evaluate(inputs: Inputs): string {
  const { source, parsed } = inputs;
  const output: string[] = [];
  const calls = new Set<string>();
  let written = 0;
  let work = 0;
  let steps = 0;
  let depth = 0;
  /** Byte of the template that is evaluated. */
  let place = 0;
  let variables: Variable[] = [{ name: "$", value: undefined }];

  const around: Surroundings = {
    now: inputs.now,
    env: (name) => inputs.env(name),
    ask(kind, words) {
      if (words.length === 0) return null;
      for (const word of words) around.reserve(word.length);
      const asked = parseCall(kind, words);
      if (typeof asked === "string") return fail(asked);
      calls.add(asked.key);
      if (calls.size > MAX_CALLS) fail(`a template may ask for ${MAX_CALLS} secrets`);
      try {
        return inputs.ask(asked);
      } catch (cause) {
        if (cause instanceof RangeError) return fail("the secret is nested too deeply");
        throw cause;
      }
    },
    fail(message) {
      throw fault("TEMPLATE_FAILED", source, place, message);
    },
    reserve(bytes) {
      work += bytes;
      if (bytes > MAX_TEXT || work > MAX_WORK) around.fail("the template makes too much text");
    },
  };
  const fail = (message: string): never => around.fail(message);

  function step(at: number): void {
    place = at;
    if (++steps > MAX_STEPS) fail(`the template takes more than ${MAX_STEPS} steps`);
  }

  function deeper<T>(at: number, make: () => T): T {
    if (++depth > MAX_DEPTH) {
      place = at;
      fail("templates, blocks and parentheses are nested too deeply");
    }
    const made = make();
    depth--;
    return made;
  }

  function write(text: string): void {
    written += text.length;
    if (written > MAX_TEXT) fail(`the text has more than ${MAX_TEXT} bytes`);
    output.push(text);
  }

  function walk(dot: GoValue, nodes: readonly Node[]): Jump {
    for (const node of nodes) {
      step(node.at);
      switch (node.kind) {
        case "text":
          write(node.text);
          break;
        case "action": {
          const value = pipeline(dot, node.pipe);
          place = node.at;
          if (node.pipe.variables.length === 0) write(printed(value, around));
          break;
        }
        case "break":
        case "continue":
          return node.kind;
        case "template":
          invoke(dot, node.name, node.pipe, node.at);
          break;
        case "if":
        case "with":
        case "range": {
          const jump = deeper(node.at, () => block(dot, node));
          if (jump !== undefined) return jump;
          break;
        }
      }
    }
    return undefined;
  }

  function block(dot: GoValue, node: BlockNode): Jump {
    const mark = variables.length;
    let jump: Jump;
    const value = pipeline(dot, node.pipe);
    if (node.kind === "range") jump = range(dot, value, node);
    else if (isTrue(value)) jump = walk(node.kind === "with" ? value : dot, node.body);
    else if (node.otherwise !== undefined) jump = walk(dot, node.otherwise);
    variables.length = mark;
    return jump;
  }

  function range(dot: GoValue, value: GoValue, node: BlockNode): Jump {
    const { pipe, body, otherwise } = node;
    const mark = variables.length;
    const [first, second] = pipe.variables;
    place = node.at;
    let turns = 0;
    for (const [key, element] of turnsOf(value, second !== undefined)) {
      turns++;
      step(node.at);
      if (pipe.assigns) {
        if (first !== undefined) assign(first, second === undefined ? element : key);
        if (second !== undefined) assign(second, element);
      } else {
        const [declared, last] = [variables[mark - 2], variables[mark - 1]];
        if (first !== undefined && last !== undefined) last.value = element;
        if (second !== undefined && declared !== undefined) declared.value = key;
      }
      const jump = walk(element, body);
      variables.length = mark;
      if (jump === "break") break;
    }
    return turns === 0 && otherwise !== undefined ? walk(dot, otherwise) : undefined;
  }

  function* turnsOf(
    value: GoValue,
    hasTwo: boolean,
  ): Generator<readonly [key: GoValue, element: GoValue], void> {
    if (value === undefined || value === null) return;
    if (isKind(value, "list"))
      for (const [index, item] of value.items.entries()) yield [goInt(index), item];
    else if (isKind(value, "map")) yield* value.entries;
    else if (isKind(value, "channel"))
      for (let index = 0; value.next < value.end; index++) {
        const number = value.next++;
        yield [goInt(index), goInt(number, "int64")];
      }
    else if (isKind(value, "int")) {
      if (hasTwo) fail("range over a number has one variable");
      for (let number = 0n; number < value.value; number++)
        yield [undefined, goInt(number, value.type)];
    } else fail(`range goes over lists, maps and numbers; got ${typeOf(value)}`);
  }

  function invoke(dot: GoValue, name: string, pipe: Pipe | undefined, at: number): void {
    const value = pipe === undefined ? undefined : pipeline(dot, pipe);
    const outer = variables;
    variables = [{ name: "$", value }];
    const nodes = name === "" ? parsed.body : (parsed.defined.get(name) ?? []);
    deeper(at, () => walk(value, nodes));
    variables = outer;
  }

  function assign(name: string, value: GoValue): void {
    const variable = variables.findLast((one) => one.name === name);
    if (variable === undefined) fail(`${name.slice(0, 64)} is not declared; expected := before =`);
    else variable.value = value;
  }

  function pipeline(dot: GoValue, pipe: Pipe): GoValue {
    let piped: Piped = NONE;
    for (const one of pipe.commands) {
      const value: GoValue = command(dot, one, piped);
      piped = value === null ? undefined : value;
    }
    const value = piped === NONE ? undefined : piped;
    for (const name of pipe.variables)
      if (pipe.assigns) assign(name, value);
      else variables.push({ name, value });
    return value;
  }

  function command(dot: GoValue, { first, rest, at }: Command, piped: Piped): GoValue {
    step(at);
    if (first.kind === "function") return call(dot, first.name, first.at, rest, piped);
    const hasArguments = rest.length > 0 || piped !== NONE;
    const isFields = first.kind === "field" || first.kind === "chain";
    if (hasArguments && !isFields && !(first.kind === "variable" && first.path.length > 0))
      return fail("only functions take arguments");
    if (first.kind === "nil") return fail("nil is not a value that can be used here");
    return operand(dot, first, hasArguments);
  }

  /** An operand whose type does not matter. */
  function operand(dot: GoValue, one: Operand, hasArguments = false): GoValue {
    place = one.at;
    switch (one.kind) {
      case "dot":
        return dot;
      case "nil":
        return undefined;
      case "bool":
      case "string":
      case "number":
        return one.value;
      case "field":
        return fields(dot, one.path, one.at, hasArguments);
      case "variable": {
        const variable = variables.findLast(({ name }) => name === one.name);
        if (variable === undefined) return fail(`${one.name.slice(0, 64)} has no value yet`);
        return fields(variable.value, one.path, one.at, hasArguments);
      }
      case "pipe":
        return deeper(one.at, () => pipeline(dot, one));
      case "function":
        return call(dot, one.name, one.at, [], NONE);
      case "chain": {
        const value = operand(dot, one.of);
        return fields(value, one.path, one.at, hasArguments);
      }
      default:
        return unreachable(one);
    }
  }

  function fields(
    receiver: GoValue,
    path: readonly string[],
    at: number,
    hasArguments: boolean,
  ): GoValue {
    let value = receiver;
    for (const [index, name] of path.entries()) {
      step(at);
      value = field(value, name, hasArguments && index === path.length - 1);
    }
    return value;
  }

  function field(receiver: GoValue, name: string, hasArguments: boolean): GoValue {
    const shown = `.${name.slice(0, 64)}`;
    if (receiver === undefined)
      return inputs.missingKey === "error"
        ? fail(`there is no ${shown}, as there is nothing here`)
        : undefined;
    if (receiver === null || isKind(receiver, "nil"))
      return fail(`there is no ${shown}, as what should have it is null`);
    if (hasArguments) return fail(`${shown} takes no arguments`);
    if (isKind(receiver, "map")) return entry(receiver, name, shown);
    if (isKind(receiver, "struct")) {
      if (name === "Data" && receiver.type === "dependency.PemEncoded") return receiver;
      const found = receiver.fields.find(([key]) => key === name);
      if (found !== undefined) return found[1];
    }
    if (isKind(receiver, "number")) {
      if (name === "String") return receiver.text;
      if (name === "Int64" || name === "Float64") return numberOf(receiver.text, name);
    }
    return fail(`a value of type ${typeOf(receiver)} has no ${shown}`);
  }

  function entry(map: GoMap, name: string, shown: string): GoValue {
    if (map.entries.has(name)) return map.entries.get(name);
    return inputs.missingKey === "error" ? fail(`there is no ${shown}`) : zeroOf(map.type);
  }

  function numberOf(text: string, form: "Int64" | "Float64"): GoValue {
    const parse = FUNCTIONS[form === "Int64" ? "parseInt" : "parseFloat"];
    return parse?.call([text], around);
  }

  function call(
    dot: GoValue,
    name: string,
    at: number,
    operands: readonly Operand[],
    piped: Piped,
  ): GoValue {
    const called = FUNCTIONS[name];
    if (called === undefined) return fail(`there is no function ${name}`);
    step(at);
    const { parameters, more } = called;
    const count = operands.length + (piped === NONE ? 0 : 1);
    if (count < parameters.length || (more === undefined && count > parameters.length))
      return fail(
        `${name} takes ${parameters.length}${more === undefined ? "" : " or more"} arguments; got ${count}`,
      );
    const typeAt = (index: number): ParameterType => parameters[index] ?? more ?? "any";
    if (name === "and" || name === "or") {
      let last: GoValue;
      for (const one of operands) {
        last = argument(dot, one, "value");
        if (isTrue(last) === (name === "or")) return last;
      }
      return piped === NONE ? last : piped;
    }
    const args = operands.map((one, index) => argument(dot, one, typeAt(index)));
    place = at;
    if (piped !== NONE) args.push(checked(piped, typeAt(operands.length)));
    const value = called.call(args, around);
    if (typeof value === "string") around.reserve(value.length);
    return value;
  }

  function argument(dot: GoValue, one: Operand, type: ParameterType): GoValue {
    place = one.at;
    if (one.kind === "nil")
      return type === "string" || type === "int" ? fail(`expected ${type}; got nil`) : empty(type);
    if (one.kind === "number" && type === "int") return one.int ?? fail("expected a whole number");
    const value = operand(dot, one);
    place = one.at;
    return checked(value, type);
  }

  function empty(type: ParameterType): GoValue {
    switch (type) {
      case "any":
        return null;
      case "[]string":
      case "[]interface {}":
        return { kind: "list", type, items: [], isNil: true };
      case "map[string]interface {}":
        return { kind: "map", type, entries: new Map(), isNil: true };
      case "value":
      case "int":
      case "string":
        return undefined;
      default:
        return unreachable(type);
    }
  }

  function checked(value: GoValue, type: ParameterType): GoValue {
    if (type === "value") return value;
    if (value === undefined && type !== "string" && type !== "int") return empty(type);
    if (type === "any" || typeOf(value) === type) return value;
    return fail(`expected ${type}; got ${typeOf(value)}`);
  }

  walk(undefined, parsed.body);
  return output.join("");
}
