/** A manager in a process of its own, asked over node's IPC; what it writes to its log goes to stderr. */
import { create } from "@bufbuild/protobuf";
import {
  ClusterSpecSchema,
  NetworkSpecSchema,
  NodeSpec_Availability,
  SecretSpecSchema,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { NodeDescriptionSchema, NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import { answer, usage } from "../../../bench/support/process.ts";
import { IdleHost } from "../../../bench/support/scale-host.ts";
import { createLogger } from "../../../src/base/log.ts";
import { createSwarmNode } from "../../../src/swarm/node/node.ts";

const [stateDir = "", addr = ""] = process.argv.slice(2);
const lines: string[] = [];
const plugins = [
  { type: "Network", name: "overlay" },
  { type: "Manager", name: "skein" },
];
const executor = new IdleHost(`manager-${addr}`);
const describe = executor.describe.bind(executor);
executor.describe = async () => {
  const { $typeName: _type, ...description } = await describe();
  return create(NodeDescriptionSchema, { ...description, engine: { engineVersion: "simulated", plugins } });
};
const node = createSwarmNode({
  stateDir,
  executor,
  log: createLogger((line) => lines.push(line), "warn"),
});
const availability = NodeSpec_Availability.DRAIN;

answer(
  {
    init: async () => {
      await node.init({
        ...{ listenAddr: addr, advertiseAddr: addr, dataPathAddr: "", dataPathPort: 0, availability },
        ...{ forceNewCluster: false, autoLock: false, defaultAddressPool: [], subnetSize: 0 },
        spec: create(ClusterSpecSchema),
      });
    },
    join: async ({ remote, token }: { remote: string; token: string }) => {
      const addresses = { listenAddr: addr, advertiseAddr: addr, dataPathAddr: "" };
      await node.join({ ...addresses, remoteAddrs: [remote], joinToken: token, availability });
    },
    cluster: () => {
      const { id, rootCa } = node.control().cluster();
      const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString();
      return {
        id,
        root: { certPem: text(rootCa?.caCert), keyPem: text(rootCa?.caKey) },
        worker: rootCa?.joinTokens?.worker ?? "",
        manager: rootCa?.joinTokens?.manager ?? "",
      };
    },
    /** Begins a rotation of the root. */
    rotateRoot: async () => {
      const { meta, spec } = node.control().cluster();
      const { caConfig } = spec ?? {};
      if (!spec || !caConfig) throw new Error("the cluster has no spec");
      const next = { ...spec, caConfig: { ...caConfig, forceRotate: caConfig.forceRotate + 1n } };
      const rotation = { worker: false, manager: false, unlockKey: false };
      await node.control().updateCluster(meta?.version?.index ?? 0n, next, rotation);
    },
    rotating: () => node.control().cluster().rootCa?.rootRotation !== undefined,
    /** Writes something, as any user of this manager would. */
    write: async (name: string) => {
      const spec = create(SecretSpecSchema, { annotations: { name }, data: Buffer.from("x") });
      const { id } = await node.control().createSecret(spec);
      await node.control().removeSecret(id);
    },
    rotateTokens: async () => {
      const { meta, spec } = node.control().cluster();
      await node.control().updateCluster(meta?.version?.index ?? 0n, spec ?? create(ClusterSpecSchema), {
        ...{ worker: true, manager: true, unlockKey: false },
      });
    },
    nodes: () =>
      node
        .control()
        .nodes()
        .map(({ id, managerStatus, role }) => ({
          id,
          manager: role === NodeRole.MANAGER,
          leader: managerStatus?.leader,
        })),
    demote: async (id: string) => {
      const { meta, spec } = node.control().node(id) ?? {};
      if (!spec) throw new Error(`no node ${id}`);
      await node.control().updateNode(id, meta?.version?.index ?? 0n, { ...spec, desiredRole: NodeRole.WORKER });
    },
    removeNode: (id: string) => node.control().removeNode(id, true),
    service: async (replicas: number) => {
      const spec = create(ServiceSpecSchema, {
        annotations: { name: "web" },
        mode: { case: "replicated", value: { replicas: BigInt(replicas) } },
        task: { runtime: { case: "container", value: { image: "x" } } },
      });
      return (await node.control().createService(spec)).id;
    },
    network: async () => {
      const spec = create(NetworkSpecSchema, { annotations: { name: "net" }, attachable: true });
      return (await node.control().createNetwork(spec)).id;
    },
    tasks: () =>
      node
        .control()
        .tasks()
        .map(({ id, nodeId, status }) => ({ id, nodeId, state: status?.state, err: status?.err ?? "" })),
    /** The whole log. */
    log: () => lines,
    usage,
  },
  () => Promise.resolve(node[Symbol.asyncDispose]()),
);
