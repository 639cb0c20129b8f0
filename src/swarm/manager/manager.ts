/**
 * One manager put together. Every manager has a member of the store, a copy of it to read from, and the port that nodes
 * and other managers talk to. The one that leads (`leadership/standing.ts`) also runs what keeps the swarm true
 * (`reign.ts`); the others pass calls on to it (`leadership/forward.ts`).
 */
import { create } from "@bufbuild/protobuf";
import { Health, HealthCheckResponse_ServingStatus } from "#proto/docker/swarmkit/health_pb.js";
import { Logs } from "#proto/docker/swarmkit/logbroker_pb.js";
import { ManagerStatusSchema, NodeRole, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import { Managers, type WriteRequest } from "#proto/skein/swarm/managers_pb.js";
import { deferred, Emitter } from "../../base/async.ts";
import { sleep } from "../../base/clock.ts";
import { errnoOf, messageOf, SkeinError, unavailable } from "../../base/errors.ts";
import {
  addService,
  type CallContext,
  type Channel,
  GrpcError,
  grpcCodeOf,
  type Handlers,
  status,
} from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { MANAGER_OU } from "../ca/certificates.ts";
import {
  dropRootKey,
  heldUnlockKey,
  lockKeysWith,
  type NodeCredentials,
  readCredentials,
  writeCredentials,
} from "../ca/files.ts";
import { nodeConnection } from "../ca/transport.ts";
import { EtcdBackend } from "../store/etcd/backend.ts";
import { connectEtcd, type EtcdClient } from "../store/etcd/client.ts";
import { EtcdSupervisor, etcdDir, hasEtcdData } from "../store/etcd/supervisor.ts";
import { acceptTunnel, TUNNEL_ALPN } from "../store/etcd/tunnel.ts";
import { Store } from "../store/store.ts";
import type { ControlApi } from "../types.ts";
import { type Authority, createAuthority, MANAGERS, type Standing } from "./auth.ts";
import { unlockKeyOf } from "./autolock.ts";
import { createFirstObjects } from "./bootstrap.ts";
import { createControl } from "./control/control.ts";
import { AddressBook } from "./leadership/address-book.ts";
import { Callers, forwardingMetadata, isForwarded, refuseSecondHop } from "./leadership/callers.ts";
import { noLeader, noLeaderNow } from "./leadership/errors.ts";
import { forgetOtherManagers } from "./leadership/force-new.ts";
import { addRoutedService, type Destination } from "./leadership/forward.ts";
import { askToJoin } from "./leadership/join.ts";
import { Members } from "./leadership/members.ts";
import { StandingWatch } from "./leadership/standing.ts";
import { forwardedWrites, writeError } from "./leadership/writes.ts";
import { LogBroker } from "./log-broker.ts";
import { refusalLog } from "./refusals.ts";
import { type Reign, type ReignHandlers, services, startReign } from "./reign.ts";
import { joinAddress, listenManager, type ManagerServer, splitAddress } from "./server.ts";
import type { Manager, ManagerOptions } from "./types.ts";

/** Time for the last messages to nodes to leave this host. */
const FAREWELL_MS = 50;
/** A restarted manager is waited for this long; without a quorum it goes on opening its store in the background. */
const RESTART_PATIENCE_MS = 4_000;
/** How long a call waits for a leader to be there. */
const CALL_PATIENCE_MS = 4_000;
/** A swarm without a leader for this long has lost its quorum, as far as users are concerned. */
const QUORUM_PATIENCE_MS = 4_000;
const LOOK_MS = 50;
const CONNECT_MS = 500;
const PROBE_MS = 1_500;
const LEAD_MS = 3_000;

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
  readonly etcd: EtcdSupervisor;
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
  readonly #members: Members;
  readonly #undo = new AsyncDisposableStack();
  readonly #closing = new AbortController();
  readonly #changes = new Emitter<void>();
  readonly #failed = deferred<never>();
  #server: ManagerServer | undefined;
  #authority: Authority | undefined;
  #directAuthority: Authority | undefined;
  #callers: Callers | undefined;
  #refusals: ReturnType<typeof refusalLog> | undefined;
  #client: EtcdClient | undefined;
  #etcdAddress = "";
  #open: Open | undefined;
  #reign: { readonly term: bigint; readonly reign: Reign; readonly over: AbortController } | undefined;
  #fence: bigint | undefined;
  /** Until the first reign began. */
  #bootstrap: ManagerOptions["bootstrap"];
  /** The others removed this manager's member. */
  #removed = false;
  #settling: Promise<void> | undefined;
  #settleAgain = false;
  #leader: { readonly addr: string; readonly channel: Channel; readonly gone: AbortController } | undefined;
  #look: Promise<void> | undefined;
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
    this.#members = new Members(() => this.#etcdClient());
    this.#failed.promise.catch(() => {});
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

  /** "ip:port" told to others. */
  get #addr(): string {
    const bound = splitAddress(this.#server?.address ?? this.#options.listenAddr);
    const advertised = splitAddress(this.#options.advertiseAddr);
    return joinAddress(advertised.host, advertised.port || bound.port);
  }

  get localAddr(): string {
    const address = this.#server?.address ?? this.#options.listenAddr;
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

  onChange(listener: () => void): () => void {
    return this.#changes.on(listener);
  }

  async resign(timeoutMs: number): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.now() + timeoutMs;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
    const list = await this.#members.list();
    if (list.filter(({ learner }) => !learner).length < 2) return;
    await this.#handOver();
    for (;;) {
      const channel = this.#leaderChannel();
      if (channel && !this.#open?.standing.leading) {
        await channel.client(Managers).leave({}, { signal, timeoutMs: Math.max(1, deadline - clock.now()) });
        return;
      }
      if (clock.now() > deadline) throw noLeader();
      await sleep(clock, LOOK_MS, signal);
    }
  }

  reloadCertificate(): void {
    const next = readCredentials(this.#options.stateDir);
    if (!next || next.identity.cn !== this.nodeId || next.identity.ou !== MANAGER_OU) return;
    this.#credentials = next;
    this.#serveWith();
    this.#open?.etcd.setCertificates(next);
    this.#forgetLeader("the certificate was renewed");
    const old = this.#client;
    if (!old) return;
    this.#client = connectEtcd(this.#etcdAddress, next);
    old.close();
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#closing.abort(unavailable("the manager stops"));
      if (this.#reign && this.#open) await this.#handOver().catch(() => {});
      this.#endReign();
      this.#forgetLeader("the manager stops");
      await this.#undo.disposeAsync();
    })();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // ---- the port ----

  async #listen(): Promise<void> {
    const { clock, listenAddr } = this.#options;
    const tunnels = {
      alpn: TUNNEL_ALPN,
      accept: (socket: Parameters<typeof acceptTunnel>[0], { cn, o, ou }: { cn: string; o: string; ou: string }) => {
        const { blacklisted, demoted } = this.#standing;
        const allowed = ou === MANAGER_OU && o === this.clusterId && !blacklisted(cn) && !demoted(cn);
        if (allowed) acceptTunnel(socket, etcdDir(this.#options.stateDir), this.nodeId);
        else socket.destroy();
      },
    };
    try {
      this.#server = await listenManager(
        listenAddr,
        this.#credentials,
        (grpc, identityOf) => this.#register(grpc, identityOf),
        clock,
        this.#log,
        tunnels,
      );
    } catch (error) {
      const reason = errnoOf(error) === "EADDRINUSE" ? "bind: address already in use" : messageOf(error);
      if (errnoOf(error) === undefined) throw error;
      throw new SkeinError("unavailable", `listen tcp ${listenAddr}: ${reason}`, { cause: error });
    }
    const server = this.#server;
    this.#undo.defer(async () => {
      // Before the connections go: nodes were told that this manager leaves.
      await sleep(clock, FAREWELL_MS);
      await server.close();
    });
  }

  #register(
    grpc: Parameters<Parameters<typeof listenManager>[2]>[0],
    identityOf: Parameters<Parameters<typeof listenManager>[2]>[1],
  ): void {
    this.#callers ??= new Callers(identityOf);
    this.#authority ??= createAuthority(this.#callers.identityOf, this.clusterId, this.#standing);
    this.#directAuthority ??= createAuthority(identityOf, this.clusterId, this.#standing);
    this.#refusals ??= refusalLog(this.#log, this.#options.clock, identityOf);
    const authority = this.#authority;
    const refusals = this.#refusals;
    for (const [name, service] of Object.entries(services) as [keyof ReignHandlers, never][]) {
      addRoutedService(
        grpc,
        service,
        (context) => this.#destination(context, (handlers) => handlers[name] as Handlers<never>),
        refusals,
      );
    }
    const health: Handlers<typeof Health> = {
      check: ({ service }, context) => {
        authority.require(context, MANAGERS);
        const serving = service !== "Raft" || this.#reign !== undefined;
        const { NOT_SERVING, SERVING } = HealthCheckResponse_ServingStatus;
        return { status: serving ? SERVING : NOT_SERVING };
      },
    };
    addService(grpc, Health, health, refusals);
  }

  readonly #standing: Standing = {
    blacklisted: (id) => {
      const cluster = this.#open?.store.view.get("cluster", this.clusterId);
      return Object.hasOwn(cluster?.blacklistedCertificates ?? {}, id);
    },
    demoted: (id) => {
      const node = this.#open?.store.view.get("node", id);
      return node?.role === NodeRole.WORKER && node.spec?.desiredRole === NodeRole.WORKER;
    },
  };

  /** Peers are judged by the root in the store: it may be newer than the one on disk. */
  #serveWith(): void {
    const stored = this.#open?.store.view.get("cluster", this.clusterId)?.rootCa?.caCert;
    const rootPem = stored && stored.length > 0 ? new TextDecoder().decode(stored) : this.#credentials.rootPem;
    this.#server?.setCredentials({ ...this.#credentials, rootPem });
  }

  async #destination<H>(context: CallContext, pick: (handlers: ReignHandlers) => H): Promise<Destination<H>> {
    const { clock } = this.#options;
    const signal = AbortSignal.any([context.signal, this.#closing.signal]);
    const deadline = clock.now() + CALL_PATIENCE_MS;
    for (;;) {
      if (signal.aborted || this.#removed) throw noLeaderNow();
      if (this.#reign && this.#callers && this.#directAuthority) {
        const here = pick(this.#reign.reign.handlers);
        return { here, context: this.#callers.unwrap(context, this.#directAuthority) };
      }
      // One that was passed on came because this manager leads, or is about to know that it does.
      const forwarded = isForwarded(context);
      const channel = forwarded ? undefined : this.#leaderChannel();
      // One that does not answer is replaced soon: the call waits for that instead of failing.
      if (channel && (await channel.ready(CONNECT_MS)) && this.#leader?.channel === channel) {
        const caller = this.#callers?.identityOf(context);
        const from = caller?.cn === this.nodeId ? this.#addr : context.peer;
        return { channel, metadata: forwardingMetadata(caller, from), signal: this.#leader.gone.signal };
      }
      if (clock.now() > deadline) {
        refuseSecondHop(context);
        throw noLeaderNow();
      }
      await this.#nextLook().catch(() => {});
    }
  }

  /** One timer for all that wait for a leader: the calls of a thousand nodes do, when one was lost. */
  async #nextLook(): Promise<void> {
    this.#closing.signal.throwIfAborted();
    this.#look ??= sleep(this.#options.clock, LOOK_MS, this.#closing.signal).finally(() => {
      this.#look = undefined;
    });
    await this.#look;
  }

  // ---- the store ----

  #etcdClient(): EtcdClient {
    if (!this.#client) throw unavailable("the swarm store is not open");
    return this.#client;
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
    if (join && join.dataKey.length > 0) {
      writeCredentials(stateDir, { dataKey: join.dataKey });
      this.#credentials = readCredentials(stateDir) ?? this.#credentials;
    }
    if (join) this.#book.set(Object.fromEntries(join.members.map(({ addr, nodeId }) => [nodeId, addr])));
    signal.throwIfAborted();
    const etcd = await EtcdSupervisor.start({
      stateDir,
      name: this.nodeId,
      binary: this.#options.etcdBinary ?? "etcd",
      forceNewCluster: bootstrap?.forceNewCluster ?? false,
      onRemoved: () => {
        this.#removed = true;
        this.#forgetLeader("this manager was removed");
        this.#changes.emit();
      },
      peers: { addrOf: (nodeId) => this.#book.addrOf(nodeId), credentials: () => this.#credentials },
      ...(join ? { join: join.members.map(({ nodeId }) => nodeId) } : {}),
      clock,
      log: this.#log,
    });
    this.#undo.defer(() => etcd.stop());
    etcd.setPeers(this.#book.nodes);
    this.#etcdAddress = etcd.address;
    this.#client = connectEtcd(etcd.address, this.#credentials);
    this.#undo.defer(() => this.#client?.close());
    const standing = new StandingWatch({
      status: (given) => this.#etcdClient().maintenance.status({}, { signal: given, timeoutMs: 1_000 }),
      alone: () => this.#book.nodes.length < 2,
      clock,
      onChange: () => this.#onStanding(),
    });
    this.#undo.defer(() => standing.close());
    while (standing.current.leader === 0n || standing.current.learner) {
      signal.throwIfAborted();
      await sleep(clock, 10, signal);
    }
    const fence = () => {
      if (this.#fence === undefined) throw noLeader();
      return this.#fence;
    };
    const backend = new EtcdBackend(() => this.#etcdClient(), this.nodeId, clock, this.#log, {
      fence,
      dataKey: this.#credentials.dataKey,
    });
    this.#undo.defer(() => backend.close());
    const store = await Store.open(backend, clock, this.#log);
    this.#undo.defer(() => store.close());
    if (!bootstrap && !store.view.get("cluster", this.clusterId)) {
      throw unavailable(`the swarm store holds no cluster ${this.clusterId}`);
    }
    this.#open = { etcd, backend, store, standing, control: this.#createControl(store) };
    this.#undo.defer(
      store.onCommit((changes) => {
        if (changes.some(({ kind }) => kind === "node")) this.#followManagers(store, etcd);
        for (const { action, kind, object } of changes) {
          // Whichever manager a removed node is connected to; what it was told last still leaves.
          if (kind !== "node" || action !== "remove") continue;
          this.#options.clock.after(FAREWELL_MS, () => this.#server?.disconnect(object.id));
        }
        for (const { kind, object, old } of changes) {
          if (kind !== "cluster") continue;
          if (object.rootCa !== old?.rootCa) this.#serveWith();
          this.#followLock(store);
        }
      }),
    );
    this.#followManagers(store, etcd);
    this.#onStanding();
    await this.#settling;
    if (bootstrap && !this.#reign) throw unavailable("the new swarm's manager does not lead");
    dropRootKey(stateDir);
    this.#serveWith();
    this.#followLock(store);
    this.#changes.emit();
    this.#log.info("the swarm manager serves", {
      node: this.nodeId,
      cluster: this.clusterId,
      address: this.#server?.address,
      leads: this.#reign !== undefined,
    });
  }

  /** Keeps the keys on disk as locked as the cluster says. */
  #followLock(store: Store): void {
    const { stateDir } = this.#options;
    const wanted = unlockKeyOf(store.view.get("cluster", this.clusterId));
    const held = heldUnlockKey(stateDir);
    if (Buffer.compare(wanted ?? Buffer.of(), held ?? Buffer.of()) === 0) return;
    lockKeysWith(stateDir, wanted);
    this.#log.info(
      wanted ? "the keys of this manager are locked from now on" : "the keys of this manager are unlocked",
    );
  }

  #followManagers(store: Store, etcd: EtcdSupervisor): void {
    if (this.#book.follow(store.view)) etcd.setPeers(this.#book.nodes);
  }

  #createControl(store: Store): ControlApi {
    const { clock } = this.#options;
    const nobody = { caller: () => undefined, require: () => ({ cn: "", ou: "", o: "" }), isDemoted: () => false };
    const unused = new LogBroker(store, nobody);
    unused.close();
    const read = createControl({
      ...{ store, clusterId: this.clusterId, clock },
      allocated: () => {
        throw noLeader();
      },
      logs: unused,
      disconnect: () => {},
    });
    const forwarded = forwardedWrites((request) => this.#sendWrite(request), read);
    const writes = Object.fromEntries(
      (Object.keys(forwarded) as (keyof typeof forwarded)[]).map((name) => [
        name,
        async (...given: never[]) => {
          const here = await this.#whoWrites();
          const act = (here ?? forwarded)[name] as (...given: never[]) => Promise<unknown>;
          return act(...given);
        },
      ]),
    ) as typeof forwarded;
    return {
      ...read,
      ...writes,
      isLeader: () => this.#reign !== undefined,
      logs: (selector, options, signal) => this.#logs(selector, options, signal),
    };
  }

  /** This manager's own control when a quorum says that it leads; undefined when another does. */
  async #whoWrites(): Promise<ControlApi | undefined> {
    for (;;) {
      await this.#awaitLeader();
      const reign = this.#reign?.reign;
      if (!reign || (await this.#confirmLead())) return reign?.control;
      await this.#nextLook();
    }
  }

  async #confirmLead(): Promise<boolean> {
    const over = this.#reign?.over.signal;
    if (!over || !this.#open) return false;
    if (this.#book.nodes.length < 2) return true;
    return this.#open.backend.confirmLead(LEAD_MS, over).catch(() => false);
  }

  async *#logs(...[selector, options, signal]: Parameters<ControlApi["logs"]>): ReturnType<ControlApi["logs"]> {
    await this.#awaitLeader();
    const here = this.#reign?.reign.control;
    if (here) {
      yield* here.logs(selector, options, signal);
      return;
    }
    const channel = this.#leaderChannel();
    if (!channel) throw noLeader();
    for await (const { messages } of channel.client(Logs).subscribeLogs({ selector, options }, { signal })) {
      yield* messages;
    }
  }

  /** Waits for a leader to be there; throws Docker's words when there is none for too long. */
  async #awaitLeader(): Promise<void> {
    for (;;) {
      if (this.#reign) return;
      const channel = this.#leaderChannel();
      if (channel && (await channel.ready(CONNECT_MS)) && this.#leader?.channel === channel) return;
      const refusal = this.refusal();
      if (refusal) throw refusal;
      await this.#nextLook();
    }
  }

  async #sendWrite(request: WriteRequest): Promise<string> {
    const channel = this.#leaderChannel();
    const store = this.#open?.store;
    const gone = this.#leader?.gone.signal;
    if (!channel || !store || !gone) throw noLeader();
    try {
      const answer = await channel.client(Managers).write(request, { signal: gone, timeoutMs: 20_000 });
      if (answer.error) throw writeError(answer.error);
      await store.reached(answer.revision);
      return answer.id;
    } catch (error) {
      const code = grpcCodeOf(error);
      const lost = code === status.UNAVAILABLE || code === status.CANCELLED || code === status.DEADLINE_EXCEEDED;
      throw lost ? noLeader() : error;
    }
  }

  // ---- the lead ----

  #onStanding(): void {
    this.#changes.emit();
    if (this.#reign && this.#open && !this.#sameReign(this.#open.standing)) this.#endReign();
    if (this.#leader && this.#leaderAddr() !== this.#leader.addr) this.#forgetLeader("another manager leads");
    if (!this.#open) return;
    if (this.#settling) {
      this.#settleAgain = true;
      return;
    }
    this.#settling = this.#settle().finally(() => {
      this.#settling = undefined;
      if (this.#settleAgain) {
        this.#settleAgain = false;
        this.#onStanding();
      }
    });
  }

  #sameReign(standing: StandingWatch): boolean {
    return standing.leading && standing.current.term === this.#reign?.term;
  }

  /** Takes the lead when it is this manager's. */
  async #settle(): Promise<void> {
    const open = this.#open;
    if (!open || this.#reign) return;
    const { backend, standing, store } = open;
    const { clock, stateDir } = this.#options;
    const bootstrap = this.#bootstrap;
    for (let wait = 100; standing.leading && !this.#closing.signal.aborted; wait = Math.min(2 * wait, 1_000)) {
      const { term } = standing.current;
      try {
        const fence = await backend.takeLead(this.nodeId, LEAD_MS);
        await store.reached(fence);
        if (!standing.leading || standing.current.term !== term) continue;
        this.#fence = fence;
        if (bootstrap && !store.view.get("cluster", this.clusterId)) {
          await createFirstObjects(store, stateDir, this.#credentials, bootstrap, this.#addr);
        }
        if (bootstrap?.forceNewCluster) await forgetOtherManagers(store, this.nodeId);
        await this.#announce(store, standing.current.self);
        if (!standing.leading || standing.current.term !== term) continue;
        this.#bootstrap = undefined;
        this.#beginReign(store, term);
        return;
      } catch (error) {
        this.#log.warn("the lead could not be taken, trying again", { error });
        await sleep(clock, wait, this.#closing.signal).catch(() => {});
      }
    }
  }

  #beginReign(store: Store, term: bigint): void {
    const authority = this.#authority;
    const server = this.#server;
    if (!authority || !server) return;
    const reign = startReign({
      store,
      nodeId: this.nodeId,
      clusterId: this.clusterId,
      addr: this.#addr,
      authority,
      members: this.#members,
      dataKey: () => this.#credentials.dataKey ?? new Uint8Array(),
      probe: (addr) => this.#probe(addr),
      confirmLead: () => this.#confirmLead(),
      disconnect: (id) => server.disconnect(id),
      isSilent: this.#options.isSilent,
      clock: this.#options.clock,
      log: this.#log,
    });
    this.#reign = { term, reign, over: new AbortController() };
    this.#log.info("this manager leads the swarm", { node: this.nodeId, term: String(term) });
    this.#changes.emit();
  }

  #endReign(): void {
    this.#fence = undefined;
    const current = this.#reign;
    if (!current) return;
    this.#reign = undefined;
    this.#log.info("this manager leads the swarm no more", { node: this.nodeId });
    current.over.abort(noLeader());
    current.reign.close();
  }

  /** Tells in the store who leads; a single write, so that a swarm's first start stays quick. */
  async #announce(store: Store, member: bigint): Promise<void> {
    await store.update((tx) => {
      for (const node of tx.all("node")) {
        const last = node.managerStatus;
        if (node.id === this.nodeId) {
          const managerStatus = create(ManagerStatusSchema, {
            raftId: member,
            addr: this.#addr,
            leader: true,
            reachability: RaftMemberStatus_Reachability.REACHABLE,
          });
          tx.update("node", { ...node, managerStatus });
        } else if (last?.leader) {
          tx.update("node", { ...node, managerStatus: { ...last, leader: false } });
        }
      }
    });
  }

  /** Gives the lead to another manager that answers, so that nobody has to wait for an election. */
  async #handOver(): Promise<void> {
    const open = this.#open;
    if (!open?.standing.leading) return;
    const heirs = open.store.view
      .all("node")
      .filter(({ id, managerStatus }) => {
        return id !== this.nodeId && managerStatus?.reachability === RaftMemberStatus_Reachability.REACHABLE;
      })
      .map(({ id }) => id);
    const heir = (await this.#members.list()).find(({ learner, nodeId }) => !learner && heirs.includes(nodeId));
    if (heir) await this.#members.moveLead(heir.id);
  }

  async #probe(addr: string): Promise<void> {
    const channel = nodeConnection(addr, this.#credentials);
    try {
      await channel.client(Health).check({}, { timeoutMs: PROBE_MS });
    } finally {
      channel.close();
    }
  }

  #leaderAddr(): string | undefined {
    const open = this.#open;
    if (!open) return undefined;
    const { leader, self } = open.standing.current;
    if (leader === 0n || leader === self) return undefined;
    return open.store.view.all("node").find(({ managerStatus }) => managerStatus?.raftId === leader)?.managerStatus
      ?.addr;
  }

  /** A connection to the leading manager; undefined when that is this one, or nobody. */
  #leaderChannel(): Channel | undefined {
    const addr = this.#leaderAddr();
    if (addr === undefined) return undefined;
    if (this.#leader?.addr === addr) return this.#leader.channel;
    this.#forgetLeader("another manager leads");
    const channel = nodeConnection(addr, this.#credentials);
    this.#leader = { addr, channel, gone: new AbortController() };
    return channel;
  }

  #forgetLeader(why: string): void {
    const last = this.#leader;
    this.#leader = undefined;
    last?.gone.abort(new GrpcError(status.UNAVAILABLE, why));
    last?.channel.close();
  }
}
