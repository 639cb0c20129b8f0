/**
 * A swarm of Skein's engines and real Docker Engines, and what all of them must agree on. Three hosts: `manager`, `docker`
 * (the real engine) and `skein`; which engine manages is the caller's choice.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { hasFeature } from "../../../src/kernel/feature.ts";
import { down, up } from "../../../src/lab/lab.ts";
import type { EngineKind } from "../../../src/lab/state.ts";
import { makeImages } from "../../../src/lab/tour.ts";
import { inconsistencies } from "../../support/consistency.ts";
import { ensureDaemon, killDaemon } from "../../support/faults.ts";
import { eventually as soon, TestLab } from "../../support/lab.ts";
import { serveNoNames } from "./no-names.ts";

/** As the labs' own, with the patience that three engines on a slow machine need. */
export const eventually: typeof soon = (what, attempt, ms = 60_000) => soon(what, attempt, ms);

export const HOSTS = ["manager", "docker", "skein"] as const;
export type Host = (typeof HOSTS)[number];

/** A container as its own engine shows it on a network. */
interface Placed {
  readonly host: Host;
  readonly name: string;
  readonly address: string;
  readonly aliases: readonly string[];
  readonly service: string | undefined;
}

export class MixedLab extends TestLab {
  readonly managedBy: EngineKind;
  #names: Disposable | undefined;

  constructor(lab: TestLab["lab"], managedBy: EngineKind) {
    super(lab);
    this.managedBy = managedBy;
  }

