/** `skein show …`: a look inside an engine. What it prints is a reading; nothing is changed by it. */
import { Command } from "commander";
import { notFound } from "../../base/errors.ts";
import type { NamedGossip, NetworkRow, PortView, ServiceView, StatusView } from "../../engine/view/types.ts";
import type { NetworkLook, Trace } from "../../network/view/types.ts";
import { ask, targetOf } from "./client.ts";
import {
  gossipText,
  networksText,
  networkText,
  onePortText,
  portsText,
  servicesText,
  serviceText,
  statusText,
  traceText,
} from "./text.ts";

interface ShowOptions {
  readonly host?: string;
  readonly json?: boolean;
}

export function showCommand(): Command {
  const show = new Command("show")
    .description("a look inside an engine: what it plans, what the kernel has, what others told")
    .option("-H, --host <socket>", "the engine to ask; default DOCKER_HOST, else this machine's own")
    .option("--json", "as JSON")
    .allowExcessArguments()
    .action((options: ShowOptions, command: Command) => {
      const [word] = command.args;
      if (word !== undefined) command.error(`error: unknown command '${word}'`);
      return print<StatusView>(options, "status", (view) => statusText(view, Date.now()));
    });
  const add = (words: string, description: string) =>
    show.command(words).description(description).option("--json", "as JSON");
  /** Options of `show` count for what is below it. */
  const given = (options: ShowOptions, command: Command): ShowOptions => ({
    ...(command.parent?.opts<ShowOptions>() ?? {}),
    ...options,
  });

  add("networks", "the networks on this node").action((options: ShowOptions, command: Command) =>
    print<NetworkRow[]>(given(options, command), "networks", networksText),
  );
  add("network <name>", "a network: planned and actual, who is on it, who told of whom, what was mended").action(
    (name: string, options: ShowOptions, command: Command) =>
      print<NetworkLook>(given(options, command), `networks/${encodeURIComponent(name)}`, (view) =>
        networkText(view, Date.now()),
      ),
  );
  add("gossip", "the members as this node sees them, keys by their ids, what was dropped and why").action(
    (options: ShowOptions, command: Command) => print<NamedGossip>(given(options, command), "gossip", gossipText),
  );
  add("services", "the services that this node knows backends of").action((options: ShowOptions, command: Command) =>
    print<ServiceView[]>(given(options, command), "services", servicesText),
  );
  add("service <name>", "a service: VIPs, ports, backends as this node balances over them").action(
    (name: string, options: ShowOptions, command: Command) =>
      print<ServiceView>(given(options, command), `services/${encodeURIComponent(name)}`, serviceText),
  );
  add("ports", "the published ports of this node").action((options: ShowOptions, command: Command) =>
    print<PortView[]>(given(options, command), "ports", portsText),
  );
  add("port <port>", "who answers at a published port, and the way there: 8080 or 53/udp").action(
    (port: string, options: ShowOptions, command: Command) =>
      print<PortView[]>(given(options, command), `ports/${port}`, (views) => {
        if (views.length === 0) throw notFound(`nothing is published at port ${port} of this node`);
        return views.map(onePortText).join("\n");
      }),
  );
  return show;
}

/** `skein trace`: the way from a container to whatever it calls. */
export function traceCommand(): Command {
  return new Command("trace")
    .description("the way of a packet from a container to a name or an address, as this node knows it")
    .argument("<container>", "a container of the node that is asked")
    .argument("<to>", "a name as the container would ask for it, or an address")
    .option("-H, --host <socket>", "the engine to ask; default DOCKER_HOST, else this machine's own")
    .option("--json", "as JSON")
    .action((from: string, to: string, options: ShowOptions) =>
      print<Trace>(options, `trace?${new URLSearchParams({ from, to })}`, traceText),
    );
}

/** What an engine of this version answers is what its types say: one program, two ends. */
async function print<T>(options: ShowOptions, path: string, text: (view: T) => string): Promise<void> {
  const view = await ask(targetOf(options.host, process.env), `/skein/v1/${path}`);
  process.stdout.write(options.json ? `${JSON.stringify(view, null, 2)}\n` : text(view as T));
}
