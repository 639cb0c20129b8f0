import assert from "node:assert/strict";
import { test } from "node:test";
import { type TraceInputs, trace } from "../../../src/network/view/trace.ts";
import type { Backend, NetworkLook, RemoteEndpoint, ServiceLook } from "../../../src/network/view/types.ts";
import { endpoint, sandbox } from "./fixtures.ts";

const far: RemoteEndpoint = {
  endpointId: "far",
  name: "web.2.bbb",
  service: "web",
  address: "10.0.1.5",
  address6: "fd00::5",
  mac: "02:42:00:00:00:05",
  host: "192.0.2.2",
  announcedBy: { node: "aabbccddeeff", address: "192.0.2.2", state: "alive" },
  state: "active",
  doubted: false,
  unused: "",
  neighbour: "ok",
  fdb: "ok",
};
const net: NetworkLook = {
  id: "net",
  name: "net",
  driver: "overlay",
  scope: "swarm",
  ingress: false,
  internal: false,
  subnets: [
    { subnet: "10.0.1.0/24", gateway: "10.0.1.1", vni: 4097 },
    { subnet: "fd00::/64", gateway: "fd00::1" },
  ],
  mtu: 1450,
  namespace: "/run/skein/netns/1-net",
  here: [
    {
      endpointId: "near",
      name: "web.1.aaa",
      sandbox: "c2",
      kind: "container",
      address: "10.0.1.4",
      address6: "fd00::4",
      mac: "02:42:00:00:00:04",
      link: "veth2",
      state: "active",
      service: "web",
    },
  ],
  elsewhere: [
    far,
    { ...far, endpointId: "stale", address: "10.0.1.6", unused: "a later record has its address or MAC" },
  ],
  hosts: [
    {
      address: "192.0.2.2",
      node: "aabbccddeeff",
      state: "alive",
      self: false,
      skein: true,
      synced: true,
      endpoints: 1,
      pathMtu: 1500,
      expectedMtu: 1500,
    },
  ],
  links: [{ name: "veth1", kind: "veth", purpose: "", mtu: 1450, state: "up" }],
  differences: [],
  repairs: [],
};
const backend = (address: string, state: Backend["state"], share: number): Backend => ({
  task: `web ${address}`,
  endpointId: address,
  address,
  address6: address.replace("10.0.1.", "fd00::"),
  host: "192.0.2.2",
  here: false,
  state,
  share,
});
const service = (backends: Backend[]): ServiceLook => ({
  id: "svc",
  name: "web",
  networks: [{ network: "net", networkId: "net", ingress: false, vip: "10.0.1.2", vip6: "fd00::2", backends }],
  ports: [],
});
const box = sandbox("c1", [endpoint({ networkId: "net", ifName: "eth0", outerName: "veth1", ipv4: "10.0.1.9/24" })]);
const inputs: TraceInputs = {
  sandbox: box,
  from: "box",
  networks: [net],
  services: [
    service([
      backend("10.0.1.4", "serving", 0.5),
      backend("10.0.1.5", "serving", 0.5),
      backend("10.0.1.7", "draining", 0),
    ]),
  ],
  resolve: (name) => (name === "web" ? ["10.0.1.2"] : name === "tasks.web" ? ["10.0.1.4", "10.0.1.5"] : undefined),
  wayOut: { gateway: "172.18.0.1", ifName: "eth1", network: "docker_gwbridge" },
};
const text = (to: string, more: Partial<TraceInputs> = {}) => {
  const found = trace(to, { ...inputs, ...more });
  const lines = (steps: typeof found.steps) => steps.map(({ where, what, ok }) => `${ok ? "" : "! "}${where}: ${what}`);
  return [
    ...lines(found.steps),
    ...found.ways.flatMap((way) => [`= ${way.address} ${way.reaches}`, ...lines(way.steps)]),
  ];
};

