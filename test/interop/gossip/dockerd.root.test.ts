/**
 * Our gossip beside the real networkdb of a real dockerd: keys from its manager, entries both ways, and the proof
 * that counts: a container there resolves a name that we published.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { EndpointRecordSchema, PeerRecordSchema } from "#proto/docker/networkdb/records_pb.js";
import { createLogger } from "../../../src/base/log.ts";
import { createGossip } from "../../../src/gossip/gossip.ts";
import type { Gossip, GossipKey, NodeEvent, TableEvent } from "../../../src/gossip/types.ts";
import { createSwarmNode } from "../../../src/swarm/node/node.ts";
import type { SwarmNode } from "../../../src/swarm/types.ts";
import { Dockerd, dockerdMissing, eventually } from "../support/dockerd.ts";
import { ScriptedExecutor } from "../support/scripted-executor.ts";

const skip = dockerdMissing() ?? false;
const log = createLogger((line) => process.env.SKEIN_TEST_OUTPUT && process.stderr.write(`${line}\n`), "debug");
const image = "gs-busybox";
const names = "endpoint_table";
const places = "overlay_peer_table";

/** An image of nothing but busybox and its libraries, without a registry. */
async function loadImage(engine: Dockerd): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "gs-image-"));
  const libraries = execFileSync("ldd", ["/usr/bin/busybox"], { encoding: "utf8" }).match(/\/\S+/g) ?? [];
  for (const file of ["/usr/bin/busybox", ...libraries]) {
    mkdirSync(join(root, file, ".."), { recursive: true });
    copyFileSync(file, join(root, file));
  }
  execFileSync("tar", ["-C", root, "-cf", `${root}.tar`, "."]);
  await engine.docker("import", `${root}.tar`, image);
  rmSync(root, { recursive: true });
  rmSync(`${root}.tar`);
}

