/** Every golden text is accepted by nft, twice over, and every update in its turn. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { missingFeature } from "../../../../src/kernel/feature.ts";
import { scratchNetNs } from "../../../../src/kernel/netns.ts";
import { openNft } from "../../../../src/kernel/nft.ts";
import { openRtnl } from "../../../../src/kernel/rtnl.ts";
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

function withoutHandles(listing: unknown[] | undefined): string[] {
  return (listing ?? [])
    .map((one) => JSON.stringify(one, (key, value) => (key === "handle" ? undefined : value)))
    .sort();
}