  static async make(name: string, subnet: string, managedBy: EngineKind): Promise<MixedLab> {
    await down(name);
    const dockerd = managedBy === "dockerd" ? ["manager", "docker"] : ["docker"];
    const lab = new MixedLab(await up({ name, subnet, names: HOSTS, dockerd }), managedBy);
    try {
      lab.#names = await serveNoNames(lab);
      await makeImages(lab.lab, "basic");
      // One of the two kinds of swarm has nothing that is usual.
      const unusual = ["--data-path-port", "7789", "--default-addr-pool", "10.40.0.0/16"];
      const options = managedBy === "dockerd" ? unusual : [];
      await lab.manage("swarm", "init", "--advertise-addr", lab.host("manager").address, ...options);
      for (const host of ["docker", "skein"] as const) await lab.join(host);
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
    return lab;
  }

  engineOf(host: Host): EngineKind {
    return this.lab.state.engines[host] ?? "skeind";
  }

  /** Whether virtual addresses and the mesh work on a host: the real engine's by IPVS, which the kernel may lack. */
  balances(host: Host): boolean {
    return this.engineOf(host) === "skeind" || hasFeature("ipVs");
  }

  /** `docker …` on the manager. */
  manage(...args: string[]): Promise<string> {
    return this.ok("manager", ...args);
  }

  /** A shell's line in a container; what it prints. */
  async sh(host: Host, container: string, line: string): Promise<string> {
    return this.ok(host, "exec", container, "sh", "-c", line);
  }

  /**
   * kill -9 of a host's engine, and a new start of it. The real engine does not start `containers` on swarm networks
   * again by itself where it was not yet part of the swarm when it tried.
   */
  async crash(host: Host, ...containers: string[]): Promise<void> {
    await killDaemon(this, host);
    if (this.managedBy === "dockerd" && this.engineOf(host) === "dockerd" && host !== "manager") {
      // Started sooner, it is told by its managers of its former life and takes itself for gone: Docker's own fault.
      await eventually("the others have given it up", async () => {
        const answers = await this.ask("manager", "box-manager", [`box-${host}`]);
        return answers.get(`box-${host}`)?.length === 0;
      });
    }
    // The pid in it may be another process's by now, in a host's small space of pids.
    if (this.engineOf(host) === "dockerd") rmSync(`${this.host(host).runDir}/dockerd.pid`, { force: true });
    await ensureDaemon(this, host);
    if (this.engineOf(host) === "skeind") return;
    for (const container of containers) {
      await eventually(`${container} runs`, async () => (await this.try(host, "start", container)).code === 0);
    }
  }

  async join(host: Host): Promise<void> {
    const token = await this.manage("swarm", "join-token", "-q", "worker");
    const address = this.host(host).address;
    await this.ok(host, "swarm", "join", "--token", token, "--advertise-addr", address, this.host("manager").address);
    if (this.engineOf(host) === "dockerd") await this.hasIngress(host);
  }

  /** Hostname and what `node ls` says of it, in order. */
  async nodes(...filters: string[]): Promise<string[]> {
    const asked = filters.flatMap((filter) => ["--filter", filter]);
    const format = "[{{.Hostname}}] {{.Status}} {{.Availability}}";
    const text = await this.manage("node", "ls", ...asked, "--format", format);
    return text.split("\n").filter(Boolean).sort();
  }

  /** Tasks of a service that are to run or to complete: "name host state error". */
  async tasks(service: string, ...filters: string[]): Promise<string[]> {
    const format = "{{.Name}} {{.Node}} {{.CurrentState}} {{.Error}}";
    const asked = filters.flatMap((filter) => ["--filter", filter]);
    const text = await this.manage("service", "ps", "--no-trunc", "--format", format, ...asked, service);
    return text.split("\n").filter(Boolean);
  }

  /** Waits until a service has that many tasks and all of them run. */
  async running(service: string, count: number, ms = 60_000): Promise<string[]> {
    let tasks: string[] = [];
    await eventually(
      `${count} tasks of ${service} run`,
      async () => {
        tasks = await this.tasks(service, "desired-state=running");
        return tasks.length === count && tasks.every((task) => / Running /.test(task));
      },
      ms,
    ).catch((error: Error) => assert.fail(`${error.message}\n${tasks.join("\n")}`));
    return tasks;
  }

  /** Containers of all hosts on a network, as their own engines show them. */
  async placed(network: string): Promise<Placed[]> {
    const all = await Promise.all(HOSTS.map((host) => this.placedOn(host, network)));
    return all.flat();
  }

  async placedOn(host: Host, network: string): Promise<Placed[]> {
    const ids = (await this.ok(host, "ps", "--quiet", "--filter", `network=${network}`)).split("\n").filter(Boolean);
    if (ids.length === 0) return [];
    const shown = JSON.parse(await this.ok(host, "inspect", ...ids)) as {
      Id: string;
      Name: string;
      Config: { Labels: Record<string, string> | null };
      NetworkSettings: { Networks: Record<string, { IPAddress: string; Aliases: string[] | null } | undefined> };
    }[];
    return shown.flatMap((one) => {
      const endpoint = one.NetworkSettings.Networks[network];
      if (!endpoint?.IPAddress) return [];
      const { IPAddress: address, Aliases } = endpoint;
      const service = one.Config.Labels?.["com.docker.swarm.service.name"];
      // A task's are its service's, which may mean the virtual address.
      const aliases = [one.Id.slice(0, 12), ...(service === undefined ? (Aliases ?? []) : [])];
      return [{ host, name: one.Name.slice(1), address, aliases, service }];
    });
  }

  /** Asks 127.0.0.11 in a container: the answers for each name, in order; none for a name that is not known. */
  async ask(
    host: Host,
    container: string,
    names: readonly string[],
    type: "A" | "PTR" = "A",
  ): Promise<Map<string, string[]>> {
    const answers = new Map<string, string[]>(names.map((name) => [name, []]));
    if (names.length === 0) return answers;
    const { stdout } = await this.beside(
      ...([host, container, "dig", "+noall", "+answer", "+tries=1", "+time=1", "@127.0.0.11"] as const),
      ...names.flatMap((name) => [name, type]),
    );
    for (const [, name = "", value = ""] of stdout.matchAll(/^(\S+)\.\s+\d+\s+IN\s+(?:A|PTR)\s+(\S+)$/gm)) {
      answers.get(name)?.push(value);
    }
    for (const values of answers.values()) values.sort();
    return answers;
  }

  /** A program of this machine in a container's network. */
  async beside(host: Host, container: string, ...command: string[]) {
    const key = await this.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container);
    return this.in(host, "nsenter", `--net=${key}`, ...command);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#names?.[Symbol.dispose]();
    await super[Symbol.asyncDispose]();
  }
}

/** What there is on the network of the suite. */
export interface Scene {
  readonly network: string;
  /** Attachable containers, one per host, by host. */
  readonly box: (host: Host) => string;
  /** Services with a virtual address, and without: name and the number of tasks. */
  readonly vip: Readonly<Record<string, number>>;
  readonly dnsrr: Readonly<Record<string, number>>;
  /** Other names of the services on the network. */
  readonly aliases: Readonly<Record<string, string>>;
}

