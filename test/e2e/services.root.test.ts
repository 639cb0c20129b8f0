/**
 * Services on three hosts with the stock CLI: what users ask of them, what they are told, and what becomes of them.
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { run } from "../../src/lab/process.ts";
import { eventually, TestLab } from "../support/lab.ts";

const hosts = ["manager", "worker-1", "worker-2"];
const oldCli = "/usr/bin/docker";
let lab: TestLab;
let files = "";

before(async () => {
  files = mkdtempSync(join(tmpdir(), "skein-services-"));
  lab = await TestLab.up("e2s", "10.84.0.0/24");
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
  rmSync(files, { recursive: true, force: true });
});

const docker = (...args: string[]) => lab.ok("manager", ...args);
/** The CLI's words when it fails, which it must. */
async function refusal(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await lab.try("manager", ...args);
  assert.notEqual(code, 0, `docker ${args.join(" ")} was accepted: ${stdout}`);
  return stderr.trim();
}
const lines = (text: string) => text.split("\n").filter(Boolean);
/** The CLI waits until the tasks are stable, which here is soon. */
const create = (name: string, ...args: string[]) => createJob(name, "--update-monitor", "50ms", ...args);
const createJob = (name: string, ...args: string[]) =>
  docker("service", "create", "-q", "--no-resolve-image", "--name", name, "--stop-grace-period", "1s", ...args);
const sleeper = ["skein/box", "sleep", "1000"];
const ps = async (service: string, format: string, ...filters: string[]) =>
  lines(
    await docker(
      ...["service", "ps", "--no-trunc", "--format", format],
      ...filters.flatMap((filter) => ["--filter", filter]),
      service,
    ),
  );
const running = async (service: string, format: string) => {
  const tasks = await ps(service, `{{.CurrentState}}|${format}`, "desired-state=running");
  return tasks.flatMap((line) => (line.startsWith("Running") ? [line.slice(line.indexOf("|") + 1)] : []));
};
const spec = async (service: string) =>
  JSON.parse(await docker("service", "inspect", "--format", "{{json .Spec}}", service));
const stdin = (host: string, input: string, ...args: string[]) => {
  const file = join(files, "stdin");
  writeFileSync(file, input);
  return run(["sh", "-c", `exec docker -H unix://${lab.host(host).socket} "$@" < ${file}`, "sh", ...args]);
};

test("a node has its own address in its status, the manager too", async () => {
  const addresses = await Promise.all(
    hosts.map((host) => docker("node", "inspect", "--format", "{{.Status.Addr}}", host)),
  );
  assert.deepEqual(
    addresses,
    hosts.map((host) => lab.host(host).address),
  );
});

test("networks: overlapping and invalid subnets are refused, also when asked for at the same moment", async () => {
  const overlay = (name: string, subnet: string) =>
    lab.try("manager", "network", "create", "-d", "overlay", "--subnet", subnet, name);
  const both = await Promise.all([overlay("a", "10.50.0.0/24"), overlay("b", "10.50.0.0/25")]);
  const [winner] = both.filter(({ code }) => code === 0);
  const [loser] = both.filter(({ code }) => code !== 0);
  assert.ok(winner && loser);
  const overlap = /invalid pool request: Pool overlaps with other one on this address space/;
  assert.match(loser.stderr, overlap);
  assert.match((await overlay("c", "10.50.0.64/26")).stderr, overlap);
  assert.match((await overlay("c", "10.0.0.0/16")).stderr, overlap, "ingress");
  assert.match((await overlay("c", "300.1.0.0/16")).stderr, /invalid subnet 300\.1\.0\.0\/16/);
  await docker("network", "rm", ...lines(await docker("network", "ls", "-q", "--filter", "name=^[ab]$")));
});

test("a network that is not attachable refuses a container once", async () => {
  await docker("network", "create", "-d", "overlay", "closed");
  const words = await refusal("run", "--rm", "--network", "closed", "skein/box", "true");
  assert.equal(words.match(/Could not attach to network/g)?.length, 1, words);
  assert.match(words, /network closed not manually attachable/);
  await docker("network", "rm", "closed");
});

test("a full subnet: tasks that run have all they need, the others say what is missing", async () => {
  await docker("network", "create", "-d", "overlay", "--subnet", "10.60.0.0/29", "tiny");
  await create("full", "-d", "--replicas", "6", "--network", "tiny", ...sleeper);
  const waiting = await eventually("the tasks without an address", async () => {
    const tasks = await ps("full", "{{.CurrentState}}|{{.Error}}");
    const settled = tasks.every((task) => /^(Running|New.*no available)/.test(task));
    return settled && tasks.length === 6 ? tasks.filter((task) => task.startsWith("New")) : undefined;
  });
  for (const task of waiting) assert.match(task, /no available IP address in network tiny/);
  assert.ok(waiting.length >= 3 && waiting.length <= 4, `${waiting.length} wait`);
  await docker("service", "rm", "full");
  await eventually(
    "the network to be free",
    async () => (await lab.try("manager", "network", "rm", "tiny")).code === 0,
  );
});

test("what can be placed nowhere says why; a task that fails while it waits is retried at the pace of its policy", async () => {
  const pace = ["--restart-delay", "2s", "--restart-max-attempts", "2"];
  await create("nowhere", "-d", "--constraint", "node.labels.x==y", ...sleeper);
  await create("large", "-d", "--reserve-cpu", "500", ...sleeper);
  await create("bind", "-d", "--mount", "type=bind,source=/not/there,target=/x", ...pace, ...sleeper);
  await create("image", "-d", ...pace, "--restart-delay", "20s", "skein/none");
  const error = (service: string) => ps(service, "{{.Error}}");
  await eventually("three tasks", async () => (await error("bind")).length === 3);
  const reasons = await Promise.all(["nowhere", "large", "bind", "image"].map(error));
  assert.deepEqual(reasons[0], ['"no suitable node (scheduling constraints not satisfied on 3 nodes)"']);
  assert.deepEqual(reasons[1], ['"no suitable node (insufficient resources on 3 nodes)"']);
  for (const reason of reasons[2] ?? []) assert.match(reason, /bind source path does not exist: \/not\/there/);
  assert.equal(reasons[3]?.length, 2, "one attempt and its replacement, which has prepared in vain and waits");
  for (const reason of reasons[3] ?? []) assert.match(reason, /No such image: skein\/none:latest/);
  const again = await ps("bind", "{{.ID}}");
  assert.equal(again.length, 3, "no more than two attempts");
  await docker("service", "rm", "nowhere", "large", "bind", "image");
});

