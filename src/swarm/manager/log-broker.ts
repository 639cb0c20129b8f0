/**
 * Logs of services and tasks: a subscriber's wish goes to the nodes that have matching tasks; what they publish comes
 * back to the subscriber. Without `follow` it ends when every asked node is done.
 */
import { create } from "@bufbuild/protobuf";
import {
  type LogBroker as LogBrokerService,
  type LogMessage,
  type LogSelector,
  LogSelectorSchema,
  type LogSubscriptionOptions,
  LogSubscriptionOptionsSchema,
  type Logs,
  type SubscriptionMessage,
  SubscriptionMessageSchema,
} from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { AsyncQueue } from "../../base/async.ts";
import { GrpcError, status } from "../../base/grpc.ts";
import type { CallContext, Handlers } from "../../base/grpc-server.ts";
import { swarmId } from "../../base/id.ts";
import type { Change, Store } from "../store/store.ts";
import { type Authority, MANAGERS, NODES } from "./auth.ts";

export interface Selector {
  readonly serviceIds: string[];
  readonly nodeIds: string[];
  readonly taskIds: string[];
}

/** Bytes that a slow reader may leave unread before its subscription fails, and what a message takes besides its line. */
const BACKLOG = 64 << 20;
const PER_MESSAGE = 512;

interface Subscription {
  readonly id: string;
  readonly selector: LogSelector;
  readonly options: LogSubscriptionOptions;
  readonly queue: AsyncQueue<LogMessage>;
  /** Nodes that were asked and are not done. */
  readonly pending: Set<string>;
  readonly asked: Set<string>;
}

export class LogBroker {
  readonly #store: Store;
  readonly #authority: Authority;
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #listeners = new Map<string, Set<AsyncQueue<SubscriptionMessage>>>();
  readonly #stopWatching: () => void;

  constructor(store: Store, authority: Authority) {
    this.#store = store;
    this.#authority = authority;
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
  }

