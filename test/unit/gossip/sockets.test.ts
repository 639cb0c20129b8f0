import assert from "node:assert/strict";
import { test } from "node:test";
import { nullLogger } from "../../../src/base/log.ts";
import { createGossip } from "../../../src/gossip/gossip.ts";
import { dockerConfig } from "../../../src/gossip/memberlist/config.ts";
import { openTransport } from "../../../src/gossip/transport.ts";
import type { Gossip, NodeEvent, TableEvent } from "../../../src/gossip/types.ts";
import { testKeys } from "./harness.ts";

/** Docker's intervals are for a network; this is one machine, and the test should be over soon. */
const quick = {
  ...dockerConfig,
  probeIntervalMs: 200,
  probeTimeoutMs: 100,
  suspicionUnitMs: 200,
  gossipIntervalMs: 50,
};

async function until(condition: () => boolean, ms: number, what: string): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A node on a free port of a loopback address of its own. */
async function start(host: number): Promise<{ gossip: Gossip; at: string }> {
  const address = `127.0.7.${host}`;
  const transport = await openTransport(address, 0);
  const options = { bindAddress: address, advertiseAddress: address, transport, keys: testKeys, log: nullLogger };
  const gossip = await createGossip(options, quick);
  return { gossip, at: `${address}:${transport.port}` };
}

test("two nodes over real sockets: join, networks, events, bulk sync, failure", { timeout: 30_000 }, async () => {
  const a = await start(1);
  const b = await start(2);
  const events: TableEvent[] = [];
  const nodes: NodeEvent[] = [];
  b.gossip.onTable((event) => events.push(event));
  b.gossip.onNode((event) => nodes.push(event));
  try {
    await a.gossip.joinNetwork("n1");
    a.gossip.createEntry("t", "n1", "before", Buffer.from("1"));
    b.gossip.setBootstrap([a.at]);
    await until(() => b.gossip.peers("n1").length === 1, 3_000, "b knows of a in n1");
    await b.gossip.joinNetwork("n1");
    assert.deepEqual(
      b.gossip.entries("t", "n1").map((entry) => [entry.key, entry.ownerAddress, entry.local]),
      [["before", "127.0.7.1", false]],
    );
    // More than a packet carries.
    const large = Buffer.alloc(30_000, "x");
    a.gossip.createEntry("t", "n1", "large", large);
    a.gossip.createEntry("t", "n1", "small", Buffer.from("2"));
    await until(() => b.gossip.entries("t", "n1").length === 3, 5_000, "events and bulk sync");
    assert.deepEqual(b.gossip.entries("t", "n1").find((entry) => entry.key === "large")?.value, Uint8Array.from(large));
    a.gossip.deleteEntry("t", "n1", "before");
    await until(() => events.some((event) => event.kind === "delete"), 1_000, "the delete");
    await a.gossip[Symbol.asyncDispose]();
    await until(() => nodes.some((event) => event.kind === "failed"), 15_000, "the failure");
    assert.deepEqual(
      nodes.map((event) => event.kind),
      ["join", "suspect", "failed"],
    );
    assert.equal(b.gossip.entries("t", "n1").length, 0);
  } finally {
    await a.gossip[Symbol.asyncDispose]();
    await b.gossip[Symbol.asyncDispose]();
  }
});
