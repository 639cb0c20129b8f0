/**
 * Three managers and a worker under random faults and churn: any daemon, containerd or etcd is killed at any moment,
 * cables are pulled, tasks die, services are scaled and updated meanwhile; disks are full or lost. Every round ends with: each replica runs
 * exactly once and nothing else does, no address is given twice, all hosts have the same entries, balancers and names,
 * and the published port answers through every host.
 *
 * Long form: `SKEIN_FAULT_ROUNDS=50` (default 2). `SKEIN_FAULT_SEED=n` repeats a run as far as the machine does. `SKEIN_FAULT_KEEP=1`
 * leaves the lab up.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, type TestContext, test } from "node:test";
import { sleep, systemClock } from "../../src/base/clock.ts";
import { messageOf } from "../../src/base/errors.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { run } from "../../src/lab/process.ts";
import {
  brokenPaths,
  cable,
  ensureDaemon,
  fillDisk,
  freeDisk,
  healed,
  killDaemon,
  killProgram,
  killTask,
  onSmallDisk,
  seeded,
  type Wanted,
} from "../support/faults.ts";
import { eventually, TestLab } from "../support/lab.ts";

const names = ["m1", "m2", "m3", "w1"];
const rounds = Number(process.env.SKEIN_FAULT_ROUNDS ?? 2);
const seed = Number(process.env.SKEIN_FAULT_SEED ?? Date.now() % 1_000_000);
const random = seeded(seed);
const wanted = { service: "web", replicas: 6, everywhere: "glob", network: "net" };
/** Hosts whose state is on a disk of its own. */
const small = ["m2", "w1"];
const HEAL_MS = 90_000;
let lab: TestLab;

before(async () => {
  lab = await TestLab.up("flt", "10.67.0.0/24", { names });
  await Promise.all(small.map((host) => onSmallDisk(lab, host, 400)));
  const address = lab.host("m1").address;
  await lab.ok("m1", "swarm", "init", "--advertise-addr", address);
  const token = (role: string) => lab.ok("m1", "swarm", "join-token", "--quiet", role);
  for (const host of ["m2", "m3"])
    await lab.ok(host, "swarm", "join", "--token", await token("manager"), `${address}:2377`);
  await lab.ok("w1", "swarm", "join", "--token", await token("worker"), `${address}:2377`);
  await lab.ok("m1", "network", "create", "--driver", "overlay", "--attachable", "net");
  const script = "mkdir -p /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 80 -h /tmp/www";
  const common = ["--detach", "--network", "net", "--stop-signal", "KILL", "--restart-delay", "100ms"];
  const web = [...common, "--publish", "8080:80", "--replicas", String(wanted.replicas)];
  await lab.ok("m1", "service", "create", ...web, "--name", "web", "skein/box", "sh", "-c", script);
  await lab.ok("m1", "service", "create", ...common, "--name", "glob", "--mode", "global", "skein/box", "sleep", "1d");
  await healed(lab, wanted, HEAL_MS);
});
after(async () => {
  if (process.env.SKEIN_FAULT_KEEP) return;
  await lab?.[Symbol.asyncDispose]();
});

const done: string[] = [];
/** Set by the first fault that does not heal: what follows would only wait for the same again. */
let sick = "";
beforeEach(() => assert.equal(sick, "", "an earlier fault has not healed"));

async function heal(t: TestContext): Promise<void> {
  try {
    t.diagnostic(`healed after ${await healed(lab, wanted, HEAL_MS)} ms`);
  } catch (error) {
    sick = `seed ${seed}, ${done.join("; ")}: ${messageOf(error)}`;
    throw new Error(sick);
  }
}

const pick = <T>(from: readonly T[]): T => {
  const one = from[Math.floor(random() * from.length)];
  assert.ok(one !== undefined);
  return one;
};

type Fault = (host: string) => Promise<void>;

/** Each leaves its host able to heal; what it took away comes back after a random while. */
const faults: Record<string, Fault> = {
  "kill skeind": async (host) => {
    await killDaemon(lab, host);
    await sleep(systemClock, random() * 2_000);
    await ensureDaemon(lab, host);
  },
  "kill containerd": (host) => killProgram(lab, host, "containerd"),
  "kill etcd": (host) => killProgram(lab, host, "etcd"),
  "kill skeind and containerd": async (host) => {
    await Promise.all([killDaemon(lab, host), killProgram(lab, host, "containerd")]);
    await ensureDaemon(lab, host);
  },
  "kill skeind and etcd": async (host) => {
    await Promise.all([killDaemon(lab, host), killProgram(lab, host, "etcd")]);
    await ensureDaemon(lab, host);
  },
  "pull the cable": async (host) => {
    cable(lab, host, false);
    await sleep(systemClock, 500 + random() * 5_000);
    cable(lab, host, true);
  },
  "kill a task": (host) => killTask(lab, host, random),
};

/** What users do meanwhile; they may be told that there is no leader. */
async function churn(): Promise<Wanted> {
  const host = pick(["m1", "m2", "m3"]);
  const replicas = 2 + Math.floor(random() * 7);
  await lab.try(host, "service", "scale", "--detach", `web=${replicas}`);
  if (random() < 0.3) await lab.try(host, "service", "update", "--detach", "--quiet", "--force", "glob");
  return { ...wanted, replicas };
}

/** The last word is heard: it is said until it is. */
async function settle(): Promise<void> {
  for (const host of names) {
    cable(lab, host, true);
    await ensureDaemon(lab, host);
  }
  await eventually(
    "a scale that is taken",
    async () => (await lab.try("m1", "service", "scale", "--detach", `web=${wanted.replicas}`)).code === 0,
    20_000,
  );
}

