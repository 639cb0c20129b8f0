/** Every golden text is accepted by nft, twice over, and every update in its turn. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { missingFeature } from "../../../../src/kernel/feature.ts";
import { scratchNetNs } from "../../../../src/kernel/netns.ts";
import { openNft } from "../../../../src/kernel/nft.ts";
import { openRtnl } from "../../../../src/kernel/rtnl.ts";
import type { VipService } from "../../../../src/network/balancer/types.ts";
import { renderVips, updateVip } from "../../../../src/network/balancer/vip.ts";
import { examples } from "./examples.ts";

const golden = new URL("golden/", import.meta.url);

test("nft accepts the golden texts", { skip: missingFeature("nftEgress") }, () => {
  for (const name of readdirSync(golden).filter((one) => one !== "vip-updates.nft")) {
    using ns = scratchNetNs();
    using rtnl = openRtnl(ns);
    rtnl.addLink({ kind: "veth", name: "eth0", up: true, peer: { name: "eth1", up: true } });
    using nft = openNft(ns);
    const text = readFileSync(new URL(name, golden), "utf8");
    nft.run(text);
    nft.run(text);
    assert.ok(nft.tables().length > 0, name);
  }
});

test("any path of updates ends in the same table as rendering the end", () => {
  using ns = scratchNetNs();
  using nft = openNft(ns);
  const [web, single] = examples.vips;
  assert.ok(web && single);
  nft.run(renderVips([web]));
  const moved = { ...web, vip: "10.0.1.99", backends: ["10.0.1.44"] };
  nft.run(updateVip(web, moved));
  nft.run(updateVip(undefined, single));
  nft.run(updateVip(moved, { ...moved, backends: [] }));
  nft.run(updateVip({ ...moved, backends: [] }, moved));
  const byUpdates = withoutHandles(nft.list("table ip skein-vips"));
  nft.run(renderVips([moved, single]));
  assert.deepEqual(byUpdates, withoutHandles(nft.list("table ip skein-vips")));
});

test("a long random walk of updates ends where rendering does", () => {
  using ns = scratchNetNs();
  using nft = openNft(ns);
  let seed = 7;
  const next = (limit: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % limit;
  };
  const services = new Map<string, VipService>();
  nft.run(renderVips([]));
  for (let step = 0; step < 300; step++) {
    const id = `s${next(6)}`;
    const before = services.get(id);
    const backends = Array.from({ length: next(4) }, (_, i) => `10.0.2.${next(50) * 4 + i}`);
    // Services keep out of each other's addresses, as networks see to it.
    const after = next(4) === 0 ? undefined : { id, vip: `10.0.${id.slice(1)}.${next(3) + 1}`, backends };
    nft.run(updateVip(before, after));
    if (after) services.set(id, after);
    else services.delete(id);
  }
  const walked = withoutHandles(nft.list("table ip skein-vips"));
  nft.run(renderVips([...services.values()]));
  assert.deepEqual(walked, withoutHandles(nft.list("table ip skein-vips")));
});

function withoutHandles(listing: unknown[] | undefined): string[] {
  return (listing ?? [])
    .map((one) => JSON.stringify(one, (key, value) => (key === "handle" ? undefined : value)))
    .sort();
}
