import { Command } from "commander";
import { tour, whatNext } from "../lab/tour.ts";
import { mirrorOption, parseCount } from "./args.ts";

/** `skein start`: what `npm start` does once the machine is set up. */
export function startCommand(): Command {
  return new Command("start")
    .description("bring a lab up and show a service on an overlay network, step by step")
    .option("--name <name>", "name of the lab", "lab")
    .option("--subnet <cidr>", "subnet of its switch")
    .option("--hosts <n>", "number of hosts", parseCount, 3)
    .option(...mirrorOption)
    .action(async (options: { name: string; subnet?: string; hosts: number; registryMirror?: string }) => {
      const say = (line: string) => process.stdout.write(`${line}\n`);
      const { registryMirror: mirror = "", ...rest } = options;
      const { lab, steps } = await tour({ ...rest, mirror, say });
      const total = steps.reduce((sum, step) => sum + step.ms, 0);
      say(`\nDone in ${(total / 1000).toFixed(1)} s.`);
      say(whatNext(lab));
    });
}
