import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NetworkSchema, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { EndpointSpec_ResolutionMode, NetworkSpecSchema, ServiceSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { RestartPolicy_RestartCondition } from "#proto/docker/swarmkit/types_pb.js";
import { formatCidr, overlaps, parseCidr, parseIp } from "../../../src/swarm/manager/allocator/ipv4.ts";
import { ipv6Twin } from "../../../src/swarm/manager/allocator/ipv6.ts";
import { type Pools, planNetwork } from "../../../src/swarm/manager/allocator/plan.ts";
import { AddressPool } from "../../../src/swarm/manager/allocator/pool.ts";
import { AllocatorState, isDead } from "../../../src/swarm/manager/allocator/state.ts";
import { versionOf } from "../../../src/swarm/store/objects.ts";
import { createWorld, service } from "./support/world.ts";

/** Parts of a service's spec. */
function shape(mode: string, ...networks: string[]) {
  const { DNSRR, VIP } = EndpointSpec_ResolutionMode;
  const { endpoint, task, update } = create(ServiceSpecSchema, {
    endpoint: { mode: mode === "vip" ? VIP : DNSRR },
    task: {
      runtime: { case: "container", value: { image: "x" } },
      networks: networks.map((target) => ({ target })),
    },
    update: { parallelism: 0n },
  });
  assert.ok(endpoint && task && update);
  return { endpoint, task, update };
}

const cidr = (text: string) => {
  const parsed = parseCidr(text);
  assert.ok(parsed, text);
  return parsed;
};

test("addresses and subnets are read strictly", () => {
  for (const bad of ["10.0.0", "10.0.0.256", "a.b.c.d", "10.0.0.0.1", "1e1.0.0.0", ""])
    assert.equal(parseIp(bad), undefined, bad);
  for (const bad of ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8"])
    assert.equal(parseCidr(bad), undefined, bad);
  assert.equal(formatCidr(cidr("10.1.2.3/24")), "10.1.2.0/24");
  assert.ok(overlaps(cidr("10.0.0.0/8"), cidr("10.9.0.0/16")));
  assert.ok(!overlaps(cidr("10.0.0.0/24"), cidr("10.0.1.0/24")));
});

test("addresses go out one after another, and rest before they come again", () => {
  const pool = new AddressPool(cidr("10.0.1.0/29"), parseIp("10.0.1.1") ?? 0);
  const take = (now: number) => pool.allocate("x", now);
  assert.deepEqual([take(0), take(0), take(0)], ["10.0.1.2/29", "10.0.1.3/29", "10.0.1.4/29"]);
  pool.release("10.0.1.2/29", "x", 0);
  pool.release("10.0.1.3/29", "somebody else", 0);
  assert.deepEqual([take(1), take(2)], ["10.0.1.5/29", "10.0.1.6/29"], "not the one just freed");
  pool.release("10.0.1.5/29", "x", 60_000);
  assert.equal(take(60_001), "10.0.1.2/29", "rested long enough");
  assert.equal(take(60_002), "10.0.1.5/29", "when nothing else is left, the one that rested longest");
  assert.equal(take(60_003), undefined);
});

test("addresses that others remember as given back rest as well, unless they have an owner", () => {
  const gateway = parseIp("10.0.1.1") ?? 0;
  const pool = new AddressPool(cidr("10.0.1.0/29"), gateway);
  pool.claim("10.0.1.3/29", "x");
  pool.rest("10.0.1.2/29", 50_000);
  pool.rest("10.0.1.3/29", 50_000);
  pool.rest("10.0.1.5/29", 50_000);
  pool.rest("10.9.9.9/29", 50_000);
  const heir = new AddressPool(cidr("10.0.1.0/29"), gateway);
  heir.claim("10.0.1.3/29", "x");
  heir.remember(pool);
  for (const one of [pool, heir]) {
    assert.deepEqual([one.allocate("y", 60_000), one.allocate("y", 60_000)], ["10.0.1.6/29", "10.0.1.4/29"]);
    assert.equal(one.allocate("y", 110_000), "10.0.1.5/29", "rested long enough");
  }
});

test("a new leader gives no address out that a task had until just now", async () => {
  const world = await createWorld();
  await world.addNode("n1");
  await world.control.createNetwork(create(NetworkSpecSchema, { annotations: { name: "net" } }));
  await world.run(100);
  world.fate = () => "complete";
  const once = { ...onNetworks("net"), restart: { condition: RestartPolicy_RestartCondition.NONE } };
  await world.control.createService(service(3, { task: once }));
  await world.run(2000);
  const dead = world.store.view.all("task").filter(isDead);
  const networkId = dead[0]?.networks[0]?.network?.id ?? "";
  const ended = dead.map((task) => task.networks[0]?.addresses[0]);
  assert.equal(new Set(ended).size, 3);
  const now = world.clock.now();
  const state = AllocatorState.of(world.store.view, world.clock);
  const given = [1, 2, 3].map(() => state.allocate(networkId, "new", now));
  assert.ok(
    given.every((address) => address !== undefined && !ended.includes(address)),
    given.join(),
  );
  world.close();
});

test("an ip-range limits what is given out, and a claim is exclusive", () => {
  const pool = new AddressPool(cidr("10.0.0.0/24"), parseIp("10.0.0.1") ?? 0, cidr("10.0.0.64/30"));
  const all = Array.from({ length: 4 }, () => pool.allocate("x", 0));
  assert.deepEqual(all, ["10.0.0.64/24", "10.0.0.65/24", "10.0.0.66/24", "10.0.0.67/24"]);
  assert.equal(pool.allocate("x", 0), undefined);
  assert.ok(pool.claim("10.0.0.9/24", "a"));
  assert.ok(pool.claim("10.0.0.9/24", "a"), "again by the same owner");
  assert.ok(!pool.claim("10.0.0.9/24", "b"));
  assert.ok(!pool.claim("10.0.0.1/24", "b"), "the gateway");
  assert.ok(!pool.claim("10.0.9.9/24", "b"), "outside");
});

test("networks get consecutive subnets and VNIs; foreign subnets are jumped over", () => {
  const state = new AllocatorState();
  const pools: Pools = { subnets: [cidr("10.0.0.0/8")], size: 24, seed: "swarm" };
  const plan = (id: string, spec: Parameters<typeof create<typeof NetworkSpecSchema>>[1] = {}) => {
    const network = planNetwork(create(NetworkSchema, { id, spec: create(NetworkSpecSchema, spec) }), state, pools);
    state.apply({ action: "update", kind: "network", object: network, old: undefined }, 0);
    const { driverState, ipam } = network;
    return [ipam?.configs[0]?.subnet, Object.values(driverState?.options ?? {}).at(-1)];
  };
  assert.deepEqual(plan("ingress"), ["10.0.0.0/24", "4096"]);
  assert.deepEqual(plan("a"), ["10.0.1.0/24", "4097"]);
  assert.deepEqual(plan("big", { ipam: { configs: [{ subnet: "10.0.2.0/23" }] } }), ["10.0.2.0/23", "4098"]);
  assert.deepEqual(plan("b"), ["10.0.4.0/24", "4099"]);
  assert.throws(() => plan("c", { ipam: { configs: [{ subnet: "10.0.3.0/24" }] } }), /Pool overlaps/);
  assert.deepEqual(plan("local", { driverConfig: { name: "bridge" } }), [undefined, undefined]);
  assert.deepEqual(plan("d"), ["10.0.5.0/24", "4100"]);
  const tiny = new AllocatorState();
  const exhausted = { subnets: [cidr("10.0.0.0/23")], size: 24, seed: "swarm" };
  const grow = (id: string) => {
    const network = planNetwork(create(NetworkSchema, { id }), tiny, exhausted);
    tiny.apply({ action: "update", kind: "network", object: network, old: undefined }, 0);
  };
  grow("1");
  grow("2");
  assert.throws(() => grow("3"), /no free subnet is left in the default address pools/);
});

test("dual stack: a subnet of the swarm's own, twins for tasks, what is reserved in either family", () => {
  const pools: Pools = { subnets: [cidr("10.0.0.0/8")], size: 24, seed: "swarm" };
  const made = (spec: Parameters<typeof create<typeof NetworkSpecSchema>>[1]) => {
    const state = new AllocatorState();
    const id = "n1";
    const network = planNetwork(create(NetworkSchema, { id, spec: create(NetworkSpecSchema, spec) }), state, pools);
    state.apply({ action: "update", kind: "network", object: network, old: undefined }, 0);
    const told = network.ipam?.configs.map(({ subnet, gateway }) => `${subnet} ${gateway}`);
    const next = () => state.allocate(id, "x", 0);
    return {
      told,
      vnis: network.driverState?.options["com.docker.network.driver.overlay.vxlanid_list"],
      next,
      network,
    };
  };
  const own = made({ ipv6Enabled: true });
  assert.match(own.told?.join() ?? "", /^10\.0\.0\.0\/24 10\.0\.0\.1,fd[0-9a-f]{2}:[0-9a-f:]+::\/64 fd[0-9a-f:]+::1$/);
  assert.equal(own.vnis, "4096", "one for each IPv4 subnet");
  const asked = made({
    ipv6Enabled: true,
    ipam: {
      configs: [
        { subnet: "fd00:1::/64", gateway: "fd00:1::4", reserved: { printer: "fd00:1::5" } },
        { subnet: "10.9.0.0/24", gateway: "10.9.0.3", reserved: { router: "10.9.0.2" } },
      ],
    },
  });
  assert.deepEqual(asked.told, ["10.9.0.0/24 10.9.0.3", "fd00:1::/64 fd00:1::4"]);
  assert.deepEqual([asked.next(), asked.next()], ["10.9.0.1/24", "10.9.0.6/24"], "2 to 5 are taken");
  assert.deepEqual(ipv6Twin(asked.network, "10.9.0.6/24"), ["fd00:1::6/64"]);
  assert.deepEqual(ipv6Twin(made({}).network, "10.0.0.6/24"), [], "IPv4 only");
  assert.deepEqual(
    made({
      driverConfig: { options: { "com.docker.network.driver.overlay.vxlanid_list": "77" } },
      ipam: { configs: [{ subnet: "10.9.0.0/24" }, { subnet: "10.9.1.0/24" }] },
    }).vnis,
    "77,4096",
    "the rest is chosen",
  );
});

const onNetworks = (...names: string[]) => ({
  runtime: { case: "container", value: { image: "x" } } as const,
  networks: names.map((target) => ({ target })),
});

test("published ports: dynamic ones from 30000, kept over updates, given back", async () => {
  const world = await createWorld();
  await world.run(100);
  const ports = (id: string) => world.control.service(id)?.endpoint?.ports.map((port) => port.publishedPort);
  const spec = service(0, { endpoint: { ports: [{ targetPort: 80 }, { targetPort: 53, protocol: 1 }] } });
  const a = await world.control.createService(spec);
  await world.run(100);
  assert.deepEqual(ports(a.id), [30000, 30001]);
  const current = world.control.service(a.id);
  assert.ok(current?.spec);
  const changed = { ...current.spec, task: { ...current.spec.task, forceUpdate: 1n } } as typeof spec;
  await world.control.updateService(a.id, current.meta?.version?.index ?? 0n, changed, false);
  await world.run(100);
  assert.deepEqual(ports(a.id), [30000, 30001]);
  const taken = service(0, { endpoint: { ports: [{ targetPort: 80, publishedPort: 30000 }] } });
  await assert.rejects(world.control.createService(taken), /port '30000' is already in use/);
  await world.control.removeService(a.id);
  await world.run(100);
  const b = await world.control.createService(taken);
  await world.run(100);
  assert.deepEqual(ports(b.id), [30000]);
  world.close();
});

test("all dynamic ports are taken: a service waits for what it asks for, keeps nothing meanwhile, and gets it", async () => {
  const world = await createWorld();
  await world.run(100);
  const asking = (count: number) =>
    service(0, { endpoint: { ports: Array.from({ length: count }, (_, i) => ({ targetPort: i + 1 })) } });
  const ports = (id: string) => world.control.service(id)?.endpoint?.ports.map((port) => port.publishedPort);
  const most = await world.control.createService(asking(2767));
  await world.run(100);
  assert.deepEqual(new Set(ports(most.id)), new Set(Array.from({ length: 2767 }, (_, i) => 30000 + i)));
  const greedy = await world.control.createService(asking(2));
  await world.run(60_000);
  assert.equal(ports(greedy.id), undefined);
  const modest = await world.control.createService(asking(1));
  await world.run(100);
  assert.deepEqual(ports(modest.id), [32767], "the one that is left is nobody's");
  await world.control.removeService(most.id);
  await world.run(10_000);
  assert.equal(ports(greedy.id)?.length, 2);
  world.close();
});

test("what waits for one network takes nothing of the others, however long it waits", async () => {
  const world = await createWorld();
  await world.addNode("n1");
  for (const [name, subnet] of [
    ["wide", "10.8.0.0/28"],
    ["small", "10.9.0.0/30"],
  ] as const) {
    await world.control.createNetwork(
      create(NetworkSpecSchema, { annotations: { name }, ipam: { configs: [{ subnet }] } }),
    );
  }
  await world.run(100);
  // The only address of the small one is the VIP of the first; the second has none, and so no tasks.
  const first = await world.control.createService(service(1, { task: onNetworks("wide", "small") }));
  await world.run(100);
  const second = await world.control.createService(service(1, { task: onNetworks("wide", "small") }));
  await world.run(10 * 60_000);
  assert.equal(world.control.service(second.id)?.endpoint, undefined);
  const others = await world.control.createService(service(8, { task: onNetworks("wide") }));
  await world.run(1_000);
  assert.equal(world.running(others.id).length, 8);
  for (const { id } of [first, second, others]) await world.control.removeService(id);
  await world.run(60_000);
  const again = await world.control.createService(service(11, { task: onNetworks("wide") }));
  await world.run(60_000);
  assert.equal(world.running(again.id).length, 11, "thirteen addresses, less a VIP and a balancer's");
  world.close();
});

test("a full network says so in the task's status, and goes on when an address comes free", async () => {
  const world = await createWorld();
  await world.addNode("n1");
  await world.control.createNetwork(
    create(NetworkSpecSchema, { annotations: { name: "small" }, ipam: { configs: [{ subnet: "10.9.0.0/29" }] } }),
  );
  await world.run(100);
  // Five addresses: one VIP, the node's load balancer, three tasks.
  const { id } = await world.control.createService(service(6, { task: onNetworks("small") }));
  await world.run(1000);
  const waiting = world.wanted(id).filter((task) => task.nodeId === "");
  assert.equal(world.running(id).length, 3);
  assert.equal(waiting.length, 3);
  assert.match(waiting[0]?.status?.err ?? "", /no available IP address in network small/);
  const current = world.control.service(id);
  assert.ok(current);
  await world.control.updateService(
    id,
    current.meta?.version?.index ?? 0n,
    { ...(current.spec ?? service(0)), mode: service(2).mode },
    false,
  );
  await world.run(1000);
  assert.equal(world.running(id).length, 2);
  assert.equal(world.store.view.get("node", "n1")?.attachments.length, 2);
  world.close();
});

test("tasks leave the last addresses to the load balancers of the nodes they come to", async () => {
  const world = await createWorld();
  for (const id of ["n1", "n2", "n3"]) await world.addNode(id);
  const network = { annotations: { name: "small" }, ipam: { configs: [{ subnet: "10.9.0.0/28" }] } };
  await world.control.createNetwork(create(NetworkSpecSchema, network));
  await world.run(100);
  // Thirteen addresses: one VIP, three load balancers, nine tasks.
  const { id } = await world.control.createService(service(20, { task: onNetworks("small") }));
  await world.run(1000);
  const running = world.running(id);
  const hasBalancer = (nodeId: string) =>
    world.store.view.get("node", nodeId)?.attachments.some((one) => one.network?.spec?.annotations?.name === "small");
  assert.equal(running.length, 9);
  assert.deepEqual(
    running.filter((task) => !hasBalancer(task.nodeId)),
    [],
  );
  const others = world.wanted(id).filter((task) => !running.includes(task));
  assert.deepEqual(
    new Set(others.map((task) => task.status?.err)),
    new Set(["no available IP address in network small"]),
  );
  world.close();
});

test("networks that ask for the same subnet, or for one that another is about to get, at the same moment", async () => {
  const world = await createWorld();
  await world.run(100);
  const make = (name: string, subnet?: string) =>
    world.control.createNetwork(
      create(NetworkSpecSchema, { annotations: { name }, ipam: { configs: subnet ? [{ subnet }] : [] } }),
    );
  const overlap = /code = InvalidArgument desc = invalid pool request: Pool overlaps with other one/;
  const results = await Promise.allSettled([
    make("any"),
    make("a", "10.9.0.0/24"),
    make("b", "10.9.0.0/24"),
    make("c", "10.0.1.0/24"),
    make("d", "10.9.0.128/25"),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ["fulfilled", "fulfilled", "rejected", "fulfilled", "rejected"],
  );
  for (const result of results) if (result.status === "rejected") assert.match(String(result.reason), overlap);
  await world.run(100);
  const subnets = world.store.view.all("network").map((one) => one.ipam?.configs[0]?.subnet);
  assert.deepEqual(subnets.sort(), ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.9.0.0/24"]);
  await assert.rejects(make("e", "10.9.0.0/16"), overlap);
  world.close();
});

test("a service's endpoint follows its spec: networks come and go with their VIPs", async () => {
  const world = await createWorld();
  for (const name of ["a", "b"])
    await world.control.createNetwork(create(NetworkSpecSchema, { annotations: { name } }));
  await world.run(100);
  const on = (...names: string[]) => service(0, { annotations: { name: "s" }, task: onNetworks(...names) });
  const { id } = await world.control.createService(on("a"));
  await world.run(100);
  const vips = () => world.control.service(id)?.endpoint?.virtualIps ?? [];
  const [first] = vips();
  const put = async (spec: ReturnType<typeof on>) => {
    const version = (world.control.service(id) ?? create(ServiceSchema)).meta?.version?.index ?? 0n;
    await world.control.updateService(id, version, spec, false);
    await world.run(100);
  };
  await put(on("a", "b"));
  assert.equal(vips().length, 2);
  assert.deepEqual(vips()[0], first, "what it has it keeps");
  await put(on("b"));
  assert.equal(vips().length, 1);
  await put({ ...on("b"), endpoint: service(0, { endpoint: { mode: 1 } }).endpoint });
  assert.deepEqual(vips(), []);
  assert.deepEqual(world.allocator.state.dump(), AllocatorState.of(world.store.view, world.clock).dump());
  world.close();
});

test("a removed network is taken from the nodes, also when nothing else happens there any more", async () => {
  const world = await createWorld();
  await world.addNode("n");
  await world.run(100);
  const attached = () => world.store.view.get("node", "n")?.attachments.map(({ network }) => network?.id);
  assert.deepEqual(attached(), ["ingress"]);
  await world.control.removeNetwork("ingress");
  await world.run(100);
  assert.deepEqual(attached(), []);
  world.close();
});

test("a task takes over no endpoint but the present one of its service, whoever writes the service meanwhile", async () => {
  let commitMs = 0;
  const world = await createWorld(() => commitMs);
  for (const node of ["n1", "n2"]) await world.addNode(node);
  const nets = await Promise.all(
    ["one", "two"].map((name) => world.control.createNetwork(create(NetworkSpecSchema, { annotations: { name } }))),
  );
  await world.run(100);
  const [one = "", two = ""] = nets.map(({ id }) => id);
  const { id } = await world.control.createService(service(3, shape("vip", one)));
  await world.run(1000);
  const now = () => world.control.service(id);
  for (const [mode, ...networks] of [
    ["dnsrr", one],
    ["vip", one],
    ["vip", one, two],
    ["vip", two],
    ["dnsrr", two],
  ]) {
    const spec = now()?.spec;
    assert.ok(spec);
    // Another write of the service is under way when the allocator looks, so that its own comes to nothing, and again.
    commitMs = 5;
    world.clock.after(5.5, () => {
      void world.store.update((tx) => {
        const current = tx.get("service", id);
        if (current) tx.update("service", { ...current });
      });
    });
    const version = versionOf(now() ?? create(ServiceSchema));
    const update = world.control.updateService(id, version, { ...spec, ...shape(mode ?? "", ...networks) }, false);
    await world.run(100);
    await update;
    commitMs = 0;
    await world.run(60_000);
    const running = world.running(id);
    assert.equal(running.length, 3);
    for (const task of running) {
      assert.deepEqual(task.endpoint, now()?.endpoint, `${mode} on ${networks}`);
      assert.deepEqual(
        task.networks.map(({ network }) => network?.id),
        networks,
      );
    }
    assert.equal(now()?.endpoint?.virtualIps.length, mode === "vip" ? networks.length : 0);
  }
  world.close();
});
