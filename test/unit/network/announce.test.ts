import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import type { Gossip, NodeEvent } from "../../../src/gossip/types.ts";
import { Announcements, type Standing } from "../../../src/network/announce.ts";
import { busyConnections, isListening } from "../../../src/network/connections.ts";

/** Nodes that hear each other's words, unless a word is lost. */
class Cluster {
  readonly clock = new VirtualClock();
  readonly nodes = new Map<string, Node>();
  lost = (_from: string, _to: string): boolean => false;

  add(name: string): Node {
    const node = new Node(this, name);
    this.nodes.set(name, node);
    return node;
  }
}

class Node {
  readonly standing = new Map<string, Standing>();
  readonly announcements: Announcements;
  sent = 0;
  onNode: (event: NodeEvent) => void = () => {};
  hear: (payload: Uint8Array, peer: string) => void = () => {};

  constructor(cluster: Cluster, name: string) {
    const gossip = {
      name,
      peers: () => [...cluster.nodes.keys()].map((peer) => ({ name: peer, address: "" })),
      send: (to: string, payload: Uint8Array) => {
        this.sent++;
        if (!cluster.lost(name, to)) queueMicrotask(() => cluster.nodes.get(to)?.hear(payload, name));
      },
      onMessage: (listener: typeof this.hear) => {
        this.hear = listener;
        return () => {};
      },
      onNode: (listener: typeof this.onNode) => {
        this.onNode = listener;
        return () => {};
      },
    } as unknown as Gossip;
    this.announcements = new Announcements({
      clock: cluster.clock,
      log: nullLogger,
      gossip: () => gossip,
      isOurs: (peer) => !peer.startsWith("docker"),
      standing: (_network, endpoint) => this.standing.get(endpoint) ?? "withdrawn",
    });
    this.announcements.attach();
  }
}

async function outcome(cluster: Cluster, promise: Promise<string[]>) {
  let result: string[] | undefined;
  const began = cluster.clock.now();
  promise.then((silent) => {
    result = silent;
  });
  for (let waited = 0; waited < 5_000 && !result; waited += 10) await cluster.clock.advanceAsync(10);
  return { silent: result, ms: cluster.clock.now() - began };
}

test("answered at once where the tables say so, else when they do", async () => {
  const cluster = new Cluster();
  const a = cluster.add("a");
  const b = cluster.add("b");
  cluster.add("c").standing.set("ep", "serving");
  const told = a.announcements.told("net", "ep", "serving");
  await cluster.clock.advanceAsync(50);
  b.standing.set("ep", "serving");
  b.announcements.applied("other");
  b.announcements.applied("net");
  const { silent, ms } = await outcome(cluster, told);
  assert.deepEqual(silent, []);
  assert.ok(ms <= 10, `${ms}`);
  assert.ok(a.sent <= 3, "who has answered is not asked again");
});

test("lost words are said again; who stays silent is waited for two seconds", async () => {
  const cluster = new Cluster();
  const a = cluster.add("a");
  cluster.add("b");
  let words = 0;
  cluster.lost = () => ++words <= 3;
  assert.ok((await outcome(cluster, a.announcements.told("net", "ep", "withdrawn"))).ms <= 310);
  cluster.lost = (_from, to) => to === "b";
  const late = await outcome(cluster, a.announcements.told("net", "ep", "withdrawn"));
  assert.deepEqual(late.silent, ["b"]);
  assert.ok(late.ms >= 2_000 && late.ms <= 2_020);
});

test("nodes that leave or are suspected are not waited for; Docker's are given a fixed time", async () => {
  const cluster = new Cluster();
  const a = cluster.add("a");
  cluster.add("b");
  cluster.lost = (_from, to) => to === "b";
  const told = a.announcements.told("net", "ep", "withdrawn");
  await cluster.clock.advanceAsync(300);
  a.onNode({ kind: "suspect", name: "b", address: "" });
  assert.ok((await outcome(cluster, told)).ms <= 110);
  cluster.add("docker1");
  const { silent, ms } = await outcome(cluster, a.announcements.told("net", "ep", "withdrawn"));
  assert.deepEqual(silent, []);
  assert.equal(ms, 1_000);
  assert.equal((await outcome(cluster, a.announcements.told("net", "ep", "serving"))).ms, 500);
});

test("alone, nobody is waited for", async () => {
  const cluster = new Cluster();
  const { ms } = await outcome(cluster, cluster.add("a").announcements.told("net", "ep", "serving"));
  assert.ok(ms <= 10);
});

test("connections: busy, idle, owed an answer; listeners for others", () => {
  const quiet = { loopback: false, receiveQueue: 0, sendQueue: 0, sentMsAgo: 60_000, receivedMsAgo: 60_001 } as const;
  const listener = { ...quiet, state: "listen", localPort: 80 } as const;
  const open = { ...quiet, state: "connected", localPort: 80 } as const;
  const busy = (...connections: Parameters<typeof busyConnections>[0]) => busyConnections([listener, ...connections]);
  assert.equal(busy(open), 0, "kept for later");
  assert.equal(busy({ ...open, receivedMsAgo: 50_000 }), 1, "an answer is owed");
  assert.equal(busy({ ...open, sentMsAgo: 900 }), 1, "just now");
  assert.equal(busy({ ...open, receiveQueue: 1 }, { ...open, sendQueue: 1 }), 2);
  assert.equal(busy({ ...open, localPort: 43210, sentMsAgo: 1 }), 0, "its own call of somebody else");
  assert.equal(busy({ ...open, loopback: true, sentMsAgo: 1 }), 0);
  assert.equal(isListening([listener], [80]), true);
  assert.equal(isListening([listener], [80, 443]), false);
  assert.equal(isListening([{ ...listener, loopback: true }], [80]), false);
});