describe("a real dockerd's networkdb", { skip, timeout: 300_000 }, () => {
  let engine: Dockerd;
  let node: SwarmNode;
  let us: Gossip;
  let networkId: string;
  let keys: GossipKey[];
  const stateDir = mkdtempSync(join(tmpdir(), "gs-node-"));
  const executor = new ScriptedExecutor("gs-skein");
  const tableEvents: TableEvent[] = [];
  const nodeEvents: NodeEvent[] = [];

  const docker = (...args: string[]) => engine.docker(...args);
  const inContainer = (...args: string[]) => docker("exec", "c1", "/usr/bin/busybox", ...args);
  const start = async () => {
    const gossip = await createGossip({
      bindAddress: engine.peerAddress,
      advertiseAddress: engine.peerAddress,
      keys,
      log,
    });
    gossip.onTable((event) => tableEvents.push(event));
    gossip.onNode((event) => nodeEvents.push(event));
    gossip.setBootstrap([engine.address]);
    return gossip;
  };
  const publish = (id: string, name: string, address: string) => {
    const endpoint = create(EndpointRecordSchema, { name, endpointIp: address });
    const peer = create(PeerRecordSchema, {
      endpointIp: `${address}/24`,
      endpointMac: "02:42:0a:00:01:63",
      tunnelEndpointIp: engine.peerAddress,
    });
    us.createEntry(names, networkId, id, toBinary(EndpointRecordSchema, endpoint));
    us.createEntry(places, networkId, id, toBinary(PeerRecordSchema, peer));
  };
  const resolves = async (name: string) => {
    const answer = await inContainer("nslookup", name, "127.0.0.11").catch(() => "");
    return /^Name:[\s\S]*^Address[^:]*: (\S+)/m.exec(answer)?.[1];
  };

  before(async () => {
    engine = new Dockerd("gs", "10.212.1");
    await engine.start();
    await loadImage(engine);
    await docker("swarm", "init", "--advertise-addr", engine.address);
    node = createSwarmNode({ stateDir, executor, log });
    await node.join({
      listenAddr: "",
      advertiseAddr: "",
      dataPathAddr: "",
      remoteAddrs: [engine.address],
      joinToken: await docker("swarm", "join-token", "-q", "worker"),
      availability: 0,
    });
    keys = await eventually("gossip keys", async () => {
      const ring = executor.keys.filter((key) => key.subsystem === "networking:gossip");
      return ring.length === 3 && ring.map(({ key, lamportTime }) => ({ key, lamportTime }));
    });
    networkId = await docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.0.55.0/24", "gsnet");
    await docker("run", "-d", "--name", "c1", "--network", "gsnet", image, "/usr/bin/busybox", "sleep", "100000");
    us = await start();
  });

  after(async () => {
    await us?.[Symbol.asyncDispose]();
    await node?.[Symbol.asyncDispose]();
    await engine?.[Symbol.asyncDispose]();
    rmSync(stateDir, { recursive: true, force: true });
  });

  it("joins, and learns who is in the network", async () => {
    await eventually("the peer", async () => us.peers().length === 2, 5_000);
    await eventually("its networks", async () => us.peers(networkId).length === 1, 5_000);
  });

  it("gets the entries by bulk sync when it joins the network", async () => {
    await us.joinNetwork(networkId);
    const c1 = us
      .entries(names, networkId)
      .map((entry) => fromBinary(EndpointRecordSchema, entry.value))
      .find((record) => record.name === "c1");
    assert.ok(c1, "c1 is there as soon as joinNetwork resolves");
    assert.match(c1.endpointIp, /^10\.0\.55\./);
    const peer = us.entries(places, networkId).map((entry) => fromBinary(PeerRecordSchema, entry.value));
    assert.ok(peer.some((record) => record.tunnelEndpointIp === engine.address));
  });

  it("is believed: a container there resolves our name at once, and no longer after the delete", async () => {
    publish("e".repeat(64), "skein-one", "10.0.55.99");
    const begun = Date.now();
    assert.equal(await eventually("the name", () => resolves("skein-one"), 5_000), "10.0.55.99");
    console.log(`resolved after ${Date.now() - begun} ms`);
    us.deleteEntry(names, networkId, "e".repeat(64));
    us.deleteEntry(places, networkId, "e".repeat(64));
    await eventually("the name goes", async () => (await resolves("skein-one")) === undefined, 5_000);
  });

  it("hears of containers that come and go there", async () => {
    await docker("run", "-d", "--name", "c2", "--network", "gsnet", image, "/usr/bin/busybox", "sleep", "100000");
    const of = (kind: TableEvent["kind"]) =>
      tableEvents.find(
        (event) =>
          event.kind === kind && event.table === names && fromBinary(EndpointRecordSchema, event.value).name === "c2",
      );
    const made = await eventually("c2 comes", async () => of("create"), 2_000);
    assert.equal(made.ownerAddress, engine.address);
    await docker("rm", "-f", "c2");
    const gone = await eventually("c2 goes", async () => of("delete"), 2_000);
    assert.equal(gone.key, made.key);
  });

  it("stays trusted while nothing happens, and drops nothing", async () => {
    await delay(35_000);
    assert.deepEqual(
      nodeEvents.map((event) => event.kind),
      ["join"],
    );
    const stats = us.stats();
    assert.equal(stats.health, 0);
    const drops = Object.entries(stats).filter(([name]) => name.startsWith("dropped."));
    assert.deepEqual(drops, []);
    assert.ok((stats.pushPulls ?? 0) > 0 && (stats.bulkSyncs ?? 0) > 0, JSON.stringify(stats));
    const suspicions = engine
      .log()
      .split("\n")
      .filter((line) => /suspect|failed to (?:decode|receive)|memberlist: (?:Failed|Suspect)/i.test(line));
    assert.deepEqual(suspicions, []);
  });

  it("entries made the moment we join are known there, although it cannot know yet that we joined", async () => {
    us.leaveNetwork(networkId);
    await delay(2_000);
    const joining = us.joinNetwork(networkId);
    publish("d".repeat(64), "skein-early", "10.0.55.98");
    await joining;
    assert.equal(await eventually("the name", () => resolves("skein-early"), 6_000), "10.0.55.98");
  });

  it("after a crash and a restart under a new name the old entries are gone and the new ones there", async () => {
    await us[Symbol.asyncDispose]();
    us = await start();
    await us.joinNetwork(networkId);
    publish("c".repeat(64), "skein-again", "10.0.55.97");
    assert.equal(await eventually("the new name", () => resolves("skein-again"), 10_000), "10.0.55.97");
    await eventually("the old name goes", async () => (await resolves("skein-early")) === undefined, 10_000);
  });

  it("after a partition both sides have their records again", async () => {
    const link = (state: string) => execFileSync("ip", ["link", "set", engine.link, state]);
    nodeEvents.length = 0;
    link("down");
    await eventually("it fails here", async () => nodeEvents.some((event) => event.kind === "failed"), 30_000);
    assert.equal(us.entries(names, networkId).length, 1);
    await eventually("and we there", async () => (await resolves("skein-again")) === undefined, 30_000);
    link("up");
    const begun = Date.now();
    await eventually("c1 here", async () => us.entries(names, networkId).length > 1, 30_000);
    console.log(`healed here after ${Date.now() - begun} ms`);
    await eventually("we there", async () => (await resolves("skein-again")) === "10.0.55.97", 15_000);
    console.log(`healed there after ${Date.now() - begun} ms`);
  });

  it("many at once, when we join and later: on streams and in parts, and Docker takes them all", async () => {
    us.leaveNetwork(networkId);
    await eventually("the name goes", async () => (await resolves("skein-again")) === undefined, 6_000);
    const before = engine.log().length;
    // More than a part of a sync holds.
    const many = (prefix: string) => {
      for (let i = 0; i < 1_200; i++) {
        const endpointIp = `10.0.55.${100 + (i % 100)}`;
        const record = {
          name: `${prefix}${i}`,
          endpointIp,
          taskAliases: [`alias-of-${prefix}-${i}-${"x".repeat(200)}`],
        };
        const value = toBinary(EndpointRecordSchema, create(EndpointRecordSchema, record));
        us.createEntry(names, networkId, `${prefix}${i}`.padEnd(64, "-"), value);
      }
    };
    const known = async (prefix: string) => {
      for (const i of [0, 42, 600, 1_199]) {
        const name = `${prefix}${i}`;
        assert.equal(await eventually(name, () => resolves(name), 8_000), `10.0.55.${100 + (i % 100)}`);
      }
    };
    const joining = us.joinNetwork(networkId);
    many("early");
    await joining;
    await known("early");
    await delay(2_500);
    many("later");
    const begun = Date.now();
    await known("later");
    console.log(`1,200 more were known after ${Date.now() - begun} ms`);
    assert.deepEqual(us.stats()["dropped.streamFailed"] ?? 0, 0);
    const complaints = engine
      .log()
      .slice(before)
      .split("\n")
      .filter((line) => /failed to decode|unknown message|bulk sync.*(fail|timed out)|memberlist: failed/i.test(line));
    assert.deepEqual(complaints, []);
  });

  it("leaves, and is gone there at once", async () => {
    const before = engine.log().length;
    await us.leave();
    await eventually("the name goes", async () => (await resolves("later7")) === undefined, 6_000);
    const failed = engine
      .log()
      .slice(before)
      .split("\n")
      .filter((line) => line.includes(us.name) && /fail/.test(line));
    assert.deepEqual(failed, []);
  });
});
