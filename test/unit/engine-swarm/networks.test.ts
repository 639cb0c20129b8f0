import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NodeSchema, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { Emitter } from "../../../src/base/async.ts";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { eventOf } from "../../../src/engine/swarm/events.ts";
import { keysOf } from "../../../src/engine/swarm/executor.ts";
import { placeOf } from "../../../src/engine/swarm/host.ts";
import { loadBalancersOf, SwarmNetworks } from "../../../src/engine/swarm/networks.ts";
import type { NetworkController, NetworkSpec } from "../../../src/network/types.ts";
import type { LocalNode } from "../../../src/swarm/types.ts";
import { makeTask } from "./host.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));

function fakeNetwork() {
  const made = new Map<string, NetworkSpec>();
  const calls: string[] = [];
  const room = {
    events: new Emitter(),
    get: (id: string) => made.get(id),
    list: () => [...made.values()],
    create: async (spec: NetworkSpec, options: { lbAddress?: string } = {}) => {
      calls.push(`create ${spec.name} ${options.lbAddress ?? "-"}`);
      made.set(spec.id, spec);
      return spec;
    },
    remove: async (id: string) => void made.delete(id),
    setLoadBalancers: async (addresses: ReadonlyMap<string, string>) => {
      calls.push(`lb ${[...addresses.values()].join(",")}`);
    },
  };
  return { calls, made, room: room as unknown as NetworkController };
}

const nodeWith = (...names: ("net" | "ingress")[]) =>
  create(NodeSchema, {
    id: "node1",
    attachments: makeTask().networks.flatMap((attachment) => {
      const name = attachment.network?.spec?.annotations?.name;
      const wanted = names.some((entry) => name === (entry === "net" ? "net1" : "ingress"));
      return wanted && attachment.network
        ? [{ network: attachment.network, addresses: [`10.9.${name?.length}.2/24`] }]
        : [];
    }),
  });

function setup() {
  const { calls, made, room } = fakeNetwork();
  const clock = new VirtualClock();
  const networks = new SwarmNetworks({ network: room, node: () => undefined, clock, log: nullLogger });
  return { calls, made, clock, networks };
}

test("ingress is made as soon as this node has an address on it", async () => {
  const { calls, networks } = setup();
  await networks.configure(nodeWith("ingress", "net"));
  assert.deepEqual(calls, ["lb 10.9.7.2/24,10.9.4.2/24", "create ingress 10.9.7.2/24"]);
});

test("a task waits for this node's addresses, then its networks are made once", async () => {
  const { calls, clock, networks } = setup();
  const first = networks.attachments(makeTask());
  const second = networks.attachments(makeTask({ id: "task2" }));
  await clock.advanceAsync(29_000);
  await networks.configure(nodeWith("ingress"));
  await settle();
  assert.equal(calls.filter((call) => call.startsWith("create net1")).length, 0, "one address of two is not enough");
  await networks.configure(nodeWith("ingress", "net"));
  const [attachments] = await Promise.all([first, second]);
  assert.deepEqual(
    attachments.map((attachment) => [attachment.network.name, attachment.lbAddress]),
    [
      ["net1", "10.9.4.2/24"],
      ["ingress", "10.9.7.2/24"],
    ],
  );
  assert.equal(calls.filter((call) => call.startsWith("create net1")).length, 1);
});

test("no address within 30 s is Docker's error; a signal ends the wait before", async () => {
  const { clock, networks } = setup();
  const waiting = networks.attachments(makeTask());
  waiting.catch(() => {});
  await clock.advanceAsync(30_000);
  await assert.rejects(waiting, /node is missing network attachments, ip addresses may be exhausted/);
  const abort = new AbortController();
  const aborted = networks.attachments(makeTask(), abort.signal);
  aborted.catch(() => {});
  abort.abort(new Error("no longer wanted"));
  await assert.rejects(aborted, /no longer wanted/);
});

