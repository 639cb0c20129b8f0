/**
 * Hosts that go without a word: their tasks get no new connection within two seconds, replacements run within five, and
 * when the host is back nothing runs twice. Docker in such a lab: 5.4 s until the name is right, 10.3 s until the node
 * is Down, 15.9 s until the replacement runs.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, type TestContext, test } from "node:test";
import { sleep, systemClock } from "../../src/base/clock.ts";
import { openNetNs } from "../../src/kernel/netns.ts";
import { tcpConnectIn } from "../../src/kernel/socket.ts";
import { startDaemon } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { end, signal } from "../../src/lab/process.ts";
import { saveState } from "../../src/lab/state.ts";
import { setCable } from "../../src/lab/switch.ts";
import { eventually, TestLab } from "../support/lab.ts";
import { Talk } from "../support/talks.ts";

let lab: TestLab;
const hosts = ["manager", "worker-1", "worker-2"];

before(async () => {
  lab = await TestLab.up("fov", "10.69.0.0/24", { images: ["basic", "web"] });
  await lab.swarm();
  await lab.ok("manager", "network", "create", "--driver", "overlay", "--attachable", "net");
  const options = ["--network", "net", "--publish", "8080:80", "--stop-grace-period", "2s"];
  await lab.ok("manager", "service", "create", "--quiet", "--name", "web", "--replicas", "3", ...options, "nginx");
  await lab.ok("manager", "run", "--detach", "--name", "box", "--network", "net", "skein/box", "sleep", "1000");
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

/** Addresses that new connections go to, by the balancer of a host's routing mesh. */
async function backends(host: string): Promise<string[]> {
  const sandbox = "--net=/run/docker/netns/ingress_sbox";
  const { stdout } = await lab.in(host, "nsenter", sandbox, "nft", "list", "chain", "ip", "skein-mesh", "tcp-8080");
  return [...stdout.matchAll(/\b10\.0\.\d+\.\d+\b/g)].map(([address]) => address).sort();
}

/** Nodes of running tasks whose node is not the given one. */
async function running(): Promise<string[]> {
  const format = "{{.Node}} {{.CurrentState}}";
  const text = await lab.ok("manager", "service", "ps", "web", "--filter", "desired-state=running", "--format", format);
  return text.split("\n").flatMap((line) => (line.includes(" Running ") ? [line.split(" ")[0] ?? ""] : []));
}

async function resolved(): Promise<number> {
  const { stdout } = await lab.try("manager", "exec", "box", "nslookup", "tasks.web");
  return [...stdout.matchAll(/^Address(?: \d+)?:\s+\d+\.\d+\.\d+\.\d+\s*$/gm)].length;
}

/** Milliseconds from now until it is so. */
async function since<T>(began: number, what: string, attempt: () => Promise<T | undefined | false>): Promise<number> {
  await eventually(what, attempt, 20_000);
  return Date.now() - began;
}

/** New connections through the manager, one after another; when the last one began that led nowhere. */
class Dialler {
  lastFailure = 0;
  dialled = 0;
  #stopped = false;
  readonly #done = this.#run();

  async #run(): Promise<void> {
    await null;
    while (!this.#stopped) {
      const began = Date.now();
      this.dialled++;
      if (!(await this.#dial())) this.lastFailure = began;
      await sleep(systemClock, 5);
    }
  }

  #dial(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect({ host: lab.host("manager").address, port: 8080 });
      const finish = (ok: boolean) => {
        clearTimeout(timer);
        socket.destroy();
        resolve(ok);
      };
      const timer = setTimeout(() => finish(false), 250);
      socket.on("connect", () => finish(true));
      socket.on("error", () => finish(false));
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }
}

async function ready(): Promise<void> {
  await eventually("three tasks on three hosts", async () => (await running()).length === 3, 20_000);
  for (const host of hosts) await eventually("balanced", async () => (await backends(host)).length === 3, 20_000);
}

