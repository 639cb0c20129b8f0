/**
 * Virtual addresses in a mixed swarm, asked from hosts of both kinds for tasks on both: Skein's nftables and Docker's IPVS.
 * Needs a kernel with IPVS.
 */
import assert from "node:assert/strict";
import { it } from "node:test";
import { eventually, HOSTS, type Host, type MixedLab, virtualAddress } from "./mixed.ts";
import { QUICK, scene } from "./mixed-overlay.ts";

/** A task by its host's name and its own, and whom it took for its client. */
interface Answer {
  readonly host: Host;
  readonly task: string;
  readonly client: string;
}

export function balanceTests(lab: () => MixedLab): void {
  async function ask(from: Host, service: string): Promise<Answer | undefined> {
    const url = `http://${service}/cgi-bin/index.cgi`;
    const { stdout } = await lab().try(from, "exec", scene.box(from), "curl", "-s", "-m", "5", url);
    const [, task = "", client = ""] = /^Hello from (\S+)\nclient (?:\[::ffff:)?([\d.]+)/.exec(stdout) ?? [];
    const host = HOSTS.find((one) => task.endsWith(`-${one}`));
    return host && { host, task, client };
  }

  /** Asks until as many tasks as are expected have answered since the last that was not expected. */
  async function answering(from: Host, service: string, hosts: readonly Host[], count = hosts.length) {
    const seen = new Map<string, Answer>();
    await eventually(`${count} tasks on ${hosts.join(" and ")} answer ${from}, and no other`, async () => {
      const one = await ask(from, service);
      if (!one || !hosts.includes(one.host)) seen.clear();
      else seen.set(one.task, one);
      return seen.size === count && hosts.every((host) => [...seen.values()].some((answer) => answer.host === host));
    }).catch((error: Error) => assert.fail(`${error.message}: ${JSON.stringify([...seen.values()])}`));
    return [...seen.values()];
  }

  const own = (host: Host) =>
    lab().ok(
      host,
      "inspect",
      "-f",
      `{{(index .NetworkSettings.Networks "${scene.network}").IPAddress}}`,
      scene.box(host),
    );
  async function balancerOf(host: Host): Promise<string> {
    const format = "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}";
    const text = await lab().ok(host, "network", "inspect", "--format", format, scene.network);
    return new RegExp(`^${scene.network}-endpoint (\\S+)/\\d+$`, "m").exec(text)?.[1] ?? assert.fail(text);
  }
  const slots = ["--hostname", "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}"];
  const set = (service: string, ...args: string[]) =>
    lab().manage("service", "update", "--detach", "--quiet", "--no-resolve-image", ...args, service);

  it("a virtual address is the same on every host, answers pings there, and leads to the tasks on all", async () => {
    const on = ["--replicas", "3", "--placement-pref", "spread=node.hostname", "--network", scene.network];
    await lab().manage("service", "create", "--name", "vip", ...QUICK, ...on, ...slots, "skein/hello");
    await lab().running("vip", 3);
    const address = await virtualAddress(lab(), "vip", scene.network);
    for (const from of HOSTS) {
      await eventually(`${from} knows it`, async () => {
        const answers = await lab().ask(from, scene.box(from), ["vip", "tasks.vip"]);
        return answers.get("vip")?.join() === address && answers.get("tasks.vip")?.length === 3;
      });
      await eventually(`it answers ${from}'s ping`, async () =>
        / 0% packet loss/.test((await lab().try(from, "exec", scene.box(from), "ping", "-c1", "-W2", "vip")).stdout),
      );
      // Docker's balancer shows itself, ours shows who called, whatever the task's host is.
      const client = lab().engineOf(from) === "skeind" ? await own(from) : await balancerOf(from);
      for (const answer of await answering(from, "vip", HOSTS))
        assert.equal(answer.client, client, `${from}: ${answer.task}`);
    }
  });

  it("balancers of both kinds follow: tasks on one kind only, on the other, more of them, others", async () => {
    await set("vip", "--constraint-add", "node.hostname==docker");
    for (const from of HOSTS) await answering(from, "vip", ["docker"], 3);
    await set("vip", "--constraint-rm", "node.hostname==docker", "--constraint-add", "node.hostname==skein");
    for (const from of HOSTS) await answering(from, "vip", ["skein"], 3);
    await set("vip", "--constraint-rm", "node.hostname==skein");
    await lab().manage("service", "scale", "--detach", "vip=1");
    for (const from of HOSTS) {
      await eventually(`one is left for ${from}`, async () => {
        const found = new Set<string | undefined>();
        for (let i = 0; i < 4; i++) found.add((await ask(from, "vip"))?.task);
        return found.size === 1 && !found.has(undefined);
      });
    }
    await lab().manage("service", "scale", "--detach", "vip=6");
    await lab().running("vip", 6);
    for (const from of HOSTS) await answering(from, "vip", HOSTS, 6);
  });

  it("a task that is killed is asked no more, its successor is", async () => {
    for (const host of ["docker", "skein"] as const) {
      const filter = ["--filter", "label=com.docker.swarm.service.name=vip"];
      const [victim = ""] = (await lab().ok(host, "ps", "-q", ...filter)).split("\n");
      await lab().ok(host, "kill", victim);
      await eventually("another took its place", async () => {
        const ids = (await lab().ok(host, "ps", "-q", ...filter)).split("\n");
        return !ids.includes(victim);
      });
      await lab().running("vip", 6);
      for (const from of HOSTS) {
        await eventually(`each of ten calls from ${from} is answered`, async () => {
          for (let i = 0; i < 10; i++) if (!(await ask(from, "vip"))) return false;
          return true;
        });
      }
    }
    await lab().manage("service", "rm", "vip");
    for (const from of HOSTS) {
      await eventually(
        `${from} does not know it any more`,
        async () => (await lab().ask(from, scene.box(from), ["vip"])).get("vip")?.length === 0,
      );
    }
  });
}
