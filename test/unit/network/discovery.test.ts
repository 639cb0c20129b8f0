import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { EndpointRecordSchema } from "#proto/docker/networkdb/records_pb.js";
import { namesOf, servicesOf, verboseOf } from "../../../src/network/discovery.ts";
import {
  decodeEndpoint,
  decodePeer,
  encodeEndpoint,
  encodePeer,
  endpointTable,
  type Participant,
  peerTable,
} from "../../../src/network/overlay/records.ts";
import { NetworkTables } from "../../../src/network/overlay/tables.ts";
import { endpoint } from "./fixtures.ts";

const web = { id: "s1", name: "web", vip: "10.0.1.2", aliases: ["w"], ingressPorts: [] };
const participant = (n: number, partial: Partial<Participant> = {}): Participant => ({
  endpointId: `e${n}`,
  name: `web.${n}`,
  aliases: [`alias${n}`],
  address: `10.0.1.${n}`,
  address6: "",
  service: web,
  draining: false,
  hostAddress: "192.0.2.1",
  owner: "node1",
  local: false,
  ...partial,
});
const net = { name: "net1", ingress: false };

test("records are those of the wire", () => {
  const peer = encodePeer(endpoint({ networkId: "n", ipv4: "10.0.1.3/24", mac: "02:42:0a:00:01:03" }), "192.168.1.10");
  assert.equal(
    Buffer.from(peer).toString("hex"),
    "0a0b31302e302e312e332f3234121130323a34323a30613a30303a30313a30331a0c3139322e3136382e312e3130",
  );
  const record = encodeEndpoint(
    endpoint({
      networkId: "n",
      name: "web.1.t1",
      aliases: ["0123456789ab"],
      ipv4: "10.0.1.3/24",
      service: { ...web, ingressPorts: [{ name: "", protocol: "tcp", targetPort: 80, publishedPort: 8080 }] },
    }),
    false,
  );
  assert.equal(
    Buffer.from(record).toString("hex"),
    "0a087765622e312e743112037765621a027331220831302e302e312e322a0831302e302e312e333205185020903f3a0177420c303132333435363738396162",
  );
  assert.deepEqual(decodePeer("e", peer), {
    endpointId: "e",
    address: "10.0.1.3",
    prefix: 24,
    mac: "02:42:0a:00:01:03",
    vtep: "192.168.1.10",
  });
  const back = decodeEndpoint("e", record, { address: "192.0.2.9", name: "node9" });
  assert.deepEqual(back?.service, {
    ...web,
    ingressPorts: [{ name: "", protocol: "tcp", targetPort: 80, publishedPort: 8080 }],
  });
});

test("what is no record is ignored; Go's <nil> is no address", () => {
  const from = { address: "192.0.2.9", name: "node9" };
  assert.equal(decodeEndpoint("e", Buffer.from("ffff", "hex"), from), undefined);
  assert.equal(decodePeer("e", Buffer.from("ffff", "hex")), undefined);
  assert.equal(decodeEndpoint("e", encodeEndpoint(endpoint({ networkId: "n", name: "" }), false), from), undefined);
  assert.equal(decodeEndpoint("e", encodeEndpoint(endpoint({ networkId: "n", ipv4: "x" }), false), from), undefined);
  const nil = encodeEndpoint(endpoint({ networkId: "n", service: { ...web, vip: "<nil>" } }), false);
  assert.equal(decodeEndpoint("e", nil, from)?.service?.vip, "");
  for (const bad of ["10.0.1.3", "10.0.1.3/99", ""]) {
    assert.equal(decodePeer("e", encodePeer(endpoint({ networkId: "n", ipv4: bad }), "192.0.2.1")), undefined);
  }
});

