/** One node of gossip in a process of its own: `gossip-node.ts ADDRESS PORT`. */
import { randomBytes } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { EndpointRecordSchema, PeerRecordSchema } from "#proto/docker/networkdb/records_pb.js";
import { nullLogger } from "../../src/base/log.ts";
import { createGossip } from "../../src/gossip/gossip.ts";
import { answer, usage } from "./process.ts";

const [address = "127.0.0.1", port = "0"] = process.argv.slice(2);
const keys = [1, 2, 3].map((n) => ({ key: new Uint8Array(16).fill(n), lamportTime: BigInt(n) }));
const gossip = await createGossip({
  bindAddress: address,
  advertiseAddress: address,
  port: Number(port),
  keys,
  log: nullLogger,
});
const tables = ["endpoint_table", "overlay_peer_table"] as const;
const network = "n".repeat(25);
let known = 0;
/** When an entry was last made known here, and when the awaited one was; milliseconds since the epoch. */
let changedAt = 0;
const seen = new Map<string, number>();
gossip.onTable((event) => {
  if (event.kind !== "update") known += event.kind === "create" ? 1 : -1;
  changedAt = performance.timeOrigin + performance.now();
  if (event.key.startsWith("awaited")) seen.set(event.key, changedAt);
});

/** What a task of a service publishes: who it is, and where. */
function publish(key: string, serial: number): void {
  const ip = `10.${(serial >> 16) & 255}.${(serial >> 8) & 255}.${serial & 255}`;
  const endpoint = create(EndpointRecordSchema, {
    name: `web.${serial}.${"t".repeat(25)}`,
    serviceName: "web",
    serviceId: "s".repeat(25),
    virtualIp: "10.0.0.2",
    endpointIp: ip,
    aliases: ["web"],
    taskAliases: [key.slice(0, 12)],
  });
  const peer = create(PeerRecordSchema, {
    endpointIp: `${ip}/8`,
    endpointMac: "02:42:0a:00:01:03",
    tunnelEndpointIp: address,
  });
  gossip.createEntry(tables[0], network, key, toBinary(EndpointRecordSchema, endpoint));
  gossip.createEntry(tables[1], network, key, toBinary(PeerRecordSchema, peer));
}

/**
 * The most that this thread computed between two looks at the clock: how long others waited for it, whatever else the
 * machine had to do.
 */
let busiest = 0;
let before = process.threadCpuUsage();
setInterval(() => {
  const now = process.threadCpuUsage();
  busiest = Math.max(busiest, (now.user - before.user + now.system - before.system) / 1000);
  before = now;
}, 1).unref();

function cost() {
  const { cpuMs, rssMb } = usage();
  const busiestMs = Math.round(busiest);
  busiest = 0;
  return { cpuMs, rssMb, busiestMs, heapMb: Math.round(process.memoryUsage().heapUsed / 2 ** 20) };
}

let serial = 0;
answer(
  {
    join: (bootstrap: string[]) => {
      gossip.setBootstrap(bootstrap);
      return gossip.joinNetwork(network);
    },
    /** So many containers, as fast as it goes. */
    publish: async (containers: number) => {
      for (let i = 0; i < containers; i++) {
        if (i % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
        publish(randomBytes(32).toString("hex"), serial++);
      }
    },
    one: (key: string) => {
      const at = performance.timeOrigin + performance.now();
      publish(key, serial++);
      return at;
    },
    seen: (key: string) => seen.get(key),
    state: () => ({ known, changedAt, peers: gossip.peers(network).length }),
    stats: () => gossip.stats(),
    usage: cost,
  },
  () => gossip.leave(),
);
