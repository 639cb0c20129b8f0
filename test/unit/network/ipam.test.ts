import assert from "node:assert/strict";
import { test } from "node:test";
import { formatIp, formatSubnet, overlaps, parseCidr, parseIp, type Subnet } from "../../../src/network/address.ts";
import { AddressPool } from "../../../src/network/ipam/pool.ts";
import { chooseSubnet, completePools, defaultLocalPools, parsePool } from "../../../src/network/ipam/request.ts";

const subnet = (text: string): Subnet => {
  const parsed = parseCidr(text);
  assert.ok(parsed, text);
  return parsed.subnet;
};
const ip = (text: string) => {
  const parsed = parseIp(text);
  assert.ok(parsed, text);
  return parsed;
};
const around = (networks: string[] = [], routes: string[] = []) => ({
  networks: networks.map(subnet),
  hostRoutes: routes.map(subnet),
  blocks: defaultLocalPools,
});
const both = { ipv4: true, ipv6: false, gateway: true };

/** Deterministic numbers in [0, 1). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    return state / 0x80000000;
  };
}

test("addresses survive parsing and printing", () => {
  for (const text of ["0.0.0.0", "10.0.1.3", "255.255.255.255", "::", "::1", "fd00::1", "2001:db8::1:0:0:1"]) {
    assert.equal(formatIp(ip(text)), text);
  }
  for (const text of ["", "10.0.0", "10.0.0.256", "10.0.0.1/24", "fe80::1%eth0", "x"])
    assert.equal(parseIp(text), undefined);
  for (const text of ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0"]) assert.equal(parseCidr(text), undefined);
  assert.equal(formatSubnet(subnet("172.19.0.1/24")), "172.19.0.0/24");
});

test("the lowest free address first; a released one rests", () => {
  const pool = new AddressPool({ subnet: subnet("172.17.0.0/16"), reserved: [ip("172.17.0.1").value], restMs: 1000 });
  const take = (now: number) => formatIp(pool.allocate("x", now));
  assert.deepEqual([take(0), take(0), take(0)], ["172.17.0.2", "172.17.0.3", "172.17.0.4"]);
  pool.release(ip("172.17.0.3"), 0);
  assert.equal(take(999), "172.17.0.5", "172.17.0.3 rests");
  assert.equal(take(1000), "172.17.0.3", "it has rested");
});

test("when all others are taken the one that rested longest is given, then none", () => {
  const pool = new AddressPool({ subnet: subnet("10.0.0.0/29"), reserved: [ip("10.0.0.1").value], restMs: 60_000 });
  for (let i = 0; i < 5; i++) pool.allocate("x", 0);
  pool.release(ip("10.0.0.4"), 10);
  pool.release(ip("10.0.0.2"), 20);
  assert.equal(formatIp(pool.allocate("x", 30)), "10.0.0.4");
  assert.equal(formatIp(pool.allocate("x", 30)), "10.0.0.2");
  assert.throws(() => pool.allocate("x", 30), /no available addresses/);
});

test("an address that is asked for: given even while it rests, refused when in use or outside", () => {
  const pool = new AddressPool({
    subnet: subnet("10.0.0.0/24"),
    range: subnet("10.0.0.128/25"),
    reserved: [ip("10.0.0.1").value],
  });
  assert.equal(formatIp(pool.allocate("a", 0)), "10.0.0.128", "chosen from the range");
  assert.equal(formatIp(pool.allocate("b", 0, ip("10.0.0.7"))), "10.0.0.7", "asked for outside of the range");
  assert.throws(() => pool.allocate("c", 0, ip("10.0.0.7")), /Address already in use/);
  assert.throws(() => pool.allocate("c", 0, ip("10.0.0.1")), /Address already in use/);
  assert.throws(() => pool.allocate("c", 0, ip("10.0.0.255")), /Address already in use/);
  assert.throws(() => pool.allocate("c", 0, ip("10.0.1.7")), /out of range/);
  pool.release(ip("10.0.0.7"), 0);
  assert.equal(formatIp(pool.allocate("c", 1, ip("10.0.0.7"))), "10.0.0.7");
});

test("property: never two owners, never a reserved address, never one that could have gone on resting", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = seeded(seed);
    const prefix = 24 + Math.floor(random() * 5);
    const range = subnet(`10.1.2.0/${prefix}`);
    const reserved = [range.base + 1n];
    const restMs = 100;
    const pool = new AddressPool({ subnet: range, reserved, restMs });
    const usable = 2 ** (32 - prefix) - 3;
    const held = new Set<bigint>();
    const releasedAt = new Map<bigint, number>();
    for (let now = 0; now < 400; now++) {
      if (random() < 0.55 && held.size < usable) {
        const given = pool.allocate("x", now).value;
        assert.ok(!held.has(given), `seed ${seed}: given twice`);
        assert.ok(
          given > range.base + 1n && given < range.base + BigInt(2 ** (32 - prefix)) - 1n,
          `seed ${seed}: reserved`,
        );
        const at = releasedAt.get(given);
        if (at !== undefined && now - at < restMs) {
          const rested =
            usable - held.size - [...releasedAt].filter(([v, t]) => !held.has(v) && now - t < restMs).length;
          assert.equal(rested, 0, `seed ${seed}: reused although others were free`);
        }
        held.add(given);
        releasedAt.delete(given);
      } else if (held.size > 0) {
        const all = [...held];
        const gone = all[Math.floor(random() * all.length)] as bigint;
        held.delete(gone);
        releasedAt.set(gone, now);
        pool.release({ family: 4, value: gone }, now);
      }
    }
    assert.equal(pool.used, held.size);
  }
});

test("default pools in Docker's order, around networks and the host's routes", () => {
  assert.equal(formatSubnet(chooseSubnet(defaultLocalPools, []) as Subnet), "172.17.0.0/16");
  assert.equal(formatSubnet(chooseSubnet(defaultLocalPools, [subnet("172.16.0.0/12")]) as Subnet), "192.168.0.0/20");
  assert.equal(
    formatSubnet(chooseSubnet(defaultLocalPools, [subnet("172.16.0.0/12"), subnet("192.168.3.0/24")]) as Subnet),
    "192.168.16.0/20",
  );
  const taken: Subnet[] = [];
  for (let next = chooseSubnet(defaultLocalPools, taken); next; next = chooseSubnet(defaultLocalPools, taken)) {
    const fresh = next;
    assert.ok(!taken.some((other) => overlaps(other, fresh)));
    taken.push(fresh);
  }
  assert.equal(taken.length, 15 + 16, "172.17-31 and sixteen of 192.168");
  assert.deepEqual(completePools([], both, around([], ["172.17.0.0/16"])), [
    { subnet: "172.18.0.0/16", gateway: "172.18.0.1" },
  ]);
});

test("pools are completed: gateway is the first free address, of the range where there is one", () => {
  assert.deepEqual(completePools([{ subnet: "172.19.0.1/24" }], both, around()), [
    { subnet: "172.19.0.0/24", gateway: "172.19.0.1" },
  ]);
  assert.deepEqual(
    completePools([{ subnet: "10.5.0.0/16", ipRange: "10.5.3.0/24", auxAddresses: { a: "10.5.3.0" } }], both, around()),
    [{ subnet: "10.5.0.0/16", ipRange: "10.5.3.0/24", gateway: "10.5.3.1", auxAddresses: { a: "10.5.3.0" } }],
  );
});

test("what cannot be is refused in Docker's words", () => {
  const refused = (pool: Parameters<typeof parsePool>[0], message: RegExp) =>
    assert.throws(() => parsePool(pool), message);
  refused({ subnet: "10.0.0.0/33" }, /invalid subnet 10.0.0.0\/33: invalid CIDR block notation/);
  refused({ subnet: "10.0.0.0/24", ipRange: "10.0.0.0/16" }, /CIDR block is bigger than its parent subnet/);
  refused({ subnet: "10.0.0.0/24", ipRange: "10.0.1.0/25" }, /parent subnet 10.0.0.0\/24 doesn't contain ip-range/);
  refused(
    { subnet: "10.0.0.0/24", gateway: "10.0.1.1" },
    /invalid gateway 10.0.1.1: parent subnet 10.0.0.0\/24 doesn't contain/,
  );
  refused({ subnet: "10.0.0.0/24", gateway: "x" }, /invalid gateway x: invalid address/);
  refused({ subnet: "10.0.0.0/24", gateway: "fd00::1" }, /parent subnet is an IPv4 block/);
  refused({ subnet: "10.0.0.0/24", auxAddresses: { a: "10.1.0.1" } }, /invalid auxiliary address/);
  assert.throws(
    () => completePools([{ subnet: "10.0.0.0/24" }], both, around(["10.0.0.0/16"])),
    /Pool overlaps with other one/,
  );
  assert.throws(
    () => completePools([{ subnet: "10.0.0.0/24" }, { subnet: "10.0.0.0/25" }], both, around()),
    /Pool overlaps/,
  );
  assert.throws(
    () => completePools([], both, around(["172.16.0.0/12", "192.168.0.0/16"])),
    /could not find an available, non-overlapping IPv4 address pool/,
  );
});
