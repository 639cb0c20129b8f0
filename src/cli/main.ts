/** `skein`, the command line: the lab, and what shows the inside of an engine. */
import { Command } from "commander";
import { messageOf, SkeinError } from "../base/errors.ts";
import { VERSION } from "../engine/version.ts";
import { remindOfHelp } from "./args.ts";
import { completionCommand } from "./completion.ts";
import { labCommand } from "./lab.ts";
import { manCommand } from "./man.ts";
import { showCommand, traceCommand } from "./show/command.ts";
import { startCommand } from "./start.ts";
import { swarmCommand } from "./swarm.ts";

const program = new Command("skein")
  .enablePositionalOptions()
  .description("Several container hosts on one machine, and a look inside their networks")
  .addCommand(startCommand())
  .addCommand(labCommand())
  .addCommand(showCommand())
  .addCommand(traceCommand())
  .addCommand(swarmCommand())
  .addCommand(completionCommand())
  .addCommand(manCommand())
  .version(VERSION);
remindOfHelp(program, "skein");

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`skein: ${messageOf(error)}\n`);
  if (error instanceof SkeinError && error.hint) process.stderr.write(`skein: ${error.hint}\n`);
  process.exitCode = 1;
}
