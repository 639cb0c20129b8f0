/** The manager's control API: what `docker service|network|node|secret|config|swarm` ask, answered from the store. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { NetworkSchema, type Service, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import {
  ClusterSpecSchema,
  type NetworkSpec,
  NetworkSpecSchema,
  type NodeSpec,
  NodeSpec_Membership,
  NodeSpecSchema,
  type ServiceSpec,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  BlacklistedCertificateSchema,
  JobStatusSchema,
  NodeRole,
  NodeStatus_State,
  TaskState,
  VersionSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { notFound } from "../../../base/errors.ts";
import { swarmId } from "../../../base/id.ts";
import { validityOf } from "../../ca/certificates.ts";
import { formatUnlockKey } from "../../ca/seal.ts";
import { type Kind, type ObjectOf, versionOf } from "../../store/objects.ts";
import type { Store } from "../../store/store.ts";
import type { Transaction } from "../../store/transaction.ts";
import type { ControlApi } from "../../types.ts";
import { isIngress } from "../allocator/drivers.ts";
import type { AllocatorState } from "../allocator/state.ts";
import type { Authorities } from "../authorities.ts";
import { makesUnlockKey, unlockKeyOf } from "../autolock.ts";
import { PREDEFINED_LABEL, withDefaults } from "../bootstrap.ts";
import type { LogBroker } from "../log-broker.ts";
import { rolledBack } from "../orchestrator/updater.ts";
import { rootAfter } from "../root-wanted.ts";
import { isOver } from "../tasks.ts";
import { checkCluster, updatedCluster } from "./cluster.ts";
import { dependencyApi } from "./dependencies.ts";
import { rpcError } from "./errors.ts";
import { checkDemotable, checkPromotable } from "./roles.ts";
import { checkNetwork, checkService, resolveNetworks, usersOfNetwork } from "./validate.ts";
import { atSpecVersion, atVersion, canonical, creating } from "./writing.ts";

export interface ControlOptions {
  readonly store: Store;
  readonly clusterId: string;
  readonly clock: Clock;
  readonly allocated: () => AllocatorState;
  readonly logs: LogBroker;
  readonly authorities: Authorities;
  /** Does this when everything is written under a data key that was on no disk before, and nothing is encrypted anew yet. */
  readonly underFreshKey: (work: () => Promise<void>) => Promise<void>;
}

