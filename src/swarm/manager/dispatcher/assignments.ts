/**
 * What one node has been told to do: the tasks assigned to it and the secrets and configs they need. Pure: compares the
 * store with what was told and gives the next message.
 */
import { create, equals } from "@bufbuild/protobuf";
import {
  type AssignmentChange,
  AssignmentChange_AssignmentAction,
  AssignmentChangeSchema,
  AssignmentSchema,
  type AssignmentsMessage,
  AssignmentsMessage_Type,
  AssignmentsMessageSchema,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import { ConfigSchema, SecretSchema, type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import type { TaskSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { ResourceType, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Reader } from "../../store/memory.ts";
import { versionOf } from "../../store/objects.ts";
import { isOurs } from "../control/roles.ts";

const { UPDATE, REMOVE } = AssignmentChange_AssignmentAction;

/** Ids of what a task needs besides itself. */
export function dependenciesOf(spec: TaskSpec | undefined): { secrets: string[]; configs: string[] } {
  const secrets = new Set<string>();
  const configs = new Set<string>();
  for (const { resourceId, resourceType } of spec?.resourceReferences ?? []) {
    if (resourceType === ResourceType.SECRET) secrets.add(resourceId);
    if (resourceType === ResourceType.CONFIG) configs.add(resourceId);
  }
  if (spec?.runtime.case === "container") {
    for (const { secretId } of spec.runtime.value.secrets) secrets.add(secretId);
    for (const { configId } of spec.runtime.value.configs) configs.add(configId);
  }
  return { secrets: [...secrets], configs: [...configs] };
}

const stateOf = (task: Task) => task.status?.state ?? TaskState.NEW;
const isOver = (task: Task) => stateOf(task) > TaskState.RUNNING;

/** True when the agent need not hear of the difference: it owns the status once it has accepted the task. */
function sameForAgent(a: Task, b: Task): boolean {
  if (a === b) return true;
  if (stateOf(b) <= TaskState.ASSIGNED && stateOf(a) !== stateOf(b)) return false;
  if (a.desiredState !== b.desiredState || a.nodeId !== b.nodeId) return false;
  if (a.spec === b.spec && a.networks === b.networks && a.endpoint === b.endpoint && a.annotations === b.annotations) {
    return true;
  }
  const stable = (task: Task): Task => ({ ...task, meta: undefined, status: undefined });
  return equals(TaskSchema, stable(a), stable(b));
}

type Dependency = "secret" | "config";

export class AssignmentSet {
  readonly #nodeId: string;
  readonly #mayBegin: (task: Task) => boolean;
  #tasks = new Map<string, Task>();
  /** Version of each secret and config the node has. */
  #told = { secret: new Map<string, bigint>(), config: new Map<string, bigint>() };
  /** Tasks that use a secret or config. */
  #users = { secret: new Map<string, Set<string>>(), config: new Map<string, Set<string>>() };
  #results = 0;

  /** `mayBegin`: whether the node can be given a task of which it does not know yet; if not, it is asked for again later. */
  constructor(nodeId: string, mayBegin: (task: Task) => boolean = () => true) {
    this.#nodeId = nodeId;
    this.#mayBegin = mayBegin;
  }

  /** The first message: everything. */
  complete(store: Reader): AssignmentsMessage {
    const changes = this.#changes(
      store,
      store.tasksOfNode(this.#nodeId).map(({ id }) => id),
    );
    return this.#message(AssignmentsMessage_Type.COMPLETE, changes);
  }

  /** The next message, given what may have changed; undefined when the node need not know. */
  next(store: Reader, taskIds: Iterable<string>, dependencyIds: Iterable<[Dependency, string]>) {
    const changes = this.#changes(store, taskIds);
    for (const [kind, id] of dependencyIds) {
      if (this.#users[kind].has(id)) changes.push(...this.#tell(store, kind, id));
    }
    return changes.length === 0 ? undefined : this.#message(AssignmentsMessage_Type.INCREMENTAL, changes);
  }

  /** The last message, to a node that was taken out of the swarm while it lives: it is to end all it was given. */
  farewell(): AssignmentsMessage | undefined {
    const tasks = [...this.#tasks.values()];
    this.#tasks.clear();
    if (tasks.length === 0) return undefined;
    const removals = tasks.map(({ id }) => change(REMOVE, { case: "task", value: create(TaskSchema, { id }) }));
    return this.#message(AssignmentsMessage_Type.INCREMENTAL, [
      ...removals,
      ...tasks.flatMap((task) => this.#release(task)),
    ]);
  }

  #message(type: AssignmentsMessage_Type, changes: AssignmentChange[]): AssignmentsMessage {
    const appliesTo = this.#results === 0 ? "" : String(this.#results);
    return create(AssignmentsMessageSchema, { type, changes, appliesTo, resultsIn: String(++this.#results) });
  }

  /** What a task gives up is taken back last: another one may have come to need it in the same message. */
  #changes(store: Reader, taskIds: Iterable<string>): AssignmentChange[] {
    const left: Task[] = [];
    const changes = [...taskIds].flatMap((id) => this.#task(store, id, left));
    return [...changes, ...left.flatMap((task) => this.#release(task))];
  }

  /** Puts into `left` what the node knew of a task that needs nothing any more. */
  #task(store: Reader, id: string, left: Task[]): AssignmentChange[] {
    const told = this.#tasks.get(id);
    const task = store.get("task", id);
    if (!task || task.nodeId !== this.#nodeId) {
      if (!told) return [];
      this.#tasks.delete(id);
      left.push(told);
      return [change(REMOVE, { case: "task", value: create(TaskSchema, { id }) })];
    }
    if (stateOf(task) < TaskState.ASSIGNED) return [];
    if (!told && !this.#mayBegin(task)) return [];
    this.#tasks.set(id, task);
    const changes: AssignmentChange[] = [];
    if (!isOver(task)) {
      const { secrets, configs } = dependenciesOf(task.spec);
      for (const secret of secrets) changes.push(...this.#use(store, "secret", secret, id));
      for (const config of configs) changes.push(...this.#use(store, "config", config, id));
    } else if (told && !isOver(told)) {
      left.push(told);
    }
    if (!told || !sameForAgent(told, task)) {
      const value = carriesIpv6(store.get("node", this.#nodeId)) ? task : withoutIpv6(task);
      changes.push(change(UPDATE, { case: "task", value }));
    }
    return changes;
  }

  #use(store: Reader, kind: Dependency, id: string, taskId: string): AssignmentChange[] {
    const users = this.#users[kind].get(id);
    if (users) {
      users.add(taskId);
      return [];
    }
    this.#users[kind].set(id, new Set([taskId]));
    return this.#tell(store, kind, id);
  }

  #tell(store: Reader, kind: Dependency, id: string): AssignmentChange[] {
    const object = store.get(kind, id);
    if (!object || this.#told[kind].get(id) === versionOf(object)) return [];
    this.#told[kind].set(id, versionOf(object));
    return [change(UPDATE, { case: kind, value: object } as Item)];
  }

  #release(task: Task): AssignmentChange[] {
    const { secrets, configs } = dependenciesOf(task.spec);
    const drop = (kind: Dependency, id: string): AssignmentChange[] => {
      const users = this.#users[kind].get(id);
      users?.delete(task.id);
      if (!users || users.size > 0) return [];
      this.#users[kind].delete(id);
      if (!this.#told[kind].delete(id)) return [];
      const value = kind === "secret" ? create(SecretSchema, { id }) : create(ConfigSchema, { id });
      return [change(REMOVE, { case: kind, value } as Item)];
    };
    return [...secrets.flatMap((id) => drop("secret", id)), ...configs.flatMap((id) => drop("config", id))];
  }
}

/**
 * Docker's nodes carry no IPv6 on overlays and would give addresses of the network's IPv6 subnet to their own load
 * balancers, whoever has them already. Only ours are told of it.
 */
const carriesIpv6 = isOurs;

function withoutIpv6(task: Task): Task {
  if (!task.networks.some(({ network }) => network?.spec?.ipv6Enabled)) return task;
  const isIpv4 = (text: string) => !text.includes(":");
  const networks = task.networks.map((attachment) => {
    const { network, addresses } = attachment;
    if (!network?.spec?.ipv6Enabled) return attachment;
    const ipam = network.ipam && {
      ...network.ipam,
      configs: network.ipam.configs.filter(({ subnet }) => isIpv4(subnet)),
    };
    const spec = { ...network.spec, ipv6Enabled: false };
    return { ...attachment, network: { ...network, spec, ipam }, addresses: addresses.filter(isIpv4) };
  });
  return { ...task, networks };
}

type Item = NonNullable<AssignmentChange["assignment"]>["item"];

function change(action: AssignmentChange_AssignmentAction, item: Item): AssignmentChange {
  return create(AssignmentChangeSchema, { action, assignment: create(AssignmentSchema, { item }) });
}