test("a network that cannot be made tells its own trouble, not a missing address", async () => {
  const { calls, networks } = setup();
  const { room } = fakeNetwork();
  Object.assign(room, {
    create: async () => {
      throw new Error("VNI taken");
    },
    setLoadBalancers: async () => {
      throw new Error("not now");
    },
  });
  const broken = new SwarmNetworks({
    network: room,
    node: () => undefined,
    clock: new VirtualClock(),
    log: nullLogger,
  });
  await assert.rejects(broken.configure(nodeWith("ingress", "net")), /not now/);
  await assert.rejects(broken.attachments(makeTask()), /VNI taken/);
  assert.deepEqual([calls, networks.list()], [[], []]);
});

test("on a worker only what is here is listed and removed", async () => {
  const { made, networks } = setup();
  await networks.configure(nodeWith("ingress", "net"));
  await networks.attachments(makeTask());
  assert.deepEqual(
    networks.list().map(({ spec }) => spec.name),
    ["ingress", "net1"],
  );
  await networks.remove("netid");
  assert.ok(!made.has("netid"));
  await assert.rejects(networks.remove("netid"), /network netid not found/);
});

test("a node of before 18.09 has its ingress address apart", () => {
  const [attachment] = nodeWith("ingress").attachments;
  assert.deepEqual([...loadBalancersOf(create(NodeSchema, { attachment }))], [["ingressid", "10.9.7.2/24"]]);
});

test("keys by subsystem", () => {
  const key = (subsystem: string, lamportTime: bigint) => ({
    $typeName: "docker.swarmkit.v1.EncryptionKey" as const,
    subsystem,
    algorithm: 0,
    key: new Uint8Array(16),
    lamportTime,
  });
  const keys = [key("networking:gossip", 1n), key("networking:ipsec", 2n), key("networking:gossip", 3n)];
  assert.deepEqual(
    keysOf(keys, "networking:gossip").map((entry) => entry.lamportTime),
    [1n, 3n],
  );
});

test("gossip binds the advertised address where it is our own, else our only one", () => {
  const local = { nodeAddr: "203.0.113.5", dataPathAddr: "" } as LocalNode;
  const eth0 = { name: "eth0", kind: "", up: true, loopback: false, addresses: ["10.0.0.5"] };
  assert.deepEqual(placeOf(local, [eth0]), {
    bindAddress: "10.0.0.5",
    advertiseAddress: "203.0.113.5",
    dataPathAddress: "203.0.113.5",
  });
  assert.equal(placeOf({ ...local, nodeAddr: "10.0.0.5" }, [eth0])?.bindAddress, "10.0.0.5");
  assert.equal(placeOf({ ...local, nodeAddr: "" }, [eth0]), undefined);
});

test("events of the swarm say what changed", () => {
  const service = (replicas: bigint, state: number) =>
    create(ServiceSchema, {
      id: "s",
      spec: { annotations: { name: "web" }, mode: { case: "replicated", value: { replicas } } },
      updateStatus: { state },
    });
  assert.deepEqual(
    eventOf({ action: "update", kind: "service", object: service(3n, 1), old: service(2n, 0) })?.attributes,
    { name: "web", "replicas.old": "2", "replicas.new": "3", "updatestate.new": "updating" },
  );
  const node = create(NodeSchema, { id: "n", description: { hostname: "h" }, status: { state: 2 } });
  assert.equal(
    eventOf({ action: "update", kind: "node", object: node, old: node }),
    undefined,
    "a heartbeat is no news",
  );
  const down = create(NodeSchema, { id: "n", description: { hostname: "h" }, status: { state: 1 } });
  assert.deepEqual(eventOf({ action: "update", kind: "node", object: down, old: node })?.attributes, {
    name: "h",
    "state.old": "ready",
    "state.new": "down",
  });
  assert.equal(eventOf({ action: "create", kind: "task", object: makeTask() }), undefined);
});
