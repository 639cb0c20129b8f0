/**
 * How many nodes and tasks a manager bears: `bin/node bench/scale.ts [nodes…] [--tasks-per-node 30] [--managers 1]
 * [--network] [--seconds 20] [--bind 127.0.0.1]`. Default: 10, 100 and 1,000 nodes.
 *
 * Managers are the real ones, each a process of its own with its etcd; all nodes are in one more process, each with its
 * own certificate, TLS connection and the real agent (`support/scale-agents.ts`). Measured: joining of all nodes; create
 * to all tasks Running; a service of one replica beside that; CPU when nothing happens; with three managers also the
 * kill of the leader's process and etcd until all nodes have a session with the new one and a new task runs, with the CPU
 * that managers, their etcds and the simulated nodes took meanwhile.
 *
 * `SKEIN_BENCH_PROFILE=dir` writes CPU profiles of all processes for the create and for the change of leader.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { sleep, systemClock } from "../src/base/clock.ts";
import { Child, pidsOf, type Usage, usageOf } from "./support/process.ts";

interface Counts {
  readonly ready: number;
  readonly running: number;
  readonly tasks: number;
  readonly changes: number;
  readonly leads: boolean;
}
interface ManagerUsage {
  readonly own: Usage;
  readonly etcd: { pid: number; cpuMs: number; rssMb: number };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "tasks-per-node": { type: "string", default: "30" },
    managers: { type: "string", default: "1" },
    network: { type: "boolean", default: false },
    seconds: { type: "string", default: "20" },
    bind: { type: "string", default: "127.0.0.1" },
  },
});
const sizes = positionals.length > 0 ? positionals.map(Number) : [10, 100, 1000];
const FIRST_PORT = 23_770;
/** Longer than this and it is given up. */
const PATIENCE_MS = 120_000;

async function until(what: string, done: () => Promise<boolean>): Promise<number> {
  const start = performance.now();
  while (!(await done())) {
    if (performance.now() - start > PATIENCE_MS) throw new Error(`gave up waiting for ${what}`);
    await sleep(systemClock, 50);
  }
  return performance.now() - start;
}

const seconds = (ms: number) => Number((ms / 1000).toFixed(2));