export function createControl(options: ControlOptions): ControlApi {
  const { store, clusterId } = options;
  const current = <K extends Kind>(kind: K, id: string): ObjectOf<K> => {
    const object = store.view.get(kind, id);
    if (!object) throw notFound(`${kind} ${id} not found`);
    return object;
  };
  return {
    cluster: () => current("cluster", clusterId),
    isLeader: () => true,
    unlockKey: async () => {
      const key = unlockKeyOf(current("cluster", clusterId));
      return key ? formatUnlockKey(key) : "";
    },
    updateCluster: async (version, given, rotation) => {
      const spec = withDefaults(canonical(ClusterSpecSchema, given));
      const before = current("cluster", clusterId);
      checkCluster(spec);
      const rootCa = await rootAfter(before, spec, options.clock.now(), options.authorities);
      const write = () =>
        store.update((tx) => {
          const cluster = atVersion(tx, "cluster", clusterId, version);
          const updated = updatedCluster(cluster, spec, rotation);
          tx.update("cluster", { ...updated, rootCa: { ...rootCa, joinTokens: updated.rootCa?.joinTokens } });
        });
      if (makesUnlockKey(spec, before, rotation.unlockKey)) {
        atVersion(store.view, "cluster", clusterId, version);
        // Whoever has the data key of today would find the unlock key in the store, and with that every data key to come.
        await options.underFreshKey(write);
      } else {
        await write();
      }
      return current("cluster", clusterId);
    },

    nodes: () => store.view.all("node"),
    node: (id) => store.view.get("node", id),
    updateNode: async (id, version, given) => {
      const spec = canonical(NodeSpecSchema, given);
      await store.update((tx) => updateNode(tx, id, version, spec));
      return current("node", id);
    },
    removeNode: (id, force) => store.update((tx) => removeNode(tx, clusterId, id, force, options.clock.now())),

    services: () => store.view.all("service"),
    service: (id) => store.view.get("service", id),
    createService: async (given) => {
      const spec = canonical(ServiceSpecSchema, given);
      const id = swarmId();
      const work = store.update((tx) => {
        const resolved = resolveNetworks(spec, tx);
        checkService(resolved, tx);
        const version = create(VersionSchema, { index: store.revision });
        const service = create(ServiceSchema, { id, spec: resolved, specVersion: version });
        if (isJob(spec)) {
          service.jobStatus = create(JobStatusSchema, {
            jobIteration: { index: 0n },
            lastExecution: timestampFromMs(options.clock.now()),
          });
        }
        tx.create("service", service);
      });
      await creating("service", spec.annotations?.name ?? "", work);
      return current("service", id);
    },
    updateService: async (id, version, given, rollback) => {
      const spec = canonical(ServiceSpecSchema, given);
      const work = store.update((tx) => {
        const service = atSpecVersion(tx, id, version);
        tx.update("service", rollback ? rolled(service, tx, options) : updatedService(service, spec, tx, options));
      });
      await creating("service", spec.annotations?.name ?? "", work);
      return current("service", id);
    },
    removeService: (id) =>
      store.update((tx) => {
        if (!tx.get("service", id)) throw rpcError("NotFound", `service ${id} not found`);
        tx.remove("service", id);
      }),

    tasks: () => store.view.all("task"),
    task: (id) => store.view.get("task", id),
    removeTask: (id) =>
      store.update((tx) => {
        if (!tx.get("task", id)) throw rpcError("NotFound", `task ${id} not found`);
        tx.remove("task", id);
      }),

    networks: () => store.view.all("network"),
    network: (id) => store.view.get("network", id),
    createNetwork: (spec) => createNetwork(options, canonical(NetworkSpecSchema, spec)),
    removeNetwork: (id) => store.update((tx) => removeNetwork(tx, id)),

    ...dependencyApi(store),

    logs: (selector, logOptions, signal) => options.logs.subscribe(selector, logOptions, signal),
    onChange: (listener) =>
      store.onCommit((changes) => {
        for (const { action, kind, object, old } of changes)
          listener({ action, kind, object, ...(old ? { old } : {}) });
      }),
  };
}

function updateNode(tx: Transaction, id: string, version: bigint, spec: NodeSpec): void {
  const node = atVersion(tx, "node", id, version);
  if (spec.desiredRole !== node.spec?.desiredRole) {
    if (spec.desiredRole === NodeRole.MANAGER) checkPromotable(node);
    else checkDemotable(node, tx);
  }
  if (node.spec?.membership === NodeSpec_Membership.ACCEPTED && spec.membership !== NodeSpec_Membership.ACCEPTED) {
    throw rpcError("InvalidArgument", "the membership of an accepted node cannot be taken back");
  }
  tx.update("node", { ...node, spec });
}

