/** `skein completion`: the script that teaches a shell to complete skein's commands, options and lab hosts. */
import { Argument, Command } from "commander";
import { type CommandDescription, describe } from "./describe.ts";

/** The words that may follow a command. */
function wordsAfter(command: CommandDescription): string {
  return [...command.children, ...command.choices, ...command.options.map((option) => option.long), "--help"].join(" ");
}

const key = (command: CommandDescription) => ["skein", ...command.path].join(" ");

/** Commands whose argument is in the first column of what another one shows. */
const listedBy: Readonly<Record<string, string>> = {
  "skein show network": "show networks",
  "skein show service": "show services",
  "skein show port": "show ports",
};

/** What an argument may be, out of the lab or the engine. */
function argumentsOf(command: CommandDescription): string {
  if (command.args.includes("<host>")) return " $(_skein_first lab ls)";
  const list = listedBy[key(command)];
  if (list) return ` $(_skein_first ${list})`;
  return key(command) === "skein trace" ? " $(docker ps --format '{{.Names}}' 2>/dev/null)" : "";
}

/** A bash script; zsh runs it too, through bashcompinit: no variable of it may be one that zsh gives a meaning, like `path`. */
function bashCompletion(commands: readonly CommandDescription[]): string {
  const cases = commands.map((command) => {
    return `    "${key(command)}") words="${wordsAfter(command)}${argumentsOf(command)}" ;;`;
  });
  const choices = commands.flatMap((command) =>
    command.options
      .filter((option) => option.choices.length > 0)
      .map((option) => `    "${key(command)} ${option.long}") words="${option.choices.join(" ")}" ;;`),
  );
  return `# skein completion: eval "$(skein completion bash)"
_skein_first() { "\${COMP_WORDS[0]}" "$@" 2>/dev/null | sed -n '2,$s/ .*//p'; }
_skein() {
  local current=\${COMP_WORDS[COMP_CWORD]} typed=skein words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$typed \${COMP_WORDS[i]}" in
      ${commands
        .slice(1)
        .map((command) => `"${key(command)}"`)
        .join(" | ")}) typed="$typed \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$typed" in
${cases.join("\n")}
  esac
  case "$typed \${COMP_WORDS[COMP_CWORD - 1]}" in
${choices.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _skein skein
`;
}

function zshCompletion(commands: readonly CommandDescription[]): string {
  return `autoload -U +X bashcompinit && bashcompinit\n${bashCompletion(commands)}`;
}

export function completionCommand(): Command {
  return new Command("completion")
    .description('print completion for bash or zsh: eval "$(skein completion bash)"')
    .addArgument(new Argument("<shell>", "the shell").choices(["bash", "zsh"]))
    .action((shell: string, _options: object, command: Command) => {
      const commands = describe(command.parent ?? command);
      process.stdout.write(shell === "zsh" ? zshCompletion(commands) : bashCompletion(commands));
    });
}
