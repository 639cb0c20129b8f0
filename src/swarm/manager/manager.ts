/** One manager put together: etcd, store, the loops that keep the swarm true, and the port that nodes talk to. */
import { create } from "@bufbuild/protobuf";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { Dispatcher as DispatcherService } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "#proto/docker/swarmkit/health_pb.js";
import { LogBroker as LogBrokerService, Logs } from "#proto/docker/swarmkit/logbroker_pb.js";
import { RaftMembership } from "#proto/docker/swarmkit/raftmember_pb.js";
import { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import { ManagerStatusSchema, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import { sleep } from "../../base/clock.ts";
import { errnoOf, messageOf, SkeinError, unavailable } from "../../base/errors.ts";
import { addService, GrpcError, type Server, status } from "../../base/grpc.ts";
import { MANAGER_OU } from "../ca/certificates.ts";
import { dropRootKey, readCredentials } from "../ca/files.ts";
import { EtcdBackend } from "../store/etcd/backend.ts";
import { connectEtcd } from "../store/etcd/client.ts";
import { EtcdSupervisor } from "../store/etcd/supervisor.ts";
import { Store } from "../store/store.ts";
import { Allocator } from "./allocator/allocator.ts";
import { type Authority, createAuthority, guarded, MANAGERS, NODES } from "./auth.ts";
import { createFirstObjects } from "./bootstrap.ts";
import { CaServer } from "./ca-server.ts";
import { createControl } from "./control/control.ts";
import { Dispatcher } from "./dispatcher/dispatcher.ts";
import { KeyManager } from "./keys.ts";
import { LogBroker } from "./log-broker.ts";
import { Enforcer } from "./orchestrator/enforcer.ts";
import { Orchestrator } from "./orchestrator/orchestrator.ts";
import { Reaper } from "./orchestrator/reaper.ts";
import { resourceHandlers } from "./resources.ts";
import { RootRotator } from "./root-rotation.ts";
import { Scheduler } from "./scheduler/scheduler.ts";
import { joinAddress, listenManager, splitAddress } from "./server.ts";
import type { Manager, ManagerOptions } from "./types.ts";

/** Time for the last messages to nodes to leave this host. */
const FAREWELL_MS = 50;

export { bootstrapCluster } from "./bootstrap.ts";

/** Starts a manager on the certificates in `stateDir`; resolves when it serves. */
export async function startManager(options: ManagerOptions): Promise<Manager> {
  const { stateDir, clock, log } = options;
  const first = readCredentials(stateDir);
  if (!first) throw unavailable("this node has no swarm certificates");
  if (first.identity.ou !== MANAGER_OU) throw unavailable("this node is not a swarm manager");
  const { cn: nodeId, o: clusterId } = first.identity;
  let credentials = first;
  await using undo = new AsyncDisposableStack();

  const etcd = await EtcdSupervisor.start({
    stateDir,
    name: nodeId,
    binary: options.etcdBinary ?? "etcd",
    forceNewCluster: options.bootstrap?.forceNewCluster ?? false,
    clock,
    log,
  });
  undo.defer(() => etcd.stop());
  let client = connectEtcd(etcd.address, credentials);
  undo.defer(() => client.close());
  const backend = new EtcdBackend(() => client, nodeId, clock, log);
  undo.defer(() => backend.close());
  const store = await Store.open(backend, clock, log);
  undo.defer(() => store.close());
  if (options.bootstrap && !store.view.get("cluster", clusterId)) {
    await createFirstObjects(store, stateDir, first, options.bootstrap, options.advertiseAddr);
  }
  if (!store.view.get("cluster", clusterId)) throw unavailable(`the swarm store holds no cluster ${clusterId}`);
  dropRootKey(stateDir);

  const isBlacklisted = (id: string) =>
    Object.hasOwn(store.view.get("cluster", clusterId)?.blacklistedCertificates ?? {}, id);
  let dispatcher: Dispatcher | undefined;
  const server = await listen(options, credentials, (grpc, identityOf) => {
    const authority = createAuthority(identityOf, clusterId, isBlacklisted);
    const ca = new CaServer(store, clusterId, authority, clock, log);
    dispatcher = new Dispatcher({
      ...{ store, clusterId, authority, clock, log },
      managerId: nodeId,
      managerHost: splitAddress(options.advertiseAddr).host,
    });
    const broker = new LogBroker(store, authority);
    undo.defer(() => ca.close());
    undo.defer(() => broker.close());
    addService(grpc, CA, ca.root());
    addService(grpc, NodeCA, ca.node());
    addService(grpc, DispatcherService, guarded<typeof DispatcherService>(authority, NODES, dispatcher.handlers()));
    addService(grpc, LogBrokerService, broker.broker());
    addService(grpc, Logs, broker.logs());
    addService(grpc, ResourceAllocator, resourceHandlers(store, authority, clock));
    addHealth(grpc, authority);
    addRaftRefusal(grpc, authority, store);
    return broker;
  });
  undo.defer(() => server.server.close());
  // Before the connections go: nodes are told that this manager leaves.
  undo.defer(async () => {
    dispatcher?.close();
    await sleep(clock, FAREWELL_MS);
  });

  const bound = splitAddress(server.server.address);
  const advertised = splitAddress(options.advertiseAddr);
  const addr = joinAddress(advertised.host, advertised.port || bound.port);
  await store.update((tx) => {
    const node = tx.get("node", nodeId);
    if (!node) return;
    const managerStatus = create(ManagerStatusSchema, {
      raftId: node.managerStatus?.raftId || 1n,
      addr,
      leader: true,
      reachability: RaftMemberStatus_Reachability.REACHABLE,
    });
    tx.update("node", { ...node, managerStatus });
  });

  // Peers are judged by the root in the store: it may be newer than the one on disk.
  const rootPem = () => new TextDecoder().decode(store.view.get("cluster", clusterId)?.rootCa?.caCert);
  const serve = () => server.server.setCredentials({ ...credentials, rootPem: rootPem() });
  serve();
  undo.defer(
    store.onCommit((changes) => {
      const rotated = changes.some(({ kind, object, old }) => kind === "cluster" && object.rootCa !== old?.rootCa);
      if (rotated) serve();
    }),
  );

  const allocator = new Allocator(store, clusterId, clock, log);
  const loops = [
    allocator,
    new Scheduler(store, clock, log),
    new Orchestrator(store, clusterId, clock, log),
    new Reaper(store, clusterId, clock, log),
    new Enforcer(store, clock, log),
    new KeyManager(store, clusterId, clock, log),
    new RootRotator(store, clusterId, clock, log),
  ];
  undo.defer(() => {
    for (const loop of loops) loop.close();
  });

  const control = createControl({
    store,
    clusterId,
    clock,
    allocated: () => allocator.state,
    logs: server.broker,
    disconnect: (id) => server.server.disconnect(id),
  });
  const stack = undo.move();
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= stack.disposeAsync();
    return closing;
  };
  log.info("the swarm manager serves", { node: nodeId, cluster: clusterId, address: server.server.address });
  const wildcard = bound.host === "0.0.0.0" || bound.host === "::";
  return {
    control,
    nodeId,
    clusterId,
    localAddr: wildcard ? joinAddress(bound.host === "::" ? "::1" : "127.0.0.1", bound.port) : server.server.address,
    failed: new Promise<never>(() => {}),
    reloadCertificate() {
      const next = readCredentials(stateDir);
      if (!next || next.identity.cn !== nodeId) return;
      credentials = next;
      serve();
      const old = client;
      client = connectEtcd(etcd.address, next);
      old.close();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function listen(
  options: ManagerOptions,
  credentials: NonNullable<ReturnType<typeof readCredentials>>,
  register: (...args: Parameters<Parameters<typeof listenManager>[2]>) => LogBroker,
) {
  let broker: LogBroker | undefined;
  try {
    const server = await listenManager(
      options.listenAddr,
      credentials,
      (grpc, identityOf) => {
        broker = register(grpc, identityOf);
      },
      () => options.clock.now(),
      options.log,
    );
    if (!broker) throw unavailable("the manager's services were not registered");
    return { server, broker };
  } catch (error) {
    if (errnoOf(error) === "EADDRINUSE") {
      throw new SkeinError("unavailable", `listen tcp ${options.listenAddr}: bind: address already in use`, {
        cause: error,
      });
    }
    if (errnoOf(error) !== undefined) throw unavailable(`listen tcp ${options.listenAddr}: ${messageOf(error)}`);
    throw error;
  }
}

function addHealth(grpc: Server, authority: Authority): void {
  addService(grpc, Health, {
    check: (_request, context) => {
      authority.require(context, MANAGERS);
      return { status: HealthCheckResponse_ServingStatus.SERVING };
    },
  });
}

/** Docker's managers replicate a store of their own by Raft: they cannot be managers here. */
function addRaftRefusal(grpc: Server, authority: Authority, store: Store): void {
  addService(grpc, RaftMembership, {
    join: async (_request, context) => {
      const { cn } = authority.require(context, MANAGERS);
      await store.update((tx) => {
        const node = tx.get("node", cn);
        if (node && !node.managerStatus) tx.remove("node", cn);
      });
      throw new GrpcError(
        status.FAILED_PRECONDITION,
        "this swarm is managed by Skein, whose managers keep their state in etcd: a Docker node can join it as a worker only",
      );
    },
  });
}