test("names: containers and aliases, the service's VIP, its tasks; PTR to the container", () => {
  const names = namesOf(net, [
    participant(3),
    participant(4),
    participant(9, { name: "Alone", aliases: [], service: undefined }),
  ]);
  const ipv4 = (name: string) => names.lookup(name)?.ipv4;
  assert.deepEqual(ipv4("web.3"), ["10.0.1.3"]);
  assert.deepEqual(ipv4("alias4"), ["10.0.1.4"]);
  assert.deepEqual(ipv4("web"), ["10.0.1.2"]);
  assert.deepEqual(ipv4("w"), ["10.0.1.2"]);
  assert.deepEqual(ipv4("tasks.web"), ["10.0.1.3", "10.0.1.4"]);
  assert.deepEqual(ipv4("alone"), ["10.0.1.9"]);
  assert.equal(names.lookup("other"), undefined);
  assert.equal(names.reverse("10.0.1.3"), "web.3.net1");
  assert.equal(names.reverse("10.0.1.2"), undefined, "a VIP has no name of its own");
});

test("without a VIP the service is its tasks; draining tasks have no names but keep the VIP", () => {
  const dnsrr = { ...web, vip: "" };
  assert.deepEqual(
    namesOf(net, [participant(3, { service: dnsrr }), participant(4, { service: dnsrr })]).lookup("web")?.ipv4,
    ["10.0.1.3", "10.0.1.4"],
  );
  const draining = namesOf(net, [participant(3, { draining: true })]);
  assert.deepEqual(draining.lookup("web")?.ipv4, ["10.0.1.2"]);
  assert.equal(draining.lookup("tasks.web"), undefined);
  assert.equal(draining.lookup("web.3"), undefined);
  assert.equal(namesOf({ name: "ingress", ingress: true }, [participant(3)]).lookup("web.3"), undefined);
});

test("services: one entry per service and set of ports, in a stable order", () => {
  const other = { ...web, id: "s0", name: "db", vip: "10.0.1.7" };
  const list = [
    participant(4),
    participant(3),
    participant(8, { service: other }),
    participant(9, { service: undefined }),
  ];
  const services = servicesOf(list);
  assert.deepEqual(
    services.map((s) => [s.name, s.backends.map((b) => b.address)]),
    [
      ["db", ["10.0.1.8"]],
      ["web", ["10.0.1.3", "10.0.1.4"]],
    ],
  );
  assert.deepEqual(servicesOf([...list].reverse()), services);
  assert.deepEqual(verboseOf([participant(3)])[0]?.tasks, [
    { name: "web.3", endpointId: "e3", endpointIp: "10.0.1.3", hostIp: "192.0.2.1" },
  ]);
});

test("tables: last word counts, a suspect's records are kept aside, a late delete hurts nobody", () => {
  const tables = new NetworkTables();
  const event = (kind: "create" | "update" | "delete", owner: string, name: string, table = endpointTable) => ({
    kind,
    table,
    key: "k1",
    value:
      table === peerTable
        ? encodePeer(endpoint({ networkId: "n" }), "192.0.2.2")
        : encodeEndpoint(endpoint({ networkId: "n", name }), false),
    owner,
    ownerAddress: "192.0.2.2",
    local: false,
  });
  const seen = (suspended: string[] = []) => tables.participants(new Set(suspended)).map((p) => p.name);
  assert.equal(tables.apply(event("create", "node1", "a")), "endpoints");
  assert.deepEqual(seen(), [], "nobody knows yet where it is");
  assert.equal(tables.apply(event("create", "node1", "", peerTable)), "peers");
  assert.equal(tables.apply(event("create", "node1", "a")), undefined, "nothing new");
  assert.deepEqual(seen(), ["a"]);
  assert.deepEqual(seen(["node1"]), [], "suspended");
  assert.deepEqual(seen(["node2"]), ["a"]);
  assert.equal(tables.apply(event("create", "node2", "b")), "endpoints");
  assert.equal(tables.apply(event("delete", "node1", "a")), undefined, "no longer node1's to delete");
  assert.deepEqual(seen(), ["b"]);
  assert.equal(tables.apply(event("create", "node2", "", peerTable)), "peers", "its new owner says the same");
  assert.equal(tables.resync({ peers: [], endpoints: [] }), 2, "the database knows neither");
  assert.deepEqual([seen(), tables.peers()], [[], []]);
  assert.equal(
    tables.apply({ ...event("create", "me", "c"), local: true }),
    undefined,
    "own records are state, not news",
  );
});

