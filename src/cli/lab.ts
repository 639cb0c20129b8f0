import { spawn } from "node:child_process";
import { Command, Option } from "commander";
import { invalid, SkeinError } from "../base/errors.ts";
import { hasOwnClock, setClock } from "../lab/clock.ts";
import { inside, startDaemon } from "../lab/host.ts";
import { borrowedNames, findRegistry, pullImages } from "../lab/hub.ts";
import { collections } from "../lab/image/library.ts";
import { down, type HostReport, hostOf, type Lab, report, requireLab, up } from "../lab/lab.ts";
import { end, signal } from "../lab/process.ts";
import { type Shaping, slowDown } from "../lab/slow.ts";
import { hostNames } from "../lab/spec.ts";
import { saveState } from "../lab/state.ts";
import { setCable } from "../lab/switch.ts";
import { makeImages } from "../lab/tour.ts";
import { mirrorOption, parseCount } from "./args.ts";
import { table } from "./show/table.ts";

const say = (line: string) => process.stdout.write(`${line}\n`);

/** Hands the terminal to a command and exits as it does. */
function handOver(command: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<void> {
  const [file, ...args] = command;
  if (!file) throw new Error("no command");
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: "inherit", env });
    child.on("error", reject);
    child.on("close", (code, killedBy) => {
      process.exitCode = code ?? (killedBy ? 1 : 0);
      resolve();
    });
  });
}

/** What a shell or command in a host finds: docker pointed at its engine, and, behind all else, `skein`. */
const environment = (socket: string): NodeJS.ProcessEnv => ({
  ...process.env,
  DOCKER_HOST: `unix://${socket}`,
  PATH: `${process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin"}:${import.meta.dirname}/../../bin`,
});

interface UpCommand {
  readonly name: string;
  readonly hosts: number;
  readonly managers: number;
  readonly subnet?: string;
  readonly engine: string[];
  readonly registryMirror?: string;
}

const collect = (value: string, before: string[]) => [...before, value];

/** Which of the hosts run dockerd, out of the values of --engine. */
function parseEngines(values: readonly string[], hosts: readonly string[]): string[] {
  return values.flatMap((value) => {
    const [host, engine] = value.includes("=") ? value.split("=", 2) : [undefined, value];
    if (engine !== "dockerd" && engine !== "skeind") {
      throw new SkeinError("invalid", `--engine ${value}: the engines are skeind and dockerd`);
    }
    if (engine === "skeind") return [];
    return host === undefined ? hosts : [host];
  });
}

const columns = ["HOST", "ADDRESS", "ENGINE", "STATE", "CABLE", "SOCKET"];
const cellsOf = (row: HostReport) => [row.name, row.address, row.engine, row.state, row.cable, row.socket];

