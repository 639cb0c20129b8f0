/** `skein man`: the manual page, out of the same tree as --help. */
import { Command } from "commander";
import { type CommandDescription, describe } from "./describe.ts";

const roff = (text: string) =>
  text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/gm, "\\&$1");

/** The page in roff, section 1. */
function manPage(commands: readonly CommandDescription[]): string {
  const lines = [
    '.TH SKEIN 1 "" "Skein" "User Commands"',
    ".SH NAME",
    `skein \\- ${roff(commands[0]?.summary ?? "")}`,
    ".SH SYNOPSIS",
    ".B skein",
    "COMMAND [OPTIONS]",
    ".SH COMMANDS",
  ];
  for (const command of commands.slice(1)) {
    if (command.children.length > 0 && !command.runs) continue;
    lines.push(".TP", `.B skein ${roff([...command.path, ...command.args].join(" "))}`, roff(command.summary));
    for (const option of command.options) {
      lines.push(".RS", ".TP", `.B ${roff(option.flags)}`, roff(option.description), ".RE");
    }
  }
  lines.push(
    ".SH FILES",
    ".TP",
    ".I /run/skein/LAB/HOST/docker.sock",
    "the engine of a lab host, for docker \\-H",
    ".TP",
    ".I /run/skein/LAB/HOST/skeind.log",
    "its log",
    ".SH ENVIRONMENT",
    ".TP",
    ".B DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH",
    "the engine that show and trace ask, as with docker(1)",
    ".TP",
    ".B SKEIN_LAB_MIRROR",
    "the default of \\-\\-registry\\-mirror",
    ".SH SEE ALSO",
    ".BR docker (1)",
  );
  return `${lines.join("\n")}\n`;
}

export function manCommand(): Command {
  return new Command("man").description("print the manual page: skein man | man -l -").action((_options, command) => {
    process.stdout.write(manPage(describe(command.parent ?? command)));
  });
}
