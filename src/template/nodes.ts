/** What the parser makes of a template. `at` is a byte of its text. */
import type { GoInt } from "./values.ts";

export interface TextNode {
  readonly kind: "text";
  readonly at: number;
  readonly text: string;
}

export interface ActionNode {
  readonly kind: "action";
  readonly at: number;
  readonly pipe: Pipe;
}

export interface BlockNode {
  readonly kind: "if" | "with" | "range";
  readonly at: number;
  readonly pipe: Pipe;
  readonly body: readonly Node[];
  readonly otherwise: readonly Node[] | undefined;
}

export interface TemplateNode {
  readonly kind: "template";
  readonly at: number;
  readonly name: string;
  readonly pipe: Pipe | undefined;
}

export interface JumpNode {
  readonly kind: "break" | "continue";
  readonly at: number;
}

export type Node = TextNode | ActionNode | BlockNode | TemplateNode | JumpNode;

export interface Pipe {
  readonly kind: "pipe";
  readonly at: number;
  /** Names with their `$`. */
  readonly variables: readonly string[];
  /** `=` and not `:=`. */
  readonly assigns: boolean;
  readonly commands: readonly Command[];
}

export interface Command {
  readonly at: number;
  readonly first: Operand;
  readonly rest: readonly Operand[];
}

export interface NumberOperand {
  readonly kind: "number";
  readonly at: number;
  /** What it is where any type will do: `1.0` is a float there. */
  readonly value: GoInt | number;
  /** What it is where a function takes an int: `1.0` will do. */
  readonly int: GoInt | undefined;
}

export type Operand =
  | NumberOperand
  | Pipe
  | { readonly kind: "dot" | "nil"; readonly at: number }
  | { readonly kind: "bool"; readonly at: number; readonly value: boolean }
  | { readonly kind: "string"; readonly at: number; readonly value: string }
  | { readonly kind: "field"; readonly at: number; readonly path: readonly string[] }
  | {
      readonly kind: "variable";
      readonly at: number;
      readonly name: string;
      readonly path: readonly string[];
    }
  | { readonly kind: "function"; readonly at: number; readonly name: string }
  | {
      readonly kind: "chain";
      readonly at: number;
      readonly of: Operand;
      readonly path: readonly string[];
    };
