/**
 * Service logs: a manager asks for the logs of services, nodes or tasks (a subscription); this node answers with
 * what its own tasks have. One publishing stream per subscription. (SwarmKit: agent/agent.go, worker.go)
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type LogBroker,
  type LogMessageSchema,
  LogSubscriptionOptionsSchema,
  type SubscriptionMessage,
} from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { deferred, Mutex } from "../../base/async.ts";
import { type Client, GrpcError, grpcCodeOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import type { TaskRunner } from "./task-runner.ts";
import type { Worker } from "./worker.ts";

/** Lines that are ready together travel together, up to this many bytes; managers take 4 MiB at most. */
const batchBytes = 256 * 1024;

export interface LogPublisherOptions {
  readonly broker: Client<typeof LogBroker>;
  readonly worker: Worker;
  readonly nodeId: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Serves subscriptions until aborted. Rejects when the stream of subscriptions breaks; a manager that does not
 * know the call (UNIMPLEMENTED) is tolerated by waiting for ever.
 */
export async function serveLogSubscriptions(options: LogPublisherOptions): Promise<never> {
  const { broker, log, signal } = options;
  const active = new Map<string, AbortController>();
  try {
    for await (const message of broker.listenSubscriptions({}, { signal })) {
      if (message.close) {
        active.get(message.id)?.abort(new Error("the subscription was closed"));
        continue;
      }
      if (active.has(message.id)) continue;
      const abort = new AbortController();
      active.set(message.id, abort);
      publish(options, message, AbortSignal.any([signal, abort.signal]))
        .catch((error) => log.warn("publishing logs ended early", { subscription: message.id, error }))
        .finally(() => active.delete(message.id));
    }
    throw new GrpcError(status.ABORTED, "the managers ended the stream of log subscriptions");
  } catch (error) {
    if (grpcCodeOf(error) !== status.UNIMPLEMENTED) throw error;
    log.warn("the managers do not collect logs");
    return await new Promise<never>((_, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }
}

/** Whether a subscription asks for the logs of this task. */
export function selects(subscription: Pick<SubscriptionMessage, "selector">, task: Task, nodeId: string): boolean {
  const selector = subscription.selector;
  if (!selector || task.spec?.runtime.case === "attachment") return false;
  return (
    selector.taskIds.includes(task.id) ||
    (task.serviceId !== "" && selector.serviceIds.includes(task.serviceId)) ||
    selector.nodeIds.includes(nodeId)
  );
}

type LogLine = MessageInitShape<typeof LogMessageSchema> & { data: Uint8Array };

async function publish(
  { broker, worker, nodeId, log, signal: session }: LogPublisherOptions,
  subscription: SubscriptionMessage,
  signal: AbortSignal,
): Promise<void> {
  const wanted = subscription.options ?? create(LogSubscriptionOptionsSchema);
  const stream = broker.publishLogs({ signal: session });
  // The call may fail long before it is awaited.
  stream.response.catch(() => {});
  const batch = new Batch((messages) => stream.write({ subscriptionId: subscription.id, messages }));

  const pump = async (runner: TaskRunner) => {
    const { id: taskId, serviceId } = runner.task;
    try {
      for await (const line of runner.controller.logs(wanted, signal)) {
        await batch.add({ ...line, context: { taskId, serviceId, nodeId } });
      }
    } catch (error) {
      if (!signal.aborted) log.warn("reading a task's logs failed", { task: taskId, error });
    }
  };

  const pumps: Promise<void>[] = [];
  const seen = new Set<TaskRunner>();
  const consider = (runner: TaskRunner) => {
    if (seen.has(runner) || !selects(subscription, runner.task, nodeId)) return;
    seen.add(runner);
    pumps.push(pump(runner));
  };
  const stopWatching = wanted.follow ? worker.started.on(consider) : () => {};
  try {
    for (const runner of worker.runners()) consider(runner);
    if (wanted.follow) await ended(signal);
    await Promise.all(pumps);
    await batch.flush();
  } finally {
    stopWatching();
  }
  // With the session its connection is gone.
  if (session.aborted) return;
  await stream.write({ subscriptionId: subscription.id, close: true });
  stream.end();
  // A real manager ends the call well but without its answer, which grpc-js calls unimplemented.
  await stream.response.catch((error) => {
    if (grpcCodeOf(error) !== status.UNIMPLEMENTED) throw error;
  });
}

function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  const { promise, resolve } = deferred<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}

/** Collects lines that come in one turn of the event loop. */
class Batch {
  #write: (messages: LogLine[]) => Promise<void>;
  #lines: LogLine[] = [];
  #bytes = 0;
  #scheduled = false;
  #order = new Mutex();

  constructor(write: (messages: LogLine[]) => Promise<void>) {
    this.#write = write;
  }

  /** Resolves when there is room for more. */
  async add(line: LogLine): Promise<void> {
    this.#lines.push(line);
    this.#bytes += line.data.length;
    if (this.#bytes >= batchBytes) return this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      void this.flush();
    });
  }

  flush(): Promise<void> {
    const lines = this.#lines;
    this.#lines = [];
    this.#bytes = 0;
    return this.#order.run(() => (lines.length > 0 ? this.#write(lines) : undefined));
  }
}
