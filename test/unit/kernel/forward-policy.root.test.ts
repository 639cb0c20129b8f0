/** Rules for our devices in iptables' own table, beside an operator's, in a namespace of their own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  closeRule,
  type ForwardPolicy,
  forwardPolicies,
  passageChanges,
  passageRule,
} from "../../../src/kernel/forward-policy.ts";
import { scratchNetNs } from "../../../src/kernel/netns.ts";
import { openNft } from "../../../src/kernel/nft.ts";

const chain = (policy: string) =>
  `add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy ${policy}; };`;

test("a policy that drops is passed by two rules per device, behind the operator's own, once; one that accepts by none", () => {
  using ns = scratchNetNs();
  using nft = openNft(ns);
  const bring = (...devices: string[]) => {
    const { add, remove } = passageChanges(forwardPolicies(nft, "ours"), devices);
    for (const one of remove) nft.run(closeRule(one));
    for (const one of add) nft.run(passageRule(one, "ours"));
    return add.length + remove.length;
  };
  const rules = () =>
    (nft.list("chain ip filter FORWARD") as { rule?: { comment?: string; expr: object[] } }[]).flatMap(({ rule }) =>
      rule ? [`${rule.comment ?? ""} ${JSON.stringify(rule.expr[0])} ${Object.keys(rule.expr.at(-1) ?? {})}`] : [],
    );
  const of = (direction: string, device: string) =>
    `ours {"match":{"op":"==","left":{"meta":{"key":"${direction}"}},"right":"${device}"}} accept`;

  assert.equal(bring("b0"), 0, "nobody has such a table, and none is made");
  assert.deepEqual(nft.tables(), []);

  nft.run(`${chain("drop")} add rule ip filter FORWARD ip saddr 192.0.2.1 drop`);
  // Others' rules of the same form are not ours.
  nft.run('add rule ip filter FORWARD iifname "b0" accept');
  const before = rules();
  assert.equal(bring("b0", "br-0123456789ab"), 4);
  assert.deepEqual(rules(), [
    ...before,
    of("iifname", "b0"),
    of("oifname", "b0"),
    of("iifname", "br-0123456789ab"),
    of("oifname", "br-0123456789ab"),
  ]);
  assert.equal(bring("b0", "br-0123456789ab"), 0, "as it should be");
  assert.equal(bring("b0"), 2, "a device went");
  nft.run(passageRule({ family: "ip", direction: "iifname", device: "b0" }, "ours"));
  assert.equal(bring("b0"), 1, "one that is there twice");
  assert.deepEqual(rules(), [...before, of("iifname", "b0"), of("oifname", "b0")]);
  nft.run("flush chain ip filter FORWARD");
  assert.equal(bring("b0"), 2, "somebody took them away");
  nft.run(chain("accept"));
  assert.equal(bring("b0"), 2, "nothing to pass any more");
  assert.deepEqual(rules(), []);
});

test("each family for itself", () => {
  const policies: ForwardPolicy[] = [
    { family: "ip", drops: false, passages: [] },
    { family: "ip6", drops: true, passages: [{ family: "ip6", direction: "oifname", device: "b0", handle: 7 }] },
  ];
  assert.deepEqual(passageChanges(policies, ["b0"]), {
    add: [{ family: "ip6", direction: "iifname", device: "b0" }],
    remove: [],
  });
});
