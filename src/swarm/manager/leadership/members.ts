/** The store's members: etcd's own list, under the names of the swarm's nodes. */
import type { Member } from "#proto/etcd/rpc_pb.js";
import type { EtcdClient } from "../../store/etcd/client.ts";
import { nodeOfPeerUrl, peerUrl } from "../../store/etcd/tunnel.ts";
import type { StoreMember } from "./plan.ts";

const CALL_MS = 5_000;

function view({ ID, isLearner, name, peerURLs }: Member): StoreMember {
  return { id: ID, nodeId: name || (nodeOfPeerUrl(peerURLs[0] ?? "") ?? ""), learner: isLearner };
}

export class Members {
  readonly #client: () => EtcdClient;

  constructor(client: () => EtcdClient) {
    this.#client = client;
  }

  async list(): Promise<StoreMember[]> {
    return (await this.#client().cluster.memberList({}, { timeoutMs: CALL_MS })).members.map(view);
  }

  /**
   * Takes a node's member in, without a vote. One that was there already without ever having voted is the same; one that
   * voted has lost what it knew, and must not come back under its old number.
   */
  async add(nodeId: string): Promise<StoreMember[]> {
    const before = await this.list();
    const same = before.find((member) => member.nodeId === nodeId);
    if (same?.learner) return before;
    if (same) await this.remove(same.id);
    const request = { peerURLs: [peerUrl(nodeId)], isLearner: true };
    return (await this.#client().cluster.memberAdd(request, { timeoutMs: CALL_MS })).members.map(view);
  }

  async remove(id: bigint): Promise<void> {
    await this.#client().cluster.memberRemove({ ID: id }, { timeoutMs: CALL_MS });
  }

  /** Fails while the member has not caught up. */
  async promote(id: bigint): Promise<void> {
    await this.#client().cluster.memberPromote({ ID: id }, { timeoutMs: CALL_MS });
  }

  async moveLead(to: bigint): Promise<void> {
    await this.#client().maintenance.moveLeader({ targetID: to }, { timeoutMs: CALL_MS });
  }
}