test("by a service's name: the VIP, then each task, here and behind the tunnel", () => {
  assert.deepEqual(text("web"), [
    "box: 127.0.0.11: web is 10.0.1.2",
    "box: nft ip skein-vips: 10.0.1.2 is the VIP of web, DNAT to one of 2, chosen at random",
    "= 10.0.1.4 true",
    "box: eth0 on network net, to veth1",
    "1-net: bridge, to veth2 of web.1.aaa on this host",
    "web.1.aaa: arrives",
    "= 10.0.1.5 true",
    "box: eth0 on network net, to veth1",
    "1-net: vxlan0 answers for 10.0.1.5: 02:42:00:00:00:05",
    "1-net: vxlan0 sends 02:42:00:00:00:05 to host 192.0.2.2; told by aabbccddeeff",
    "host: UDP to 192.0.2.2, VNI 4097, packets of up to 1500 bytes arrive",
    "web.2.bbb: arrives",
  ]);
  assert.deepEqual(
    trace("tasks.web", inputs).ways.map(({ address, share }) => [address, share]),
    [
      ["10.0.1.4", 0.5],
      ["10.0.1.5", 0.5],
    ],
  );
});

test("in IPv6 by the twins of the addresses", () => {
  assert.deepEqual(
    trace("fd00::2", inputs).ways.map(({ address, reaches, steps }) => [address, reaches, steps.length]),
    [
      ["fd00::4", true, 3],
      ["fd00::5", true, 5],
    ],
  );
});

test("what is amiss on the way is marked where it is", () => {
  const broken = (change: Partial<RemoteEndpoint>) => ({
    networks: [{ ...net, elsewhere: [{ ...far, ...change }] }],
  });
  const bad = (to: string, more: Partial<TraceInputs>) => text(to, more).filter((line) => /^! |^= /.test(line));
  assert.deepEqual(bad("10.0.1.5", broken({ fdb: "203.0.113.1" })), [
    "= 10.0.1.5 false",
    "! 1-net: vxlan0 sends 02:42:00:00:00:05 to host 192.0.2.2 (the kernel's fdb: 203.0.113.1); told by aabbccddeeff",
  ]);
  assert.deepEqual(bad("10.0.1.5", broken({ neighbour: "missing" })), [
    "= 10.0.1.5 false",
    "! 1-net: vxlan0 answers for 10.0.1.5: 02:42:00:00:00:05 (the kernel's neighbour: missing)",
  ]);
  const suspect = { networks: [{ ...net, hosts: net.hosts.map((host) => ({ ...host, state: "suspect" as const })) }] };
  assert.match(bad("10.0.1.5", suspect)[1] ?? "", /gossip has it as suspect/);
  const down = {
    networks: [{ ...net, links: [{ name: "veth1", kind: "veth", purpose: "", state: "down" as const }] }],
  };
  assert.match(bad("10.0.1.4", down)[1] ?? "", /veth1, which is down/);
  assert.match(bad("10.0.1.6", {})[1] ?? "", /10\.0\.1\.6 is unknown here: its record is not used: a later record/);
  assert.match(bad("10.0.1.77", {})[1] ?? "", /unknown here: nobody has told of it/);
});

test("where it ends before it has begun", () => {
  assert.deepEqual(text("nix"), [
    "! box: no network of the container knows nix: outside servers are asked, where there are any",
  ]);
  assert.deepEqual(text("10.0.1.2", { services: [service([backend("10.0.1.7", "draining", 0)])] }), [
    "! box: nft ip skein-vips: 10.0.1.2 is the VIP of web, no task serves: refused",
  ]);
  assert.deepEqual(text("198.51.100.1", { wayOut: undefined }), [
    "= 198.51.100.1 false",
    "! box: no route to 198.51.100.1",
  ]);
  assert.deepEqual(text("web", { sandbox: { ...box, path: undefined } }), [
    "box: uses the host's own network: its routes decide",
  ]);
});

test("to itself, to the gateway, to the outside", () => {
  assert.deepEqual(text("10.0.1.9"), ["= 10.0.1.9 true", "box: 10.0.1.9 is its own address: lo"]);
  assert.match(text("10.0.1.1").at(-1) ?? "", /the network's gateway/);
  assert.deepEqual(text("198.51.100.1"), [
    "= 198.51.100.1 true",
    "box: eth1 on network docker_gwbridge, default route via 172.18.0.1",
    "host: masqueraded, then the host's own routes",
  ]);
});