function removeNode(tx: Transaction, clusterId: string, id: string, force: boolean, now: number): void {
  const node = tx.get("node", id);
  if (!node) throw rpcError("NotFound", `node ${id} not found`);
  if (node.spec?.desiredRole === NodeRole.MANAGER || node.managerStatus) {
    throw rpcError(
      "FailedPrecondition",
      `node ${id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    );
  }
  if (!force && node.status?.state === NodeStatus_State.READY) {
    throw rpcError("FailedPrecondition", `node ${id} is not down and can't be removed`);
  }
  const cluster = tx.get("cluster", clusterId);
  if (cluster) {
    const pem = new TextDecoder().decode(node.certificate?.certificate);
    const until = pem ? validityOf(pem).notAfter : now + 90 * 86_400_000;
    const entry = create(BlacklistedCertificateSchema, { expiry: timestampFromMs(until) });
    const kept = Object.entries(cluster.blacklistedCertificates).filter(
      ([, { expiry }]) => Number(expiry?.seconds ?? 0n) * 1000 > now,
    );
    tx.update("cluster", { ...cluster, blacklistedCertificates: { ...Object.fromEntries(kept), [id]: entry } });
  }
  for (const task of tx.tasksOfNode(id)) {
    if (isOver(task) || !task.status) continue;
    const status = {
      ...task.status,
      state: TaskState.ORPHANED,
      message: "node removed",
      timestamp: timestampFromMs(now),
    };
    tx.update("task", { ...task, status });
  }
  tx.remove("node", id);
}

const isJob = (spec: ServiceSpec) => spec.mode.case === "replicatedJob" || spec.mode.case === "globalJob";

function updatedService(service: Service, spec: ServiceSpec, tx: Transaction, options: ControlOptions): Service {
  const resolved = resolveNetworks(spec, tx);
  checkService(resolved, tx, service.id);
  if (service.spec?.mode.case !== spec.mode.case) throw rpcError("Unimplemented", "service mode change is not allowed");
  const next: Service = {
    ...service,
    spec: resolved,
    specVersion: create(VersionSchema, { index: versionOf(service) }),
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
    updateStatus: undefined,
  };
  if (isJob(spec)) {
    next.jobStatus = create(JobStatusSchema, {
      jobIteration: { index: (service.jobStatus?.jobIteration?.index ?? 0n) + 1n },
      lastExecution: timestampFromMs(options.clock.now()),
    });
  }
  return next;
}

function rolled(service: Service, tx: Transaction, options: ControlOptions): Service {
  if (service.spec && isJob(service.spec)) {
    throw rpcError("FailedPrecondition", "service jobs cannot be rolled back");
  }
  if (!service.previousSpec)
    throw rpcError("FailedPrecondition", `service ${service.id} does not have a previous spec`);
  checkService(service.previousSpec, tx, service.id);
  // A second rollback undoes the first; that of an update that failed cannot be undone.
  const { spec, specVersion } = service;
  return {
    ...rolledBack(service, "manually requested rollback", options.clock.now()),
    previousSpec: spec,
    previousSpecVersion: specVersion,
  };
}

async function createNetwork({ store, allocated }: ControlOptions, spec: NetworkSpec) {
  const id = swarmId();
  const work = store.update((tx) => {
    checkNetwork(spec, tx, allocated());
    tx.create("network", create(NetworkSchema, { id, spec }));
  });
  await creating("network", spec.annotations?.name ?? "", work);
  const network = store.view.get("network", id);
  if (!network) throw notFound(`network ${id} not found`);
  return network;
}

function removeNetwork(tx: Transaction, id: string): void {
  const network = tx.get("network", id);
  if (!network) throw rpcError("NotFound", `network ${id} not found`);
  const name = network.spec?.annotations?.name;
  if (network.spec?.annotations?.labels[PREDEFINED_LABEL]) {
    throw rpcError("FailedPrecondition", `${name} is a pre-defined network and cannot be removed`);
  }
  if (isIngress(network)) {
    const user = tx.all("service").find((service) => service.endpoint?.virtualIps.some((vip) => vip.networkId === id));
    if (user) {
      throw rpcError(
        "FailedPrecondition",
        `ingress network (${name}) cannot be removed because service ${user.id} depends on it`,
      );
    }
  }
  const [service] = usersOfNetwork(network, tx);
  if (service) throw rpcError("FailedPrecondition", `network ${id} is in use by service ${service.id}`);
  // A task of a removed service is on its way out, though the orchestrator may not have told it yet: `stack rm` asks for
  // its networks in the same breath.
  const task = tx
    .all("task")
    .find(
      (candidate) =>
        !isOver(candidate) &&
        candidate.desiredState <= TaskState.COMPLETE &&
        (candidate.serviceId === "" || tx.get("service", candidate.serviceId) !== undefined) &&
        candidate.networks.some((attachment) => attachment.network?.id === id),
    );
  if (task) throw rpcError("FailedPrecondition", `network ${id} is in use by task ${task.id}`);
  tx.remove("network", id);
}