/** Loses a host in some way and measures. */
async function lose(t: TestContext, victim: string, how: () => Promise<void> | void, cutsOff: boolean): Promise<void> {
  await ready();
  assert.ok((await running()).includes(victim), "a task to lose");
  const before = await backends("manager");
  const dialler = new Dialler();
  const began = Date.now();
  await how();
  const [withdrawn, unnamed, down, replaced] = await Promise.all([
    since(began, "withdrawn", async () => (await backends("manager")).length < before.length),
    since(began, "unnamed", async () => (await resolved()) < 3),
    since(began, "Down", async () => {
      const status = await lab.ok("manager", "node", "inspect", "--format", "{{.Status.State}}", victim);
      return status === "down";
    }),
    since(began, "replaced", async () => {
      const nodes = await running();
      return nodes.length === 3 && !nodes.includes(victim) && (await backends("manager")).length === 3;
    }),
  ]).finally(() => dialler.stop());
  const cut = dialler.lastFailure ? `${dialler.lastFailure - began} ms` : "none";
  t.diagnostic(
    `${victim}: out of the balancers ${withdrawn} ms, out of DNS ${unnamed} ms, last new connection that led nowhere ` +
      `${cut} (of ${dialler.dialled}), Down ${down} ms, replaced and balanced ${replaced} ms`,
  );
  assert.ok(withdrawn <= 2_000, `withdrawn after ${withdrawn} ms`);
  if (cutsOff) assert.ok(dialler.lastFailure - began <= 2_000, `a connection led nowhere after ${cut}`);
  assert.ok(replaced <= 5_000, `replaced after ${replaced} ms`);
}

/** All hosts agree on three tasks, and three containers run. */
async function nothingTwice(t: TestContext, began: number): Promise<void> {
  await eventually(
    "three containers",
    async () => {
      const lists = await Promise.all(hosts.map((host) => lab.ok(host, "ps", "--quiet", "--filter", "ancestor=nginx")));
      return lists.join("\n").split("\n").filter(Boolean).length === 3;
    },
    20_000,
  );
  t.diagnostic(`nothing runs twice ${Date.now() - began} ms after the return`);
  await eventually("one view", async () => {
    const views = await Promise.all(hosts.map(backends));
    return views.every((view) => view.length === 3 && view.join() === views[0]?.join()) && (await resolved()) === 3;
  });
  for (let i = 0; i < 30; i++) {
    const { stdout } = await lab.in(
      "worker-1",
      "curl",
      "-s",
      "-m",
      "2",
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "http://127.0.0.1:8080/",
    );
    assert.equal(stdout, "200");
  }
}

