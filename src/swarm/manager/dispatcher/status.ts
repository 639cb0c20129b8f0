/** Status reports of nodes and tasks, written to the store in batches. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type NodeDescription,
  type NodeStatus_State,
  NodeStatusSchema,
  TaskState,
  type TaskStatus,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";

/** Reports are held back this long, so that many share a commit. */
const HOLD_MS = 10;

interface NodeReport {
  state: NodeStatus_State;
  message: string;
  addr?: string | undefined;
  description?: NodeDescription | undefined;
}

interface Waiting<T> {
  report: T;
  done: (() => void)[];
}

export class StatusWriter {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #managerId: string;
  readonly #loop: Loop;
  #nodes = new Map<string, Waiting<NodeReport>>();
  #tasks = new Map<string, Waiting<TaskStatus>>();

  constructor(store: Store, managerId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clock = clock;
    this.#managerId = managerId;
    this.#loop = new Loop({ name: "status reports", clock, log, debounceMs: HOLD_MS, work: () => this.#flush() });
  }

  close(): void {
    this.#loop.close();
  }

  /** Resolves when the node's status is in the store. */
  node(nodeId: string, report: NodeReport): Promise<void> {
    return this.#hold(this.#nodes, nodeId, report);
  }

  /** Resolves when the task's status is in the store, or was found to be old. */
  task(taskId: string, status: TaskStatus): Promise<void> {
    return this.#hold(this.#tasks, taskId, status);
  }

  #hold<T>(waiting: Map<string, Waiting<T>>, id: string, report: T): Promise<void> {
    return new Promise((resolve) => {
      const entry = waiting.get(id) ?? { report, done: [] };
      entry.report = report;
      entry.done.push(resolve);
      waiting.set(id, entry);
      this.#loop.mark();
    });
  }

  async #flush(): Promise<void> {
    const nodes = [...this.#nodes];
    const tasks = [...this.#tasks];
    this.#nodes = new Map();
    this.#tasks = new Map();
    try {
      await Promise.all([
        this.#store.batch(nodes, (tx, [id, { report }]) => {
          const node = tx.get("node", id);
          if (node) tx.update("node", withReport(node, report));
        }),
        this.#store.batch(tasks, (tx, [id, { report }]) => {
          const task = tx.get("task", id);
          if (!task || report.state < (task.status?.state ?? TaskState.NEW)) return;
          const status = { ...report, appliedBy: this.#managerId, appliedAt: timestampFromMs(this.#clock.now()) };
          tx.update("task", { ...task, status });
        }),
      ]);
    } catch (error) {
      for (const [id, entry] of nodes) if (!this.#nodes.has(id)) this.#nodes.set(id, entry);
      for (const [id, entry] of tasks) if (!this.#tasks.has(id)) this.#tasks.set(id, entry);
      throw error;
    }
    for (const [, { done }] of nodes) for (const resolve of done) resolve();
    for (const [, { done }] of tasks) for (const resolve of done) resolve();
  }
}

function withReport(node: Node, { state, message, addr, description }: NodeReport): Node {
  const status = create(NodeStatusSchema, { state, message, addr: addr ?? node.status?.addr ?? "" });
  return { ...node, status, description: description ?? node.description };
}
