/** Status reports of nodes and tasks, written to the store in batches. */
import { create, equals, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type NodeDescription,
  NodeDescriptionSchema,
  type NodeStatus_State,
  NodeStatusSchema,
  TaskState,
  type TaskStatus,
  TaskStatusSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { Store } from "../../store/store.ts";
import type { Transaction } from "../../store/transaction.ts";
import { Loop } from "../loop.ts";

/** Reports are held back this long, so that many share a commit. */
const HOLD_MS = 1;

interface NodeReport {
  state: NodeStatus_State;
  message: string;
  addr?: string | undefined;
  description?: NodeDescription | undefined;
}

interface Waiting<T> {
  report: T;
  readonly done: (() => void)[];
}

/** The newest report of each id, until it is written. */
class Reports<T> {
  readonly #write: (reports: [string, T][]) => Promise<void>;
  readonly #loop: Loop;
  #waiting = new Map<string, Waiting<T>>();

  constructor(name: string, clock: Clock, log: Logger, write: (reports: [string, T][]) => Promise<void>) {
    this.#write = write;
    this.#loop = new Loop({ name, clock, log, debounceMs: HOLD_MS, work: () => this.#flush() });
  }

  close(): void {
    this.#loop.close();
  }

  /** Resolves when it is written, or was found to be old. */
  add(id: string, report: T): Promise<void> {
    return new Promise((resolve) => {
      this.#hold(id, { report, done: [resolve] }, true);
      this.#loop.mark();
    });
  }

  #hold(id: string, { report, done }: Waiting<T>, newer: boolean): void {
    const entry = this.#waiting.get(id);
    if (!entry) this.#waiting.set(id, { report, done });
    else {
      if (newer) entry.report = report;
      entry.done.push(...done);
    }
  }

  async #flush(): Promise<void> {
    const taken = [...this.#waiting];
    this.#waiting = new Map();
    try {
      await this.#write(taken.map(([id, { report }]) => [id, report]));
    } catch (error) {
      for (const [id, entry] of taken) this.#hold(id, entry, false);
      throw error;
    }
    for (const [, { done }] of taken) for (const resolve of done) resolve();
  }
}

export class StatusWriter {
  readonly #nodes: Reports<NodeReport>;
  readonly #tasks: Reports<TaskStatus>;

  constructor(store: Store, managerId: string, clock: Clock, log: Logger) {
    // Nodes wait for their session and give up after seconds: they do not queue behind thousands of tasks.
    this.#nodes = new Reports("reports of nodes", clock, log, (reports) => {
      const write = (tx: Transaction, [id, report]: [string, NodeReport]) => {
        const node = tx.get("node", id);
        if (node) tx.update("node", withReport(node, report));
      };
      return store.batch(reports, write, true);
    });
    this.#tasks = new Reports("reports of tasks", clock, log, (reports) =>
      store.batch(reports, (tx, [id, report]) => {
        const task = tx.get("task", id);
        if (!task || report.state < (task.status?.state ?? TaskState.NEW) || isKnown(task, report)) return;
        const status = { ...report, appliedBy: managerId, appliedAt: timestampFromMs(clock.now()) };
        tx.update("task", { ...task, status });
      }),
    );
  }

  close(): void {
    this.#nodes.close();
    this.#tasks.close();
  }

  /** Resolves when the node's status is in the store. */
  node(nodeId: string, report: NodeReport): Promise<void> {
    return this.#nodes.add(nodeId, report);
  }

  /** Resolves when the task's status is in the store, or was found to be old. */
  task(taskId: string, status: TaskStatus): Promise<void> {
    return this.#tasks.add(taskId, status);
  }
}

/** Bytes of a report that are kept whole, and characters of its texts that are when it is larger. */
const MAX_REPORT = 32 << 10;
const MAX_TEXT = 4096;

/** What is kept of a report: every report is replicated and stays in the history. */
export function bounded(report: TaskStatus): TaskStatus {
  if (toBinary(TaskStatusSchema, report).length <= MAX_REPORT) return report;
  const { err, message, state, timestamp } = report;
  return create(TaskStatusSchema, {
    ...{ state, message: message.slice(0, MAX_TEXT), err: err.slice(0, MAX_TEXT) },
    ...(timestamp && { timestamp }),
  });
}

/** Whether a report says nothing that the store does not: nodes tell all again to each new leader. */
export function isKnown({ status }: Task, report: TaskStatus): boolean {
  if (!status?.appliedAt || status.state !== report.state) return false;
  const applied = { ...report, appliedBy: status.appliedBy, appliedAt: status.appliedAt };
  return equals(TaskStatusSchema, applied, status);
}

function withReport(node: Node, { state, message, addr, description }: NodeReport): Node {
  const status = create(NodeStatusSchema, { state, message, addr: addr ?? node.status?.addr ?? "" });
  // Others compare it by reference.
  const told = description && node.description && equals(NodeDescriptionSchema, description, node.description);
  return { ...node, status, description: told ? node.description : (description ?? node.description) };
}
