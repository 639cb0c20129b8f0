/**
 * One overlay network over real Docker Engines and Skein's: names, forwarding and neighbour entries must agree on every
 * host whatever happens to one of them. `SKEIN_PARTITIONS=N` cuts every host off N times for a minute each, and for some seconds
 * besides; without it one host is cut off once, for as long as it takes gossip to give it up and a little more.
 */
import assert from "node:assert/strict";
import { it } from "node:test";
import { sleep, systemClock } from "../../../src/base/clock.ts";
import { cable } from "../../support/faults.ts";
import {
  agreed,
  eventually,
  expectedNames,
  HOSTS,
  type Host,
  type MixedLab,
  type Scene,
  virtualAddress,
} from "./mixed.ts";
import { isNoManager } from "./mixed-roles.ts";

const rounds = Number(process.env.SKEIN_PARTITIONS ?? 0);
const silenceMs = rounds > 0 ? 60_000 : 13_000;

export const scene: Scene = {
  network: "side",
  box: (host) => `box-${host}`,
  vip: { web: 3 },
  dnsrr: { direct: 3 },
  aliases: { site: "web", friend: "direct" },
};

/** What makes a task quick to end: the images' programs, as process 1, do not hear SIGTERM. */
export const QUICK = ["--detach", "--no-resolve-image", "--stop-signal", "SIGKILL", "--stop-grace-period", "1s"];

async function startBox(lab: MixedLab, host: Host): Promise<void> {
  const options = [
    "--restart",
    "always",
    "--network",
    scene.network,
    "--network-alias",
    "any-box",
    "--stop-signal",
    "KILL",
  ];
  const command = ["run", "--detach", "--name", scene.box(host), ...options, "skein/box", "sleep", "1000000"];
  await eventually(`${scene.box(host)} runs`, async () => {
    const { code, stderr } = await lab.try(host, ...command);
    if (code === 0) return true;
    // The real engine gives its managers twenty seconds, and all of its parts together, which a slow machine takes longer for.
    assert.match(stderr, /attaching to network failed.*context deadline exceeded/);
    await lab.try(host, "rm", "--force", scene.box(host));
    return false;
  });
}

/** Makes the network, a container on each host and two services on all of them. */
export async function stage(lab: MixedLab): Promise<void> {
  const options = lab.managedBy === "dockerd" ? ["--opt", "com.docker.network.driver.mtu=1400"] : [];
  await lab.manage("network", "create", "--driver", "overlay", "--attachable", ...options, scene.network);
  const global = ["--mode", "global", "--network", `name=${scene.network},alias=site`];
  await lab.manage("service", "create", "--name", "web", ...QUICK, ...global, "skein/hello");
  // Three tasks wherever there is room: one moves when its host is lost, and must not be seen twice afterwards.
  const direct = ["--endpoint-mode", "dnsrr", "--replicas", "3", "--network", `name=${scene.network},alias=friend`];
  await lab.manage("service", "create", "--name", "direct", ...QUICK, ...direct, "skein/hello");
  await Promise.all(HOSTS.map((host) => startBox(lab, host)));
}

