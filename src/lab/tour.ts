/**
 * The main job, shown: brings a lab up, makes a swarm of it, puts one overlay network over its hosts and proves with
 * the stock `docker` command line that containers find and reach each other. Every step says what it found.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Clock, sleep, systemClock } from "../base/clock.ts";
import { SkeinError } from "../base/errors.ts";
import { docker, dockerCli, dockerOk } from "./docker.ts";
import { findRegistry, removeStandIns } from "./hub.ts";
import { archiveOf, type Collection, imageNames } from "./image/library.ts";
import { type Lab, type UpOptions, up } from "./lab.ts";
import type { HostSpec } from "./spec.ts";

const tourNames = { network: "skein-net", service: "hello", standalone: "box", port: 8080 };
const replicas = 3;
export const imageCache = join(fileURLToPath(new URL("../..", import.meta.url)), ".cache", "images");

export interface TourOptions extends UpOptions {
  readonly say: (line: string) => void;
  readonly clock?: Clock;
}

/** Where the time went, in milliseconds per step. */
export interface TourResult {
  readonly lab: Lab;
  readonly steps: { name: string; ms: number }[];
}

class Steps {
  readonly done: { name: string; ms: number }[] = [];
  readonly #say: (line: string) => void;
  readonly #clock: Clock;

  constructor(say: (line: string) => void, clock: Clock) {
    this.#say = say;
    this.#clock = clock;
  }

  /** Runs a step; what it returns is told as its outcome. */
  async run(name: string, job: () => Promise<string>): Promise<void> {
    const start = this.#clock.now();
    this.#say(`… ${name}`);
    const outcome = await job();
    const ms = this.#clock.now() - start;
    this.done.push({ name, ms });
    this.#say(`✓ ${outcome} (${(ms / 1000).toFixed(1)} s)`);
  }
}

/** Repeats `attempt` until it gives something, or fails with what `describe` says. */
async function until<T>(
  clock: Clock,
  timeoutMs: number,
  attempt: () => Promise<T | undefined>,
  describe: () => string | Promise<string>,
): Promise<T> {
  const deadline = clock.now() + timeoutMs;
  for (;;) {
    const value = await attempt();
    if (value !== undefined) return value;
    if (clock.now() > deadline) throw new SkeinError("internal", await describe());
    await sleep(clock, 50);
  }
}

