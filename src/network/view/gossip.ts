/** Gossip as people see it. Pure. */
import type { KeyId } from "../../gossip/keys.ts";
import type { Gossip } from "../../gossip/types.ts";
import type { ClusterNetworking } from "../types.ts";
import type { GossipView } from "./types.ts";

const gossipPort = 7946;

export function gossipView(
  cluster: ClusterNetworking,
  gossip: Pick<Gossip, "name" | "members" | "stats"> | undefined,
  keys: readonly KeyId[],
  isSkein: (node: string) => boolean,
): GossipView {
  const stats = gossip?.stats() ?? {};
  const members = gossip?.members() ?? [];
  const { health = 0, ...counted } = stats;
  return {
    name: gossip?.name,
    address: cluster.advertiseAddress,
    port: members.find(({ self }) => self)?.port ?? gossipPort,
    health,
    keys: keys.map(({ id, lamportTime, sends }) => ({
      id,
      lamportTime: String(lamportTime),
      use: sends ? "send" : "read",
    })),
    members: members
      .map(({ networks, ...member }) => ({
        ...member,
        skein: member.self || isSkein(member.name),
        networks: networks.length,
      }))
      .sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : a.sinceMs - b.sinceMs)),
    queues: below(counted, "queue."),
    dropped: { ...below(counted, "dropped."), ...below(counted, "ignored.") },
    counters: Object.fromEntries(Object.entries(counted).filter(([name]) => !/^(queue|dropped|ignored)\./.test(name))),
  };
}

function below(stats: Readonly<Record<string, number>>, prefix: string): Record<string, number> {
  return Object.fromEntries(
    Object.entries(stats).flatMap(([name, count]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), count] as const] : [],
    ),
  );
}
