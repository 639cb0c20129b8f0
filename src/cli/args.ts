import { type Command, InvalidArgumentError } from "commander";

/** A positive whole number out of an argument. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("expected a positive whole number");
  return value;
}

/** Flags, meaning and default of the lab's mirror of Docker Hub. */
export const mirrorOption = [
  "--registry-mirror <url>",
  "a registry that every engine asks before Docker Hub (SKEIN_LAB_MIRROR)",
  process.env.SKEIN_LAB_MIRROR ?? "",
] as const;

/** Errors in words that were typed begin as all others do, and say where the right ones are. */
export function remindOfHelp(command: Command, path: string): void {
  command.configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "skein: ")) });
  command.showHelpAfterError(`skein: see ${path} --help`);
  for (const child of command.commands) remindOfHelp(child, `${path} ${child.name()}`);
}