test("a task answers to its container's short id and to its hostname on every host", async () => {
  await docker("network", "create", "-d", "overlay", "names");
  await create("named", "--replicas", "2", "--hostname", "box-{{.Task.Slot}}", "--network", "names", ...sleeper);
  const [first = "", second = ""] = await running("named", "{{.Node}} {{.Name}}.{{.ID}}");
  const [host = "", name = ""] = first.split(" ");
  const [other = "", otherName = ""] = second.split(" ");
  const id = (await lab.ok(other, "inspect", "--format", "{{.Id}}", otherName)).slice(0, 12);
  for (const alias of [id, otherName, `box-${otherName.split(".")[1]}`]) {
    await eventually(`an answer to ${alias}`, async () => {
      return (await lab.try(host, "exec", name, "ping", "-c", "1", "-W", "1", alias)).code === 0;
    });
  }
  await docker("service", "rm", "named");
});

test("history: five tasks of a slot are shown, the oldest go; ended tasks keep their reason", async () => {
  await create("brief", "-d", "--restart-delay", "100ms", "skein/box", "sh", "-c", "exit 3");
  const shown = await eventually("a full history", async () => {
    const tasks = await ps("brief", "{{.ID}} {{.DesiredState}} {{.CurrentState}} {{.Error}}");
    return tasks.length >= 5 ? tasks : undefined;
  });
  const ended = shown.filter((task) => task.includes("Shutdown Failed"));
  assert.ok(ended.length >= 3, shown.join("\n"));
  for (const task of ended) assert.match(task, /task: non-zero exit \(3\)/);
  const oldest = shown.at(-1)?.split(" ")[0] ?? "";
  await eventually("the oldest to be forgotten", async () => !(await ps("brief", "{{.ID}}")).includes(oldest));
  assert.ok((await ps("brief", "{{.ID}}")).length <= 6);
  await docker("service", "rm", "brief");
});

