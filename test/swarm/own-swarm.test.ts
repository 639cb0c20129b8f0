/** A swarm of our own: one manager and workers in this process, on loopback, without containers. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { LogSubscriptionOptionsSchema } from "#proto/docker/swarmkit/logbroker_pb.js";
import {
  ClusterSpecSchema,
  NetworkSpecSchema,
  NodeSpec_Availability,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { createLogger } from "../../src/base/log.ts";
import { createSwarmNode } from "../../src/swarm/node/node.ts";
import type { ControlApi, SwarmNode } from "../../src/swarm/types.ts";
import { eventually } from "../interop/support/dockerd.ts";
import { ScriptedExecutor } from "../interop/support/scripted-executor.ts";

const skip = spawnSync("etcd", ["--version"]).error ? "needs etcd" : false;
const write = (line: string) => process.env.SKEIN_TEST_OUTPUT && process.stderr.write(`${line}\n`);

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

class Host {
  readonly name: string;
  readonly stateDir = mkdtempSync(join(tmpdir(), "skein-swarm-"));
  executor: ScriptedExecutor;
  node: SwarmNode;

  constructor(name: string) {
    this.name = name;
    this.executor = new ScriptedExecutor(name);
    this.node = this.#create();
  }

  #create(): SwarmNode {
    const log = createLogger(write, "debug", { host: this.name });
    return createSwarmNode({ stateDir: join(this.stateDir, "swarm"), executor: this.executor, log });
  }

  /** As if the daemon were started again. */
  async restart(): Promise<void> {
    await this.node[Symbol.asyncDispose]();
    this.executor = new ScriptedExecutor(this.name);
    this.node = this.#create();
    await this.node.restore();
  }

  join(manager: string, joinToken: string): Promise<void> {
    const none = { listenAddr: "", advertiseAddr: "127.0.0.1", dataPathAddr: "", availability: 0 };
    return this.node.join({ ...none, remoteAddrs: [manager], joinToken });
  }

  async dispose(): Promise<void> {
    await this.node[Symbol.asyncDispose]();
    rmSync(this.stateDir, { recursive: true, force: true });
  }
}

