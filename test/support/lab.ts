/** A lab of its own for a test file, beside whatever lab runs on this machine. */
import assert from "node:assert/strict";
import { sleep, systemClock } from "../../src/base/clock.ts";
import { docker, dockerOk } from "../../src/lab/docker.ts";
import { inside, patience } from "../../src/lab/host.ts";
import type { Collection } from "../../src/lab/image/library.ts";
import { down, hostOf, type Lab, up } from "../../src/lab/lab.ts";
import { type Output, run } from "../../src/lab/process.ts";
import type { HostSpec } from "../../src/lab/spec.ts";
import { makeImages } from "../../src/lab/tour.ts";

export class TestLab implements AsyncDisposable {
  readonly lab: Lab;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  /** Brings up a fresh lab of that name; one left by an interrupted run is taken down first. */
  static async up(
    name: string,
    subnet: string,
    options: {
      hosts?: number;
      names?: readonly string[];
      dockerd?: readonly string[];
      images?: readonly Collection[];
      mirror?: string;
    } = {},
  ): Promise<TestLab> {
    await down(name);
    const lab = await up({ ...options, name, subnet });
    for (const collection of options.images ?? ["basic"]) await makeImages(lab, collection);
    return new TestLab(lab);
  }

  host(name: string): HostSpec {
    return hostOf(this.lab, name).host;
  }

  /** `docker …` on a host; throws with the CLI's words when it fails. */
  ok(host: string, ...args: string[]): Promise<string> {
    return dockerOk(this.host(host), args);
  }

  /** `docker …` on a host, whatever comes. */
  try(host: string, ...args: string[]): Promise<Output> {
    return docker(this.host(host), args);
  }

  /** A command in the host's namespaces. */
  in(host: string, ...command: string[]): Promise<Output> {
    return run(inside(hostOf(this.lab, host).state, command));
  }

  /** A swarm of all hosts, the first as its manager. */
  async swarm(): Promise<void> {
    const [manager, ...workers] = this.lab.spec.hosts;
    assert.ok(manager);
    await dockerOk(manager, ["swarm", "init", "--advertise-addr", manager.address]);
    const token = await dockerOk(manager, ["swarm", "join-token", "-q", "worker"]);
    for (const worker of workers) {
      await dockerOk(worker, [
        "swarm",
        "join",
        "--token",
        token,
        "--advertise-addr",
        worker.address,
        `${manager.address}:2377`,
      ]);
      if (this.lab.state.engines[worker.name] === "dockerd") await this.hasIngress(worker.name);
    }
  }

  /**
   * Docker's agent makes its ingress network before it hears anything more of its session: a task that comes earlier
   * fails for want of a balancer's address, whoever manages the swarm.
   */
  async hasIngress(host: string): Promise<void> {
    await eventually(
      `${host} has its ingress network`,
      async () => (await this.try(host, "network", "inspect", "ingress")).stdout.includes("ingress-sbox"),
      30_000,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await down(this.lab.spec.name);
  }
}

/** Repeats until `attempt` gives something other than undefined or false; fails with `what` after the time. */
export async function eventually<T>(
  what: string,
  attempt: () => Promise<T | undefined | false>,
  timeoutMs = 40_000,
): Promise<T> {
  const began = Date.now();
  for (;;) {
    const value = await attempt();
    if (value !== undefined && value !== false) return value;
    const waited = Date.now() - began;
    if (waited > timeoutMs * patience) assert.fail(`not within ${timeoutMs} ms: ${what}`);
    // A question is often a command of its own: the longer it takes anyhow, the less the machine is kept busy with asking.
    await sleep(systemClock, Math.min(250, Math.max(50, waited / 20)));
  }
}