test("node update: labels, and what is wrong with others", async () => {
  await docker("node", "update", "--label-add", "zone=a", "--label-add", "disk=ssd", "manager");
  await docker("node", "update", "--label-add", "zone=a", "worker-1");
  await docker("node", "update", "--label-add", "zone=b", "worker-2");
  await docker("node", "update", "--label-rm", "disk", "manager");
  const names = async (...filters: string[]) =>
    lines(
      await docker(
        ...["node", "ls", "--format", "{{.Hostname}}"],
        ...filters.flatMap((filter) => ["--filter", filter]),
      ),
    ).sort();
  assert.deepEqual(await names("node.label=zone=a"), ["manager", "worker-1"]);
  assert.deepEqual(await names("node.label=disk"), []);
  assert.deepEqual(await names("role=manager"), ["manager"]);
  assert.deepEqual(await names("name=worker"), ["worker-1", "worker-2"]);
  assert.deepEqual(await names("membership=accepted"), hosts);
  const wrong: [string[], RegExp][] = [
    [["node", "ls", "--filter", "role=boss"], /Invalid role filter: 'boss'/],
    [["node", "ls", "--filter", "colour=red"], /invalid filter 'colour'/],
    [["node", "update", "--availability", "away", "worker-1"], /invalid Availability: "away"/],
    [["node", "update", "--role", "boss", "worker-1"], /invalid Role: "boss"/],
    [["node", "update", "--label-rm", "none", "worker-1"], /key none doesn't exist in node's labels/],
    [["node", "inspect", "nobody"], /node nobody not found/],
    [["node", "ps", "nobody"], /node nobody not found/],
    [["node", "rm", "worker-1"], /is not down and can't be removed/],
    [["node", "rm", "manager"], /is a cluster manager and is a member of the raft cluster/],
    [["node", "demote", "manager"], /attempting to demote the last manager of the swarm/],
  ];
  await Promise.all(wrong.map(async ([args, words]) => assert.match(await refusal(...args), words)));
});

test("placement: constraints, spread, one per node; drain empties a node, pause gives it nothing new", async () => {
  await create("zoned", "--replicas", "4", "--placement-pref", "spread=node.labels.zone", ...sleeper);
  const zones = async () => {
    const nodes = await running("zoned", "{{.Node}}");
    return { b: nodes.filter((node) => node === "worker-2").length, all: nodes.length };
  };
  assert.deepEqual(await zones(), { b: 2, all: 4 });
  await docker("node", "update", "--availability", "drain", "worker-2");
  await eventually("the node to be empty", async () => {
    const { b, all } = await zones();
    return b === 0 && all === 4;
  });
  const left = lines(await docker("node", "ps", "--format", "{{.Name}} {{.DesiredState}}", "worker-2"));
  assert.deepEqual(
    left.map((task) => task.split(" ")[1]).filter((state) => state !== "Shutdown"),
    [],
  );
  await docker("node", "update", "--availability", "pause", "worker-1");
  const before = (await running("zoned", "{{.Node}}")).filter((node) => node === "worker-1").length;
  await docker("service", "scale", "zoned=6");
  const nodes = await running("zoned", "{{.Node}}");
  assert.equal(nodes.filter((node) => node === "worker-1").length, before, "what runs there stays, nothing comes");
  assert.equal(nodes.filter((node) => node === "manager").length, 6 - before);
  assert.equal(await docker("node", "inspect", "--format", "{{.Spec.Availability}}", "worker-1"), "pause");
  for (const worker of ["worker-1", "worker-2"]) await docker("node", "update", "--availability", "active", worker);
  await create(
    "picky",
    "-d",
    "--replicas",
    "3",
    "--replicas-max-per-node",
    "1",
    "--constraint",
    "node.labels.zone==a",
    ...sleeper,
  );
  const errors = await eventually("two of three placed", async () => {
    const tasks = await ps("picky", "{{.CurrentState}}|{{.Error}}");
    return tasks.filter((task) => task.startsWith("Running")).length === 2 ? tasks : undefined;
  });
  assert.match(errors.join("\n"), /no suitable node \(.*max replicas per node limit exceed/);
  await docker("service", "rm", "zoned", "picky");
});

test("global services follow the nodes' labels and availability", async () => {
  await create("everywhere", "--mode", "global", "--constraint", "node.labels.zone==a", ...sleeper);
  const nodes = async () => (await running("everywhere", "{{.Node}}")).sort().join(" ");
  assert.equal(await nodes(), "manager worker-1");
  await docker("node", "update", "--label-add", "zone=a", "worker-2");
  await eventually("one on the third node", async () => (await nodes()) === "manager worker-1 worker-2");
  await docker("node", "update", "--availability", "drain", "worker-1");
  await eventually("none on the drained node", async () => (await nodes()) === "manager worker-2");
  await docker("node", "update", "--availability", "active", "worker-1");
  await docker("node", "update", "--label-rm", "zone", "worker-2");
  await eventually("the first two again", async () => (await nodes()) === "manager worker-1");
  assert.match(await refusal("service", "scale", "everywhere=2"), /scale can only be used with replicated/);
  await eventually("two of two", async () => {
    const shown = await docker(
      "service",
      "ls",
      "--filter",
      "mode=global",
      "--format",
      "{{.Name}} {{.Mode}} {{.Replicas}}",
    );
    return shown === "everywhere global 2/2";
  });
  await docker("service", "rm", "everywhere");
});

test("jobs run to their end, a few at a time, and again when updated", async () => {
  await createJob(
    "job",
    "--mode",
    "replicated-job",
    "--replicas",
    "4",
    "--max-concurrent",
    "2",
    "skein/box",
    "echo",
    "once",
  );
  await createJob("sweep", "--mode", "global-job", "skein/box", "true");
  const replicas = (name: string) =>
    docker("service", "ls", "--filter", `name=${name}`, "--format", "{{.Mode}} {{.Replicas}}");
  assert.equal(await replicas("job"), "replicated job 0/2 (4/4 completed)");
  assert.equal(await replicas("sweep"), "global job 0/0 (3/3 completed)");
  assert.equal((await ps("job", "{{.CurrentState}}")).filter((state) => state.startsWith("Complete")).length, 4);
  await docker("service", "update", "-q", "--force", "job");
  assert.equal(await docker("service", "inspect", "--format", "{{.JobStatus.JobIteration.Index}}", "job"), "1");
  assert.match(await refusal("service", "rollback", "job"), /service jobs cannot be rolled back|not support|rollback/);
  assert.match(
    await refusal("service", "create", "-d", "-q", "--mode", "global-job", "--update-delay", "1s", "skein/box"),
    /update|job/,
  );
  await docker("service", "rm", "job", "sweep");
});

test("lists are filtered as Docker filters them", async () => {
  await create("f1", "--label", "tier=front", "--replicas", "2", ...sleeper);
  await create("f2", "--mode", "global", ...sleeper);
  const names = async (...filters: string[]) =>
    lines(
      await docker(...["service", "ls", "--format", "{{.Name}}"], ...filters.flatMap((filter) => ["--filter", filter])),
    ).sort();
  const id = await docker("service", "inspect", "--format", "{{.ID}}", "f1");
  assert.deepEqual(await names("label=tier"), ["f1"]);
  assert.deepEqual(await names("label=tier=back"), []);
  assert.deepEqual(await names("mode=global"), ["f2"]);
  assert.deepEqual(await names("name=f"), ["f1", "f2"]);
  assert.deepEqual(await names(`id=${id.slice(0, 8)}`), ["f1"]);
  assert.deepEqual(await ps("f1", "{{.Name}}", "name=f1.2"), ["f1.2"]);
  assert.deepEqual(await ps("f2", "{{.Node}}", "node=worker-1"), ["worker-1"]);
  assert.equal((await ps("f1", "{{.Name}}", "desired-state=shutdown")).length, 0);
  const here = lines(await docker("node", "ps", "--format", "{{.Name}}", "--filter", "name=f2", "self"));
  assert.equal(here.length, 1);
  const wrong: [string[], RegExp][] = [
    [["service", "ls", "--filter", "colour=red"], /invalid filter 'colour'/],
    [["service", "ps", "--filter", "colour=red", "f1"], /invalid filter 'colour'/],
    [["service", "ps", "--filter", "desired-state=tired", "f1"], /Invalid desired-state filter: 'tired'/],
    [["service", "ps", "f3"], /no such service: f3/],
    [["service", "rm", "f3"], /service f3 not found/],
    [["service", "inspect", "f3"], /[Nn]o such service: f3/],
    [
      ["service", "create", "-d", "-q", "--name", "f1", "skein/box"],
      /name conflicts with an existing object: service f1 already exists/,
    ],
    [["service", "create", "-d", "-q", "--name", "a.b", "skein/box"], /name must be valid as a DNS name component/],
  ];
  await Promise.all(wrong.map(async ([args, words]) => assert.match(await refusal(...args), words)));
  if (existsSync(oldCli)) {
    const { stdout } = await run([oldCli, "-H", `unix://${lab.host("manager").socket}`, "service", "ps", "f1"]);
    assert.equal(lines(stdout).length, 3, stdout);
  }
  await docker("service", "rm", "f1", "f2");
});

test("published ports by labels: at some addresses, or where a task is; what is wrong with a label is refused", async () => {
  const wrong: [string, RegExp][] = [
    ["skein.publish.address=localhost", /'localhost' is no IP address or subnet/],
    ["skein.publish.80.address=127.0.0.1", /the service does not publish port 80/],
    ["skein.publish.adress=127.0.0.1", /invalid label skein\.publish\.adress/],
    ["skein.publish.policy=near", /'near': must be mesh or local/],
  ];
  for (const [label, words] of wrong) {
    assert.match(
      await refusal("service", "create", "-d", "-q", "-p", "8101:80", "--label", label, "skein/hello"),
      words,
    );
  }
  /** "ok", or "refused"; silence is neither. */
  const answer = ({ code, stdout }: { code: number; stdout: string }) =>
    code === 7 ? "refused" : /^Hello from/m.test(stdout) ? "ok" : `curl ${code} ${stdout}`;
  const curl = (place: string) => ["curl", "-s", "-m", "3", `http://${place}/cgi-bin/index.cgi`];
  const outside = async (port: number) =>
    Promise.all(hosts.map(async (host) => answer(await run(curl(`${lab.host(host).address}:${port}`)))));
  const within = async (place: string) =>
    Promise.all(hosts.map(async (host) => answer(await lab.in(host, ...curl(place)))));
  const on = (host: string) => ["--constraint", `node.hostname==${host}`];

  const at = (places: string) => ["--label", `skein.publish.address=${places}`];
  await create("bound", "-p", "8101:80", ...at("127.0.0.1,::1"), ...on("worker-1"), "skein/hello");
  const onHost = "mode=host,target=80,published=8102";
  await create("here", "-p", onHost, ...at("127.0.0.1"), ...on("worker-2"), "skein/hello");
  const all = (word: string) => hosts.map(() => word);
  await eventually(
    "all hosts to know the port",
    async () => (await within("127.0.0.1:8101")).join() === all("ok").join(),
  );
  assert.deepEqual(await within("[::1]:8101"), all("ok"));
  assert.deepEqual(await outside(8101), all("refused"));
  assert.deepEqual(await outside(8102), all("refused"));
  assert.deepEqual(await within("127.0.0.1:8102"), ["refused", "refused", "ok"]);
  assert.match(await lab.ok("worker-2", "ps", "--format", "{{.Ports}}"), /^127\.0\.0\.1:8102->80\/tcp$/m);

  const [before] = await running("bound", "{{.ID}}");
  const local = ["--label-rm", "skein.publish.address", "--label-add", "skein.publish.8101.policy=local"];
  await docker("service", "update", "-q", ...local, "bound");
  const [after] = await running("bound", "{{.ID}}");
  assert.notEqual(after, before, "labels that concern tasks make them anew");
  await eventually("the port where its task is", async () => (await outside(8101)).join() === "refused,ok,refused");
  assert.deepEqual(await within("127.0.0.1:8101"), ["refused", "ok", "refused"]);
  await docker("service", "update", "-q", "--label-add", "other=1", "bound");
  assert.deepEqual(await running("bound", "{{.ID}}"), [after], "other labels do not");
  await docker("service", "rm", "bound", "here");
});

/** Flags of `service update` that go together, and what the spec then holds. */
const updates: [string[], Record<string, unknown>][] = [
  [
    ["--args", "sleep 999", "--env-add", "B=2", "--user", "nobody", "--workdir", "/tmp"],
    {
      "TaskTemplate.ContainerSpec.Args": ["sleep", "999"],
      "TaskTemplate.ContainerSpec.Env": ["B=2"],
      "TaskTemplate.ContainerSpec.User": "nobody",
      "TaskTemplate.ContainerSpec.Dir": "/tmp",
    },
  ],
  [
    [
      "--env-rm",
      "B",
      "--env-add",
      "C=3",
      "--container-label-add",
      "c=1",
      "--label-add",
      "s=1",
      "--hostname",
      "h-{{.Task.Slot}}",
      "--tty",
    ],
    {
      "TaskTemplate.ContainerSpec.Env": ["C=3"],
      "TaskTemplate.ContainerSpec.Labels.c": "1",
      "Labels.s": "1",
      "TaskTemplate.ContainerSpec.Hostname": "h-{{.Task.Slot}}",
      "TaskTemplate.ContainerSpec.TTY": true,
    },
  ],
  [
    [
      ...["--dns-add", "1.1.1.1", "--dns-option-add", "ndots:1", "--dns-search-add", "example.org"],
      ...["--host-add", "there:1.2.3.4", "--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD"],
      ...["--init", "--read-only", "--group-add", "nogroup", "--sysctl-add", "net.ipv4.ip_forward=1"],
    ],
    {
      "TaskTemplate.ContainerSpec.DNSConfig": {
        Nameservers: ["1.1.1.1"],
        Search: ["example.org"],
        Options: ["ndots:1"],
      },
      "TaskTemplate.ContainerSpec.Hosts": ["1.2.3.4 there"],
      "TaskTemplate.ContainerSpec.CapabilityAdd": ["CAP_NET_ADMIN"],
      "TaskTemplate.ContainerSpec.CapabilityDrop": ["CAP_MKNOD"],
      "TaskTemplate.ContainerSpec.Init": true,
      "TaskTemplate.ContainerSpec.ReadOnly": true,
      "TaskTemplate.ContainerSpec.Groups": ["nogroup"],
      "TaskTemplate.ContainerSpec.Sysctls": { "net.ipv4.ip_forward": "1" },
    },
  ],
  [
    [
      ...["--health-cmd", "true", "--health-interval", "5s", "--health-timeout", "2s", "--health-retries", "4"],
      ...["--health-start-period", "1s", "--stop-signal", "SIGINT", "--ulimit-add", "nofile=100:200"],
      ...["--mount-add", "type=tmpfs,destination=/scratch", "--log-driver", "json-file", "--log-opt", "max-size=1m"],
    ],
    {
      "TaskTemplate.ContainerSpec.Healthcheck": {
        Test: ["CMD-SHELL", "true"],
        Interval: 5e9,
        Timeout: 2e9,
        StartPeriod: 1e9,
        Retries: 4,
      },
      "TaskTemplate.ContainerSpec.StopSignal": "SIGINT",
      "TaskTemplate.ContainerSpec.Ulimits": [{ Name: "nofile", Hard: 200, Soft: 100 }],
      "TaskTemplate.ContainerSpec.Mounts": [{ Type: "tmpfs", Target: "/scratch" }],
      "TaskTemplate.LogDriver": { Name: "json-file", Options: { "max-size": "1m" } },
    },
  ],
  [
    [
      ...["--limit-cpu", "0.5", "--limit-memory", "64M", "--limit-pids", "50", "--reserve-cpu", "0.01"],
      ...["--reserve-memory", "8M", "--restart-condition", "on-failure", "--restart-delay", "1s"],
      ...["--restart-max-attempts", "3", "--restart-window", "10s", "--replicas-max-per-node", "2"],
      ...["--constraint-add", "node.role!=nothing", "--placement-pref-add", "spread=node.labels.zone"],
    ],
    {
      "TaskTemplate.Resources": {
        Limits: { NanoCPUs: 5e8, MemoryBytes: 64 << 20, Pids: 50 },
        Reservations: { NanoCPUs: 1e7, MemoryBytes: 8 << 20 },
      },
      "TaskTemplate.RestartPolicy": { Condition: "on-failure", Delay: 1e9, MaxAttempts: 3, Window: 10e9 },
      "TaskTemplate.Placement.MaxReplicas": 2,
      "TaskTemplate.Placement.Constraints": ["node.role!=nothing"],
      "TaskTemplate.Placement.Preferences": [{ Spread: { SpreadDescriptor: "node.labels.zone" } }],
    },
  ],
  [
    [
      ...["--update-parallelism", "0", "--update-delay", "1ms", "--update-monitor", "10ms"],
      ...["--update-failure-action", "continue", "--update-max-failure-ratio", "0.5", "--update-order", "start-first"],
      ...["--rollback-parallelism", "2", "--rollback-delay", "2ms", "--rollback-monitor", "20ms"],
      ...["--rollback-failure-action", "continue", "--rollback-max-failure-ratio", "0.25"],
      ...["--rollback-order", "start-first", "--stop-grace-period", "500ms"],
    ],
    {
      UpdateConfig: {
        ...{ Parallelism: 0, Delay: 1e6, FailureAction: "continue", Monitor: 10e6 },
        ...{ MaxFailureRatio: 0.5, Order: "start-first" },
      },
      RollbackConfig: {
        ...{ Parallelism: 2, Delay: 2e6, FailureAction: "continue", Monitor: 20e6 },
        ...{ MaxFailureRatio: 0.25, Order: "start-first" },
      },
      "TaskTemplate.ContainerSpec.StopGracePeriod": 5e8,
    },
  ],
  [
    [
      ...["--publish-add", "8083:80", "--publish-add", "published=8084,target=81,protocol=udp"],
      ...["--entrypoint", "sleep", "--args", "998", "--image", "skein/box:latest", "--force", "--replicas", "1"],
    ],
    {
      "EndpointSpec.Ports": [
        { Protocol: "tcp", TargetPort: 80, PublishedPort: 8083, PublishMode: "ingress" },
        { Protocol: "udp", TargetPort: 81, PublishedPort: 8084, PublishMode: "ingress" },
      ],
      "TaskTemplate.ContainerSpec.Command": ["sleep"],
      "TaskTemplate.ContainerSpec.Args": ["998"],
      "TaskTemplate.ForceUpdate": 1,
      "Mode.Replicated.Replicas": 1,
    },
  ],
  [
    [
      ...["--publish-rm", "80", "--publish-rm", "81/udp", "--endpoint-mode", "dnsrr", "--no-healthcheck"],
      ...["--mount-rm", "/scratch", "--ulimit-rm", "nofile", "--cap-add", "ALL", "--host-rm", "there:1.2.3.4"],
      ...["--dns-rm", "1.1.1.1", "--dns-option-rm", "ndots:1", "--dns-search-rm", "example.org"],
      ...["--group-rm", "nogroup", "--sysctl-rm", "net.ipv4.ip_forward", "--constraint-rm", "node.role!=nothing"],
      ...["--placement-pref-rm", "spread=node.labels.zone", "--container-label-rm", "c", "--label-rm", "s"],
    ],
    {
      "EndpointSpec.Ports": undefined,
      "EndpointSpec.Mode": "dnsrr",
      "TaskTemplate.ContainerSpec.Mounts": undefined,
      "TaskTemplate.ContainerSpec.Ulimits": undefined,
      "TaskTemplate.ContainerSpec.Hosts": undefined,
      "TaskTemplate.ContainerSpec.Groups": undefined,
      "TaskTemplate.ContainerSpec.Sysctls": undefined,
      "TaskTemplate.Placement.Constraints": undefined,
      "Labels.s": undefined,
    },
  ],
];

test("service update: every flag changes what it names", async () => {
  await docker("network", "create", "-d", "overlay", "second");
  await create("u", "-d", "--replicas", "1", "--network", "names", ...sleeper);
  for (const [flags, expected] of updates) {
    await docker("service", "update", "-d", "-q", "--no-resolve-image", ...flags, "u");
    const found = await spec("u");
    for (const [path, value] of Object.entries(expected)) {
      const at = path.split(".").reduce((object, key) => object?.[key], found);
      const empty = at === undefined || at === null || Object.keys(Object(at)).length === 0;
      if (value === undefined) assert.ok(empty, `${path}: ${JSON.stringify(at)}`);
      else assert.deepEqual(at, value, path);
    }
  }
  await eventually(
    "the last version to run",
    async () => {
      const [state] = await running("u", "{{.CurrentState}}");
      return state !== undefined && (await lab.try("manager", "service", "inspect", "u")).code === 0;
    },
    20_000,
  );
});

test("service update: what is wrong has Docker's words", async () => {
  const wrong: [string[], RegExp][] = [
    [["--constraint-add", "node.role~x"], /constraint expected one operator from ==, !=/],
    [["--config-add", "none"], /config not found: none/],
    [["--secret-add", "none"], /secret not found: none/],
    [["--network-add", "none"], /network none not found/],
    [["--network-add", "ingress"], /Service cannot be explicitly attached to the ingress network "ingress"/],
    [["--endpoint-mode", "odd"], /invalid resolution mode: "odd"|invalid.*odd/i],
    [["--image", "::bad"], /"::bad(:latest)?" is not a valid repository\/tag/],
    [["--health-retries", "-1"], /Retries in HealthConfig cannot be negative/],
    [["--limit-cpu", "0.0001"], /invalid cpu value 0\.0001: Must be at least 0\.001/],
    [["--limit-memory", "1M"], /invalid memory value 1048576: Must be at least 4MiB/],
    [["--reserve-memory", "1M"], /invalid memory value 1048576: Must be at least 4MiB/],
    [["--restart-condition", "sometimes"], /invalid RestartCondition: "sometimes"/],
    [["--update-failure-action", "cry"], /unrecognized update failure action cry/],
    [["--update-max-failure-ratio", "2"], /update-maxfailureratio cannot be less than 0 or bigger than 1/],
    [["--rollback-max-failure-ratio", "-1"], /rollback-maxfailureratio cannot be less than 0 or bigger than 1/],
    [["--update-order", "middle"], /unrecognized update order middle/],
    [["--mount-add", "type=odd,destination=/x"], /invalid [mM]ount ?[tT]ype: "?odd/],
    [["--credential-spec", "file://x"], /credential specs/],
    [["--isolation", "hyperv"], /isolation hyperv/],
    [
      ["--publish-add", "8090:80", "--endpoint-mode", "dnsrr"],
      /port published with ingress mode can't be used with dnsrr mode/,
    ],
  ];
  await Promise.all(
    wrong.map(async ([flags, words]) =>
      assert.match(
        await refusal("service", "update", "-d", "-q", "--no-resolve-image", ...flags, "u"),
        words,
        flags.join(" "),
      ),
    ),
  );
  await docker("service", "rm", "u");
});

test("a network joined and left, a published port taken twice", async () => {
  await create("mover", "--network", "names", "--publish", "8085:80", "skein/hello");
  await docker("service", "update", "-q", "--network-add", "second", "--network-rm", "names", "mover");
  const [task = ""] = await running("mover", "{{.Node}} {{.Name}}.{{.ID}}");
  const [host = "", name = ""] = task.split(" ");
  const networks = await lab.ok(host, "inspect", "--format", "{{json .NetworkSettings.Networks}}", name);
  assert.deepEqual(Object.keys(JSON.parse(networks)).sort(), ["ingress", "second"]);
  assert.match(
    await refusal("service", "create", "-d", "-q", "--publish", "8085:80", "skein/hello"),
    /port '8085' is already in use by service 'mover' \(\w+\) as an ingress port/,
  );
  await docker("service", "rm", "mover");
  for (const network of ["names", "second"]) {
    await eventually(
      `${network} to be free`,
      async () => (await lab.try("manager", "network", "rm", network)).code === 0,
    );
  }
});

test("updates: an image that cannot run pauses or rolls back; rollback by hand", async () => {
  const quick = ["--update-monitor", "500ms", "--rollback-monitor", "100ms", "--restart-delay", "10s"];
  await create("app", "--replicas", "3", "--update-failure-action", "rollback", ...quick, "--env", "V=1", ...sleeper);
  const state = () =>
    docker("service", "inspect", "--format", "{{with .UpdateStatus}}{{.State}} {{.Message}}{{end}}", "app");
  const update = (...flags: string[]) => docker("service", "update", "-d", "-q", "--no-resolve-image", ...flags, "app");
  await update("--args", "false");
  await eventually("the roll back", async () => (await state()).startsWith("rollback_completed"), 20_000);
  assert.deepEqual((await spec("app")).TaskTemplate.ContainerSpec.Args, ["sleep", "1000"]);
  assert.equal((await running("app", "{{.ID}}")).length, 3);
  await update("--update-failure-action", "pause", "--image", "skein/none");
  await eventually("the pause", async () => (await state()).startsWith("paused"), 20_000);
  assert.match(await state(), /update paused due to failure or early termination of task \w+/);
  assert.ok((await running("app", "{{.Image}}")).length >= 2);
  await docker("service", "rollback", "-q", "app");
  assert.match(await state(), /^rollback_completed/);
  assert.deepEqual(new Set(await running("app", "{{.Image}}")), new Set(["skein/box:latest"]));
  await docker("service", "rm", "app");
});

test("service logs: all tasks, one task, tail, since, times, raw, follow", async () => {
  const say = 'echo "hello $S"; sleep 2; echo "late $S" >&2; exec sleep 1000';
  await create("talk", "--replicas", "2", "--env", "S={{.Task.Slot}}", "--detach", "skein/box", "sh", "-c", say);
  const both = await eventually("both tasks' words", async () => {
    const { stdout, stderr } = await lab.try("manager", "service", "logs", "talk");
    const all = lines(stdout + stderr);
    return all.length === 4 ? all.sort() : undefined;
  });
  assert.match(both[0] ?? "", /^talk\.1\.\w{12}@[\w-]+ +\| (hello|late) 1$/);
  const logs = async (...args: string[]) => {
    const { code, stdout, stderr } = await lab.try("manager", "service", "logs", ...args);
    assert.equal(code, 0, stderr);
    return { out: lines(stdout).sort(), err: lines(stderr).sort() };
  };
  assert.deepEqual(await logs("--raw", "talk"), { out: ["hello 1", "hello 2"], err: ["late 1", "late 2"] });
  const [id = ""] = await running("talk", "{{.ID}}");
  const one = await logs("--raw", id);
  assert.equal(one.out.length, 1);
  assert.deepEqual((await logs("--raw", "--tail", "1", "talk")).out, [], "the last line of each task");
  assert.equal((await logs("--raw", "--tail", "0", "talk")).err.length, 0);
  const stamped = await logs("--timestamps", "--no-trunc", "talk");
  assert.match(stamped.out[0] ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z talk\.[12]\.\w{25}@/);
  const since = /^(\S+)Z /.exec((await logs("-t", "--raw", id)).err[0] ?? "")?.[1];
  assert.ok(since);
  const late = await logs("--raw", "--since", `${since}Z`, id);
  assert.deepEqual([late.out.length, late.err.length], [0, 1]);
  const socket = lab.host("manager").socket;
  const follow = run([
    "timeout",
    "6",
    "docker",
    "-H",
    `unix://${socket}`,
    "service",
    "logs",
    "-f",
    "--raw",
    "--tail",
    "1",
    "talk",
  ]);
  await docker("service", "scale", "-d", "talk=3");
  const followed = await follow;
  assert.match(followed.stdout, /hello 3/, "a task that came later is followed, too");
  assert.match(followed.stderr, /late 3/);
  assert.match(await refusal("service", "logs", "nothing"), /no such task or service: nothing/);
  await docker("service", "rm", "talk");
});

test("configs and secrets: made, shown, used with templates, kept while in use", async () => {
  const made = async (kind: string, input: string, ...args: string[]) => {
    const { code, stderr } = await stdin("manager", input, kind, "create", ...args, "-");
    assert.equal(code, 0, stderr);
  };
  await made("secret", "swordfish\n", "--label", "k=v", "key");
  await made(
    "config",
    'on {{.Node.Hostname}} as {{.Service.Name}} {{env "COLOR"}}',
    "--template-driver",
    "golang",
    "page",
  );
  assert.equal(await docker("secret", "ls", "--filter", "label=k=v", "--format", "{{.Name}}"), "key");
  assert.equal(await docker("config", "ls", "--filter", "name=page", "--format", "{{.Name}}"), "page");
  assert.doesNotMatch(await docker("secret", "inspect", "key"), /swordfish|c3dvcmRmaXNo/);
  assert.match(await docker("config", "inspect", "--pretty", "page"), /on \{\{\.Node\.Hostname\}\}/);
  const file = ["--secret", "source=key,target=/tmp/key,uid=65534,mode=0400", "--config", "source=page,target=/page"];
  await create("reader", "--mode", "global", "--env", "COLOR=red", ...file, ...sleeper);
  for (const task of await running("reader", "{{.Node}} {{.Name}}.{{.ID}}")) {
    const [host = "", name = ""] = task.split(" ");
    assert.equal(await lab.ok(host, "exec", name, "cat", "/page"), `on ${host} as reader red`);
    assert.equal(await lab.ok(host, "exec", name, "cat", "/tmp/key"), "swordfish");
    assert.match(await lab.ok(host, "exec", name, "ls", "-ln", "/tmp/key"), /^-r-------- +1 65534 /);
    const mounts = await lab.ok(host, "exec", name, "mount");
    assert.match(mounts, /tmpfs on .*(key|secrets)/, "a secret is on no disk");
  }
  const wrong: [string[], RegExp][] = [
    [["secret", "rm", "key"], /secret 'key' is in use by the following service: reader/],
    [["config", "rm", "page"], /config 'page' is in use by the following service: reader/],
    [["secret", "inspect", "none"], /secret none not found/],
    [["config", "rm", "none"], /config none not found/],
  ];
  await Promise.all(wrong.map(async ([args, words]) => assert.match(await refusal(...args), words)));
  assert.match((await stdin("manager", "x", "secret", "create", "key", "-")).stderr, /secret key already exists/);
  assert.match(
    (await stdin("manager", "x", "config", "create", "bad name", "-")).stderr,
    /invalid name, only 64 \[a-zA-Z0-9-_\.\]/,
  );
  // Each node's next task needs what its last one gave up.
  for (const round of [1, 2, 3, 4]) {
    await docker("service", "update", "-q", "--env-add", `COLOR=c${round}`, "--update-parallelism", "0", "reader");
  }
  const failed = (await ps("reader", "{{.CurrentState}} {{.Error}}")).filter((task) => /^(Rejected|Failed)/.test(task));
  assert.deepEqual(failed, []);
  await docker("service", "rm", "reader");
  await docker("secret", "rm", "key");
  await docker("config", "rm", "page");
});

const compose = `
services:
  web:
    image: skein/hello
    ports:
      - "8088:80"
      - {target: 80, published: 8089, protocol: tcp, mode: host}
    networks:
      front: {aliases: [www]}
      back: {}
    secrets: [pass]
    configs:
      - {source: page, target: /etc/page, mode: 0440}
    environment: {COLOR: "\${COLOR}"}
    deploy:
      mode: global
      update_config: {parallelism: 2, order: stop-first, failure_action: rollback, monitor: 100ms}
      labels: {role: front}
  box:
    image: skein/box
    command: ["sleep", "1000"]
    stop_grace_period: 1s
    networks: [back]
    volumes:
      - data:/data
      - {type: tmpfs, target: /scratch}
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    deploy:
      replicas: 2
      placement:
        constraints: [node.role == worker]
        max_replicas_per_node: 1
      update_config: {monitor: 100ms}
      resources:
        limits: {cpus: "0.5", memory: 64M}
        reservations: {cpus: "0.01", memory: 8M}
      restart_policy: {condition: on-failure, delay: 1s, max_attempts: 3, window: 30s}
networks:
  front:
    driver: overlay
    attachable: true
    ipam: {config: [{subnet: 10.77.0.0/24}]}
  back: {driver: overlay, internal: true, labels: {part: inner}}
volumes:
  data: {}
secrets:
  pass: {file: ./pass.txt}
configs:
  page: {file: ./page.tmpl, template_driver: golang}
`;

test("a stack: networks, ports, secrets, configs, deploy; deployed again; removed", async () => {
  writeFileSync(join(files, "stack.yml"), `version: "3.8"\n${compose}`);
  writeFileSync(join(files, "pass.txt"), "top secret\n");
  writeFileSync(join(files, "page.tmpl"), "of {{.Service.Name}} on {{.Node.Hostname}}\n");
  const deploy = async (color: string, cli = "docker") => {
    const socket = `unix://${lab.host("manager").socket}`;
    const args = cli === oldCli ? [] : ["--detach=false"];
    const script = `cd ${files} && COLOR=${color} exec ${cli} -H ${socket} stack deploy --resolve-image never ${args.join(" ")} -c stack.yml st`;
    const { code, stdout, stderr } = await run(["sh", "-c", script], { timeoutMs: 60_000 });
    assert.equal(code, 0, stdout + stderr);
  };
  await deploy("red");
  const services = async () =>
    lines(await docker("stack", "services", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}", "st")).sort();
  const whole = ["st_box replicated 2/2 (max 1 per node)", "st_web global 3/3"];
  // The older command line does not wait for what it deploys.
  const isWhole = () => eventually("the stack to be whole", async () => `${await services()}` === `${whole}`, 30_000);
  await isWhole();
  assert.equal(await docker("stack", "ls", "--format", "{{.Name}} {{.Services}}"), "st 2");
  const tasks = lines(
    await docker(
      "stack",
      "ps",
      "--filter",
      "desired-state=running",
      "--format",
      "{{.Name}} {{.Node}} {{.Ports}}",
      "st",
    ),
  );
  assert.equal(tasks.length, 5);
  assert.equal(tasks.filter((task) => task.endsWith("*:8089->80/tcp")).length, 3);
  assert.deepEqual(
    new Set(tasks.flatMap((task) => (task.startsWith("st_box") ? [task.split(" ")[1]] : []))),
    new Set(["worker-1", "worker-2"]),
  );
  const inTask = async (service: string, ...command: string[]) => {
    const [task = ""] = await running(service, "{{.Node}} {{.Name}}.{{.ID}}");
    const [host = "", name = ""] = task.split(" ");
    return lab.ok(host, "exec", name, ...command);
  };
  assert.match(await inTask("st_web", "cat", "/etc/page", "/run/secrets/pass"), /^of st_web on [\w-]+\ntop secret$/);
  for (const name of ["web", "st_web"])
    assert.match(await inTask("st_box", "curl", "-s", "-m", "3", `http://${name}/`), /^Hello from/);
  assert.match(await inTask("st_box", "sh", "-c", "curl -s -m 2 http://10.84.0.1:1/; echo $?"), /^(7|28)$/, "internal");
  assert.match(await inTask("st_box", "mount"), /tmpfs on \/scratch/);
  for (const port of [8088, 8089]) {
    const address = lab.host("worker-2").address;
    assert.match((await run(["curl", "-s", "-m", "3", `http://${address}:${port}/`])).stdout, /^Hello from/);
  }
  await deploy("blue");
  await isWhole();
  assert.match(await inTask("st_web", "env"), /COLOR=blue/);
  const versions = await docker("service", "inspect", "--format", "{{.Version.Index}}", "st_box");
  if (existsSync(oldCli)) await deploy("blue", oldCli);
  else await deploy("blue");
  await isWhole();
  assert.ok(versions);
  const failed = (await ps("st_web", "{{.CurrentState}} {{.Error}}")).filter((task) => /^(Rejected|Failed)/.test(task));
  assert.deepEqual(failed, []);
  for (const [kind, name] of [
    ["secret", "st_pass"],
    ["config", "st_page"],
  ] as const) {
    assert.match(await refusal(kind, "rm", name), /in use by the following service: st_web/);
  }
  await docker("stack", "rm", "st");
  assert.equal(await docker("stack", "ls", "-q").catch(() => docker("stack", "ls", "--format", "{{.Name}}")), "");
  for (const kind of ["secret", "config"]) {
    assert.equal(await docker(kind, "ls", "-q", "--filter", "label=com.docker.stack.namespace=st"), "", kind);
  }
  await eventually("the stack's containers and networks to be gone everywhere", async () => {
    for (const host of hosts) {
      if ((await lab.ok(host, "ps", "-aq", "--filter", "label=com.docker.stack.namespace=st")) !== "") return false;
      if ((await lab.ok(host, "network", "ls", "-q", "--filter", "name=st_")) !== "") return false;
    }
    return true;
  });
});

test("a network torn down and made again at once, many times", async () => {
  await docker("network", "create", "-d", "overlay", "again");
  for (let round = 0; round < 4; round++) {
    await create("quick", "--mode", "global", "--network", "again", "-d", "skein/hello");
    await eventually("one on each host", async () => (await running("quick", "{{.ID}}")).length === 3);
    await docker("service", "rm", "quick");
  }
  for (const host of hosts) {
    const log = readFileSync(lab.host(host).logFile, "utf8");
    assert.doesNotMatch(log, /EEXIST/, host);
  }
});
