/**
 * What a Skein host does beyond the real Docker Engine beside it: an overlay network with IPv6, which Docker knows in IPv4
 * only, and published ports with labels, of which it knows nothing. Nobody is told of what cannot be reached, nor opens what
 * was to be closed.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { down, up } from "../../src/lab/lab.ts";
import { makeImages } from "../../src/lab/tour.ts";
import { eventually, TestLab } from "../support/lab.ts";

let lab: TestLab;

before(async () => {
  await down("ovx");
  const made = await up({ name: "ovx", subnet: "10.90.0.0/24", names: ["skein", "docker"], dockerd: ["docker"] });
  await makeImages(made, "basic");
  lab = new TestLab(made);
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

async function beside(host: string, container: string, ...command: string[]): Promise<string> {
  const key = await lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container);
  return (await lab.in(host, "nsenter", `--net=${key}`, ...command)).stdout;
}

/**
 * Docker's agent may take up a task before the address of its load balancer on the task's network, which it was told
 * earlier, while it still makes its ingress network; it gives up then, after 20 s. It does so under its own managers too.
 */
async function started(host: string): Promise<boolean> {
  const name = `on-${host}`;
  const { code, stderr } = await lab.try(host, "run", "-d", "--tty", "--name", name, "--network", "dual", "skein/box");
  if (code === 0) return true;
  assert.match(stderr, /attaching to network failed.*context deadline exceeded/);
  assert.equal(host, "docker");
  await lab.ok(host, "rm", name);
  return false;
}

test("IPv4 goes both ways, IPv6 is not promised where it does not", async () => {
  const subnets = ["--subnet", "10.41.0.0/24", "--subnet", "fd00:41::/64"];
  await lab.ok("skein", "network", "create", "--driver", "overlay", "--attachable", "--ipv6", ...subnets, "dual");
  const format = "{{.NetworkSettings.Networks.dual.IPAddress}} {{.NetworkSettings.Networks.dual.GlobalIPv6Address}}";
  const addresses: Record<string, string> = {};
  for (const host of ["skein", "docker"]) {
    await eventually(`a container on ${host}`, () => started(host), 90_000);
    const [v4 = "", v6 = ""] = (await lab.ok(host, "inspect", "--format", format, `on-${host}`)).split(" ");
    assert.equal(v6, host === "docker" ? "" : `fd00:41::${Number(v4.split(".")[3]).toString(16)}`, host);
    addresses[host] = v4;
  }
  for (const [here, there] of [
    ["skein", "docker"],
    ["docker", "skein"],
  ] as const) {
    await eventually(`${here} reaches ${there} by name`, async () => {
      const { code } = await lab.try(here, "exec", `on-${here}`, "ping", "-c", "1", "-W", "1", `on-${there}`);
      return code === 0;
    });
  }
  const ask = (...question: string[]) => beside("skein", "on-skein", "dig", "+short", "@127.0.0.11", ...question);
  assert.equal((await ask("on-docker", "A")).trim(), addresses.docker);
  assert.equal((await ask("on-docker", "AAAA")).trim(), "");
  assert.match(await ask("on-skein", "AAAA"), /^fd00:41::/);
});

test("a service's address in IPv6 leads to the tasks that have one; its IPv4 address to all", async () => {
  const create = ["service", "create", "-d", "-q", "--no-resolve-image", "--mode", "global", "--network", "dual"];
  await lab.ok("skein", ...create, "--name", "both", "skein/hello");
  const ask = async (type: string, name: string) =>
    (await beside("skein", "on-skein", "dig", "+short", "@127.0.0.11", name, type)).split("\n").filter(Boolean);
  await eventually("two tasks", async () => (await ask("A", "tasks.both")).length === 2, 90_000);
  const [task, ...others] = await ask("AAAA", "tasks.both");
  const [vip, ...more] = await ask("AAAA", "both");
  assert.ok(task && vip && task !== vip, `${task} ${vip}`);
  assert.deepEqual([others, more], [[], []]);
  const pages = async (family: string) => {
    const seen = new Set<string>();
    for (let i = 0; i < 12; i++) {
      const url = "http://both/cgi-bin/index.cgi";
      const page = await lab.ok("skein", "exec", "on-skein", "curl", family, "-sS", "-m", "3", url);
      seen.add(/^Hello from (.*)$/m.exec(page)?.[1] ?? page);
    }
    return seen.size;
  };
  assert.equal(await pages("-6"), 1);
  assert.equal(await pages("-4"), 2);
  await lab.ok("skein", "service", "rm", "both");
});

test("a port with an address is told to no Docker host, nor given a task there", async () => {
  const label = ["--label", "skein.publish.address=127.0.0.1", "--publish", "8103:80"];
  const create = ["service", "create", "-d", "-q", "--no-resolve-image", "--replicas", "2"];
  await lab.ok("skein", ...create, "--name", "inner", ...label, "skein/hello");
  await lab.ok("skein", ...create, "--name", "outer", "--publish", "8104:80", "skein/hello");
  const code = async (host: string, place: string) =>
    (await lab.in(host, "curl", "-s", "-o", "/dev/null", "-m", "3", `http://${place}/`)).code;
  await eventually("the bound port on the Skein host", async () => (await code("skein", "127.0.0.1:8103")) === 0);
  // Whether Docker's own mesh works is the kernel's matter (IPVS); what it was told is not.
  const known = await eventually("Docker knows both services", async () => {
    const told = await lab.try(
      "docker",
      "network",
      "inspect",
      "--verbose",
      "--format",
      "{{json .Services}}",
      "ingress",
    );
    return /"inner":/.test(told.stdout) && told.stdout.includes("Publish: 8104") && told.stdout;
  });
  assert.ok(!known.includes("8103"), known);
  const refused = 7;
  assert.equal(await code("docker", "127.0.0.1:8103"), refused);
  assert.equal(await code("skein", `${lab.host("docker").address}:8103`), refused);
  assert.equal(await code("docker", `${lab.host("skein").address}:8103`), refused);
  const nodes = await lab.ok(
    ...(["skein", "service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}}", "inner"] as const),
  );
  assert.equal(nodes, "skein\nskein", "tasks stay away from Docker's node");
  await lab.ok("skein", "service", "rm", "inner", "outer");
});
