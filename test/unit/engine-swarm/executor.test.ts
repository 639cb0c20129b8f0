import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { EncryptionKeySchema } from "#proto/docker/swarmkit/types_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { HostExecutor } from "../../../src/engine/swarm/executor.ts";
import type { SwarmNetworks } from "../../../src/engine/swarm/networks.ts";
import type { Engine } from "../../../src/engine/types.ts";
import { TaskRejected } from "../../../src/swarm/types.ts";
import { makeTask } from "./host.ts";

const none = { secret: () => undefined, config: () => undefined };
const key = (subsystem: string, lamportTime: bigint) =>
  create(EncryptionKeySchema, { subsystem, lamportTime, key: new Uint8Array(16) });

function setup() {
  const calls: string[] = [];
  let address = "10.0.0.5";
  const engine = {
    system: { version: async () => ({ Version: "1.2.3" }) },
    network: {
      drivers: () => ["overlay", "bridge", "null"],
      startCluster: async (cluster: { advertiseAddress: string; dataPathPort: number }) => {
        calls.push(`start ${cluster.advertiseAddress} ${cluster.dataPathPort}`);
      },
      stopCluster: async () => void calls.push("stop"),
      setManagers: (hosts: string[]) => void calls.push(`managers ${hosts.join(",")}`),
      setKeys: async ({ gossip, ipsec }: { gossip: unknown[]; ipsec: unknown[] }) => {
        calls.push(`keys ${gossip.length}+${ipsec.length}`);
      },
    },
    containers: {
      list: async () => [{ Id: "left-over" }],
      remove: async (id: string) => void calls.push(`remove ${id}`),
    },
  } as unknown as Engine;
  const networks = {
    configure: async () => void calls.push("configure"),
    clear: () => void calls.push("clear"),
  } as unknown as SwarmNetworks;
  const executor = new HostExecutor({
    engine,
    networks,
    clock: new VirtualClock(),
    log: nullLogger,
    hostname: "host-a",
    labels: { zone: "a" },
    place: () => ({ bindAddress: address, advertiseAddress: address, dataPathAddress: address }),
  });
  return {
    calls,
    executor,
    move: (to: string) => {
      address = to;
    },
  };
}

test("what comes before the node object is kept, and applied in the right order once", async () => {
  const { calls, executor } = setup();
  executor.setManagers(["10.0.0.1"]);
  await executor.setNetworkKeys([key("networking:gossip", 1n), key("networking:ipsec", 2n)]);
  assert.deepEqual(calls, [], "there is no cluster yet to tell of keys and managers");
  await executor.configure(create(NodeSchema, { VXLANUDPPort: 4790 }));
  assert.deepEqual(calls, ["start 10.0.0.5 4790", "managers 10.0.0.1", "keys 1+1", "configure"]);
  calls.length = 0;
  await executor.configure(create(NodeSchema, { VXLANUDPPort: 4790 }));
  executor.setManagers(["10.0.0.1", "10.0.0.2"]);
  await executor.setNetworkKeys([key("networking:gossip", 3n)]);
  assert.deepEqual(calls, ["configure", "managers 10.0.0.1,10.0.0.2", "keys 1+0"]);
});

test("port 0 is 4789, and another address means another cluster", async () => {
  const { calls, executor, move } = setup();
  await executor.configure(create(NodeSchema));
  move("10.0.0.6");
  await executor.configure(create(NodeSchema));
  assert.deepEqual(
    calls.filter((call) => /^(start|stop)/.test(call)),
    ["start 10.0.0.5 4789", "stop", "start 10.0.0.6 4789"],
  );
});

test("leaving removes what tasks left and ends the cluster; twice is once", async () => {
  const { calls, executor } = setup();
  await executor.left();
  assert.deepEqual(calls, ["clear", "remove left-over"], "what an earlier membership left goes, the network stays");
  await executor.configure(create(NodeSchema));
  calls.length = 0;
  await executor.left();
  await executor.left();
  assert.deepEqual(calls, ["clear", "remove left-over", "stop", "clear", "remove left-over"]);
});

test("the description is the same each time: a change would restart the session", async () => {
  const { executor } = setup();
  const first = await executor.describe();
  assert.deepEqual(await executor.describe(), first);
  assert.equal(first.hostname, "host-a");
  assert.equal(first.engine?.engineVersion, "1.2.3");
  assert.equal(first.platform?.os, "linux");
  assert.match(first.platform?.architecture ?? "", /^(x86_64|aarch64)$/);
  assert.deepEqual(
    first.engine?.plugins.map(({ type, name }) => `${type}/${name}`),
    [
      "Log/json-file",
      "Log/local",
      "Log/none",
      "Manager/skein",
      "Network/bridge",
      "Network/null",
      "Network/overlay",
      "Volume/local",
    ],
  );
});

test("tasks that cannot run here are rejected before anything is made", async () => {
  const { executor } = setup();
  const reject = (container: object, pattern: RegExp) =>
    assert.rejects(
      executor.controller(
        makeTask({ spec: { runtime: { case: "container", value: { image: "i", ...container } } } }),
        none,
      ),
      (error: Error) => error instanceof TaskRejected && pattern.test(error.message),
    );
  await reject({ image: "" }, /image required/);
  await reject({ env: ["A={{.Nope}}"] }, /expanding env/);
  await reject({ mounts: [{ type: 1, target: "relative" }] }, /invalid mount target/);
  await assert.rejects(
    executor.controller(makeTask({ spec: { runtime: { case: "generic", value: { kind: "plugin" } } } }), none),
    /unsupported runtime: generic/,
  );
  const controller = await executor.controller(makeTask(), none);
  assert.ok(controller);
});
