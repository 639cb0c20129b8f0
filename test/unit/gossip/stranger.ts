/** A node of ours, and a stranger with the cluster's key that says what a test wants. */
import { keyRing } from "../../../src/gossip/keys.ts";
import { Keyring } from "../../../src/gossip/memberlist/crypto.ts";
import { encodeMessage } from "../../../src/gossip/memberlist/messages.ts";
import { sealPacket } from "../../../src/gossip/memberlist/packet.ts";
import { type DbMessage, encodeDb, type TableMessage } from "../../../src/gossip/networkdb/messages.ts";
import { Cluster, testKeys } from "./harness.ts";

export const ring = new Keyring(keyRing(testKeys));
/** The stranger's name. */
export const hand = "handmade0001";

/** A node, and a stranger at 10.0.0.9 that says what the test wants. */
export async function setUp(seed: number) {
  const cluster = new Cluster(seed);
  const node = await cluster.start(1);
  await cluster.run(node.gossip.joinNetwork("n"));
  const transport = cluster.network.open("10.0.0.9");
  const send = (message: Uint8Array) => transport.send("10.0.0.1", 7946, sealPacket(ring, message, false));
  const user = (message: DbMessage) => send(Buffer.concat([Buffer.from([8]), encodeDb(message)]));
  const alive = (incarnation = 1) =>
    send(
      encodeMessage({
        kind: "alive",
        incarnation,
        node: hand,
        addr: Uint8Array.of(10, 0, 0, 9),
        port: 7946,
        meta: new Uint8Array(),
        vsn: Uint8Array.of(1, 5, 2, 0, 0, 0),
      }),
    );
  const network = (ltime: bigint, type: "join" | "leave" = "join") =>
    user({ kind: "network", type, ltime, node: hand, networkId: "n" });
  const table = (ltime: bigint, extra: Partial<TableMessage> = {}) =>
    user({
      kind: "table",
      type: "create",
      ltime,
      owner: hand,
      networkId: "n",
      table: "t",
      key: "k",
      value: Buffer.from(`at ${ltime}`),
      residualReap: 0,
      ...extra,
    });
  /** A stream with these bytes; what it does with them is up to the node. */
  const stream = async (bytes: Uint8Array) => {
    const opened = await cluster.run(transport.dial("10.0.0.1", 7946, 1_000));
    await opened.write(bytes);
    return opened;
  };
  /** A packet as it is, sealed by whoever made it. */
  const packet = (bytes: Uint8Array) => transport.send("10.0.0.1", 7946, bytes);
  const stats = (name: string) => node.gossip.stats()[name] ?? 0;
  const values = () => node.gossip.entries("t", "n").map((entry) => Buffer.from(entry.value).toString());
  return { cluster, node, alive, network, table, user, send, packet, stream, stats, values };
}