  close(): void {
    this.#stopWatching();
    for (const { queue } of this.#subscriptions.values()) queue.end();
    for (const listeners of this.#listeners.values()) for (const queue of listeners) queue.end();
  }

  async *subscribe(
    selector: Selector,
    options: LogSubscriptionOptions,
    signal: AbortSignal,
  ): AsyncIterable<LogMessage> {
    if (selector.serviceIds.length + selector.nodeIds.length + selector.taskIds.length === 0) {
      throw new GrpcError(status.INVALID_ARGUMENT, "log selector must not be empty");
    }
    const subscription: Subscription = {
      id: swarmId(),
      selector: create(LogSelectorSchema, selector),
      options: create(LogSubscriptionOptionsSchema, options),
      queue: new AsyncQueue(BACKLOG, ({ data }) => data.length + PER_MESSAGE),
      pending: new Set(),
      asked: new Set(),
    };
    this.#subscriptions.set(subscription.id, subscription);
    const stop = () => subscription.queue.end();
    signal.addEventListener("abort", stop, { once: true });
    try {
      const nodes = new Set(selector.nodeIds);
      for (const task of this.#store.view.all("task")) if (selects(selector, task)) nodes.add(task.nodeId);
      const absent = [...nodes].filter((nodeId) => nodeId && !this.#ask(subscription, nodeId));
      this.#endIfDone(subscription);
      yield* subscription.queue;
      if (absent.length > 0 && !options.follow && !signal.aborted) {
        const list = absent.map((nodeId) => `node ${nodeId} is not available`).join(", ");
        throw new GrpcError(
          status.UNKNOWN,
          `warning: incomplete log stream. some logs could not be retrieved for the following reasons: ${list}`,
        );
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.#subscriptions.delete(subscription.id);
      for (const nodeId of subscription.pending) this.#tell(nodeId, this.#message(subscription, true));
    }
  }

  /** Handlers of the `LogBroker` service, which nodes call. */
  broker(): Handlers<typeof LogBrokerService> {
    return {
      listenSubscriptions: (_request, context) => this.#listen(context),
      publishLogs: async (requests, context) => {
        const nodeId = this.#authority.require(context, NODES).cn;
        let subscription: Subscription | undefined;
        try {
          for await (const { subscriptionId, messages, close } of requests) {
            subscription ??= this.#subscriptions.get(subscriptionId);
            if (!subscription || subscription.id !== subscriptionId) {
              throw new GrpcError(status.NOT_FOUND, `no matching subscription found: ${subscriptionId}`);
            }
            for (const message of messages) {
              if (message.context?.nodeId !== nodeId) {
                throw new GrpcError(status.PERMISSION_DENIED, "nodes may only publish messages that they own");
              }
              subscription.queue.push(message);
            }
            if (close) break;
          }
        } finally {
          if (subscription) {
            subscription.pending.delete(nodeId);
            this.#endIfDone(subscription);
          }
        }
        return {};
      },
    };
  }

  /** Handlers of the `Logs` service, which managers call. */
  logs(): Handlers<typeof Logs> {
    const subscribe = this.subscribe.bind(this);
    const authority = this.#authority;
    return {
      async *subscribeLogs({ selector, options }, context) {
        authority.require(context, MANAGERS);
        const wanted = options ?? create(LogSubscriptionOptionsSchema);
        for await (const message of subscribe(selector ?? create(LogSelectorSchema), wanted, context.signal)) {
          yield { messages: [message] };
        }
      },
    };
  }

  async *#listen(context: CallContext): AsyncIterable<SubscriptionMessage> {
    const nodeId = this.#authority.require(context, NODES).cn;
    const queue = new AsyncQueue<SubscriptionMessage>();
    const listeners = this.#listeners.get(nodeId) ?? new Set();
    listeners.add(queue);
    this.#listeners.set(nodeId, listeners);
    const stop = () => queue.end();
    context.signal.addEventListener("abort", stop, { once: true });
    try {
      for (const subscription of this.#subscriptions.values()) {
        if (subscription.options.follow && this.#concerns(subscription, nodeId)) this.#ask(subscription, nodeId);
      }
      yield* queue;
    } finally {
      listeners.delete(queue);
      if (listeners.size === 0) {
        this.#listeners.delete(nodeId);
        for (const subscription of this.#subscriptions.values()) {
          subscription.asked.delete(nodeId);
          if (subscription.pending.delete(nodeId)) this.#endIfDone(subscription);
        }
      }
    }
  }

  #concerns({ selector }: Subscription, nodeId: string): boolean {
    if (selector.nodeIds.includes(nodeId)) return true;
    return this.#store.view.tasksOfNode(nodeId).some((task) => selects(selector, task));
  }

  /** Asks a node once; false when it does not listen. */
  #ask(subscription: Subscription, nodeId: string): boolean {
    if (subscription.asked.has(nodeId)) return true;
    if (!this.#tell(nodeId, this.#message(subscription, false))) return false;
    subscription.asked.add(nodeId);
    subscription.pending.add(nodeId);
    return true;
  }

  #tell(nodeId: string, message: SubscriptionMessage): boolean {
    const listeners = this.#listeners.get(nodeId);
    for (const queue of listeners ?? []) queue.push(message);
    return listeners !== undefined;
  }

  #message({ id, selector, options }: Subscription, close: boolean): SubscriptionMessage {
    return create(SubscriptionMessageSchema, { id, selector, options, close });
  }

  #endIfDone({ options, pending, queue }: Subscription): void {
    if (!options.follow && pending.size === 0) queue.end();
  }

  #onCommit(changes: Change[]): void {
    if (this.#subscriptions.size === 0) return;
    for (const change of changes) {
      if (change.kind !== "task" || change.action === "remove" || !change.object.nodeId) continue;
      for (const subscription of this.#subscriptions.values()) {
        if (subscription.options.follow && selects(subscription.selector, change.object)) {
          this.#ask(subscription, change.object.nodeId);
        }
      }
    }
  }
}

function selects(selector: Selector, task: Task): boolean {
  return (
    selector.taskIds.includes(task.id) ||
    (task.serviceId !== "" && selector.serviceIds.includes(task.serviceId)) ||
    selector.nodeIds.includes(task.nodeId)
  );
}
