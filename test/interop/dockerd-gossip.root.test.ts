/** Our node in a real dockerd's swarm, with the keys it got there: both see each other's endpoints by gossip. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { EndpointRecordSchema, PeerRecordSchema } from "#proto/docker/networkdb/records_pb.js";
import { createLogger } from "../../src/base/log.ts";
import { createGossip } from "../../src/gossip/gossip.ts";
import type { Gossip } from "../../src/gossip/types.ts";
import { buildRootfs } from "../../src/lab/image/rootfs.ts";
import { decodeEndpoint, decodePeer, endpointTable, peerTable } from "../../src/network/overlay/records.ts";
import { createSwarmNode } from "../../src/swarm/node/node.ts";
import type { SwarmNode } from "../../src/swarm/types.ts";
import { Dockerd, dockerdMissing, eventually } from "./support/dockerd.ts";
import { ScriptedExecutor } from "./support/scripted-executor.ts";

const skip = dockerdMissing() ?? false;
const log = createLogger((line) => process.env.SKEIN_TEST_OUTPUT && process.stderr.write(`${line}\n`), "debug");

describe("gossip with a real dockerd", { skip, timeout: 120_000 }, () => {
  let manager: Dockerd;
  let node: SwarmNode;
  let gossip: Gossip;
  let network: string;
  const stateDir = mkdtempSync(join(tmpdir(), "ag-node-"));
  const executor = new ScriptedExecutor("ag-gossip");

  before(async () => {
    manager = new Dockerd("agg", "10.211.2");
    await manager.start();
    await manager.docker("swarm", "init", "--advertise-addr", manager.address);
    const rootfs = join(manager.dir, "rootfs.tar");
    await buildRootfs(rootfs);
    await manager.docker("import", rootfs, "box:1");
    network = await manager.docker("network", "create", "--driver", "overlay", "--attachable", "side");
    await manager.docker("run", "--detach", "--name", "theirs", "--network", "side", "box:1", "sleep", "1000");
    node = createSwarmNode({ stateDir, executor, log });
    const joinToken = await manager.docker("swarm", "join-token", "-q", "worker");
    const none = { listenAddr: "", advertiseAddr: "", dataPathAddr: "", availability: 0 };
    await node.join({ ...none, remoteAddrs: [manager.address], joinToken });
    await eventually("keys", async () => executor.keys.length > 0);
    gossip = await createGossip({
      bindAddress: manager.peerAddress,
      advertiseAddress: manager.peerAddress,
      keys: executor.keys.filter((key) => key.subsystem === "networking:gossip"),
      log,
    });
    gossip.setBootstrap(executor.managers);
    await eventually("the manager is a peer", async () => gossip.peers().some((p) => p.address === manager.address));
    await gossip.joinNetwork(network);
  });

  after(async () => {
    await gossip?.leave();
    await node?.[Symbol.asyncDispose]();
    await manager[Symbol.asyncDispose]();
    rmSync(stateDir, { recursive: true, force: true });
  });

  it("shows us its container: name, address, MAC and host", async () => {
    const [info] = await manager.inspect("inspect", "theirs");
    const settings = info?.NetworkSettings as { Networks: { side: { IPAddress: string; MacAddress: string } } };
    const { IPAddress, MacAddress } = settings.Networks.side;
    const endpoint = await eventually("its endpoint", async () =>
      gossip
        .entries(endpointTable, network)
        .map((entry) => decodeEndpoint(entry.key, entry.value, { address: entry.ownerAddress, name: entry.owner }))
        .find((participant) => participant?.name === "theirs"),
    );
    assert.equal(endpoint.address, IPAddress);
    assert.equal(endpoint.hostAddress, manager.address);
    const peer = await eventually("its peer record", async () =>
      gossip
        .entries(peerTable, network)
        .map((entry) => decodePeer(entry.key, entry.value))
        .find((record) => record?.address === IPAddress),
    );
    assert.equal(peer.mac, MacAddress);
    assert.equal(peer.vtep, manager.address);
  });

  it("believes our container, and resolves its name", async () => {
    const key = "a".repeat(64);
    const endpoint = { name: "ours", endpointIp: "10.0.1.77" };
    const peer = {
      endpointIp: "10.0.1.77/24",
      endpointMac: "02:42:0a:00:01:4d",
      tunnelEndpointIp: manager.peerAddress,
    };
    gossip.createEntry(
      endpointTable,
      network,
      key,
      toBinary(EndpointRecordSchema, create(EndpointRecordSchema, endpoint)),
    );
    gossip.createEntry(peerTable, network, key, toBinary(PeerRecordSchema, create(PeerRecordSchema, peer)));
    const answer = await eventually("their resolver knows ours", async () => {
      const text = await manager.docker("exec", "theirs", "nslookup", "ours", "127.0.0.11");
      return text.includes("10.0.1.77") && text;
    });
    assert.match(answer, /ours/);
    gossip.deleteEntry(endpointTable, network, key);
    gossip.deleteEntry(peerTable, network, key);
  });

  it("takes its container back", async () => {
    await manager.docker("rm", "--force", "theirs");
    await eventually("the records are gone", async () =>
      [endpointTable, peerTable].every((table) =>
        gossip.entries(table, network).every((entry) => !Buffer.from(entry.value).includes("theirs")),
      ),
    );
  });
});
