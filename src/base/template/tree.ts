/** What a template is made of, and how errors say a part of it. */

/** `at`: where errors say that it stands. */
interface Place {
  readonly at: number;
}
export type Operand =
  | (Place & { readonly kind: "dot" })
  | (Place & { readonly kind: "nil" })
  | (Place & { readonly kind: "bool"; readonly value: boolean })
  | (Place & { readonly kind: "number"; readonly value: bigint | number; readonly text: string })
  | (Place & { readonly kind: "string"; readonly value: string; readonly text: string })
  | (Place & { readonly kind: "field"; readonly names: readonly string[] })
  | (Place & { readonly kind: "variable"; readonly name: string; readonly names: readonly string[] })
  | (Place & { readonly kind: "chain"; readonly of: Operand; readonly names: readonly string[] })
  | (Place & { readonly kind: "identifier"; readonly name: string })
  | Pipeline;
export interface Command extends Place {
  readonly args: readonly [Operand, ...Operand[]];
}
export interface Pipeline extends Place {
  readonly kind: "pipeline";
  readonly variables: readonly string[];
  readonly assigns: boolean;
  readonly commands: readonly Command[];
}
export type Statement =
  | (Place & { readonly kind: "text"; readonly text: string })
  | (Place & { readonly kind: "action"; readonly pipeline: Pipeline })
  | (Place & Branches & { readonly kind: "if" | "with" | "range" })
  | (Place & { readonly kind: "break" | "continue" })
  | (Place & { readonly kind: "template"; readonly name: string; readonly pipeline: Pipeline | undefined });
export interface Branches {
  readonly pipeline: Pipeline;
  readonly list: readonly Statement[];
  readonly otherwise: readonly Statement[] | undefined;
}
export interface Parsed {
  readonly list: readonly Statement[];
  readonly defined: ReadonlyMap<string, readonly Statement[]>;
}

/** How the tree says an operand or a pipeline in an error. */
export function text(node: Operand | Command): string {
  if (!("kind" in node))
    return node.args.map((arg) => (arg.kind === "pipeline" ? `(${text(arg)})` : text(arg))).join(" ");
  switch (node.kind) {
    case "dot":
      return ".";
    case "nil":
      return "nil";
    case "bool":
      return String(node.value);
    case "number":
    case "string":
      return node.text;
    case "field":
      return node.names.map((name) => `.${name}`).join("");
    case "variable":
      return [node.name, ...node.names].join(".");
    case "chain":
      return `${node.of.kind === "pipeline" ? `(${text(node.of)})` : text(node.of)}${node.names.map((name) => `.${name}`).join("")}`;
    case "identifier":
      return node.name;
    case "pipeline": {
      const declared = node.variables.length > 0 ? `${node.variables.join(", ")} ${node.assigns ? "=" : ":="} ` : "";
      return declared + node.commands.map(text).join(" | ");
    }
  }
}