/** `stranger` is the host of the kind that does not manage. */
export function overlayTests(lab: () => MixedLab, stranger: Host): void {
  /** Tasks of the global service that are to run on these hosts. */
  const tasksOn = async (hosts: readonly Host[]) => {
    const on = hosts.flatMap((host) => ["--filter", `node=${host}`]);
    const ids = await lab().manage("service", "ps", "-q", "--filter", "desired-state=running", ...on, "web");
    return ids.split("\n").sort();
  };

  it("every host knows every name, and reaches all behind it", async () => {
    await agreed(lab(), scene);
    const names = await expectedNames(lab(), scene);
    assert.equal(names.get("any-box")?.length, 3);
    assert.equal(names.get("tasks.web")?.length, 3);
    assert.equal(names.get("direct")?.length, 3);
    assert.match([...names.keys()].join(" "), /web\.[a-z0-9]{25}\.[a-z0-9]{25}/);
    assert.ok(!names.get("tasks.web")?.includes(await virtualAddress(lab(), "web", scene.network)));
    const removal = await lab().try("manager", "network", "rm", scene.network);
    assert.match(removal.stderr, /network \S+ is in use by (service|task) /);
  });

  it("devices have the same sizes and prefixes on every host", async () => {
    const mtu = lab().managedBy === "dockerd" ? 1350 : 1450;
    for (const host of HOSTS) {
      const shown = await lab().sh(host, scene.box(host), "ip -o addr show dev eth0; cat /sys/class/net/eth0/mtu");
      assert.match(shown, new RegExp(`inet \\d[\\d.]+/24 [^]*\n${mtu}$`), host);
      const reaches = `ping -c1 -W2 -s ${mtu - 28} ${scene.box(host === "docker" ? "skein" : "docker")}`;
      assert.match(await lab().sh(host, scene.box(host), reaches), / 0% packet loss/, host);
    }
  });

  it("addresses have the same names in reverse, in and out of the network, whatever their case", async () => {
    const placed = await lab().placed(scene.network);
    const reverse = (address: string) => `${address.split(".").reverse().join(".")}.in-addr.arpa`;
    for (const host of HOSTS) {
      const box = scene.box(host);
      const reversed = await lab().ask(
        host,
        box,
        placed.map(({ address }) => reverse(address)),
        "PTR",
      );
      const found = placed.map(({ address }) => reversed.get(reverse(address))?.join());
      assert.deepEqual(
        found,
        placed.map(({ name }) => `${name}.${scene.network}.`),
        host,
      );
      const names = ["box-docker.side", "tasks.web.side", "nobody", "nobody.side"];
      const answers = await lab().ask(host, box, names);
      const counts = names.map((name) => answers.get(name)?.length);
      assert.deepEqual(counts, [1, 3, 0, 0], host);
    }
  });

  const alone: Host[][] = [["skein"], ["docker"]];
  // Docker's managers need half a minute to find their nodes again: in the long form only.
  const manager: Host[][] = rounds > 0 || stranger === "docker" ? [["manager"]] : [];
  for (const hosts of [...(rounds > 0 ? alone : []), ["skein", "docker"], ...manager] as Host[][]) {
    it(`kill -9 of the engines on ${hosts.join(" and ")}, and a new start`, async () => {
      const others = HOSTS.filter((host) => !hosts.includes(host));
      const before = await tasksOn(others);
      await Promise.all(hosts.map((host) => lab().crash(host, scene.box(host))));
      report(lab(), `after kill -9 of ${hosts}`, await agreed(lab(), scene));
      assert.deepEqual(await tasksOn(others), before, "nothing was started anew elsewhere");
    });
  }

  for (const host of ["skein", "docker"] as const) {
    it(`${host} leaves the swarm, is forgotten, and joins again, as a worker only`, async () => {
      const others = HOSTS.filter((other) => other !== host);
      const gone = (await lab().placedOn(host, scene.network)).map(({ name }) => name);
      const early = await lab().try("manager", "node", "rm", host);
      assert.match(early.stderr, /is not down and can't be removed/);
      await lab().ok(host, "rm", "--force", scene.box(host));
      await lab().ok(host, "swarm", "leave");
      assert.equal(await lab().ok(host, "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
      await eventually("nothing of the swarm is left there", async () => {
        const tasks = await lab().ok(host, "ps", "-aq", "--filter", "label=com.docker.swarm.task.id");
        return tasks === "" && (await lab().ok(host, "network", "ls", "-q", "--filter", "driver=overlay")) === "";
      });
      await eventually(`the names of ${host} are gone`, async () => {
        const all = await Promise.all(others.map((other) => lab().ask(other, scene.box(other), gone)));
        return all.every((answers) => [...answers.values()].every((found) => found.length === 0));
      });
      await eventually("it is down", async () => (await lab().nodes()).includes(`[${host}] Down Active`));
      const id = await lab().manage("node", "ls", "--quiet", "--filter", `name=${host}`);
      await lab().manage("node", "rm", id);
      if (lab().engineOf(host) !== lab().managedBy) await isNoManager(lab(), host);
      await lab().join(host);
      await eventually("it is ready", async () => (await lab().nodes()).includes(`[${host}] Ready Active`));
      await startBox(lab(), host);
      report(lab(), `after ${host} joined again`, await agreed(lab(), scene));
    });
  }

  const cuts: Host[] =
    rounds > 0 ? Array.from({ length: rounds }, () => ["docker", "skein", "manager"] as const).flat() : [stranger];
  for (const [round, host] of cuts.entries()) {
    it(`${host} is cut off (${round + 1} of ${cuts.length}), and all are right again without a restart`, async () => {
      const others = HOSTS.filter((other) => other !== host);
      cable(lab(), host, false);
      const began = Date.now();
      try {
        await eventually("each side has given the other up", async () => {
          const [here, ...there] = await Promise.all(
            [host, ...others].map((one) => lab().ask(one, scene.box(one), HOSTS.map(scene.box))),
          );
          const knows = (answers: Map<string, string[]> | undefined) =>
            HOSTS.filter((one) => (answers?.get(scene.box(one)) ?? []).length > 0).join();
          return knows(here) === host && there.every((answers) => knows(answers) === others.join());
        });
        report(lab(), `${host} and the others gave each other up`, Date.now() - began);
        await sleep(systemClock, Math.max(0, silenceMs - (Date.now() - began)));
      } finally {
        cable(lab(), host, true);
      }
      await heals(lab(), `${host} was cut off for ${Math.round(silenceMs / 1000)} s`);
    });
  }

  // Around the time that gossip takes to give a node up, one side may have done so and the other not.
  for (const host of rounds > 0 ? (["docker", "skein"] as const) : []) {
    it(`short silences of ${host} heal, too`, async () => {
      for (const seconds of [2, 3, 4, 5, 6, 7, 8, 10]) {
        cable(lab(), host, false);
        await sleep(systemClock, seconds * 1000);
        cable(lab(), host, true);
        await heals(lab(), `${host} was cut off for ${seconds} s`);
      }
    });
  }
}

/** Waits until all is right again after a fault that has just ended, and tells how long that took. */
async function heals(lab: MixedLab, fault: string): Promise<void> {
  // What was there before and stays; then all, with the tasks that the managers had started elsewhere or stopped.
  const began = Date.now();
  await eventually(
    `the containers find each other after ${fault}`,
    async () => (await Promise.all(HOSTS.map((one) => unheard(lab, one)))).every((lost) => lost === ""),
    60_000,
  );
  const found = Date.now() - began;
  await agreed(lab, scene);
  report(lab, `${fault}: containers find each other after ${found} ms, all hosts agree after`, Date.now() - began);
}

/** The other hosts' containers that a host's own does not reach by name. */
function unheard(lab: MixedLab, host: Host): Promise<string> {
  const line = `for n in ${HOSTS.map(scene.box).join(" ")}; do ping -c1 -W1 $n >/dev/null 2>&1 || echo $n; done`;
  return lab.sh(host, scene.box(host), line);
}

function report(lab: MixedLab, what: string, ms: number): void {
  console.error(`managed by ${lab.managedBy}: ${what}: ${ms} ms`);
}
