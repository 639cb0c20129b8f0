/** The command tree as data, from which completion and the manual page are written. */
import type { Command } from "commander";

export interface CommandDescription {
  /** Words that call it: ["lab", "up"]. */
  readonly path: readonly string[];
  readonly summary: string;
  /** "<host>", "[name]". */
  readonly args: readonly string[];
  readonly options: readonly { flags: string; long: string; description: string; value: boolean }[];
  readonly children: readonly string[];
  /** It does something by itself, with or without those below it. */
  readonly runs: boolean;
}

/** A command and all below it, itself first. */
export function describe(command: Command, path: readonly string[] = []): CommandDescription[] {
  const children = command.commands.filter((child) => child.name() !== "help");
  const self: CommandDescription = {
    path,
    summary: command.description(),
    args: command.registeredArguments.map((arg) => {
      const name = arg.variadic ? `${arg.name()}...` : arg.name();
      return arg.required ? `<${name}>` : `[${name}]`;
    }),
    options: command.options.map((option) => ({
      flags: option.flags,
      long: option.long ?? option.flags,
      description: option.description,
      value: option.required || option.optional,
    })),
    children: children.map((child) => child.name()),
    runs: children.length === 0 || command.options.length > 0,
  };
  return [self, ...children.flatMap((child) => describe(child, [...path, child.name()]))];
}