/** The names that every container of the network must know, with their addresses. */
export async function expectedNames(lab: MixedLab, scene: Scene): Promise<Map<string, string[]>> {
  const names = new Map<string, Set<string>>();
  const add = (name: string, address: string) => names.set(name, (names.get(name) ?? new Set()).add(address));
  for (const { name, address, aliases, service } of await lab.placed(scene.network)) {
    add(name, address);
    for (const alias of aliases) add(alias, address);
    if (service === undefined) continue;
    add(`tasks.${service}`, address);
    if (service in scene.dnsrr) add(service, address);
  }
  for (const service of Object.keys(scene.vip)) add(service, await virtualAddress(lab, service, scene.network));
  for (const [alias, service] of Object.entries(scene.aliases)) {
    for (const prefix of ["", "tasks."]) {
      for (const address of names.get(`${prefix}${service}`) ?? []) add(`${prefix}${alias}`, address);
    }
  }
  return new Map([...names].map(([name, addresses]) => [name, [...addresses].sort()]));
}

/** A service's address on a network, as the managers gave it. */
export async function virtualAddress(lab: MixedLab, service: string, network: string): Promise<string> {
  const id = await lab.manage("network", "inspect", "--format", "{{.ID}}", network);
  const [shown] = JSON.parse(await lab.manage("service", "inspect", service)) as {
    Endpoint: { VirtualIPs?: { NetworkID: string; Addr: string }[] };
  }[];
  return shown?.Endpoint.VirtualIPs?.find(({ NetworkID }) => NetworkID === id)?.Addr.split("/")[0] ?? "";
}

/** What the hosts do not agree on, one line each; nothing when all is as it should be. */
export async function disagreements(lab: MixedLab, scene: Scene, absent: readonly Host[] = []): Promise<string[]> {
  const found: string[] = [];
  for (const [service, count] of Object.entries({ ...scene.vip, ...scene.dnsrr })) {
    const tasks = await lab.tasks(service, "desired-state=running");
    if (tasks.length !== count || tasks.some((task) => !/ Running /.test(task))) {
      found.push(`${service} is not ${count} running tasks: ${tasks.join(", ")}`);
    }
  }
  if (found.length > 0) return found;
  const expected = await expectedNames(lab, scene);
  found.push(...(await inconsistencies(lab, scene.network)), ...(await inconsistencies(lab, "ingress")));
  const present = HOSTS.filter((host) => !absent.includes(host));
  const others = present.map(scene.box);
  await Promise.all(
    present.map(async (host) => {
      const box = scene.box(host);
      const answers = await lab.ask(host, box, [...expected.keys()]);
      for (const [name, want] of expected) {
        const have = answers.get(name) ?? [];
        if (have.join() !== want.join()) found.push(`${host}: ${name} is ${have.join() || "unknown"}, not ${want}`);
      }
      const targets = [
        ...others,
        ...Object.keys(scene.dnsrr),
        ...Object.keys(scene.vip).map((name) => `tasks.${name}`),
      ];
      const line = `for n in ${targets.join(" ")}; do ping -c1 -W1 $n >/dev/null 2>&1 || echo $n; done`;
      for (const lost of (await lab.sh(host, box, line)).split("\n").filter(Boolean)) {
        found.push(`${host}: no answer from ${lost}`);
      }
      if (lab.balances(host)) {
        for (const service of Object.keys(scene.vip)) {
          const { code } = await lab.try(host, "exec", box, "curl", "-sf", "-m", "2", `http://${service}/`);
          if (code !== 0) found.push(`${host}: no page from ${service}: curl ${code}`);
        }
      }
    }),
  );
  return found;
}

/** Waits until nobody disagrees; gives the milliseconds that took. */
export async function agreed(lab: MixedLab, scene: Scene, ms = 120_000): Promise<number> {
  const began = Date.now();
  let last: string[] = [];
  await eventually(
    "all hosts agree",
    async () => {
      const asked = Date.now() - began;
      const found = await disagreements(lab, scene).catch((error) => [String(error)]);
      if (process.env.SKEIN_MIXED_VERBOSE) console.error(`at ${asked} ms: ${found.join("; ") || "all agree"}`);
      last = found;
      return found.length === 0;
    },
    ms,
  ).catch((error: Error) => assert.fail(`${error.message}\n${last.join("\n")}`));
  return Date.now() - began;
}