/** From this machine, which is no host of the lab, through each of them, one new connection each time. */
async function answersEverywhere(times: number): Promise<void> {
  for (const host of names) {
    for (let i = 0; i < times; i++) {
      const url = `http://${lab.host(host).address}:8080/`;
      const { code, stdout } = await run(["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", url]);
      if (`${code} ${stdout}` === "0 200") continue;
      const broken = await brokenPaths(lab);
      assert.fail(
        `${host}, request ${i + 1}: curl gave ${code} ${stdout}; ${broken.join(", ") || "all paths work now"}`,
      );
    }
  }
}

for (let round = 1; round <= rounds; round++) {
  test(`round ${round} of faults`, async (t) => {
    const chosen = Array.from({ length: 2 + Math.floor(random() * 3) }, () => {
      return [pick(Object.keys(faults)), pick(names), random() * 3_000] as const;
    });
    done.push(chosen.map(([what, host]) => `${what} on ${host}`).join(", "));
    // One after another on a host: two starts of one daemon would meet.
    const byHost = Map.groupBy(chosen, ([, host]) => host);
    await Promise.all([
      ...[...byHost.values()].map(async (list) => {
        for (const [what, host, after] of list) {
          await sleep(systemClock, after);
          await faults[what]?.(host);
        }
      }),
      (async () => {
        for (let i = 0; i < 3; i++) {
          await churn();
          await sleep(systemClock, random() * 1_500);
        }
      })(),
    ]);
    await settle();
    await heal(t);
    await answersEverywhere(3);
  });
}

test("all daemons are killed at the same time and started again: requests from outside are answered at once", async (t) => {
  await Promise.all(names.map((host) => killDaemon(lab, host)));
  // The data path is in the kernel: no daemon is needed for it.
  await answersEverywhere(2);
  await Promise.all(names.map((host) => ensureDaemon(lab, host)));
  await answersEverywhere(10);
  await heal(t);
  await answersEverywhere(5);
});

test("a manager's disk is full: the others go on, its containers too; with room again it is one of them", async (t) => {
  const idsOn = (host: string) => lab.ok(host, "ps", "--quiet", "--no-trunc", "--filter", "name=glob");
  const before = await idsOn("m2");
  await fillDisk(lab, "m2");
  for (const replicas of [wanted.replicas + 2, wanted.replicas]) {
    await eventually(
      `a scale to ${replicas}`,
      async () => (await lab.try("m1", "service", "scale", "--detach", `web=${replicas}`)).code === 0,
    );
  }
  await eventually(
    "all run",
    async () => (await lab.try("m1", "service", "ls")).stdout.includes(` ${wanted.replicas}/${wanted.replicas} `),
    HEAL_MS,
  );
  assert.equal(await idsOn("m2"), before);
  await freeDisk(lab, "m2");
  await heal(t);
  await eventually("m2 is a manager again", async () => {
    const { stdout } = await lab.try("m2", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}");
    return stdout.match(/Leader|Reachable/g)?.length === 3;
  });
});

test("a worker's disk is full: what it runs runs on, what it cannot start runs elsewhere", async (t) => {
  const running = async () => (await lab.ok("w1", "ps", "--quiet", "--no-trunc")).split("\n").filter(Boolean);
  const before = await running();
  await fillDisk(lab, "w1");
  const replicas = wanted.replicas + 4;
  await lab.ok("m1", "service", "scale", "--detach", `web=${replicas}`);
  await eventually(
    "all run, the new ones elsewhere",
    async () => (await lab.try("m1", "service", "ls")).stdout.includes(` ${replicas}/${replicas} `),
    HEAL_MS,
  );
  const now = await running();
  for (const id of before) assert.ok(now.includes(id), `${id} is gone`);
  // A daemon that starts on a full disk finds its tasks again.
  await killDaemon(lab, "w1");
  await ensureDaemon(lab, "w1");
  for (const id of before) assert.ok((await running()).includes(id), `${id} is gone after a restart`);
  await freeDisk(lab, "w1");
  await lab.ok("m1", "service", "scale", "--detach", `web=${wanted.replicas}`);
  await heal(t);
});

test("a manager's disk is lost: it is replaced by a new member on the same host", async (t) => {
  const nodeId = await lab.ok("m3", "info", "--format", "{{.Swarm.NodeID}}");
  await killDaemon(lab, "m3");
  await killProgram(lab, "m3", "etcd");
  const { host } = hostOf(lab.lab, "m3");
  await run(["rm", "-rf", `${host.stateDir}/swarm`]);
  await ensureDaemon(lab, "m3");
  await eventually("m3 is in no swarm", async () => {
    return (await lab.ok("m3", "info", "--format", "{{.Swarm.LocalNodeState}}")) === "inactive";
  });
  await eventually(
    "the loss is seen",
    async () => {
      const { stdout } = await lab.try("m1", "node", "inspect", "--format", "{{.Status.State}}", nodeId);
      return stdout.trim() === "down";
    },
    30_000,
  );
  await lab.ok("m1", "node", "demote", nodeId);
  await eventually(
    "m3's old self is removed",
    async () => (await lab.try("m1", "node", "rm", "--force", nodeId)).code === 0,
  );
  const token = await lab.ok("m1", "swarm", "join-token", "--quiet", "manager");
  await lab.ok("m3", "swarm", "join", "--token", token, `${lab.host("m1").address}:2377`);
  await heal(t);
  const managers = await lab.ok("m3", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}");
  assert.equal(managers.match(/Leader|Reachable/g)?.length, 3, managers);
  await answersEverywhere(3);
});
