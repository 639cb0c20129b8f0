/** The command tree as data, from which completion and the manual page are written. */
import type { Command, Option } from "commander";

interface OptionDescription {
  readonly flags: string;
  readonly long: string;
  readonly description: string;
  /** All that its value may be, where that is a few words. */
  readonly choices: readonly string[];
}

export interface CommandDescription {
  /** Words that call it: ["lab", "up"]. */
  readonly path: readonly string[];
  readonly summary: string;
  /** "<host>", "[name]". */
  readonly args: readonly string[];
  /** All that its first argument may be, where that is a few words. */
  readonly choices: readonly string[];
  readonly options: readonly OptionDescription[];
  readonly children: readonly string[];
  /** It does something by itself, with or without those below it. */
  readonly runs: boolean;
}

/** As --help has it. */
function described({ description, defaultValue, argChoices }: Option): string {
  const more = [
    argChoices && `choices: ${argChoices.join(", ")}`,
    defaultValue && !Array.isArray(defaultValue) && `default: ${defaultValue}`,
  ].filter(Boolean);
  return more.length > 0 ? `${description} (${more.join("; ")})` : description;
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
    choices: command.registeredArguments[0]?.argChoices ?? [],
    options: command.options.map((option) => ({
      flags: option.flags,
      long: option.long ?? option.flags,
      description: described(option),
      choices: option.argChoices ?? [],
    })),
    children: children.map((child) => child.name()),
    runs: children.length === 0 || command.options.length > 0,
  };
  return [self, ...children.flatMap((child) => describe(child, [...path, child.name()]))];
}