/** Open connections to all tasks, by the VIP from a container and by the mesh from outside. */
async function talks(): Promise<{ vip: Talk[]; mesh: Talk[] }> {
  const { init } = hostOf(lab.lab, "manager").state;
  const pin = await lab.ok("manager", "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "box");
  const addresses = await lab.ok("manager", "service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web");
  const vip = /"(10\.0\.1\.\d+)\/\d+"/.exec(addresses)?.[1] ?? "";
  using box = openNetNs(`/proc/${init.pid}/root${pin}`);
  const both = {
    vip: Array.from({ length: 12 }, () => new Talk(tcpConnectIn(box, vip, 80))),
    mesh: Array.from({ length: 12 }, () => new Talk(connect({ host: lab.host("manager").address, port: 8080 }))),
  };
  for (const [name, all] of Object.entries(both)) {
    const answers = await Promise.all(all.map((talk) => talk.ask(2_000)));
    assert.deepEqual(new Set(answers), new Set(["answered"]), name);
  }
  return both;
}

test("a cable is pulled, and plugged in again; who talked to the lost task is told, the others talk on", async (t) => {
  const host = lab.host("worker-2");
  await ready();
  const open = await talks();
  await lose(t, "worker-2", () => setCable(host, false), true);
  const told = await since(Date.now(), "programs that only wait are told of the end", async () => {
    return open.vip.some((talk) => talk.ended === "ECONNABORTED");
  });
  t.diagnostic(`connections by the VIP ended ${told} ms after the replacement`);
  for (const [name, all] of Object.entries(open)) {
    const answers = await Promise.all(all.map((talk) => talk.ask(3_000)));
    const ends = Map.groupBy(answers, (answer) => answer);
    t.diagnostic(`${name}: ${[...ends].map(([end, list]) => `${list.length} ${end}`).join(", ")}`);
    assert.equal(ends.get("silent"), undefined, `${name}: none hangs`);
    assert.ok(ends.has("answered"), `${name}: tasks elsewhere talk on`);
    assert.ok(
      answers.some((answer) => answer !== "answered"),
      `${name}: the lost task's connections end`,
    );
    for (const talk of all) talk[Symbol.dispose]();
  }
  const began = Date.now();
  setCable(host, true);
  await nothingTwice(t, began);
});

test("an idle connection is remembered for days, wherever it is", async () => {
  const key = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
  const pin = await lab.ok("manager", "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "box");
  const filter = ["--quiet", "--filter", "label=com.docker.swarm.service.name=web"];
  const [task = ""] = (await lab.ok("manager", "ps", ...filter)).split("\n");
  const served = await lab.ok("manager", "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", task);
  for (const place of [
    [],
    ...[pin, served, "/run/docker/netns/ingress_sbox"].map((at) => ["nsenter", `--net=${at}`]),
  ]) {
    const { stdout } = await lab.in("manager", ...place, "cat", key);
    assert.ok(Number(stdout) > 24 * 3600, `${place.join(" ")}: ${stdout}`);
  }
});

test("an engine freezes, and thaws", async (t) => {
  await lab.ok("manager", "service", "update", "--quiet", "--force", "--update-monitor", "100ms", "web");
  const { daemon } = hostOf(lab.lab, "worker-1").state;
  assert.ok(daemon);
  await lose(t, "worker-1", () => signal(daemon, "SIGSTOP"), false);
  const began = Date.now();
  signal(daemon, "SIGCONT");
  await nothingTwice(t, began);
});

test("a short freeze restarts nothing", async () => {
  await lab.ok("manager", "service", "update", "--quiet", "--force", "--update-monitor", "100ms", "web");
  await ready();
  const ids = async () =>
    (await lab.ok("manager", "service", "ps", "web", "--quiet", "--filter", "desired-state=running"))
      .split("\n")
      .sort()
      .join();
  const before = await ids();
  const { daemon } = hostOf(lab.lab, "worker-2").state;
  assert.ok(daemon);
  signal(daemon, "SIGSTOP");
  try {
    await eventually("suspected", async () => (await backends("manager")).length === 2, 3_000);
  } finally {
    signal(daemon, "SIGCONT");
  }
  await eventually("trusted again", async () => (await backends("manager")).length === 3, 5_000);
  await sleep(systemClock, 1_000);
  assert.equal(await ids(), before);
});

test("an engine is killed and away for seconds: its tasks stay where they are and can be talked to", async () => {
  await ready();
  const { host, state } = hostOf(lab.lab, "worker-2");
  const before = await lab.ok("worker-2", "ps", "--quiet", "--no-trunc");
  const task = (await lab.ok("worker-2", "ps", "--quiet", "--filter", "ancestor=nginx")).split("\n")[0] ?? "";
  const address = await lab.ok("worker-2", "inspect", "--format", "{{.NetworkSettings.Networks.net.IPAddress}}", task);
  assert.ok(state.daemon && (await end(state.daemon, "SIGKILL", 15_000)));
  await eventually("withdrawn", async () => (await backends("manager")).length === 2);
  await sleep(systemClock, 6_000);
  const ping = await lab.try("manager", "exec", "box", "ping", "-c", "3", "-W", "2", address);
  assert.match(ping.stdout, / 0% packet loss/);
  lab.lab.state.running["worker-2"] = await startDaemon(host, state);
  saveState(lab.lab.state);
  await ready();
  assert.equal(await lab.ok("worker-2", "ps", "--quiet", "--no-trunc"), before);
});

test("a host dies", async (t) => {
  const { host, state } = hostOf(lab.lab, "worker-2");
  const die = () => {
    signal(state.init, "SIGKILL");
    // Its network namespace lives on; the kernel of a dead host refuses no connections.
    setCable(host, false);
  };
  await lose(t, "worker-2", die, true);
});

test("the heartbeat is the operator's to choose", async () => {
  const period = () => lab.ok("manager", "info", "--format", "{{.Swarm.Cluster.Spec.Dispatcher.HeartbeatPeriod}}");
  assert.equal(await period(), "1s");
  await lab.ok("manager", "swarm", "update", "--dispatcher-heartbeat", "5s");
  assert.equal(await period(), "5s");
});
