import assert from "node:assert/strict";
import { test } from "node:test";
import type { Logger } from "../../../src/base/log.ts";
import { MeshReservations } from "../../../src/network/mesh-ports.ts";
import type { PortBinding } from "../../../src/network/types.ts";

const host = ["127.0.0.1", "::1", "10.1.0.7", "10.2.0.7", "fd00::7"].map((address) => ({ address }));
const tcp = (publishedPort: number, bound?: string[]) =>
  ({ protocol: "tcp", publishedPort, backends: [], ...(bound && { bound }) }) as const;

function setup() {
  const held = new Map<string, string>();
  const refused = new Set<string>();
  const warnings: unknown[] = [];
  const announced: number[] = [];
  const log = { warn: (_: string, fields: unknown) => warnings.push(fields) } as unknown as Logger;
  const ports = {
    take(owner: string, bindings: readonly PortBinding[]) {
      const [binding] = bindings;
      const place = `${binding?.hostIp} ${binding?.hostPort}`;
      if (refused.has(place)) throw new Error("address already in use");
      held.set(owner, place);
      return [];
    },
    release(...owners: string[]) {
      for (const owner of owners) held.delete(owner);
    },
    announce: (list: readonly unknown[]) => void announced.push(list.length),
  };
  const reservations = new MeshReservations(ports, log);
  return { reservations, refused, warnings, announced, places: () => [...held.values()].sort() };
}

test("a port is kept at all addresses of both families, until it is not published any more", () => {
  const { reservations, places } = setup();
  reservations.follow([tcp(80), { ...tcp(81), protocol: "sctp" }], host);
  assert.deepEqual(places(), ["0.0.0.0 80", "0.0.0.0 81", ":: 80"]);
  reservations.follow([tcp(80)], [{ address: "10.1.0.7" }]);
  assert.deepEqual(places(), ["0.0.0.0 80"], "this host has no IPv6 any more");
  reservations.follow([], host);
  assert.deepEqual(places(), []);
});

test("a bound port is kept at the host's addresses in its subnets, and nowhere else", () => {
  const { reservations, places } = setup();
  reservations.follow([tcp(80, ["10.1.0.0/16", "127.0.0.1/32", "::1/128", "fd00::/64"])], host);
  assert.deepEqual(places(), ["10.1.0.7 80", "127.0.0.1 80", "::1 80", "fd00::7 80"]);
  reservations.follow([tcp(80, [])], host);
  assert.deepEqual(places(), []);
});

test("datagrams over IPv6 have a socket at each address, or they would be answered from another", () => {
  const { reservations, places } = setup();
  const port = { ...tcp(53), protocol: "udp" } as const;
  const at = (...addresses: string[]) => addresses.map((address) => ({ address }));
  reservations.follow([port], [...host, ...at("fe80::1")]);
  assert.deepEqual(places(), ["0.0.0.0 53", "::1 53", "fd00::7 53"]);
  reservations.follow([port], at("::1", "fd00::8"));
  assert.deepEqual(places(), ["0.0.0.0 53", "::1 53", "fd00::8 53"]);
});

test("a thousand ports are told of at once", () => {
  const { reservations, announced, places } = setup();
  const ports = Array.from({ length: 1000 }, (_, index) => tcp(30_000 + index));
  reservations.follow(ports, host);
  reservations.follow([...ports, tcp(80)], host);
  assert.deepEqual([places().length, announced], [2002, [1000, 1]]);
});

test("one address that is taken costs no other; it is told once, and had as soon as it is free", () => {
  const { reservations, refused, warnings, places } = setup();
  refused.add("0.0.0.0 80");
  reservations.follow([tcp(80)], host);
  reservations.follow([tcp(80)], host);
  assert.deepEqual(places(), [":: 80"]);
  assert.equal(warnings.length, 1);
  refused.clear();
  reservations.follow([tcp(80)], host);
  assert.deepEqual(places(), ["0.0.0.0 80", ":: 80"]);
});
