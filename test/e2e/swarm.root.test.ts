/**
 * Three hosts, one swarm, one overlay network, driven by the stock CLI only: what the project is for.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { findRegistry, pullImages, removeStandIns } from "../../src/lab/hub.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { run } from "../../src/lab/process.ts";
import { eventually, TestLab } from "../support/lab.ts";
import { startRegistry } from "../support/registry.ts";

let lab: TestLab;
const hosts = ["manager", "worker-1", "worker-2"];

before(async () => {
  lab = await TestLab.up("e2e", "10.78.0.0/24", { mirror: "http://10.78.0.11:5000" });
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

test("a worker with a wrong token is refused and joins nothing", async () => {
  await lab.ok("manager", "swarm", "init", "--advertise-addr", "10.78.0.11");
  const token = await lab.ok("manager", "swarm", "join-token", "-q", "worker");
  const forged = `${token.slice(0, -1)}${token.endsWith("a") ? "b" : "a"}`;
  const { code, stderr } = await lab.try("worker-1", "swarm", "join", "--token", forged, "10.78.0.11:2377");
  assert.notEqual(code, 0);
  assert.match(stderr, /join token/);
  assert.equal(await lab.ok("worker-1", "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
});

test("swarm join: three nodes Ready, the first one leads", async () => {
  const token = await lab.ok("manager", "swarm", "join-token", "-q", "worker");
  for (const [name, address] of [
    ["worker-1", "10.78.0.12"],
    ["worker-2", "10.78.0.13"],
  ] as const) {
    const out = await lab.ok(name, "swarm", "join", "--token", token, "--advertise-addr", address, "10.78.0.11:2377");
    assert.equal(out, "This node joined a swarm as a worker.");
  }
  const nodes = await eventually("three nodes Ready", async () => {
    const text = await lab.ok("manager", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}");
    const lines = text
      .split("\n")
      .map((line) => line.trim())
      .sort();
    return lines.filter((line) => line.includes("Ready")).length === 3 ? lines : undefined;
  });
  assert.deepEqual(nodes, ["manager Ready Leader", "worker-1 Ready", "worker-2 Ready"]);
  const workers = await lab.ok("manager", "node", "ls", "--filter", "role=worker", "--format", "{{.Hostname}}");
  assert.deepEqual(workers.split("\n").sort(), ["worker-1", "worker-2"]);
});

test("init again, and a worker asked for manager things: Docker's words", async () => {
  const again = await lab.try("manager", "swarm", "init");
  assert.match(again.stderr, /This node is already part of a swarm/);
  const worker = await lab.try("worker-1", "node", "ls");
  assert.match(
    worker.stderr,
    /This node is not a swarm manager\. Worker nodes can't be used to view or modify cluster state/,
  );
});

test("every node has ingress and docker_gwbridge", async () => {
  for (const host of hosts) {
    const text = await lab.ok(host, "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}");
    assert.deepEqual(text.split("\n").sort(), [
      "bridge bridge local",
      "docker_gwbridge bridge local",
      "host host local",
      "ingress overlay swarm",
      "none null local",
    ]);
  }
});

test("an encrypted network is refused until it is real", async () => {
  const { code, stderr } = await lab.try(
    "manager",
    "network",
    "create",
    "-d",
    "overlay",
    "--opt",
    "encrypted",
    "secret",
  );
  assert.notEqual(code, 0);
  assert.match(stderr, /encrypt/i);
  assert.equal(await lab.ok("manager", "network", "ls", "-q", "--filter", "name=secret"), "");
});

test("a service of three replicas runs on all hosts", async () => {
  await lab.ok("manager", "network", "create", "-d", "overlay", "--attachable", "net");
  const publish = ["--publish", "published=8080,target=80"];
  await lab.ok(
    "manager",
    "service",
    "create",
    "--name",
    "web",
    "--replicas",
    "3",
    "--network",
    "net",
    ...publish,
    "skein/hello",
  );
  const text = await lab.ok("manager", "service", "ps", "web", "--format", "{{.Node}} {{.CurrentState}}");
  const running = text.split("\n").filter((line) => line.split(" ")[1] === "Running");
  assert.equal(running.length, 3, text);
  assert.deepEqual(running.map((line) => line.split(" ")[0]).sort(), hosts);
  assert.match(
    await lab.ok("manager", "service", "ls", "--format", "{{.Name}} {{.Replicas}} {{.Ports}}"),
    /^web 3\/3 \*:8080->80\/tcp$/,
  );
});

test("a standalone container on a worker resolves the service and reaches every task by ping and HTTP", async () => {
  await lab.ok("worker-2", "run", "-dit", "--name", "box", "--network", "net", "skein/box");
  const vip = await eventually("the service's name", async () => (await resolve("box", "web"))[0]);
  const inspected = await lab.ok(
    "manager",
    "service",
    "inspect",
    "web",
    "--format",
    "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}",
  );
  assert.ok(
    inspected.split(" ").some((addr) => addr.split("/")[0] === vip),
    `${vip} in ${inspected}`,
  );
  const tasks = await eventually("three tasks", async () => {
    const found = await resolve("box", "tasks.web");
    return found.length === 3 ? found : undefined;
  });
  for (const address of tasks) {
    assert.equal(
      (await lab.try("worker-2", "exec", "box", "ping", "-c", "1", "-W", "2", address)).code,
      0,
      `ping ${address}`,
    );
    assert.match(
      await lab.ok("worker-2", "exec", "box", "curl", "-s", "-m", "3", `http://${address}/`),
      /^Hello from /,
    );
  }
});

test("the VIP answers ping and spreads its requests over the three tasks", async () => {
  assert.equal((await lab.try("worker-2", "exec", "box", "ping", "-c", "1", "-W", "2", "web")).code, 0);
  const loop = "for i in $(seq 60); do curl -s -m 3 http://web/ | head -1; done";
  const answers = (await lab.ok("worker-2", "exec", "box", "sh", "-c", loop)).split("\n");
  assert.equal(answers.length, 60);
  const counts = new Map<string, number>();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  assert.equal(counts.size, 3, [...counts.keys()].join());
  for (const count of counts.values()) assert.ok(count >= 6, `a task got only ${count} of 60`);
});

test("every host answers on the published port, also one without a task", async () => {
  await lab.ok("manager", "service", "scale", "web=1");
  await eventually(
    "one task",
    async () => (await lab.ok("manager", "service", "ls", "--format", "{{.Replicas}}")) === "1/1",
  );
  for (const address of ["10.78.0.11", "10.78.0.12", "10.78.0.13"]) {
    await eventually(`port 8080 of ${address}`, async () => {
      const { stdout } = await run(["curl", "-s", "-m", "3", `http://${address}:8080/`]);
      return stdout.startsWith("Hello from ");
    });
  }
});

test("the port on each host's own localhost", async () => {
  for (const host of hosts) {
    const { stdout } = await lab.in(host, "curl", "-s", "-m", "3", "http://127.0.0.1:8080/");
    assert.match(stdout, /^Hello from /, host);
  }
});

test("containers on the bridge do not resolve the overlay's names", async () => {
  const { code } = await lab.try("worker-1", "run", "--rm", "skein/box", "nslookup", "web");
  assert.notEqual(code, 0);
});

test("what is unknown has Docker's words", async () => {
  assert.match((await lab.try("manager", "service", "inspect", "nix")).stderr, /no such service: nix/i);
  assert.match((await lab.try("manager", "network", "inspect", "nix")).stderr, /network nix not found/i);
  assert.match((await lab.try("manager", "inspect", "nix")).stderr, /no such object: nix/i);
  assert.match(
    (await lab.try("manager", "run", "--rm", "--network", "nix", "skein/box", "true")).stderr,
    /network nix not found/i,
  );
});

test("a service update gives new tasks, service rm removes them everywhere", async () => {
  await lab.ok("manager", "service", "update", "--env-add", "A=1", "--quiet", "web");
  assert.match(
    await lab.ok("manager", "service", "inspect", "web", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}"),
    /A=1/,
  );
  await lab.ok("manager", "service", "rm", "web");
  await eventually(
    "no task containers",
    async () => {
      const left = await Promise.all(
        hosts.map((host) => lab.ok(host, "ps", "-aq", "--filter", "label=com.docker.swarm.service.name=web")),
      );
      return left.every((text) => text === "");
    },
    30_000,
  );
});

test("a network in use is not removed; afterwards it is, and vanishes from the workers", async () => {
  await eventually("refusal", async () =>
    /active endpoints|in use/.test((await lab.try("worker-2", "network", "rm", "net")).stderr),
  );
  await lab.ok("worker-2", "rm", "-f", "box");
  await lab.ok("manager", "network", "rm", "net");
  await eventually(
    "gone on worker-2",
    async () => (await lab.ok("worker-2", "network", "ls", "-q", "--filter", "name=^net$")) === "",
  );
});

test("a registry on a host of the lab: every host pulls from it, and a service runs what is only there", async () => {
  const address = "10.78.0.11";
  const place = { scratch: lab.host("manager").stateDir, state: hostOf(lab.lab, "manager").state };
  await using registry = await startRegistry(place, 5000, { address });
  const image = `${registry.address}/only/here:1`;
  // A layer of its own, so that its like is nowhere but in the registry.
  await lab.ok("manager", "run", "--name", "made", "skein/hello", "sh", "-c", "echo made >/made");
  await lab.ok("manager", "commit", "made", image);
  await lab.ok("manager", "push", image);
  await lab.ok("manager", "rm", "made");
  await lab.ok("manager", "rmi", image);
  assert.match(await lab.ok("worker-1", "pull", image), /Status: Downloaded newer image/);
  // The command line asks the manager for the digest: all nodes run the same, wherever the tag points later.
  const service = ["--detach", "--name", "only", "--mode", "global", image, "sleep", "600"];
  await lab.ok("manager", "service", "create", ...service);
  for (const host of hosts) {
    const id = await eventually(
      `only on ${host}`,
      async () => (await lab.ok(host, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=only")) || undefined,
      30_000,
    );
    assert.equal(await lab.ok(host, "exec", id, "cat", "/made"), "made", host);
  }
  const spec = JSON.parse(
    await lab.ok("manager", "service", "inspect", "--format", "{{json .Spec.TaskTemplate}}", "only"),
  );
  assert.match(spec.ContainerSpec.Image, /^10\.78\.0\.11:5000\/only\/here:1@sha256:[0-9a-f]{64}$/);
  assert.equal(spec.Placement.Platforms.length, 1);
  await lab.ok("manager", "service", "rm", "only");

  // The same one as the lab's mirror of Docker Hub: what it has is pulled, once, and passed on.
  await lab.ok("manager", "pull", image);
  await lab.ok("manager", "tag", image, `${registry.address}/library/redis:latest`);
  await lab.ok("manager", "push", `${registry.address}/library/redis:latest`);
  const base = `http://${registry.address}`;
  assert.equal((await findRegistry(base))?.base, base);
  // As where Docker Hub cannot be reached: a test asks nobody outside of the lab.
  const { pulled, missing } = await pullImages(lab.lab, ["redis:latest", "nginx:latest"], { base, hub: false });
  assert.deepEqual(pulled, ["redis:latest"]);
  assert.deepEqual(missing, [{ name: "nginx:latest", why: `${base} does not have it` }]);
  const wanted = await lab.ok("manager", "inspect", "--format", "{{.Id}}", image);
  for (const host of hosts) {
    assert.equal(await lab.ok(host, "inspect", "--format", "{{.Id}}", "redis:latest"), wanted, host);
  }
  await removeStandIns(lab.lab);
  assert.match((await lab.try("worker-1", "inspect", "alpine:latest")).stderr, /No such/);
  assert.equal((await lab.try("worker-1", "inspect", "skein/box:latest")).code, 0);
});

test("leaving: a manager needs --force, workers do not", async () => {
  assert.match((await lab.try("manager", "swarm", "leave")).stderr, /--force/);
  assert.equal(await lab.ok("worker-1", "swarm", "leave"), "Node left the swarm.");
  await eventually(
    "worker-1 is Down",
    async () => {
      const text = await lab.ok("manager", "node", "ls", "--filter", "name=worker-1", "--format", "{{.Status}}");
      return text === "Down";
    },
    30_000,
  );
  assert.equal(await lab.ok("manager", "swarm", "leave", "--force"), "Node left the swarm.");
  assert.equal(await lab.ok("manager", "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
});

test("taken down, the lab leaves nothing behind", async () => {
  await lab[Symbol.asyncDispose]();
  assert.equal(existsSync("/run/skein/e2e"), false);
  assert.equal(existsSync("/var/lib/skein/e2e"), false);
  const { stdout: links } = await run(["ip", "-br", "link"]);
  assert.doesNotMatch(links, /skein-e2e|ske2e/);
  assert.doesNotMatch((await run(["ip", "netns"])).stdout, /skein-e2e/);
  assert.doesNotMatch((await run(["nft", "list", "tables"])).stdout, /skein-e2e/);
  assert.doesNotMatch((await run(["sh", "-c", "cat /proc/mounts"])).stdout, /skein\/e2e/);
  assert.equal((await run(["sh", "-c", "find /sys/fs/cgroup -maxdepth 3 -name 'skein-e2e*'"])).stdout, "");
  assert.equal((await run(["sh", "-c", "ps ax -o args | grep '[s]kein/e2e'"])).stdout, "");
});

async function resolve(container: string, name: string): Promise<string[]> {
  const { stdout } = await lab.try("worker-2", "exec", container, "nslookup", name);
  return stdout
    .split("\n")
    .slice(2)
    .map((line) => /^Address(?: \d+)?:\s+(\d+\.\d+\.\d+\.\d+)/.exec(line)?.[1])
    .filter((address) => address !== undefined);
}