test("IPv6: container names, tasks, and services by the twin of their virtual address, or by their tasks", () => {
  const vip6 = "fd00::99";
  const names = namesOf(net, [
    participant(1, { address6: "fd00::1", vip6 }),
    participant(2, { address6: "fd00::2", vip6 }),
    participant(3, { address6: "fd00::3", vip6, draining: true }),
    participant(4),
  ]);
  assert.deepEqual(names.lookup("web"), { ipv4: ["10.0.1.2"], ipv6: [vip6] });
  const draining = namesOf(net, [participant(3, { address6: "fd00::3", vip6, draining: true })]);
  assert.deepEqual(draining.lookup("web"), { ipv4: ["10.0.1.2"], ipv6: [vip6] });
  assert.deepEqual(namesOf(net, [participant(4)]).lookup("web")?.ipv6, [], "nobody is reached over IPv6");
  const service = { ...web, vip: "" };
  const dnsrr = namesOf(net, [participant(1, { service, address6: "fd00::1" }), participant(4, { service })]);
  assert.deepEqual(dnsrr.lookup("web"), { ipv4: ["10.0.1.1", "10.0.1.4"], ipv6: ["fd00::1"] });
  assert.deepEqual(names.lookup("tasks.web")?.ipv6, ["fd00::1", "fd00::2"]);
  assert.deepEqual(names.lookup("alias1"), { ipv4: ["10.0.1.1"], ipv6: ["fd00::1"] });
  assert.deepEqual(names.lookup("web.4"), { ipv4: ["10.0.1.4"], ipv6: [] });
  assert.equal(names.reverse("fd00::2"), "web.2.net1");
  assert.equal(names.reverse("fd00::3"), undefined);
});

test("SRV: every task of a service with the port that it publishes, by name, number or custom", () => {
  const port = (targetPort: number, name = "", protocol: "tcp" | "udp" = "tcp") => ({
    name,
    protocol,
    targetPort,
    publishedPort: targetPort + 8000,
  });
  const names = namesOf(
    net,
    [participant(1), participant(2), participant(3, { draining: true }), participant(4, { service: undefined })],
    (id) => (id === "s1" ? [port(80), port(9000, "Admin"), port(53, "", "udp")] : []),
  );
  const both = (number: number) => [
    { target: "web.1.net1", port: number },
    { target: "web.2.net1", port: number },
  ];
  assert.deepEqual(names.srv?.("_http._tcp.web"), both(80));
  assert.deepEqual(names.srv?.("_80._tcp.web.net1"), both(80));
  assert.deepEqual(names.srv?.("_http._tcp.w"), both(80), "by an alias");
  assert.deepEqual(names.srv?.("_admin._tcp.web"), both(9000));
  assert.deepEqual(names.srv?.("_domain._udp.web"), both(53));
  for (const none of ["_https._tcp.web", "_http._udp.web", "_http._tcp.other", "_http._tcp.web.1"]) {
    assert.deepEqual(names.srv?.(none), [], none);
  }
  assert.equal(names.srv?.("web"), undefined);
  assert.equal(namesOf({ name: "ingress", ingress: true }, [participant(1)]).srv?.("_http._tcp.web"), undefined);
});

test("restricted ports come back as they were told, and are not among those that nodes of Docker read", () => {
  const ports = [
    { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8080 },
    { name: "", protocol: "tcp", targetPort: 81, publishedPort: 8081, bound: ["127.0.0.1/32", "fd00::/64"] },
    { name: "", protocol: "udp", targetPort: 53, publishedPort: 8053, bound: [], local: true },
    { name: "dns", protocol: "udp", targetPort: 53, publishedPort: 53, local: true },
    { name: "", protocol: "tcp", targetPort: 82, publishedPort: 8082, local: true, proxy: true, headedPort: 40001 },
  ] as const;
  const record = encodeEndpoint(
    endpoint({ networkId: "n", name: "web.1.t1", ipv4: "10.0.1.3/24", service: { ...web, ingressPorts: [...ports] } }),
    false,
  );
  assert.deepEqual(
    fromBinary(EndpointRecordSchema, record).ingressPorts.map((port) => port.publishedPort),
    [8080],
  );
  assert.deepEqual(
    decodeEndpoint("e", record, { address: "192.0.2.9", name: "node9" })?.service?.ingressPorts.map((port) => ({
      ...port,
    })),
    ports.map((port) => ({ ...port })),
  );
});
