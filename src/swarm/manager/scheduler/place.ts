/**
 * Chooses nodes for tasks of one kind (same service, same version). Pure: takes the nodes as they are, and books each
 * choice in them at once, so that the next one sees it.
 *
 * The node with the fewest tasks of the service wins, then the one with the fewest tasks; nodes where the service keeps
 * failing come last. With spread preferences the nodes form a tree (zone, then rack, …) and each level takes the branch
 * with the fewest tasks of the service.
 */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { Pipeline } from "./filters.ts";
import type { NodeInfo } from "./nodes.ts";

export interface Placement {
  readonly task: Task;
  readonly nodeId: string;
}

export interface Placed {
  readonly placements: Placement[];
  readonly unplaced: Task[];
  /** Why the unplaced ones found nothing. */
  readonly explanation: string;
}

/** Value of a spread descriptor on a node: `node.labels.x` or `engine.labels.x`; "" when it has none. */
function spreadValue({ node }: NodeInfo, descriptor: string): string {
  const lower = descriptor.toLowerCase();
  if (lower.startsWith("node.labels.")) return node.spec?.annotations?.labels[descriptor.slice(12)] ?? "";
  if (lower.startsWith("engine.labels.")) return node.description?.engine?.labels[descriptor.slice(14)] ?? "";
  return "";
}

type Key = readonly [penalised: number, ofService: number, tasks: number];

function compare(a: Key, b: Key): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

/** A leaf is a heap of nodes, best first; a branch goes to the child with the fewest tasks of the service. */
type Tree =
  | { readonly kind: "leaf"; heap: NodeInfo[] }
  | { readonly kind: "branch"; children: { tree: Tree; tasks: number }[] };

class Placer {
  readonly #task: Task;
  readonly #now: number;

  constructor(task: Task, now: number) {
    this.#task = task;
    this.#now = now;
  }

  build(nodes: NodeInfo[], descriptors: readonly string[], all: NodeInfo[]): Tree {
    const [first, ...rest] = descriptors;
    if (first === undefined) {
      const heap: NodeInfo[] = [];
      for (const node of nodes) this.#push(heap, node);
      return { kind: "leaf", heap };
    }
    const groups = Map.groupBy(nodes, (node) => spreadValue(node, first));
    const children = [...groups].map(([value, group]) => {
      // Tasks on nodes that cannot take more count too: the branch is as full as it is.
      const everybody = all.filter((node) => spreadValue(node, first) === value);
      const tasks = everybody.reduce((sum, node) => sum + this.#ofService(node), 0);
      return { tree: this.build(group, rest, everybody), tasks };
    });
    return { kind: "branch", children };
  }

  /** The best node, taken out of the tree; `give` puts it back after it was booked. */
  take(tree: Tree): { node: NodeInfo; give: (booked: boolean) => void } | undefined {
    if (tree.kind === "leaf") {
      const node = this.#pop(tree.heap);
      return node && { node, give: () => this.#push(tree.heap, node) };
    }
    for (const child of [...tree.children].sort((a, b) => a.tasks - b.tasks)) {
      const taken = this.take(child.tree);
      if (!taken) continue;
      return {
        node: taken.node,
        give: (booked) => {
          if (booked) child.tasks++;
          taken.give(booked);
        },
      };
    }
    return undefined;
  }

  #ofService(node: NodeInfo): number {
    return node.byService.get(this.#task.serviceId) ?? 0;
  }

  #key(node: NodeInfo): Key {
    return [node.isPenalised(this.#task, this.#now) ? 1 : 0, this.#ofService(node), node.wanted];
  }

  #push(heap: NodeInfo[], node: NodeInfo): void {
    heap.push(node);
    for (let at = heap.length - 1; at > 0; ) {
      const parent = (at - 1) >> 1;
      if (!this.#swapIfLess(heap, at, parent)) break;
      at = parent;
    }
  }

  #pop(heap: NodeInfo[]): NodeInfo | undefined {
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    heap[0] = last;
    for (let at = 0; ; ) {
      const left = 2 * at + 1;
      const right = left + 1;
      let best = at;
      if (this.#less(heap, left, best)) best = left;
      if (this.#less(heap, right, best)) best = right;
      if (best === at) return top;
      this.#swapIfLess(heap, best, at);
      at = best;
    }
  }

  #less(heap: NodeInfo[], a: number, b: number): boolean {
    const left = heap[a];
    const right = heap[b];
    return left !== undefined && right !== undefined && compare(this.#key(left), this.#key(right)) < 0;
  }

  #swapIfLess(heap: NodeInfo[], a: number, b: number): boolean {
    const left = heap[a];
    const right = heap[b];
    if (!left || !right || compare(this.#key(left), this.#key(right)) >= 0) return false;
    heap[a] = right;
    heap[b] = left;
    return true;
  }
}

/** Places tasks of one kind; `all` are all nodes of the swarm. `assigned` gives the task as it will be on its node. */
export function place(
  tasks: readonly Task[],
  all: NodeInfo[],
  now: number,
  assigned: (task: Task, nodeId: string) => Task,
): Placed {
  const [sample] = tasks;
  if (!sample) return { placements: [], unplaced: [], explanation: "" };
  const pipeline = new Pipeline(sample);
  const candidates = all.filter((node) => pipeline.check(node));
  const descriptors = (sample.spec?.placement?.preferences ?? []).flatMap(({ preference }) =>
    preference.case === "spread" ? [preference.value.spreadDescriptor] : [],
  );
  const placer = new Placer(sample, now);
  const tree = placer.build(candidates, descriptors, all);
  const placements: Placement[] = [];
  const unplaced: Task[] = [];
  for (const task of tasks) {
    const taken = placer.take(tree);
    if (!taken) {
      unplaced.push(task);
      continue;
    }
    const { node, give } = taken;
    node.add(assigned(task, node.node.id));
    placements.push({ task, nodeId: node.node.id });
    // A node that is full now leaves the tree, and is counted in the explanation.
    if (pipeline.check(node)) give(true);
  }
  return { placements, unplaced, explanation: unplaced.length > 0 ? pipeline.explain() : "" };
}
