import assert from "node:assert/strict";
import { test } from "node:test";
import type { Gossip, NodeEvent } from "../../../src/gossip/types.ts";
import { HostLiveness } from "../../../src/network/liveness.ts";

test("suspected and failed hosts are silent, unless they are back under another name", () => {
  const peers = new Map([["a1", "10.0.0.1"]]);
  let tell: (event: NodeEvent) => void = () => {};
  const gossip = {
    peers: () => [...peers].map(([name, address]) => ({ name, address })),
    onNode: (listener: typeof tell) => {
      tell = listener;
      return () => {};
    },
  } as unknown as Gossip;
  const hosts = new HostLiveness(() => gossip);
  assert.equal(hosts.isSilent("10.0.0.1"), undefined, "no gossip yet");
  hosts.attach();
  assert.equal(hosts.isSilent("10.0.0.1"), false);
  assert.equal(hosts.isSilent("10.0.0.2"), undefined);
  tell({ kind: "suspect", name: "a1", address: "10.0.0.1" });
  assert.equal(hosts.isSilent("10.0.0.1"), true);
  tell({ kind: "alive", name: "a1", address: "10.0.0.1" });
  assert.equal(hosts.isSilent("10.0.0.1"), false);
  tell({ kind: "failed", name: "a1", address: "10.0.0.1" });
  peers.delete("a1");
  assert.equal(hosts.isSilent("10.0.0.1"), true);
  peers.set("a2", "10.0.0.1");
  assert.equal(hosts.isSilent("10.0.0.1"), false);
});
