/**
 * One session with one manager: registration, heartbeats, assignments, log subscriptions. It lives until any of
 * them fails; then all end together. (SwarmKit: agent/session.go)
 */
import type { DescService } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type AssignmentsMessage, Dispatcher, type SessionMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { LogBroker } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { NodeDescription } from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { type Client, GrpcError, grpcCodeOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { follows } from "./assignments.ts";
import { serveLogSubscriptions } from "./log-publisher.ts";
import type { StatusUpdate } from "./reporter.ts";
import type { Worker } from "./worker.ts";

/** The first message of a session, and each heartbeat's answer, must come within this. */
const answerMs = 5_000;

/** A connection that can make clients; `base/grpc.ts`'s Channel is one. */
export interface Connection {
  client<S extends DescService>(service: S): Client<S>;
  close(): void;
}

export interface SessionOptions {
  readonly connection: Connection;
  readonly description: NodeDescription;
  /** The last session's id, "" at first. */
  readonly sessionId: string;
  readonly nodeId: string;
  readonly worker: Worker;
  readonly clock: Clock;
  readonly log: Logger;
  /** Ends the session. */
  readonly signal: AbortSignal;
  /** Each message of the managers; the first one means that this node is registered. */
  onMessage(message: SessionMessage, first: boolean): void;
  /** This node is registered: statuses can be sent, from now on until the session ends. */
  onRegistered(session: RegisteredSession): void;
}

export interface RegisteredSession {
  readonly id: string;
  sendUpdates(updates: StatusUpdate[]): Promise<void>;
  readonly connection: Connection;
}

/** Runs a session to its end, and rejects with the reason of that. The connection stays open. */
export async function runSession(options: SessionOptions): Promise<never> {
  const { connection, clock, log, nodeId, worker } = options;
  const abort = new AbortController();
  const signal = AbortSignal.any([abort.signal, options.signal]);
  const dispatcher = connection.client(Dispatcher);
  try {
    const messages = dispatcher
      .session({ description: options.description, sessionId: options.sessionId }, { signal })
      [Symbol.asyncIterator]();
    const first = await within(clock, messages.next(), "the manager did not answer the session in time");
    if (first.done) throw new Error("the manager ended the session at once");
    const id = first.value.sessionId;
    options.onMessage(first.value, true);
    options.onRegistered({
      id,
      connection,
      sendUpdates: async (updates) => {
        try {
          await sendUpdates(dispatcher, id, updates, signal);
        } catch (error) {
          abort.abort(error);
          throw error;
        }
      },
    });
    const read = async (): Promise<never> => {
      for (;;) {
        const next = await messages.next();
        if (next.done) throw new GrpcError(status.ABORTED, "the manager ended the session");
        options.onMessage(next.value, false);
      }
    };
    const parts = [
      read(),
      heartbeats(dispatcher, id, clock, signal),
      watchAssignments(dispatcher, id, worker, log, signal),
      serveLogSubscriptions({ broker: connection.client(LogBroker), worker, nodeId, log, signal }),
      aborted(signal),
    ];
    for (const part of parts) part.catch(() => {});
    return await Promise.race(parts);
  } finally {
    abort.abort(new Error("the session is over"));
  }
}

async function heartbeats(
  dispatcher: Client<typeof Dispatcher>,
  sessionId: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<never> {
  for (;;) {
    const { period } = await dispatcher.heartbeat({ sessionId }, { signal, timeoutMs: answerMs });
    await sleep(clock, period ? durationMs(period) : answerMs, signal);
  }
}

/**
 * Follows the chain of assignment sets. A message that does not follow on what is held means that something was
 * missed: a new stream begins with a complete set. The odd message is applied all the same.
 */
async function watchAssignments(
  dispatcher: Client<typeof Dispatcher>,
  sessionId: string,
  worker: Pick<Worker, "apply">,
  log: Logger,
  signal: AbortSignal,
): Promise<never> {
  for (;;) {
    let held = "";
    const stream = new AbortController();
    const messages: AsyncIterable<AssignmentsMessage> = dispatcher.assignments(
      { sessionId },
      { signal: AbortSignal.any([stream.signal, signal]) },
    );
    try {
      for await (const message of messages) {
        const broken = !follows(held, message);
        held = message.resultsIn;
        await worker.apply(message);
        if (broken) {
          log.warn("an assignment set was missed; asking for all of them again", { appliesTo: message.appliesTo });
          break;
        }
      }
    } finally {
      stream.abort();
    }
    signal.throwIfAborted();
    if (held === "") throw new GrpcError(status.ABORTED, "the manager ended the stream of assignments");
  }
}

async function sendUpdates(
  dispatcher: Client<typeof Dispatcher>,
  sessionId: string,
  updates: StatusUpdate[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await dispatcher.updateTaskStatus({ sessionId, updates }, { signal, timeoutMs: answerMs });
  } catch (error) {
    const code = grpcCodeOf(error);
    // The task is gone on the managers.
    if (code === status.NOT_FOUND) return;
    // One task that is no longer ours makes the whole call fail: find it.
    if (code !== status.PERMISSION_DENIED) throw error;
    if (updates.length === 1) return;
    for (const update of updates) await sendUpdates(dispatcher, sessionId, [update], signal);
  }
}

async function within<T>(clock: Clock, promise: Promise<T>, message: string): Promise<T> {
  const done = new AbortController();
  const timeout = sleep(clock, answerMs, done.signal).then(() => Promise.reject(new Error(message)));
  timeout.catch(() => {});
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    done.abort();
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
