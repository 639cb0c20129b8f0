/**
 * An overlay network with IPv6 on a Skein host and on the real Docker Engine, which knows it in IPv4 only; nobody is told
 * of an IPv6 address that cannot be reached.
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
