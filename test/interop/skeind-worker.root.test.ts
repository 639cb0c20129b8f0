/** A whole skeind as a worker of a real dockerd's swarm: containers of both talk over one overlay network. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { buildRootfs } from "../../src/lab/image/rootfs.ts";
import { TestLab } from "../support/lab.ts";
import { Dockerd, dockerdMissing, eventually } from "./support/dockerd.ts";

const skip = dockerdMissing() ?? false;

describe("skeind in a real dockerd's swarm", { skip, timeout: 240_000 }, () => {
  let lab: TestLab;
  let manager: Dockerd;
  let host: string;
  const image = "box:1";

  before(async () => {
    lab = await TestLab.up("agl", "10.211.8.0/24", { hosts: 1, images: ["basic"] });
    host = lab.lab.spec.hosts[0]?.name ?? "";
    manager = new Dockerd("agk", "10.211.8", { bridge: lab.lab.spec.bridge, host: 200, gateway: 1 });
    await manager.start();
    const rootfs = join(manager.dir, "rootfs.tar");
    await buildRootfs(rootfs);
    await manager.docker("import", rootfs, image);
    await manager.docker("swarm", "init", "--advertise-addr", manager.address);
    const token = await manager.docker("swarm", "join-token", "-q", "worker");
    const [own = ""] = (await lab.ok(host, "images", "--format", "{{.Repository}}:{{.Tag}}")).split("\n");
    await lab.ok(host, "tag", own, image);
    await lab.ok(host, "swarm", "join", "--token", token, `${manager.address}:2377`);
  });

  after(async () => {
    await manager?.[Symbol.asyncDispose]();
    await lab?.[Symbol.asyncDispose]();
  });

  it("is Ready", async () => {
    assert.match(
      await manager.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}"),
      new RegExp(`${host} Ready`),
    );
    assert.equal(await lab.ok(host, "info", "--format", "{{.Swarm.LocalNodeState}}"), "active");
  });

  it("runs a task in a container", async () => {
    await manager.docker("network", "create", "--driver", "overlay", "--attachable", "side");
    await manager.docker(
      ...["service", "create", "--detach", "--no-resolve-image", "--name", "web", "--network", "side"],
      ...[
        "--endpoint-mode",
        "dnsrr",
        "--stop-signal",
        "KILL",
        "--constraint",
        `node.hostname==${host}`,
        image,
        "sleep",
        "1000",
      ],
    );
    await eventually("running", async () => {
      const line = await manager.docker(
        "service",
        "ps",
        "--no-trunc",
        "--format",
        "{{.CurrentState}} {{.Error}}",
        "web",
      );
      return line.startsWith("Running");
    });
  });

  it("reaches a container of dockerd's by name, and is reached", async () => {
    await manager.docker("run", "--detach", "--name", "theirs", "--network", "side", image, "sleep", "1000");
    const ours = (await lab.ok(host, "ps", "-q", "--filter", "name=web")).trim();
    await eventually(
      "theirs from ours",
      async () => (await lab.ok(host, "exec", ours, "ping", "-c1", "-W1", "theirs")) !== "",
    );
    await eventually(
      "ours from theirs",
      async () => (await manager.docker("exec", "theirs", "ping", "-c1", "-W1", "web")) !== "",
    );
  });

  it("attaches a container of its own to the manager's network", async () => {
    await lab.ok(host, "run", "--detach", "--name", "mine", "--network", "side", image, "sleep", "1000");
    await eventually(
      "mine from theirs",
      async () => (await manager.docker("exec", "theirs", "ping", "-c1", "-W1", "mine")) !== "",
    );
    await lab.ok(host, "rm", "--force", "mine");
  });

  it("hands a secret to its container, publishes a port by the mesh, sends its logs", async () => {
    await manager.docker("secret", "create", "pass", "/etc/hostname");
    const command = "echo up; cat /run/secrets/pass; exec httpd -f -p 8080 -h /run/secrets";
    await manager.docker(
      ...["service", "create", "--detach", "--no-resolve-image", "--name", "site", "--secret", "pass"],
      ...["--publish", "8088:8080", "--constraint", `node.hostname==${host}`, image, "sh", "-c", command],
    );
    const expected = readFileSync("/etc/hostname", "utf8");
    const address = lab.lab.spec.hosts[0]?.address;
    await eventually("the page", async () => {
      const response = await fetch(`http://${address}:8088/pass`, { signal: AbortSignal.timeout(1_000) });
      return (await response.text()) === expected;
    });
    await eventually("the logs", async () =>
      (await manager.docker("service", "logs", "--raw", "site")).startsWith(`up\n${expected.trim()}`),
    );
    await manager.docker("service", "rm", "site");
  });

  it("leaves", async () => {
    await manager.docker("service", "rm", "web");
    await eventually("its containers are gone", async () => (await lab.ok(host, "ps", "-aq")) === "");
    await lab.ok(host, "swarm", "leave");
    assert.equal(await lab.ok(host, "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
  });
});