describe("a swarm of our own", { skip, timeout: 120_000 }, () => {
  const manager = new Host("m1");
  const worker = new Host("w1");
  let addr = "";
  const control = (): ControlApi => manager.node.control();
  const initRequest = (forceNewCluster = false) => ({
    listenAddr: addr,
    advertiseAddr: addr,
    dataPathAddr: "",
    dataPathPort: 0,
    forceNewCluster,
    autoLock: false,
    availability: NodeSpec_Availability.ACTIVE,
    defaultAddressPool: [],
    subnetSize: 0,
    // Nodes that left are seen to be down after three seconds.
    spec: create(ClusterSpecSchema, { dispatcher: { heartbeatPeriod: { seconds: 1n } } }),
  });
  const states = () =>
    control()
      .tasks()
      .map(
        (task) => `${task.nodeId === worker.node.local().nodeId ? "w1" : "m1"} ${TaskState[task.status?.state ?? 0]}`,
      )
      .sort();
  const nodeState = (id: string) => NodeStatus_State[control().node(id)?.status?.state ?? 0];

  after(async () => {
    await worker.dispose();
    await manager.dispose();
  });

  it("begins with its first node", async () => {
    addr = `127.0.0.1:${await freePort()}`;
    const id = await manager.node.init(initRequest());
    const local = manager.node.local();
    assert.equal(local.state, "active");
    assert.equal(local.nodeId, id);
    assert.equal(local.isManager, true);
    assert.equal(nodeState(id), "READY");
    assert.equal(control().cluster().id, local.clusterId);
    await eventually("keys", async () => manager.executor.keys.length === 6);
    assert.deepEqual(manager.executor.managers, ["127.0.0.1"]);
    await assert.rejects(manager.node.init(initRequest()), /already part of a swarm/);
  });

  it("is joined by a worker", async () => {
    await worker.join(addr, control().cluster().rootCa?.joinTokens?.worker ?? "");
    assert.equal(worker.node.local().state, "active");
    assert.equal(nodeState(worker.node.local().nodeId), "READY");
    assert.throws(() => worker.node.control(), /Worker nodes can't be used/);
  });

  it("runs a service on both", async () => {
    await control().createService(
      create(ServiceSpecSchema, {
        annotations: { name: "web" },
        mode: { case: "global", value: {} },
        task: { runtime: { case: "container", value: { image: "scripted:1", args: ["serve"] } } },
      }),
    );
    await eventually("running", async () => states().join() === "m1 RUNNING,w1 RUNNING");
  });

  it("collects its logs from both", async () => {
    const lines: string[] = [];
    const selector = {
      serviceIds: control()
        .services()
        .map((service) => service.id),
      nodeIds: [],
      taskIds: [],
    };
    const options = create(LogSubscriptionOptionsSchema);
    for await (const line of control().logs(selector, options, AbortSignal.timeout(10_000))) {
      lines.push(Buffer.from(line.data).toString());
    }
    assert.deepEqual(lines, ["serve\n", "serve\n"]);
  });

  it("gives a worker's container an address on an attachable network", async () => {
    const side = await control().createNetwork(
      create(NetworkSpecSchema, { annotations: { name: "side" }, driverConfig: { name: "overlay" }, attachable: true }),
    );
    const asked = { target: "side", addresses: [], containerId: "0123abcd" };
    const { attachmentId, task } = await worker.node.attachNetwork(asked);
    assert.match(task.networks[0]?.addresses[0] ?? "", /^10\.0\.\d+\.\d+\/24$/);
    await eventually("the worker's own address there", async () =>
      worker.executor.node?.attachments.some((attachment) => attachment.network?.id === side.id),
    );
    await eventually("its task runs", async () => control().task(attachmentId)?.status?.state === TaskState.RUNNING);
    await worker.node.detachNetwork(attachmentId);
    assert.equal(control().task(attachmentId), undefined);
    await control().removeNetwork(side.id);
    await assert.rejects(worker.node.attachNetwork(asked), { code: "notFound" });
  });

  it("goes on after the worker's daemon was restarted", async () => {
    await worker.restart();
    assert.equal(worker.node.local().state, "active");
    await eventually("waited for again", async () =>
      [...worker.executor.tasks.values()].some((script) => script.calls.join() === "wait"),
    );
    assert.deepEqual(states(), ["m1 RUNNING", "w1 RUNNING"]);
  });

  it("goes on after every daemon was restarted", async () => {
    const before = manager.node.local();
    await worker.node[Symbol.asyncDispose]();
    await manager.restart();
    await worker.restart();
    assert.equal(manager.node.local().state, "active");
    assert.equal(manager.node.local().nodeId, before.nodeId);
    await eventually("both are ready", async () =>
      [manager, worker].every((host) => nodeState(host.node.local().nodeId) === "READY"),
    );
    await eventually("both tasks run", async () => states().join() === "m1 RUNNING,w1 RUNNING");
    const calls = [...manager.executor.tasks.values()].map((script) => script.calls.join());
    assert.deepEqual(calls, ["wait"]);
  });

  it("is left by a worker", async () => {
    const id = worker.node.local().nodeId;
    await worker.node.leave(false);
    assert.equal(worker.node.local().state, "inactive");
    assert.ok(!existsSync(join(worker.stateDir, "swarm")));
    await eventually("it is down at once", async () => nodeState(id) === "DOWN", 2_000);
    await control().removeNode(id, false);
    assert.equal(control().node(id), undefined);
  });

  it("is not left by its last manager but by force", async () => {
    await assert.rejects(manager.node.leave(false), /Removing the last manager erases all current state of the swarm/);
    await manager.node.leave(true);
    assert.equal(manager.node.local().state, "inactive");
    assert.deepEqual(readdirSync(manager.stateDir), []);
    assert.throws(() => control(), /This node is not a swarm manager/);
    const id = await manager.node.init(initRequest());
    assert.equal(manager.node.local().nodeId, id);
  });
});
