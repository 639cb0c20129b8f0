/** Our worker under a real dockerd's manager. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createLogger } from "../../src/base/log.ts";
import { createSwarmNode } from "../../src/swarm/node/node.ts";
import type { SwarmNode } from "../../src/swarm/types.ts";
import { Dockerd, dockerdMissing, eventually } from "./support/dockerd.ts";
import { ScriptedExecutor, type ScriptedTask } from "./support/scripted-executor.ts";

const skip = dockerdMissing() ?? false;
const hostname = "ag-skein";
const log = createLogger((line) => process.env.SKEIN_TEST_OUTPUT && process.stderr.write(`${line}\n`), "debug");

describe("a real dockerd as manager", { skip, timeout: 240_000 }, () => {
  let manager: Dockerd;
  let node: SwarmNode;
  let token: string;
  const stateDir = mkdtempSync(join(tmpdir(), "ag-node-"));
  let executor = new ScriptedExecutor(hostname);

  const join_ = (joinToken: string) =>
    node.join({
      listenAddr: "",
      advertiseAddr: "",
      dataPathAddr: "",
      remoteAddrs: [manager.address],
      joinToken,
      availability: 0,
    });
  const docker = (...args: string[]) => manager.docker(...args);
  const service = (name: string, options: string[], ...command: string[]) =>
    docker(
      ...["service", "create", "--detach", "--no-resolve-image", "--name", name],
      ...["--constraint", `node.hostname==${hostname}`, ...options, "scripted:1", ...command],
    );
  const states = async (name: string) =>
    (await docker("service", "ps", "--no-trunc", "--format", "{{.CurrentState}}|{{.Error}}", name)).split("\n");
  const scripted = (name: string) =>
    eventually(`a task of ${name}`, async () =>
      [...executor.tasks.values()].find((script) => script.task.serviceAnnotations?.name === name),
    );
  const state = (name: string, expected: RegExp) =>
    eventually(`${name} is ${expected}`, async () => (await states(name)).find((line) => expected.test(line)));

  before(async () => {
    manager = new Dockerd("ag", "10.211.1");
    await manager.start();
    await docker("swarm", "init", "--advertise-addr", manager.address);
    token = await docker("swarm", "join-token", "-q", "worker");
    node = createSwarmNode({ stateDir, executor, log });
  });

  after(async () => {
    await node[Symbol.asyncDispose]();
    await manager[Symbol.asyncDispose]();
    rmSync(stateDir, { recursive: true, force: true });
  });

  it("refuses what is not a token, and hears the manager refuse a wrong one", async () => {
    await assert.rejects(join_("nonsense"), { message: "invalid join token", code: "invalid" });
    const wrong = token.replace(/.$/, (last) => (last === "a" ? "b" : "a"));
    await assert.rejects(join_(wrong), {
      message: "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
    });
    const otherRoot = token.replace(/^SWMTKN-1-../, "SWMTKN-1-00");
    await assert.rejects(join_(otherRoot), /remote CA does not match fingerprint\. Expected: [0-9a-f]{64}/);
    assert.equal(node.local().state, "inactive");
    await assert.rejects(node.leave(false), { message: "This node is not part of a swarm" });
  });

  it("joins and is Ready", async () => {
    await join_(token);
    assert.equal(node.local().state, "active");
    assert.equal(node.local().nodeAddr, manager.peerAddress);
    const line = await docker("node", "ls", "--filter", `name=${hostname}`, "--format", "{{.ID}} {{.Status}}");
    assert.equal(line, `${node.local().nodeId} Ready`);
    await assert.rejects(join_(token), /already part of a swarm/);
    assert.throws(() => node.control(), /Worker nodes can't be used to view or modify cluster state/);
  });

  it("is given keys, managers and its address on the ingress network", async () => {
    await eventually("keys", async () => executor.keys.length === 6 || undefined);
    assert.deepEqual(executor.managers, [manager.address]);
    const attachment = executor.node?.attachments[0];
    assert.equal(attachment?.network?.spec?.annotations?.name, "ingress");
    assert.match(attachment?.addresses[0] ?? "", /^10\.0\.0\.\d+\/24$/);
  });

  it("runs a service's task, and shows its container", async () => {
    await service("web", [], "serve");
    await state("web", /^Running/);
    const { calls } = await scripted("web");
    assert.deepEqual(calls, ["prepare", "start", "wait"]);
    const id = await docker("service", "ps", "-q", "--no-trunc", "web");
    const [task] = await manager.inspect("inspect", id);
    const status = task?.Status as { Message: string; ContainerStatus: object };
    assert.equal(status.Message, "started");
    assert.deepEqual(status.ContainerStatus, { ContainerID: `scripted-${id}`, PID: 4242, ExitCode: 0 });
  });

  it("publishes a service's logs", async () => {
    assert.match(await docker("service", "logs", "--raw", "web"), /^serve$/);
  });

  it("hands out secrets and configs to the task that names them", async () => {
    await manager.docker("config", "create", "motd", "/etc/hostname");
    await manager.docker("secret", "create", "pass", "/etc/hostname");
    await service("vault", ["--secret", "pass", "--config", "motd"], "serve");
    await state("vault", /^Running/);
    const { task, dependencies } = await scripted("vault");
    assert.equal(task.spec?.runtime.case, "container");
    const { secrets, configs } = task.spec.runtime.value as {
      secrets: { secretId: string }[];
      configs: { configId: string }[];
    };
    assert.ok(dependencies.secret(secrets[0]?.secretId ?? "")?.spec?.data.length);
    assert.ok(dependencies.config(configs[0]?.configId ?? "")?.spec?.data.length);
    await docker("service", "rm", "vault");
  });

  it("tells why a task failed or was refused", async () => {
    await service("broken", ["--restart-condition", "none"], "fail", "7");
    await state("broken", /^Failed .*\|"task: non-zero exit \(7\)"$/);
    await service("unwanted", ["--restart-condition", "none"], "reject");
    await state("unwanted", /^Rejected .*\|"this host refuses"$/);
    await docker("service", "rm", "broken", "unwanted");
  });

  it("stops tasks of a removed service and forgets them", async () => {
    await service("brief", [], "serve");
    await state("brief", /^Running/);
    const script = await scripted("brief");
    await docker("service", "rm", "brief");
    await eventually("removed", async () => script.calls.includes("close") || undefined);
    assert.deepEqual(script.calls, ["prepare", "start", "wait", "shutdown", "remove", "close"]);
  });

  it("gets an address on an attachable network and gives it back", async () => {
    await docker("network", "create", "--driver", "overlay", "--attachable", "side");
    await docker("network", "create", "--driver", "overlay", "closed");
    const request = { addresses: [], containerId: "0123abcd" };
    const { attachmentId, task } = await node.attachNetwork({ ...request, target: "side" });
    const [network] = task.networks;
    assert.equal(network?.network?.spec?.annotations?.name, "side");
    assert.match(network?.addresses[0] ?? "", /^10\.0\.\d+\.\d+\/24$/);
    await eventually(
      "the node's own address there",
      async () => executor.node?.attachments.some((a) => a.network?.id === network?.network?.id) || undefined,
    );
    await node.detachNetwork(attachmentId);
    await eventually("the network is free", async () => (await docker("network", "rm", "side")) === "side");
    await assert.rejects(node.attachNetwork({ ...request, target: "closed" }), {
      code: "forbidden",
      message: /^Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not/,
    });
    await assert.rejects(node.attachNetwork({ ...request, target: "nowhere" }), { code: "notFound" });
    await docker("network", "rm", "closed");
  });

  it("takes up its tasks after a restart, with no manager there", async () => {
    const before = await scripted("web");
    await node[Symbol.asyncDispose]();
    assert.ok(!before.calls.includes("shutdown"));
    await manager.stopDaemon();
    executor = new ScriptedExecutor(hostname);
    node = createSwarmNode({ stateDir, executor, log });
    await node.restore();
    assert.equal(node.local().state, "active");
    const again: ScriptedTask = await scripted("web");
    await eventually("it is waited for", async () => again.calls.includes("wait") || undefined);
    assert.deepEqual(again.calls, ["wait"]);
  });

  it("comes back when the manager does, and tells what happened meanwhile", async () => {
    (await scripted("web")).exit(3);
    await manager.startDaemon();
    await eventually(
      "Ready again",
      async () =>
        (await docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}")).includes(`${hostname} Ready`) ||
        undefined,
      40_000,
    );
    await state("web", /^Failed .*\|"task: non-zero exit \(3\)"$/);
    await state("web", /^Running/);
  });

  it("is drained and comes back", async () => {
    await docker("node", "update", "--availability", "drain", hostname);
    await state("web", /^Shutdown/);
    await docker("node", "update", "--availability", "active", hostname);
    await state("web", /^Running/);
  });

  it("takes a new root and a new certificate when the swarm's CA is rotated", async () => {
    await docker("swarm", "ca", "--rotate", "--detach");
    const tls = async () => (await manager.inspect("info", "-f", "[{{json .Swarm.Cluster}}]"))[0];
    await eventually(
      "the rotation is complete",
      async () => (await tls())?.RootRotationInProgress === false || undefined,
      60_000,
    );
    await eventually("our node trusts the new root", async () =>
      (await docker("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}")).includes(`${hostname} Ready`),
    );
    await docker("service", "update", "--detach", "--force", "web");
    await eventually("a new task runs", async () => ((await states("web")).length > 1 ? true : undefined));
    await state("web", /^Running/);
  });

  it("stays a worker when promoted, and goes on working", async () => {
    await docker("node", "promote", hostname);
    await docker("service", "update", "--detach", "--force", "web");
    await state("web", /^Shutdown/);
    await state("web", /^Running/);
    assert.equal(node.local().isManager, false);
  });

  it("leaves", async () => {
    const { nodeId } = node.local();
    const scripts = [...executor.tasks.values()];
    await node.leave(false);
    assert.equal(node.local().state, "inactive");
    assert.throws(() => node.control(), /docker swarm init/);
    for (const { calls } of scripts) assert.ok(calls.includes("remove"));
    await eventually(
      "Down",
      async () => (await docker("node", "inspect", "-f", "{{.Status.State}}", nodeId)) === "down" || undefined,
      40_000,
    );
    // By force: to its managers it is a promoted node that never came, which Docker does not let demote.
    await docker("node", "rm", "--force", nodeId);
  });
});
