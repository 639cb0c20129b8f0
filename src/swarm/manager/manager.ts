/**
 * One manager put together. Every manager has a member of the store, a copy of it to read from, and the port that nodes
 * and other managers talk to (`port.ts`). The one that leads (`leadership/standing.ts`, `leadership/lead.ts`) also runs
 * what keeps the swarm true (`reign.ts`); the others pass calls on to it (`leadership/forward.ts`).
 */
import { Health } from "#proto/docker/swarmkit/health_pb.js";
import { Managers } from "#proto/skein/swarm/managers_pb.js";
import { deferred, Emitter } from "../../base/async.ts";
import { sleep } from "../../base/clock.ts";
import { type SkeinError, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { MANAGER_OU } from "../ca/certificates.ts";
import { dropRootKey, type NodeCredentials, readCredentials, writeCredentials } from "../ca/files.ts";
import { nodeConnection } from "../ca/transport.ts";
import { DataKeys } from "../store/data-keys.ts";
import type { EtcdBackend } from "../store/etcd/backend.ts";
import { hasEtcdData } from "../store/etcd/supervisor.ts";
import type { Store } from "../store/store.ts";
import type { ControlApi } from "../types.ts";
import { createFirstObjects } from "./bootstrap.ts";
import { keepInStep, lockAsWanted } from "./in-step.ts";
import { askForKey, bringKey, receivedKeys } from "./key-exchange.ts";
import { KeyPurge } from "./key-purge.ts";
import { AddressBook } from "./leadership/address-book.ts";
import { createAnyControl } from "./leadership/any-control.ts";
import { noLeader } from "./leadership/errors.ts";
import { forgetOtherManagers } from "./leadership/force-new.ts";
import { FreshKeys } from "./leadership/fresh-key.ts";
import { askToJoin } from "./leadership/join.ts";
import { Lead } from "./leadership/lead.ts";
import { LeaderLink, leaderAddr } from "./leadership/leader-link.ts";
import { Looks } from "./leadership/looks.ts";
import { Members } from "./leadership/members.ts";
import type { StandingWatch } from "./leadership/standing.ts";
import { openPort, type Port } from "./port.ts";
import { type Reign, startReign } from "./reign.ts";
import { joinAddress, splitAddress } from "./server.ts";
import { StoreMember } from "./store-member.ts";
import type { Manager, ManagerOptions } from "./types.ts";

/** Time for the last messages to nodes to leave this host. */
const FAREWELL_MS = 50;
/** A node that was removed hears from the leader that it is to end its tasks; then its connections go. */
const REMOVED_MS = 500;
/** A restarted manager is waited for this long; without a quorum it goes on opening its store in the background. */
const RESTART_PATIENCE_MS = 4_000;
/** A swarm without a leader for this long has lost its quorum, as far as users are concerned. */
const QUORUM_PATIENCE_MS = 4_000;
const PROBE_MS = 1_500;

export { bootstrapCluster } from "./bootstrap.ts";

/** Starts a manager on the certificates in `stateDir`; resolves when it serves, or when only a quorum is missing. */
export async function startManager(options: ManagerOptions): Promise<Manager> {
  const first = readCredentials(options.stateDir);
  if (!first) throw unavailable("this node has no swarm certificates");
  if (first.identity.ou !== MANAGER_OU) throw unavailable("this node is not a swarm manager");
  const manager = new HostManager(options, first);
  const abort = () => void manager.close();
  options.signal?.addEventListener("abort", abort, { once: true });
  try {
    await manager.start();
    return manager;
  } catch (error) {
    await manager.close();
    throw error;
  } finally {
    options.signal?.removeEventListener("abort", abort);
  }
}

/** What is there once the store is open. */
interface Open {
  readonly backend: EtcdBackend;
  readonly store: Store;
  readonly standing: StandingWatch;
  readonly control: ControlApi;
}

class HostManager implements Manager {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly #options: ManagerOptions;
  readonly #log: Logger;
  #credentials: NodeCredentials;
  /** Was a member of the store before. */
  readonly #hadData: boolean;
  readonly #book: AddressBook;
  readonly #dataKeys: DataKeys;
  readonly #members: Members;
  readonly #undo = new AsyncDisposableStack();
  readonly #closing = new AbortController();
  readonly #changes = new Emitter<void>();
  readonly #failed = deferred<never>();
  readonly #looks: Looks;
  readonly #link: LeaderLink;
  readonly #lead: Lead;
  #port: Port | undefined;
  #member: StoreMember | undefined;
  #open: Open | undefined;
  /** Until the first reign began. */
  #bootstrap: ManagerOptions["bootstrap"];
  /** The others removed this manager's member. */
  #removed = false;
  #closed: Promise<void> | undefined;

  constructor(options: ManagerOptions, credentials: NodeCredentials) {
    this.#options = options;
    this.#credentials = credentials;
    this.nodeId = credentials.identity.cn;
    this.clusterId = credentials.identity.o;
    this.#log = options.log;
    this.#bootstrap = options.bootstrap;
    this.#hadData = hasEtcdData(options.stateDir);
    this.#book = new AddressBook(options.stateDir);
    this.#members = new Members(() => {
      return this.#storeClient();
    });
    this.#dataKeys = new DataKeys({
      keys: credentials.dataKeys,
      save: (dataKeys) => writeCredentials(options.stateDir, { dataKeys }),
      ask: (id, signal) => this.#askForKey(id, signal),
    });
    this.#failed.promise.catch(() => {});
    const closing = this.#closing.signal;
    this.#looks = new Looks(options.clock, closing);
    this.#link = new LeaderLink(
      () => this.#open && leaderAddr(this.#open.standing.current, this.#open.store.view),
      (addr) => nodeConnection(addr, this.#credentials),
    );
    this.#lead = new Lead({
      ...{ nodeId: this.nodeId, members: this.#members, closing, clock: options.clock, log: options.log },
      addr: () => this.#addr,
      prepare: (store) => this.#prepare(store),
      begin: (store) => this.#beginReign(store),
      alone: () => this.#alone,
      onChange: () => this.#changes.emit(),
    });
  }

  async start(): Promise<void> {
    const { bootstrap, clock } = this.#options;
    await this.#listen();
    const opened = this.#openStore();
    if (bootstrap || !this.#hadData) {
      await opened;
      return;
    }
    const patience = new AbortController();
    opened.then(
      () => patience.abort(),
      () => patience.abort(),
    );
    await Promise.race([opened, sleep(clock, RESTART_PATIENCE_MS, patience.signal).catch(() => {})]);
    patience.abort();
    opened.catch((error) => {
      if (!this.#closing.signal.aborted) this.#failed.reject(error);
    });
  }

  get control(): ControlApi {
    if (!this.#open) throw noLeader();
    return this.#open.control;
  }

  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  get #alone(): boolean {
    return this.#book.nodes.length < 2;
  }

  /** Its place in what managers do one after another. */
  get #turn(): number {
    return Math.max(0, [...this.#book.nodes].sort().indexOf(this.nodeId));
  }

  /** "ip:port" told to others. */
  get #addr(): string {
    const bound = splitAddress(this.#port?.server.address ?? this.#options.listenAddr);
    const advertised = splitAddress(this.#options.advertiseAddr);
    return joinAddress(advertised.host, advertised.port || bound.port);
  }

  get localAddr(): string {
    const address = this.#port?.server.address ?? this.#options.listenAddr;
    const { host, port } = splitAddress(address);
    if (host === "0.0.0.0") return joinAddress("127.0.0.1", port);
    return host === "::" ? joinAddress("::1", port) : address;
  }

  refusal(): SkeinError | undefined {
    if (!this.#open) return noLeader();
    return this.#open.standing.leaderlessMs > QUORUM_PATIENCE_MS ? noLeader() : undefined;
  }

  serves(): boolean {
    return this.#open !== undefined && !this.#removed && this.#open.standing.leaderlessMs < QUORUM_PATIENCE_MS;
  }

  removed(): boolean {
    return this.#removed;
  }

  onChange(listener: () => void): () => void {
    return this.#changes.on(listener);
  }

  async resign(timeoutMs: number): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.steady() + timeoutMs;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
    const list = await this.#members.list();
    if (list.filter(({ learner }) => !learner).length < 2) return;
    await this.#lead.handOver();
    for (;;) {
      const leader = this.#link.get();
      if (leader && !this.#open?.standing.leading) {
        await leader.channel.client(Managers).leave({}, { signal, timeoutMs: Math.max(1, deadline - clock.steady()) });
        return;
      }
      if (clock.steady() > deadline) throw noLeader();
      signal.throwIfAborted();
      await this.#looks.next();
    }
  }

  reloadCertificate(): void {
    const next = readCredentials(this.#options.stateDir);
    if (!next || next.identity.cn !== this.nodeId || next.identity.ou !== MANAGER_OU) return;
    this.#credentials = next;
    this.#serveWith();
    this.#link.forget("the certificate was renewed");
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#closing.abort(unavailable("the manager stops"));
      if (this.#lead.reign) await this.#lead.handOver().catch(() => {});
      this.#lead.end();
      this.#link.forget("the manager stops");
      await this.#undo.disposeAsync();
    })();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #listen(): Promise<void> {
    const { clock, listenAddr, stateDir } = this.#options;
    this.#port = await openPort({
      ...{ listenAddr, nodeId: this.nodeId, clusterId: this.clusterId, stateDir, credentials: this.#credentials },
      dataKeys: this.#dataKeys,
      addr: () => this.#addr,
      view: () => this.#open?.store.view,
      reign: () => this.#lead.reign,
      ...{ link: this.#link, looks: this.#looks, clock, log: this.#log },
      removed: () => this.#removed,
      closing: this.#closing.signal,
    });
    const { server } = this.#port;
    this.#undo.defer(async () => {
      // Before the connections go: nodes were told that this manager leaves.
      await sleep(clock, FAREWELL_MS);
      await server.close();
    });
  }

  /** Peers are judged by the root in the store: it may be newer than the one on disk. */
  #serveWith(): void {
    const stored = this.#open?.store.view.get("cluster", this.clusterId)?.rootCa?.caCert;
    const rootPem = stored && stored.length > 0 ? new TextDecoder().decode(stored) : this.#credentials.rootPem;
    const credentials = { ...this.#credentials, rootPem };
    this.#port?.server.setCredentials(credentials);
    if (!this.#open) return;
    this.#member?.setCredentials(credentials, this.#turn);
  }

  async #openStore(): Promise<void> {
    const { bootstrap, clock, remotes, stateDir } = this.#options;
    const { signal } = this.#closing;
    const join =
      !bootstrap && !this.#hadData
        ? await askToJoin({
            addr: this.#addr,
            remotes: () => remotes?.() ?? [],
            connect: (addr) => nodeConnection(addr, this.#credentials),
            clock,
            log: this.#log,
            signal,
          })
        : undefined;
    if (join) {
      const first = join.dataKey.length > 0 ? [{ generation: 0, key: join.dataKey }] : [];
      this.#dataKeys.add([...first, ...receivedKeys(join.dataKeys)]);
      this.#dataKeys.save();
    }
    if (join) this.#book.set(Object.fromEntries(join.members.map(({ addr, nodeId }) => [nodeId, addr])));
    signal.throwIfAborted();
    const member = new StoreMember({
      ...{ stateDir, nodeId: this.nodeId, etcdBinary: this.#options.etcdBinary ?? "etcd", clock, log: this.#log },
      forceNewCluster: bootstrap?.forceNewCluster ?? false,
      join: join?.members.map(({ nodeId }) => nodeId),
      addrOf: (nodeId) => this.#book.addrOf(nodeId),
      credentials: () => this.#credentials,
      dataKeys: this.#dataKeys,
      alone: () => this.#alone,
      fence: () => this.#lead.fence,
      onRemoved: () => {
        this.#removed = true;
        this.#link.forget("this manager was removed");
        this.#changes.emit();
      },
      onStanding: () => this.#onStanding(),
    });
    this.#member = member;
    this.#undo.defer(() => member.close());
    const { backend, standing, store } = await member.open(this.#book.nodes, signal);
    if (!bootstrap && !store.view.get("cluster", this.clusterId)) {
      throw unavailable(`the swarm store holds no cluster ${this.clusterId}`);
    }
    const control = createAnyControl({
      ...{ store, clusterId: this.clusterId, lead: this.#lead, link: this.#link, looks: this.#looks, clock },
      refusal: () => this.refusal(),
    });
    this.#open = { backend, store, standing, control };
    this.#undo.defer(
      keepInStep(store, {
        managers: () => this.#followManagers(store),
        // Whichever manager a removed node is connected to; what it was told last still leaves.
        removed: (nodeId) => clock.after(REMOVED_MS, () => this.#port?.server.disconnect(nodeId)),
        root: () => this.#serveWith(),
        cluster: () => this.#followLock(store),
      }),
    );
    this.#followManagers(store);
    if (store.view.get("cluster", this.clusterId)) this.#followLock(store);
    // What other managers told came into memory only: the lock under which it goes to disk is known now.
    this.#dataKeys.save();
    this.#purgeOldKeys();
    this.#onStanding();
    await this.#lead.open({ backend, standing, store });
    if (bootstrap && !this.#lead.reign) throw unavailable("the new swarm's manager does not lead");
    dropRootKey(stateDir);
    this.#serveWith();
    this.#followLock(store);
    this.#changes.emit();
    this.#log.info("the swarm manager serves", {
      node: this.nodeId,
      cluster: this.clusterId,
      address: this.#port?.server.address,
      leads: this.#lead.reign !== undefined,
    });
  }

  #followLock(store: Store): void {
    lockAsWanted(this.#options.stateDir, store.view.get("cluster", this.clusterId), this.#log);
  }

  #purgeOldKeys(): void {
    const purge = new KeyPurge({
      ...{ keys: this.#dataKeys, nodeId: this.nodeId, clock: this.#options.clock, log: this.#log },
      client: () => this.#storeClient(),
      turn: () => this.#turn,
    });
    this.#undo.defer(() => purge.close());
  }

  #storeClient() {
    if (!this.#member) throw unavailable("the swarm store is not open");
    return this.#member.client;
  }

  #askForKey(id: string, signal: AbortSignal) {
    const { bootstrap, clock } = this.#options;
    return askForKey(
      {
        others: () => this.#book.nodes.flatMap((node) => (node === this.nodeId ? [] : (this.#book.addrOf(node) ?? []))),
        alone: () => this.#alone || bootstrap !== undefined,
        connect: (addr) => nodeConnection(addr, this.#credentials),
        ...{ clock, log: this.#log },
      },
      id,
      signal,
    );
  }

  #freshKeys(store: Store, backend: EtcdBackend): FreshKeys {
    return new FreshKeys({
      ...{ keys: this.#dataKeys, backend, members: this.#members, nodeId: this.nodeId },
      client: () => this.#storeClient(),
      bring: (node, key) => {
        const addr = store.view.get("node", node)?.managerStatus?.addr ?? this.#book.addrOf(node) ?? "";
        return bringKey((to) => nodeConnection(to, this.#credentials), addr, key, this.#log);
      },
      ...{ clock: this.#options.clock, log: this.#log },
    });
  }

  #followManagers(store: Store): void {
    if (this.#book.follow(store.view)) this.#member?.setPeers(this.#book.nodes);
  }

  #onStanding(): void {
    this.#changes.emit();
    this.#link.follow();
    this.#lead.follow();
  }

  /** Before the first reign: what a new swarm, or one begun anew, must hold. */
  async #prepare(store: Store): Promise<void> {
    const bootstrap = this.#bootstrap;
    if (bootstrap && !store.view.get("cluster", this.clusterId)) {
      await createFirstObjects(store, this.#options.stateDir, this.#credentials, bootstrap, this.#addr);
    }
    if (bootstrap?.forceNewCluster) await forgetOtherManagers(store, this.nodeId);
  }

  #beginReign(store: Store): Reign {
    const backend = this.#open?.backend;
    if (!this.#port || !backend) throw unavailable("the manager's port is not open");
    const { authority } = this.#port;
    this.#bootstrap = undefined;
    return startReign({
      store,
      nodeId: this.nodeId,
      clusterId: this.clusterId,
      addr: this.#addr,
      authority,
      members: this.#members,
      dataKeys: this.#dataKeys,
      freshKeys: () => this.#freshKeys(store, backend),
      credentials: () => this.#credentials,
      probe: (addr) => this.#probe(addr),
      confirmLead: () => this.#lead.confirm(),
      isSilent: this.#options.isSilent,
      clock: this.#options.clock,
      log: this.#log,
    });
  }

  async #probe(addr: string): Promise<void> {
    const channel = nodeConnection(addr, this.#credentials);
    try {
      await channel.client(Health).check({}, { timeoutMs: PROBE_MS });
    } finally {
      channel.close();
    }
  }
}
