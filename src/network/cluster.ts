/**
 * This node among the others: gossip, what it publishes, what it hears.
 *
 * Order of words, as Docker's nodes expect it: join the network, tell where the endpoint is (peer record), and only
 * when the container is active what it is called (endpoint record); backwards at the end. A draining task's
 * record is updated as disabled: no names, no new connections.
 */
import { toIpv6 } from "../base/dual-stack.ts";
import { messageOf } from "../base/errors.ts";
import { createGossip } from "../gossip/gossip.ts";
import { type KeyId, keyIds } from "../gossip/keys.ts";
import type { Gossip, GossipKey, NodeEvent, TableEvent } from "../gossip/types.ts";
import { hasFeature } from "../kernel/feature.ts";
import { plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { dualStack } from "./drivers/overlay.ts";
import { Doors } from "./overlay/doors.ts";
import { encodeDoor, type MeshDoor, meshTable } from "./overlay/mesh.ts";
import { encodeEndpoint, encodePeer, endpointTable, type Participant, peerTable } from "./overlay/records.ts";
import { type Changed, NetworkTables, type Told } from "./overlay/tables.ts";
import { attachedTo } from "./plan/world.ts";
import type { Activity, EndpointState, SandboxState } from "./state.ts";
import type { ClusterNetworking } from "./types.ts";

/** Changes that come within this many milliseconds are taken together. */
const settleMs = 5;
/** What was heard is written down at most this often. */
const keepMs = 1000;
/** Beyond this, writing it down costs more than hearing it again. */
const mostKept = 20_000;
/** How often doubted records are looked at while there are any. */
const judgeMs = 200;
/**
 * How long a doubted record counts at most: while its host has not told yet what it has; while its host is not to be
 * seen, though others of the network are; while this host seems to be alone; after gossip lost the host.
 */
const patienceMs = { syncing: 30_000, joining: 5_000, absent: 5_000, alone: 60_000, lost: 600_000 };

export class Cluster {
  readonly #core: Core;
  readonly #onChange: (networkId: string, changed: ReadonlySet<Changed>) => void;
  readonly #tables = new Map<string, NetworkTables>();
  /** Doors to the mesh of the other nodes, by their gossip names. */
  readonly #doors = new Doors();
  /** Nodes that gossip suspects: their names and backends are withdrawn until they answer or are given up. */
  readonly #suspended = new Set<string>();
  /**
   * Nodes that gossip lost. Names and balancers forget them, the way to their containers stays: most likely only the
   * daemon is away, and what talks to them over there goes on talking. Addresses rest before they are given again.
   */
  readonly #lost = new Set<string>();
  /** "table endpoint" of what this node has told. */
  readonly #published = new Set<string>();
  readonly #dirty = new Map<string, Set<Changed>>();
  readonly #unkept = new Set<string>();
  #cancelFlush: (() => void) | undefined;
  #cancelKeep: (() => void) | undefined;
  #cancelJudge: (() => void) | undefined;
  /** Names of nodes that came back under another: what they told is doubted, not gone. */
  readonly #replaced = new Set<string>();
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
      for (const { value, ...kept } of core.store.records(spec.id)) {
        const bytes = Buffer.from(value, "base64");
        if (kept.ownerAddress) this.#remembered.add(kept.ownerAddress);
        const told = { ...kept, kind: "create", value: bytes, local: false } as const;
        if (kept.table === meshTable) this.#doors.apply({ ...told, networkId: spec.id });
        else tables.apply(told, core.clock.now());
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
    for (const tables of this.#tables.values()) {
      // The wait begins now: nobody could be heard before.
      for (const { table, key, owner } of tables.doubts()) tables.doubt(table, key, owner, core.clock.now());
    }
    this.#judgeSoon();
  }

  #cancelTimers(): void {
    this.#cancelFlush?.();
    this.#cancelKeep?.();
    this.#cancelJudge?.();
    this.#cancelFlush = this.#cancelKeep = this.#cancelJudge = undefined;
  }

  async stop(): Promise<void> {
    this.#cancelTimers();
    for (const networkId of this.#tables.keys()) this.#core.store.deleteRecords(networkId);
    this.#core.store.saveCluster(undefined);
    this.#unkept.clear();
    const gossip = this.#gossip;
    this.#gossip = undefined;
    this.#keys = [];
    this.#managers = [];
    this.#remembered.clear();
    this.#tables.clear();
    this.#doors.clear();
    this.#suspended.clear();
    this.#replaced.clear();
    this.#lost.clear();
    this.#dirty.clear();
    this.#published.clear();
    this.#core.cluster = undefined;
    await gossip?.leave();
  }

  async close(): Promise<void> {
    this.#cancelTimers();
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
      this.publishPeer(endpoint);
      this.publishActivity(endpoint, sandbox.activity);
      this.#publishDoor(sandbox, endpoint);
    }
  }

  leave(networkId: string): void {
    this.#tables.delete(networkId);
    this.#dirty.delete(networkId);
    this.#unkept.delete(networkId);
    this.#core.store.deleteRecords(networkId);
    try {
      this.#gossip?.leaveNetwork(networkId);
    } catch (error) {
      this.#core.log.warn("cannot leave a network's gossip", { network: networkId, error: messageOf(error) });
    }
  }

  publishPeer(endpoint: EndpointState): void {
    const vtep = this.#core.cluster?.dataPathAddress;
    if (vtep) this.#create(peerTable, endpoint, encodePeer(endpoint, vtep));
  }

  /** Tells the others that replies of this node's tasks find back through this door. */
  publishDoor(sandbox: SandboxState, endpoint: EndpointState): void {
    this.#publishDoor(sandbox, endpoint);
  }

  #publishDoor(sandbox: SandboxState, endpoint: EndpointState): void {
    const spec = this.#core.networks.get(endpoint.networkId)?.spec;
    if (sandbox.kind !== "ingress" || !spec?.ingress) return;
    this.#create(
      meshTable,
      endpoint,
      encodeDoor({ address: plainIp(endpoint.ipv4), mac: endpoint.mac, returns: hasFeature("nftEgress") }),
    );
  }

  publishActivity(endpoint: EndpointState, activity: Activity): void {
    const { id, networkId } = endpoint;
    if (endpoint.role !== "user" || !this.#gossip || !this.#tables.has(networkId)) return;
    const known = this.#own(endpointTable, endpoint);
    if (activity === "inactive") {
      if (known) this.#delete(endpointTable, endpoint);
      return;
    }
    const bytes = encodeEndpoint(endpoint, activity === "draining");
    if (!known) this.#create(endpointTable, endpoint, bytes);
    else
      this.#attempt("update", endpointTable, endpoint, () =>
        this.#gossip?.updateEntry(endpointTable, networkId, id, bytes),
      );
  }

  /** Takes back all that was told about an endpoint. */
  withdraw(endpoint: EndpointState): void {
    for (const table of [endpointTable, peerTable, meshTable]) {
      if (this.#own(table, endpoint)) this.#delete(table, endpoint);
    }
  }

  #own(table: string, endpoint: EndpointState): boolean {
    return this.#published.has(`${table} ${endpoint.id}`);
  }

  #create(table: string, endpoint: EndpointState, bytes: Uint8Array): void {
    if (!this.#gossip || this.#own(table, endpoint)) return;
    this.#attempt("create", table, endpoint, () => {
      this.#gossip?.createEntry(table, endpoint.networkId, endpoint.id, bytes);
      this.#published.add(`${table} ${endpoint.id}`);
    });
  }

  #delete(table: string, endpoint: EndpointState): void {
    this.#published.delete(`${table} ${endpoint.id}`);
    this.#attempt("delete", table, endpoint, () => this.#gossip?.deleteEntry(table, endpoint.networkId, endpoint.id));
  }

  #attempt(what: string, table: string, endpoint: EndpointState, fn: () => void): void {
    try {
      fn();
    } catch (error) {
      this.#core.log.warn(`cannot ${what} a record`, { table, endpoint: endpoint.id, error: messageOf(error) });
    }
  }

  #heard(event: TableEvent): void {
    if (event.local) return;
    const way = event.table === peerTable && this.#lost.has(event.owner);
    const doubted = event.kind === "delete" && (way || this.#replaced.has(event.owner));
    if (event.table === meshTable) {
      if (doubted) return;
      if (!this.#doors.apply(event)) return;
      this.#mark(event.networkId, "endpoints");
      // Who is one of ours decides who has an address in IPv6.
      for (const { spec } of this.#core.networks.values()) {
        if (dualStack(spec) && this.#tables.get(spec.id)?.owns(event.owner)) this.#mark(spec.id, "endpoints");
      }
      return;
    }
    const tables = this.#tables.get(event.networkId);
    if (doubted) {
      tables?.doubt(event.table, event.key, event.owner, this.#core.clock.now());
      this.#judgeSoon();
      return;
    }
    this.#changed(event.networkId, event.key, tables?.apply(event));
  }

  #changed(networkId: string, key: string, changed: Changed | undefined): void {
    if (!changed) return;
    const names = changed === "peers" && this.#tables.get(networkId)?.names(key);
    if (names) this.#mark(networkId, "peers", "endpoints");
    else this.#mark(networkId, changed);
  }

  #judgeSoon(): void {
    this.#cancelJudge ??= this.#core.clock.after(judgeMs, () => {
      this.#cancelJudge = undefined;
      this.#judge();
    });
  }

  /** Withdraws doubted records whose hosts have told all they have without them, or do not come back. */
  #judge(): void {
    const gossip = this.#gossip;
    if (!gossip) return;
    const now = this.#core.clock.now();
    const alive = new Set(gossip.peers().map((peer) => peer.address));
    const behind = new Set<string>();
    for (const [networkId, tables] of this.#tables) {
      const members = new Map(gossip.peers(networkId).map((peer) => [peer.address, peer.name]));
      for (const doubt of tables.doubts()) {
        const host = members.get(doubt.ownerAddress);
        let patience: number;
        if (host !== undefined) patience = gossip.synced(host, networkId) ? 0 : patienceMs.syncing;
        else if (alive.has(doubt.ownerAddress)) patience = patienceMs.joining;
        else if (this.#lost.has(doubt.owner)) patience = patienceMs.lost;
        else patience = members.size > 1 ? patienceMs.absent : patienceMs.alone;
        if (now - doubt.since < patience) behind.add(doubt.owner);
        else this.#changed(networkId, doubt.key, tables.drop(doubt));
      }
    }
    // A door leads nowhere without its node, and belongs to the records that name it.
    const names = new Set(gossip.peers().map((peer) => peer.name));
    for (const owner of this.#doors.byNode().keys()) {
      if (names.has(owner) || behind.has(owner)) continue;
      this.#doors.drop(owner);
      for (const { spec } of this.#core.networks.values()) if (spec.ingress) this.#mark(spec.id, "endpoints");
    }
    for (const name of this.#replaced) if (!behind.has(name)) this.#replaced.delete(name);
    for (const name of this.#lost) if (!behind.has(name)) this.#lost.delete(name);
    if (behind.size > 0) this.#judgeSoon();
  }

  #node(event: NodeEvent): void {
    const before = this.#suspended.has(event.name);
    if (event.kind === "suspect") this.#suspended.add(event.name);
    else this.#suspended.delete(event.name);
    // The database drops a failed node's entries itself, event by event.
    if (event.kind === "failed") {
      this.#lost.add(event.name);
      this.#judgeSoon();
    }
    if (event.kind === "replaced") {
      this.#replaced.add(event.name);
      this.#judgeSoon();
    }
    if (event.kind === "join") {
      this.#replaced.delete(event.name);
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
    this.#unkept.add(networkId);
    this.#cancelKeep ??= this.#core.clock.after(keepMs, () => {
      this.#cancelKeep = undefined;
      for (const id of this.#unkept) this.#keep(id);
      this.#unkept.clear();
    });
  }

  #keep(networkId: string): void {
    const core = this.#core;
    const entries = this.#tables.get(networkId)?.entries() ?? [];
    for (const door of this.#doors.entries(networkId)) entries.push({ table: meshTable, ...door, ownerAddress: "" });
    if (entries.length > mostKept) {
      core.store.deleteRecords(networkId);
      return;
    }
    const kept = entries.map((entry) => ({ ...entry, value: Buffer.from(entry.value).toString("base64") }));
    try {
      core.store.saveRecords(networkId, kept);
    } catch (error) {
      core.log.warn("cannot keep what was heard", { network: networkId, error: messageOf(error) });
    }
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

  remotePeers(networkId: string) {
    return this.#tables.get(networkId)?.peers() ?? [];
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
    const core = this.#core;
    const hostAddress = core.cluster?.advertiseAddress ?? "";
    const local: Participant[] = [];
    for (const { sandbox, endpoint } of attachedTo(core.world, networkId)) {
      if (endpoint.role !== "user" || sandbox.activity === "inactive") continue;
      local.push({
        endpointId: endpoint.id,
        name: endpoint.name,
        aliases: endpoint.aliases,
        address: plainIp(endpoint.ipv4),
        address6: plainIp(endpoint.ipv6),
        service: endpoint.service,
        draining: sandbox.activity === "draining",
        hostAddress,
        owner: "",
        local: true,
      });
    }
    const remote = this.#tables.get(networkId)?.participants(this.#suspended) ?? [];
    const spec = core.networks.get(networkId)?.spec;
    const dual = spec && dualStack(spec);
    if (!dual) return [...local, ...remote];
    // Docker's nodes do not carry IPv6 over a tunnel, so that only what is here and on ours has an address to tell.
    const told = (p: Participant) => (this.#doors.byNode().has(p.owner) ? toIpv6(dual, p.address) : undefined);
    return [...local, ...remote.map((p) => ({ ...p, address6: told(p) ?? "" }))].map((p) => {
      const vip6 = p.address6 && p.service?.vip ? toIpv6(dual, p.service.vip) : undefined;
      return vip6 === undefined ? p : { ...p, vip6 };
    });
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
