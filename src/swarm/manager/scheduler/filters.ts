/** The conditions a node must meet for a task, in SwarmKit's order and words. */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { Mount_Type, NodeStatus_State } from "#proto/docker/swarmkit/types_pb.js";
import { hasPublishLabels } from "../../../base/publish.ts";
import { isOurs } from "../control/roles.ts";
import { type Constraint, meets, parseConstraints } from "./constraints.ts";
import { genericAmounts, hostPorts, type NodeInfo } from "./nodes.ts";

export interface Filter {
  check(info: NodeInfo): boolean;
  /** Why these many nodes were refused. */
  explain(nodes: number): string;
}

const on = (nodes: number) => (nodes === 1 ? "on 1 node" : `on ${nodes} nodes`);

const ready: Filter = {
  check: ({ node }) =>
    node.status?.state === NodeStatus_State.READY && node.spec?.availability === NodeSpec_Availability.ACTIVE,
  explain: (nodes) =>
    nodes === 1 ? "1 node not available for new tasks" : `${nodes} nodes not available for new tasks`,
};

function resources(task: Task): Filter | undefined {
  const wanted = task.spec?.resources?.reservations;
  if (!wanted || (wanted.nanoCpus === 0n && wanted.memoryBytes === 0n && wanted.generic.length === 0)) return undefined;
  const generic = genericAmounts(wanted.generic);
  return {
    check: (info) => {
      const has = info.node.description?.resources;
      if (!has) return false;
      const owned = genericAmounts(has.generic);
      return (
        wanted.nanoCpus <= has.nanoCpus - info.nanoCpus &&
        wanted.memoryBytes <= has.memoryBytes - info.memoryBytes &&
        [...generic].every(([kind, amount]) => amount <= (owned.get(kind) ?? 0n) - (info.generic.get(kind) ?? 0n))
      );
    },
    explain: (nodes) => `insufficient resources ${on(nodes)}`,
  };
}

function plugins(task: Task): Filter | undefined {
  const needed: [string, string][] = [];
  for (const { network } of task.networks) if (network?.driverState) needed.push(["Network", network.driverState.name]);
  if (task.spec?.runtime.case === "container") {
    for (const mount of task.spec.runtime.value.mounts) {
      const driver = mount.volumeOptions?.driverConfig?.name;
      if (mount.type === Mount_Type.VOLUME && driver && driver !== "local") needed.push(["Volume", driver]);
    }
  }
  const log = task.logDriver ?? task.spec?.logDriver;
  if (log && log.name !== "" && log.name !== "none") needed.push(["Log", log.name]);
  if (needed.length === 0) return undefined;
  return {
    check: ({ node }) => {
      const engine = node.description?.engine;
      if (!engine) return true;
      const has = new Set(engine.plugins.map(({ type, name }) => `${type}/${name.replace(/:latest$/, "")}`));
      const listsLogs = engine.plugins.some(({ type }) => type === "Log");
      return needed.every(([type, name]) => {
        if (type === "Log" && !listsLogs) return true;
        if (type === "Network" && (name === "host" || name === "none")) return true;
        return has.has(`${type}/${name.replace(/:latest$/, "")}`);
      });
    },
    explain: (nodes) => `missing plugin ${on(nodes)}`,
  };
}

function constraints(task: Task): Filter | undefined {
  const expressions = task.spec?.placement?.constraints ?? [];
  if (expressions.length === 0) return undefined;
  let parsed: Constraint[] | undefined;
  try {
    parsed = parseConstraints(expressions);
  } catch {
    parsed = undefined;
  }
  return {
    check: ({ node }) => parsed !== undefined && meets(node, parsed),
    explain: (nodes) => `scheduling constraints not satisfied ${on(nodes)}`,
  };
}

const ARCHITECTURES: Record<string, string> = { x86_64: "amd64", aarch64: "arm64" };
const architecture = (name: string) => ARCHITECTURES[name.toLowerCase()] ?? name.toLowerCase();

function platforms(task: Task): Filter | undefined {
  const wanted = task.spec?.placement?.platforms ?? [];
  if (wanted.length === 0) return undefined;
  return {
    check: ({ node }) => {
      const has = node.description?.platform;
      if (!has) return true;
      return wanted.some(
        ({ os, architecture: arch }) =>
          (os === "" || os.toLowerCase() === has.os.toLowerCase()) &&
          (arch === "" || architecture(arch) === architecture(has.architecture)),
      );
    },
    explain: (nodes) => `unsupported platform ${on(nodes)}`,
  };
}

function ports(task: Task): Filter | undefined {
  const wanted = hostPorts(task);
  if (wanted.length === 0) return undefined;
  return {
    check: (info) => wanted.every((port) => !info.ports.has(port)),
    explain: (nodes) => `host-mode port already in use ${on(nodes)}`,
  };
}

/** Nodes of Docker would publish at every address. */
function publishing(task: Task): Filter | undefined {
  if ((task.endpoint?.ports.length ?? 0) === 0) return undefined;
  if (!hasPublishLabels(task.serviceAnnotations?.labels ?? {})) return undefined;
  return {
    check: ({ node }) => isOurs(node),
    explain: (nodes) => `labels skein.publish not supported ${on(nodes)}`,
  };
}

function maxReplicas(task: Task): Filter | undefined {
  const limit = task.spec?.placement?.maxReplicas ?? 0n;
  if (limit === 0n) return undefined;
  return {
    check: (info) => BigInt(info.byService.get(task.serviceId) ?? 0) < limit,
    explain: () => "max replicas per node limit exceed",
  };
}

/** The filters that concern this task. */
function filtersFor(task: Task): Filter[] {
  const optional = [resources, plugins, constraints, platforms, ports, publishing, maxReplicas];
  return [ready, ...optional.flatMap((make) => make(task) ?? [])];
}

/** The first filter that refuses each node; explains with the most frequent reason first. */
export class Pipeline {
  readonly #filters: Filter[];
  readonly #refused: number[];

  constructor(task: Task) {
    this.#filters = filtersFor(task);
    this.#refused = this.#filters.map(() => 0);
  }

  check(info: NodeInfo): boolean {
    const at = this.#filters.findIndex((filter) => !filter.check(info));
    if (at < 0) return true;
    this.#refused[at] = (this.#refused[at] ?? 0) + 1;
    return false;
  }

  /** "no suitable node (insufficient resources on 2 nodes; …)". */
  explain(): string {
    const reasons = this.#filters
      .map((filter, at) => ({ count: this.#refused[at] ?? 0, text: filter.explain(this.#refused[at] ?? 0) }))
      .filter(({ count }) => count > 0)
      .sort((a, b) => b.count - a.count)
      .map(({ text }) => text);
    return reasons.length === 0 ? "no suitable node" : `no suitable node (${reasons.join("; ")})`;
  }
}