async function one(nodes: number): Promise<void> {
  const tasks = nodes * Number(values["tasks-per-node"]);
  const directory = mkdtempSync(join(tmpdir(), "skein-scale-"));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => {
    for (const pid of pidsOf("etcd", directory)) process.kill(pid, "SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  });
  const managers = Array.from({ length: Number(values.managers) }, (_, index) => {
    const addr = `${values.bind}:${FIRST_PORT + index}`;
    return { addr, child: new Child("scale-manager.ts", [join(directory, `m${index}`), addr]) };
  });
  const [first] = managers;
  if (!first) throw new Error("no manager");
  // The managers end first: they would see all nodes fail.
  const agents = cleanup.use(new Child("scale-agents.ts"));
  for (const { child } of managers) cleanup.use(child);
  const result: Record<string, unknown> = { nodes, tasks, managers: managers.length, network: values.network };

  const tokens = await first.child.ask<{ worker: string; manager: string }>("init");
  for (const { child } of managers.slice(1)) {
    await child.ask("join", { remote: first.addr, token: tokens.manager });
  }
  const counts = () => first.child.ask<Counts>("counts");
  const all = nodes + managers.length;
  const profiled = async <T>(what: string, of: Record<string, Child>, job: () => Promise<T>): Promise<T> => {
    const to = process.env.SKEIN_BENCH_PROFILE;
    if (!to || (process.env.SKEIN_BENCH_ONLY ?? what) !== what) return job();
    await Promise.all(Object.values(of).map((child) => child.ask("profile", "")));
    const result = await job();
    const ends = Object.entries(of).map(([name, child]) => {
      return child.ask("profile", join(to, `${what}-${nodes}-${name}.cpuprofile`));
    });
    await Promise.all(ends);
    return result;
  };
  if (process.env.SKEIN_BENCH_LOG) {
    const tell = async () => {
      const [of, manager, node] = await Promise.all([counts(), look(), agents.ask<Usage>("usage")]);
      console.error(new Date().toISOString(), JSON.stringify(of), manager.own.worstLagMs, node.worstLagMs);
    };
    const watch = setInterval(() => void tell().catch(() => {}), 1000);
    cleanup.defer(() => clearInterval(watch));
  }
  const look = () => first.child.ask<ManagerUsage>("usage");

  let start = performance.now();
  const addrs = managers.map(({ addr }) => addr);
  await agents.ask("join", { count: nodes, managers: addrs, token: tokens.worker });
  await until("all nodes ready", async () => (await counts()).ready === all);
  result.joinSeconds = seconds(performance.now() - start);

  const network = values.network ? await first.child.ask<string>("network", "net") : "";
  let before = await look();
  let agentsBefore = await agents.ask<Usage>("usage");
  start = performance.now();
  await profiled("create", { manager: first.child, agents }, async () => {
    await first.child.ask("create", { name: "many", replicas: tasks, network });
    await until("all tasks running", async () => (await counts()).running === tasks);
  });
  let after = await look();
  let agentsAfter = await agents.ask<Usage>("usage");
  result.createSeconds = seconds(performance.now() - start);
  result.createCpuSeconds = {
    manager: seconds(after.own.cpuMs - before.own.cpuMs),
    etcd: seconds(after.etcd.cpuMs - before.etcd.cpuMs),
    agents: seconds(agentsAfter.cpuMs - agentsBefore.cpuMs),
  };
  result.worstLagMs = { manager: after.own.worstLagMs, agents: agentsAfter.worstLagMs };
  result.rssMb = { manager: after.own.rssMb, etcd: after.etcd.rssMb, agents: agentsAfter.rssMb };

  await sleep(systemClock, 2_000);
  start = performance.now();
  await first.child.ask("create", { name: "one", replicas: 1, network });
  await until("one more task", async () => (await counts()).running === tasks + 1);
  result.oneMoreSeconds = seconds(performance.now() - start);

  const idleMs = Number(values.seconds) * 1000;
  before = await look();
  agentsBefore = await agents.ask<Usage>("usage");
  const changes = (await counts()).changes;
  await sleep(systemClock, idleMs);
  after = await look();
  agentsAfter = await agents.ask<Usage>("usage");
  result.idleCores = {
    manager: Number(((after.own.cpuMs - before.own.cpuMs) / idleMs).toFixed(3)),
    etcd: Number(((after.etcd.cpuMs - before.etcd.cpuMs) / idleMs).toFixed(3)),
    agents: Number(((agentsAfter.cpuMs - agentsBefore.cpuMs) / idleMs).toFixed(3)),
  };
  result.idleChanges = (await counts()).changes - changes;
  result.idleRssMb = { manager: after.own.rssMb, etcd: after.etcd.rssMb, agents: agentsAfter.rssMb };

  if (managers.length >= 3) {
    const { pid } = after.etcd;
    const others = managers.slice(1);
    const cpu = async () => {
      const used = await Promise.all(others.map(({ child }) => child.ask<ManagerUsage>("usage")));
      return [...used.map(({ own, etcd }) => [own.cpuMs, etcd.cpuMs]), [(await agents.ask<Usage>("usage")).cpuMs]];
    };
    const cpuBefore = await cpu();
    start = performance.now();
    const killed = Date.now();
    await first.child.kill();
    if (pid > 0 && usageOf(pid).rssMb > 0) process.kill(pid, "SIGKILL");
    let leader = others[0];
    await until("a new leader", async () => {
      for (const other of others) {
        if ((await other.child.ask<Counts>("counts")).leads) {
          leader = other;
          return true;
        }
      }
      return false;
    });
    result.newLeaderSeconds = seconds(performance.now() - start);
    const now = () => leader?.child.ask<Counts>("counts");
    await profiled("change", { agents, ...Object.fromEntries(others.map(({ addr, child }) => [addr, child])) }, () =>
      until("a session of all nodes with the new leader", async () => {
        return (await agents.ask<number>("sessionsSince", killed)) === nodes;
      }),
    );
    result.allSessionsSeconds = seconds(performance.now() - start);
    const took = (await cpu()).map((of, i) => of.map((ms, j) => seconds(ms - (cpuBefore[i]?.[j] ?? 0))));
    const [ofAgents] = took.splice(-1).flat();
    const leads = others.findIndex(({ addr }) => addr === leader?.addr);
    result.changeCpuSeconds = {
      ...{ leader: took[leads]?.[0], itsEtcd: took[leads]?.[1] },
      ...{ otherManagers: took.filter((_, i) => i !== leads).map(([own]) => own), agents: ofAgents },
    };
    // The dead manager is a node too, and is not ready any more.
    await until("all nodes ready", async () => ((await now())?.ready ?? 0) >= all - 1);
    result.allReadySeconds = seconds(performance.now() - start);
    await leader?.child.ask("create", { name: "after", replicas: 1, network });
    await until("a task after the change", async () => ((await now())?.running ?? 0) >= tasks + 2);
    result.taskAfterSeconds = seconds(performance.now() - start);
    result.lostTasks = tasks + 2 - ((await now())?.running ?? 0);
  }
  console.log(JSON.stringify(result));
}

for (const size of sizes) await one(size);