/** Runs the whole tour. Idempotent: what is there already is used. */
export async function tour(options: TourOptions): Promise<TourResult> {
  const clock = options.clock ?? systemClock;
  const steps = new Steps(options.say, clock);
  // Throws before anything is made where there is none.
  dockerCli();
  // Asked at once, so that nobody waits for a registry that does not answer.
  const registry = findRegistry(options.mirror ?? "");
  let made: Lab | undefined;
  await steps.run("bringing the lab's hosts up", async () => {
    made = await up({ ...options, onStep: (step) => options.say(`  ${step}`) });
    return `${made.spec.hosts.length} hosts up on ${made.spec.bridge} (${made.spec.subnet})`;
  });
  if (!made) throw new SkeinError("internal", "no lab");
  const lab = made;
  const [manager, ...workers] = lab.spec.hosts;
  const last = workers.at(-1);
  if (!manager || !last) throw new SkeinError("invalid", "the tour needs at least two hosts");

  await steps.run("making a swarm", () => makeSwarm(manager, workers));
  await steps.run("waiting for the nodes", async () => {
    const nodes = await until(
      clock,
      20_000,
      async () => {
        const text = await dockerOk(manager, ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        const ready = text.split("\n").filter((line) => line.endsWith(" Ready"));
        return ready.length >= lab.spec.hosts.length ? text : undefined;
      },
      () => `not every node became Ready: see docker -H unix://${manager.socket} node ls`,
    );
    return `${nodes.split("\n").length} nodes Ready: ${nodes
      .replace(/ Ready/g, "")
      .split("\n")
      .join(", ")}`;
  });
  await steps.run("making sure there are images", async () => {
    const built = await makeImages(lab);
    const found = await registry;
    if (!found) return built;
    await removeStandIns(lab);
    return `${built}; others are pulled from ${found.base}`;
  });
  await steps.run("creating an attachable overlay network", () => makeNetwork(manager));
  let wanted = replicas;
  await steps.run(`deploying a service of ${replicas} replicas`, async () => {
    wanted = await makeService(manager);
    return `service ${tourNames.service} published on port ${tourNames.port}`;
  });
  await steps.run("waiting for its tasks", async () => {
    const placed = await until(
      clock,
      30_000,
      () => runningTasks(manager, wanted),
      async () => `the service ${tourNames.service} does not run: ${await whyNot(manager)}`,
    );
    return `${placed.length} tasks run on ${[...new Set(placed)].join(", ")}`;
  });
  await steps.run(`running a standalone container on ${last.name}`, () => makeStandalone(last));
  const inBox = (...command: string[]) => docker(last, ["exec", tourNames.standalone, ...command]);

  let addresses: string[] = [];
  await steps.run("asking 127.0.0.11 for names", async () => {
    const vip = await until(
      clock,
      10_000,
      async () => (await resolve(inBox, tourNames.service))[0],
      () => `${tourNames.service} does not resolve in the standalone container`,
    );
    addresses = await until(
      clock,
      10_000,
      async () => {
        const found = await resolve(inBox, `tasks.${tourNames.service}`);
        return found.length === wanted ? found : undefined;
      },
      () => `tasks.${tourNames.service} does not resolve to ${wanted} addresses`,
    );
    const inspected = await dockerOk(manager, [
      "service",
      "inspect",
      tourNames.service,
      "--format",
      "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}",
    ]);
    if (!inspected.split(" ").some((addr) => addr.split("/")[0] === vip)) {
      throw new SkeinError("internal", `${tourNames.service} resolves to ${vip}, service inspect says ${inspected}`);
    }
    return `${tourNames.service} is ${vip}, its VIP; tasks.${tourNames.service} is ${addresses.join(", ")}`;
  });
  await steps.run("reaching every task", async () => {
    for (const address of addresses) {
      const ping = await inBox("ping", "-c", "1", "-W", "2", address);
      if (ping.code !== 0) throw new SkeinError("internal", `no ping to task ${address}: ${ping.stdout}${ping.stderr}`);
      const page = await inBox("curl", "-s", "-m", "3", `http://${address}/`);
      if (!page.stdout.startsWith("Hello from ")) {
        throw new SkeinError("internal", `no page from task ${address}: ${page.stdout}${page.stderr}`);
      }
    }
    return `${addresses.length} tasks answer ping and HTTP across hosts`;
  });
  await steps.run("asking the VIP", async () => {
    const seen = new Set<string>();
    for (let i = 0; i < 30 && seen.size < replicas; i++) {
      const page = await inBox("curl", "-s", "-m", "3", `http://${tourNames.service}/`);
      const host = /^Hello from (\S+)/.exec(page.stdout)?.[1];
      if (!host) throw new SkeinError("internal", `no page from the VIP: ${page.stdout}${page.stderr}`);
      seen.add(host);
    }
    if (seen.size < replicas) throw new SkeinError("internal", `the VIP reached only ${[...seen].join(", ")}`);
    return `the VIP spreads its requests over ${wanted > seen.size ? "at least " : ""}${seen.size} tasks`;
  });
  await steps.run(`asking every host for port ${tourNames.port}`, async () => {
    for (const host of lab.spec.hosts) {
      await until(
        clock,
        10_000,
        async () => ((await fetchPage(host.address)).startsWith("Hello from ") ? true : undefined),
        () => `${host.name} does not answer on port ${tourNames.port}`,
      );
    }
    return `all ${lab.spec.hosts.length} hosts answer on port ${tourNames.port}, with or without a task`;
  });
  return { lab, steps: steps.done };
}

async function fetchPage(address: string): Promise<string> {
  try {
    const response = await fetch(`http://${address}:${tourNames.port}/`, { signal: AbortSignal.timeout(3000) });
    return await response.text();
  } catch {
    return "";
  }
}

/** Addresses of a name as the container's resolver gives them. */
async function resolve(
  inBox: (...command: string[]) => Promise<{ code: number; stdout: string }>,
  name: string,
): Promise<string[]> {
  const { stdout } = await inBox("nslookup", name);
  return stdout
    .split("\n")
    .slice(2)
    .map((line) => /^Address(?: \d+)?:\s+(\d+\.\d+\.\d+\.\d+)(?:\s|$)/.exec(line)?.[1])
    .filter((address) => address !== undefined);
}

async function makeSwarm(manager: HostSpec, workers: readonly HostSpec[]): Promise<string> {
  const state = (host: HostSpec) => dockerOk(host, ["info", "--format", "{{.Swarm.LocalNodeState}}"]);
  if ((await state(manager)) === "inactive") {
    await dockerOk(manager, ["swarm", "init", "--advertise-addr", manager.address]);
  }
  const token = await dockerOk(manager, ["swarm", "join-token", "-q", "worker"]);
  await Promise.all(
    workers.map(async (worker) => {
      if ((await state(worker)) !== "inactive") return;
      const join = ["swarm", "join", "--token", token, "--advertise-addr", worker.address, `${manager.address}:2377`];
      await dockerOk(worker, join);
    }),
  );
  return `swarm initialised on ${manager.name}, ${workers.length} workers joined`;
}

/** Loads a collection of images on every host that lacks it, built from Debian packages where that was not done yet. */
export async function makeImages(lab: Lab, collection: Collection = "basic"): Promise<string> {
  const wanted = imageNames(collection);
  const lacking: HostSpec[] = [];
  for (const host of lab.spec.hosts) {
    const present = (await dockerOk(host, ["images", "--format", "{{.Repository}}:{{.Tag}}"])).split("\n");
    if (wanted.some((name) => !present.includes(name))) lacking.push(host);
  }
  if (lacking.length > 0) {
    const archive = await archiveOf(imageCache, collection);
    await Promise.all(lacking.map((host) => dockerOk(host, ["load", "--quiet", "--input", archive])));
  }
  return `images ${wanted.join(", ")} (built from Debian packages) on every host`;
}

async function makeNetwork(manager: HostSpec): Promise<string> {
  const { network } = tourNames;
  const present = await dockerOk(manager, ["network", "ls", "--filter", `name=^${network}$`, "--format", "{{.Name}}"]);
  if (present !== network) {
    await dockerOk(manager, ["network", "create", "--driver", "overlay", "--attachable", network]);
  }
  const subnet = await dockerOk(manager, [
    "network",
    "inspect",
    network,
    "--format",
    "{{(index .IPAM.Config 0).Subnet}}",
  ]);
  return `network ${network} (${subnet})`;
}

/** The number of replicas it has then: somebody may have scaled it since the last tour. */
async function makeService(manager: HostSpec): Promise<number> {
  const { network, service, port } = tourNames;
  const format = "{{.Spec.Mode.Replicated.Replicas}}";
  const present = await docker(manager, ["service", "inspect", service, "--format", format]);
  if (present.code !== 0) {
    const publish = ["--publish", `published=${port},target=80`];
    const options = ["--detach", "--quiet", "--name", service, "--replicas", String(replicas), "--network", network];
    await dockerOk(manager, ["service", "create", ...options, ...publish, "--no-resolve-image", "skein/hello:latest"]);
    return replicas;
  }
  const scaled = Number(present.stdout);
  if (scaled >= replicas) return scaled;
  await dockerOk(manager, ["service", "scale", "--detach", `${service}=${replicas}`]);
  return replicas;
}

async function runningTasks(manager: HostSpec, wanted: number): Promise<string[] | undefined> {
  const text = await dockerOk(manager, [
    "service",
    "ps",
    tourNames.service,
    "--filter",
    "desired-state=running",
    "--format",
    "{{.Node}} {{.CurrentState}}",
  ]);
  const running = text.split("\n").filter((line) => line.split(" ")[1] === "Running");
  return running.length >= wanted ? running.map((line) => line.split(" ")[0] ?? "") : undefined;
}

/** What hinders the service's tasks, in the words of the first that has some; else where to look. */
async function whyNot(manager: HostSpec): Promise<string> {
  const ps = ["service", "ps", tourNames.service];
  const { stdout } = await docker(manager, [...ps, "--no-trunc", "--format", "{{.Error}}"]);
  const [error] = stdout
    .replaceAll('"', "")
    .split("\n")
    .filter((line) => line !== "");
  return error ?? `see docker -H unix://${manager.socket} ${ps.join(" ")}`;
}

async function makeStandalone(host: HostSpec): Promise<string> {
  const { standalone, network } = tourNames;
  const state = await docker(host, ["inspect", "--format", "{{.State.Running}}", standalone]);
  if (state.code === 0 && state.stdout.trim() !== "true") await dockerOk(host, ["rm", "-f", standalone]);
  if (state.stdout.trim() !== "true") {
    await dockerOk(host, ["run", "-dit", "--name", standalone, "--network", network, "skein/box:latest"]);
  }
  return `container ${standalone} on ${network}`;
}

/** What a newcomer can try next. */
export function whatNext(lab: Lab): string {
  const [manager] = lab.spec.hosts;
  const last = lab.spec.hosts.at(-1);
  if (!manager || !last) return "";
  return `
The lab stays up. Try next:

  docker -H unix://${manager.socket} node ls
  docker -H unix://${manager.socket} service ps ${tourNames.service}
  docker -H unix://${manager.socket} service scale ${tourNames.service}=6
  docker -H unix://${last.socket} exec -it ${tourNames.standalone} sh      # then: ping ${tourNames.service}
  curl http://${last.address}:${tourNames.port}/
  bin/skein lab exec ${last.name} -- skein trace ${tourNames.standalone} ${tourNames.service}      # the way of a packet
  bin/skein lab ls        # the hosts
  bin/skein lab ssh ${last.name}      # a shell in a host
  npm stop      # takes it all away
`;
}
