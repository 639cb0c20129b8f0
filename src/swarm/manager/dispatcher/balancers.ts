/**
 * Which load balancer's addresses a node was told in its session. Docker's nodes make a network when its first task comes,
 * and fail that task when they have not heard of the address of their own balancer on it: "failed to find a load balancer
 * IP". The address comes by the stream of the session, the task by that of the assignments, and nothing orders the two, less
 * so when another manager passes them on. SwarmKit lets tasks wait for a tenth of a second and hopes; here a task for such a
 * node waits until half a second after its networks' addresses were told.
 */
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { isNodeLocal } from "../allocator/drivers.ts";

/**
 * From the message that tells an address to the task that needs it: on a busy node both wait in the agent's queues, and a
 * tenth of a second was too short there. Only the first task on a network waits.
 */
const MARGIN_MS = 500;
/** A network may have no address left for a balancer: then the node itself says so. */
const PATIENCE_MS = 2_000;

export class ToldBalancers {
  /** When, by network. */
  readonly #told = new Map<string, number>();
  /** Since when a task waits. */
  readonly #waiting = new Map<string, number>();

  /** The session tells the node this of itself, now (ms). */
  tell(node: Node | undefined, now: number): void {
    const networks = new Set(node?.attachments.flatMap(({ network }) => network?.id ?? []));
    for (const id of this.#told.keys()) if (!networks.has(id)) this.#told.delete(id);
    for (const id of networks) if (!this.#told.has(id)) this.#told.set(id, now);
  }

  /** Milliseconds until the node can be given the task; asked again after each `tell`. */
  waitFor(task: Task, now: number): number {
    const since = this.#waiting.get(task.id) ?? now;
    const waits = task.networks.map(({ network }) => {
      if (!network || isNodeLocal(network.spec)) return 0;
      return (this.#told.get(network.id) ?? Number.POSITIVE_INFINITY) + MARGIN_MS - now;
    });
    const wait = Math.max(0, ...waits);
    if (wait > 0) this.#waiting.set(task.id, since);
    else this.#waiting.delete(task.id);
    return Math.max(0, Math.min(wait, since + PATIENCE_MS - now));
  }
}
