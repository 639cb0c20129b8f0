/**
 * This node among the others: gossip, and what is known of the swarm's networks by it. What this node tells is
 * `overlay/own-records.ts`; what it hears comes in at `#heard` and `#node`, is decoded by `overlay/tables.ts` and
 * `overlay/doors.ts`, and reaches the rest of the room in bursts, by `onChange`.
 */
import { messageOf } from "../base/errors.ts";
import { createGossip } from "../gossip/gossip.ts";
import { type KeyId, keyIds } from "../gossip/keys.ts";
import type { Gossip, GossipKey, NodeEvent, TableEvent } from "../gossip/types.ts";
import { plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { dualStack } from "./drivers/overlay.ts";
import { Doors } from "./overlay/doors.ts";
import { Doubts } from "./overlay/doubts.ts";
import { type HeardRecord, KeptRecords } from "./overlay/kept-records.ts";
import { type MeshDoor, meshTable } from "./overlay/mesh.ts";
import { OwnRecords } from "./overlay/own-records.ts";
import { participantsOf } from "./overlay/participants.ts";
import { endpointTable, type Participant, peerTable } from "./overlay/records.ts";
import { type Changed, NetworkTables, type Told } from "./overlay/tables.ts";
import type { RemotePeer } from "./plan/overlay.ts";
import { attachedTo } from "./plan/world.ts";
import type { EndpointState, SandboxState } from "./state.ts";
import type { ClusterNetworking } from "./types.ts";

/** Changes that come within this many milliseconds are taken together. */
const settleMs = 5;

export class Cluster {
  readonly #core: Core;
  readonly #onChange: (networkId: string, changed: ReadonlySet<Changed>) => void;
  readonly #tables = new Map<string, NetworkTables>();
  /** Doors to the mesh of the other nodes, by their gossip names. */
  readonly #doors = new Doors();
  /** Nodes that gossip suspects: their names and backends are withdrawn until they answer or are given up. */
  readonly #suspended = new Set<string>();
  readonly #doubts: Doubts;
  readonly #kept: KeptRecords;
  /** What this node tells of its own endpoints. */
  readonly own: OwnRecords;
  readonly #dirty = new Map<string, Set<Changed>>();
  #cancelFlush: (() => void) | undefined;
  #gossip: Gossip | undefined;
  #keys: GossipKey[] = [];
  #managers: string[] = [];
  /**
   * Hosts of the last life's records. A lone manager that comes back is told of no other, and would wait until the
   * others have given it up and look for it. Forgotten as soon as somebody was found.
   */
  #remembered = new Set<string>();

  readonly #onJoin: () => void;

  /** `onChange`: names, backends or peers of a network changed; `onJoin`: a host came. */
  constructor(core: Core, onChange: (networkId: string, changed: ReadonlySet<Changed>) => void, onJoin: () => void) {
    this.#core = core;
    this.#onChange = onChange;
    this.#onJoin = onJoin;
    const { clock, log, store } = core;
    const gossip = () => this.#gossip;
    this.own = new OwnRecords({
      gossip,
      vtep: () => core.cluster?.dataPathAddress,
      isJoined: (networkId) => this.#tables.has(networkId),
      log,
    });
    this.#kept = new KeptRecords({ store, heard: (networkId) => this.#records(networkId), clock, log });
    this.#doubts = new Doubts({
      clock,
      gossip,
      tables: this.#tables,
      doors: this.#doors,
      dropped: (networkId, key, changed) => this.#changed(networkId, key, changed),
      shut: () => {
        for (const { spec } of core.networks.values()) if (spec.ingress) this.#mark(spec.id, "peers", "endpoints");
      },
    });
  }

  get gossip(): Gossip | undefined {
    return this.#gossip;
  }

  /** After a restart: the place in the cluster and what was heard last, so that nothing is torn down meanwhile. */
  restore(): void {
    const core = this.#core;
    core.cluster = core.store.cluster();
    core.measurePath();
    for (const { spec } of core.networks.values()) {
      if (spec.driver !== "overlay") continue;
      const tables = new NetworkTables();
      this.#tables.set(spec.id, tables);
      for (const record of this.#kept.read(spec.id)) {
        if (record.ownerAddress) this.#remembered.add(record.ownerAddress);
        const told = { ...record, kind: "create", local: false } as const;
        if (record.table === meshTable) this.#doors.apply({ ...told, networkId: spec.id });
        else tables.apply(told, core.clock.steady());
      }
    }
  }

  async start(cluster: ClusterNetworking): Promise<void> {
    this.#core.cluster = cluster;
    this.#core.measurePath();
    this.#core.store.saveCluster(cluster);
    await this.#begin();
  }

  async setKeys(keys: GossipKey[]): Promise<void> {
    this.#keys = keys;
    if (this.#gossip) this.#gossip.setKeys(keys);
    else await this.#begin();
  }

  setManagers(hosts: string[]): void {
    this.#managers = hosts;
    this.#bootstrap();
  }

  #bootstrap(): void {
    this.#gossip?.setBootstrap([...new Set([...this.#managers, ...this.#remembered])]);
  }

  /** Gossip runs from when both the place in the cluster and the keys are known. */
  async #begin(): Promise<void> {
    const core = this.#core;
    const { cluster } = core;
    if (this.#gossip || !cluster || this.#keys.length === 0) return;
    const gossip = await createGossip({
      bindAddress: cluster.bindAddress,
      advertiseAddress: cluster.advertiseAddress,
      keys: this.#keys,
      log: core.log,
      clock: core.clock,
    });
    this.#gossip = gossip;
    gossip.onTable((event) => this.#heard(event));
    gossip.onNode((event) => this.#node(event));
    this.#bootstrap();
    for (const { spec } of core.networks.values()) if (spec.driver === "overlay") this.join(spec.id);
    this.#doubts.begin();
  }

  async stop(): Promise<void> {
    this.#cancelFlush?.();
    this.#cancelFlush = undefined;
    this.#kept.forgetAll(this.#tables.keys());
    this.#core.store.saveCluster(undefined);
    const gossip = this.#gossip;
    this.#gossip = undefined;
    this.#keys = [];
    this.#managers = [];
    this.#remembered.clear();
    this.#tables.clear();
    this.#doors.clear();
    this.#suspended.clear();
    this.#doubts.clear();
    this.#dirty.clear();
    this.own.clear();
    this.#core.cluster = undefined;
    await gossip?.leave();
  }

  async close(): Promise<void> {
    this.#cancelFlush?.();
    this.#doubts.close();
    this.#kept.flush();
    await this.#gossip?.[Symbol.asyncDispose]();
  }

  /** Joins a network's gossip and publishes what is here already. Sync with the others goes on behind. */
  join(networkId: string): void {
    if (!this.#tables.has(networkId)) this.#tables.set(networkId, new NetworkTables());
    const gossip = this.#gossip;
    if (!gossip) return;
    gossip.joinNetwork(networkId).catch((error) => {
      this.#core.log.warn("the first sync of a network failed", { network: networkId, error: messageOf(error) });
    });
    for (const { sandbox, endpoint } of attachedTo(this.#core.world, networkId)) {
      this.publish(sandbox, endpoint);
      this.own.activity(endpoint, sandbox.activity);
    }
  }

  leave(networkId: string): void {
    this.#tables.delete(networkId);
    this.#dirty.delete(networkId);
    this.#kept.forget(networkId);
    try {
      this.#gossip?.leaveNetwork(networkId);
    } catch (error) {
      this.#core.log.warn("cannot leave a network's gossip", { network: networkId, error: messageOf(error) });
    }
  }

  /** Tells the others where an endpoint of an overlay is, and of this node's door to the mesh if it is that. */
  publish(sandbox: SandboxState, endpoint: EndpointState): void {
    this.own.peer(endpoint);
    const ingress = this.#core.networks.get(endpoint.networkId)?.spec.ingress;
    if (ingress && sandbox.kind === "ingress") this.own.door(endpoint);
  }

  #heard(event: TableEvent): void {
    if (event.local) return;
    const covered = this.#doubts.covers(event);
    if (event.table === meshTable) {
      if (covered || !this.#doors.apply(event)) return;
      this.#mark(event.networkId, "peers", "endpoints");
      // Who is one of ours decides who has an address in IPv6.
      for (const { spec } of this.#core.networks.values()) {
        if (dualStack(spec) && this.#tables.get(spec.id)?.owns(event.owner)) this.#mark(spec.id, "endpoints");
      }
      return;
    }
    if (covered) this.#doubts.doubt(event);
    else this.#changed(event.networkId, event.key, this.#tables.get(event.networkId)?.apply(event));
  }

  #changed(networkId: string, key: string, changed: Changed | undefined): void {
    if (!changed) return;
    const names = changed === "peers" && this.#tables.get(networkId)?.names(key);
    if (names) this.#mark(networkId, "peers", "endpoints");
    else this.#mark(networkId, changed);
  }

  #node(event: NodeEvent): void {
    const before = this.#suspended.has(event.name);
    if (event.kind === "suspect") this.#suspended.add(event.name);
    else this.#suspended.delete(event.name);
    this.#doubts.node(event);
    if (event.kind === "join") {
      if (this.#remembered.size > 0) {
        this.#remembered.clear();
        this.#bootstrap();
      }
      this.#onJoin();
    }
    if (before === this.#suspended.has(event.name)) return;
    for (const [networkId, tables] of this.#tables) if (tables.owns(event.name)) this.#mark(networkId, "endpoints");
  }

  #mark(networkId: string, ...changed: Changed[]): void {
    const set = this.#dirty.get(networkId) ?? new Set();
    this.#dirty.set(networkId, set);
    for (const one of changed) set.add(one);
    this.#cancelFlush ??= this.#core.clock.after(settleMs, () => {
      this.#cancelFlush = undefined;
      const dirty = [...this.#dirty];
      this.#dirty.clear();
      for (const [id, kinds] of dirty) this.#onChange(id, kinds);
    });
    // Leaving a network is the last that is heard of it, and nothing to be kept.
    if (this.#tables.has(networkId)) this.#kept.changed(networkId);
  }

  /** All that was heard of a network and is believed. */
  #records(networkId: string): HeardRecord[] {
    const doors = this.#doors.entries(networkId).map((door) => ({ table: meshTable, ...door, ownerAddress: "" }));
    return [...(this.#tables.get(networkId)?.entries() ?? []), ...doors];
  }

  /** Compares what was heard with the database; gives the networks that differed. */
  resync(): string[] {
    const gossip = this.#gossip;
    if (!gossip) return [];
    const differing: string[] = [];
    const there = new Set(gossip.peers().map((peer) => peer.name));
    for (const [networkId, tables] of this.#tables) {
      const count = tables.resync({
        peers: gossip.entries(peerTable, networkId),
        endpoints: gossip.entries(endpointTable, networkId),
      });
      const doors = gossip.entries(meshTable, networkId);
      const shut = this.#doors.resync(networkId, doors, (owner) => there.has(owner) && gossip.synced(owner, networkId));
      if (count + shut > 0) differing.push(networkId);
    }
    return differing;
  }

  remotePeers(networkId: string): readonly RemotePeer[] {
    const peers = this.#tables.get(networkId)?.peers() ?? [];
    if (!this.#core.networks.get(networkId)?.spec.ingress) return peers;
    const legs = new Map([...this.#doors.byNode().values()].map(({ mac, leg }) => [mac, leg]));
    return peers.map((peer) => {
      const leg = legs.get(peer.mac);
      return leg === undefined ? peer : { ...peer, leg };
    });
  }

  /** Data path addresses of the other hosts on any network of this one. */
  hosts(): string[] {
    const own = this.#core.cluster?.dataPathAddress;
    const all = [...this.#tables.keys()].flatMap((id) => this.remotePeers(id).map(({ vtep }) => vtep));
    return [...new Set(all)].filter((vtep) => vtep !== own).sort();
  }

  /** Doors to the mesh on other nodes, by gossip name. */
  doors(): ReadonlyMap<string, MeshDoor> {
    return this.#doors.byNode();
  }

  /** Everybody that takes part in discovery on a network: this node's active endpoints, then the others'. */
  participants(networkId: string): Participant[] {
    const remote = this.#tables.get(networkId)?.participants(this.#suspended) ?? [];
    const doors = this.#doors.byNode();
    return participantsOf(this.#core.world, networkId, remote, (node) => doors.has(node));
  }

  /** Addresses of a network that endpoints have, wherever they are and whatever they do. */
  taken(networkId: string): string[] {
    return [
      ...attachedTo(this.#core.world, networkId).map(({ endpoint }) => plainIp(endpoint.ipv4)),
      ...this.remotePeers(networkId).map((peer) => peer.address),
    ];
  }

  /** Addresses of all participants and who owns them ("" for this node), those of suspected nodes included. */
  addresses(networkId: string): Map<string, string> {
    const found = new Map<string, string>();
    for (const participant of this.#tables.get(networkId)?.participants(new Set()) ?? []) {
      found.set(participant.address, participant.owner);
    }
    for (const { sandbox, endpoint } of attachedTo(this.#core.world, networkId)) {
      if (endpoint.role === "user" && sandbox.activity !== "inactive") found.set(plainIp(endpoint.ipv4), "");
    }
    return found;
  }

  /** Whether a node that was heard of is still there; one that is not may come back under a new name. */
  isMember(owner: string): boolean {
    return owner === "" || (this.#gossip?.peers().some((peer) => peer.name === owner) ?? false);
  }

  /** Addresses of the hosts that gossip knows. */
  members(): string[] {
    return this.#gossip?.peers().map((peer) => peer.address) ?? [];
  }

  /** What other nodes told of a network, used or not. */
  told(networkId: string): Told[] {
    return this.#tables.get(networkId)?.told() ?? [];
  }

  /** Whether gossip suspects a node just now. */
  isSuspended(owner: string): boolean {
    return this.#suspended.has(owner);
  }

  keyIds(): KeyId[] {
    return keyIds(this.#keys);
  }

  peers(networkId: string): { name: string; address: string }[] {
    return this.#gossip?.peers(networkId) ?? [];
  }
}