/** `skein lab …`: several hosts on this machine. */
export function labCommand(): Command {
  const lab = new Command("lab")
    .enablePositionalOptions()
    .description("several hosts on this machine, each with an engine of its own");
  const nameOption = ["--name <name>", "name of the lab", "lab"] as const;

  lab
    .command("up")
    .description("bring the hosts up")
    .option(...nameOption)
    .option("--hosts <n>", "number of hosts", parseCount, 3)
    .option("--managers <n>", "how many of them are meant as managers", parseCount, 1)
    .option("--subnet <cidr>", "subnet of the switch")
    .option(
      "--engine <which>",
      "dockerd: the real Docker Engine on every host; HOST=dockerd: on one; repeatable",
      collect,
      [],
    )
    .option(...mirrorOption)
    .action(async (options: UpCommand) => {
      const { engine, registryMirror: mirror = "", ...rest } = options;
      const dockerd = parseEngines(engine, hostNames(options.hosts, options.managers));
      const { spec } = await up({ ...rest, dockerd, mirror, onStep: say });
      for (const host of spec.hosts) say(`${host.name}  ${host.address}  unix://${host.socket}`);
    });
  lab
    .command("down")
    .description("end all of it")
    .option(...nameOption)
    .action(async (options: { name: string }) => {
      say((await down(options.name)) ? `lab ${options.name} is gone` : `there was no lab ${options.name}`);
    });
  lab
    .command("ls")
    .description("list the hosts")
    .option(...nameOption)
    .option("--json", "as JSON")
    .action((options: { name: string; json?: boolean }) => {
      const rows = report(requireLab(options.name));
      if (options.json) say(JSON.stringify(rows, null, 2));
      else process.stdout.write(table(columns, rows.map(cellsOf)));
    });
  lab
    .command("env <host>")
    .description("print what points docker at a host: eval $(skein lab env worker-1)")
    .option(...nameOption)
    .action((host: string, options: { name: string }) => {
      say(`export DOCKER_HOST=unix://${hostOf(requireLab(options.name), host).host.socket}`);
    });
  lab
    .command("ssh <host>")
    .description("a shell in a host, with docker pointed at its engine")
    .option(...nameOption)
    .action(async (name: string, options: { name: string }) => {
      const { host, state } = hostOf(requireLab(options.name), name);
      const env = { ...environment(host.socket), PS1: `root@${host.name}:\\w# ` };
      await handOver(inside(state, ["bash", "--norc"]), env);
    });
  lab
    .command("exec <host> <command...>")
    .description("run a command in a host")
    .option(...nameOption)
    .passThroughOptions()
    .action(async (name: string, command: string[], options: { name: string }) => {
      const { host, state } = hostOf(requireLab(options.name), name);
      const words = command[0] === "--" ? command.slice(1) : command;
      await handOver(inside(state, words), environment(host.socket));
    });
  for (const [verb, plugged] of [
    ["unplug", false],
    ["plug", true],
  ] as const) {
    lab
      .command(`${verb} <host>`)
      .description(plugged ? "plug a host's cable in again" : "pull a host's cable")
      .option(...nameOption)
      .action((name: string, options: { name: string }) =>
        setCable(hostOf(requireLab(options.name), name).host, plugged),
      );
  }
  for (const [verb, name, description] of [
    ["kill", "SIGKILL", "kill -9 a host's skeind"],
    ["pause", "SIGSTOP", "freeze a host's skeind"],
    ["resume", "SIGCONT", "let a frozen skeind go on"],
  ] as const) {
    lab
      .command(`${verb} <host>`)
      .description(description)
      .option(...nameOption)
      .action((hostName: string, options: { name: string }) => {
        const { state } = hostOf(requireLab(options.name), hostName);
        if (!state.daemon) throw new SkeinError("conflict", `no skeind runs on ${hostName}`);
        signal(state.daemon, name);
      });
  }
  lab
    .command("slow <host>")
    .description("make a host's cable slow; without options it is as it was")
    .option(...nameOption)
    .option("--delay <ms>", "delay of each packet towards the host, in milliseconds", parseCount)
    .option("--loss <percent>", "share of packets lost", parseCount)
    .option("--rate <mbit>", "megabits per second", parseCount)
    .action((name: string, options: Shaping & { name: string }) =>
      slowDown(hostOf(requireLab(options.name), name).host, options),
    );
  lab
    .command("images")
    .description("the images that the tutorials name, on every host: pulled where a registry answers, else built")
    .option(...nameOption)
    .addOption(
      new Option("--from <where>", "auto: what a registry has is pulled").choices(["auto", "packages"]).default("auto"),
    )
    .action(async (options: { name: string; from: "auto" | "packages" }) => {
      const found = requireLab(options.name);
      const registry = options.from === "auto" ? await findRegistry(found.spec.mirror) : undefined;
      if (registry === undefined && options.from === "auto")
        say("no registry answers: images are built from Debian packages");
      for (const collection of collections) say(await makeImages(found, collection));
      if (registry === undefined) return;
      say(`pulling from ${registry.base}`);
      const { pulled, missing } = await pullImages(found, collections.flatMap(borrowedNames), registry);
      say(`images ${pulled.join(", ")} pulled onto every host`);
      for (const { name, why } of missing) say(`image ${name} stays the one that was built: ${why}`);
    });
  lab
    .command("restart <host>")
    .description("stop a host's engine and start it again")
    .option(...nameOption)
    .action((name: string, options: { name: string }) => restart(requireLab(options.name), name));
  lab
    .command("clock <host> <offset>")
    .description(
      "set the clock of a host's skeind by an offset, +1h or (after --) -90s; the first time starts it again",
    )
    .option(...nameOption)
    .action(async (name: string, offset: string, options: { name: string }) => {
      const found = requireLab(options.name);
      const { host } = hostOf(found, name);
      if (found.state.engines[name] === "dockerd") throw invalid(`${name} runs dockerd, whose clock cannot be set`);
      const runs = hasOwnClock(host);
      setClock(host, offset);
      if (!runs) await restart(found, name);
    });
  return lab;
}

/** Stops a host's engine and starts it again. */
async function restart(lab: Lab, name: string): Promise<void> {
  const { host, state } = hostOf(lab, name);
  if (state.daemon && !(await end(state.daemon, "SIGTERM", 15_000))) await end(state.daemon, "SIGKILL", 5000);
  lab.state.running[name] = await startDaemon(host, state, lab.state.engines[name]);
  saveState(lab.state);
}
