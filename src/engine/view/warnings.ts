/** What deserves a look, out of everything else that is shown. Pure. */
import type { StatusView } from "./types.ts";

/** What is dropped for such a reason was not late or lost: something is wrong between nodes. */
const tellingDrops: Readonly<Record<string, string>> = {
  undecryptable: "packets could not be decrypted: does a host outside of the swarm send them, or one with other keys?",
  streamUndecryptable:
    "streams could not be decrypted: does a host outside of the swarm open them, or one with other keys?",
  streamPlain: "streams were not encrypted",
  badVersion: "nodes speak another version of the protocol",
};

export function warningsOf(
  status: Omit<StatusView, "warnings">,
  gossip:
    | {
        readonly members: readonly { readonly address: string; readonly state: string; readonly sinceMs: number }[];
        readonly dropped: Readonly<Record<string, number>>;
        readonly counters: Readonly<Record<string, number>>;
        readonly keys: readonly unknown[];
        readonly health: number;
      }
    | undefined,
): string[] {
  const { swarm, kernel, paths } = status;
  const found: string[] = [];
  if (swarm.error) found.push(`swarm: ${swarm.error}`);
  if (swarm.state !== "inactive" && swarm.state !== "active")
    found.push(`this node's part in the swarm is ${swarm.state}`);
  for (const node of swarm.nodes ?? []) {
    const name = node.hostname || node.id;
    if (node.state !== "ready") found.push(`node ${name} (${node.address}) is ${node.state}`);
    else if (node.availability !== "active") found.push(`node ${name} is set to ${node.availability}`);
    if (node.reachable === false) found.push(`manager ${name} (${node.address}) is not reachable`);
  }
  const managers = swarm.nodes?.filter(({ role }) => role !== "worker").length ?? 0;
  if (managers > 0 && managers % 2 === 0) found.push(`${managers} managers bear no more failures than ${managers - 1}`);
  if (gossip) {
    if (gossip.keys.length === 0) found.push("gossip waits for its keys: no manager has sent any yet");
    const answering = new Set(gossip.members.flatMap(({ address, state }) => (state === "alive" ? [address] : [])));
    for (const { address, state } of gossip.members) {
      // A daemon that was restarted has another name now; the old one is remembered for a while.
      if (answering.has(address)) continue;
      if (state === "suspect")
        found.push(`${address} does not answer gossip: its tasks get no new connections from here`);
      if (state === "dead") found.push(`gossip has given ${address} up`);
    }
    if (gossip.health > 0) {
      found.push(
        `this node misses answers itself (gossip health ${gossip.health}, 0 is well): is it overloaded or cut off?`,
      );
    }
    if (gossip.counters.udpBlocked) found.push("a gossip node answers on TCP but not on UDP 7946: is UDP blocked?");
    for (const [reason, words] of Object.entries(tellingDrops)) {
      const count = gossip.dropped[reason] ?? 0;
      if (count > 0) found.push(`gossip: ${count} ${words}`);
    }
  }
  for (const { host, mtu, expected } of paths) {
    if (mtu === null) found.push(`${host} answers no echo: the size of packets on the way there is not known`);
    else if (mtu < expected)
      found.push(`packets of more than ${mtu} bytes do not reach ${host} (${expected} expected)`);
  }
  for (const { namespace, differences } of kernel.differences) {
    found.push(`${namespace} is not as planned: ${differences.join("; ")}`);
  }
  return found;
}
