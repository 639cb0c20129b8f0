/**
 * What session messages tell this host: its own node object, the gossip keys, the managers. Every message is
 * complete; the host is told only of what differs from the last one.
 */
import { equals } from "@bufbuild/protobuf";
import type { SessionMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { type Node, NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import type { EncryptionKey } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Executor } from "../types.ts";
import { Latest } from "./latest.ts";
import type { Remotes } from "./remotes.ts";

export class HostUpdates {
  #executor: Pick<Executor, "setManagers">;
  #remotes: Remotes;
  #configure: Latest<Node>;
  #keys: Latest<EncryptionKey[]>;
  #node: Node | undefined;
  #lamportTimes = new Set<bigint>();
  #hosts = "";

  constructor(options: { executor: Executor; remotes: Remotes; clock: Clock; log: Logger }) {
    const { executor, remotes, clock, log } = options;
    this.#executor = executor;
    this.#remotes = remotes;
    this.#configure = new Latest("configuring this host for its node", (n) => executor.configure(n), clock, log);
    this.#keys = new Latest("setting the network keys", (k) => executor.setNetworkKeys(k), clock, log);
  }

  /** The node object of the last message. */
  get node(): Node | undefined {
    return this.#node;
  }

  apply(message: SessionMessage): void {
    this.#applyManagers(message);
    // Keys before the node: its ingress network can then join gossip at once.
    const keys = message.networkBootstrapKeys;
    if (keys.some((key) => !this.#lamportTimes.has(key.lamportTime))) {
      this.#lamportTimes = new Set(keys.map((key) => key.lamportTime));
      this.#keys.set(keys);
    }
    const { node } = message;
    if (!node) return;
    const changed = !this.#node || !equals(NodeSchema, stable(node), stable(this.#node));
    this.#node = node;
    if (changed) this.#configure.set(node);
  }

  close(): void {
    this.#configure.close();
    this.#keys.close();
  }

  #applyManagers(message: SessionMessage): void {
    const managers = message.managers.flatMap(({ peer, weight }) =>
      peer?.addr ? [{ peer: { nodeId: peer.nodeId, addr: peer.addr }, weight: Number(weight) }] : [],
    );
    this.#remotes.replace(managers);
    const hosts = this.#remotes.peers().map((peer) => hostOf(peer.addr));
    const key = [...hosts].sort().join(" ");
    if (key === this.#hosts) return;
    this.#hosts = key;
    this.#executor.setManagers(hosts);
  }
}

/** The host of "host:port"; brackets of IPv6 removed. */
export function hostOf(addr: string): string {
  const bracketed = /^\[([^\]]+)\]/.exec(addr)?.[1];
  if (bracketed) return bracketed;
  const colon = addr.lastIndexOf(":");
  return colon < 0 ? addr : addr.slice(0, colon);
}

/** A node without what this host does not act on. */
function stable(node: Node): Node {
  return { ...node, meta: undefined, status: undefined };
}
