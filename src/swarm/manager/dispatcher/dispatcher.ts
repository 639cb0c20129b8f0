/**
 * The dispatcher: gives each node its session (who it is, which managers there are, keys, root), listens to its
 * heartbeat, streams its assignments and takes its reports.
 */
import { create, equals, toBinary } from "@bufbuild/protobuf";
import {
  type AssignmentsMessage,
  type Dispatcher as DispatcherService,
  type SessionMessage,
  SessionMessageSchema,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import { type Node, NodeSchema, type Task } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type NodeDescription,
  NodeDescriptionSchema,
  NodeStatus_State,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { sleep } from "../../../base/clock.ts";
import { GrpcError, status } from "../../../base/grpc.ts";
import type { CallContext, Handlers } from "../../../base/grpc-server.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { type Authority, NODES } from "../auth.ts";
import { isOurs } from "../control/roles.ts";
import { durationMs, HEARTBEAT_PERIOD_MS } from "../defaults.ts";
import { AssignmentSet } from "./assignments.ts";
import { Feeds } from "./feeds.ts";
import { Liveness, type Session } from "./liveness.ts";
import { bounded, isKnown, StatusWriter } from "./status.ts";

const MANAGER_WEIGHT = 10n;
/** Assignments of a node follow each other at this distance: what changes meanwhile is told together. */
const BATCH_MS = 20;
/** For a node that was removed to hear that it is to end its tasks. */
const FAREWELL_MS = 250;
const MIN_PERIOD_MS = 1_000;
const ORPHAN_MS = 24 * 3_600_000;
/** Bytes. A node with many plugins and labels tells a few thousand. */
const MAX_DESCRIPTION = 128 << 10;

export interface DispatcherOptions {
  readonly store: Store;
  readonly clusterId: string;
  readonly managerId: string;
  /** Where this manager's own node is, for others: its agent calls from this very host. */
  readonly managerHost: string;
  readonly authority: Authority;
  /** Gossip's opinion of a host: undefined where it has none. */
  readonly isSilent?: ((host: string) => boolean | undefined) | undefined;
  /** Whether a host lives while its engine is away. */
  readonly isRestarting?: ((host: string) => Promise<boolean>) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Dispatcher {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #managerId: string;
  readonly #managerHost: string;
  readonly #authority: Authority;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #liveness: Liveness;
  readonly #statuses: StatusWriter;
  readonly #stopWatching: () => void;
  readonly #sessionFeeds = new Feeds();
  readonly #assignmentFeeds = new Feeds();
  readonly #orphans = new Map<string, () => void>();
  readonly #closing = new AbortController();

  constructor(options: DispatcherOptions) {
    const { store, clusterId, managerId, managerHost, authority, isSilent, isRestarting, clock, log } = options;
    this.#store = store;
    this.#clusterId = clusterId;
    this.#managerId = managerId;
    this.#managerHost = managerHost;
    this.#authority = authority;
    this.#clock = clock;
    this.#log = log;
    this.#statuses = new StatusWriter(store, managerId, clock, log);
    const period = () =>
      Math.max(durationMs(this.#cluster()?.spec?.dispatcher?.heartbeatPeriod, HEARTBEAT_PERIOD_MS), MIN_PERIOD_MS);
    const addrOf = (nodeId: string) => store.view.get("node", nodeId)?.status?.addr;
    this.#liveness = new Liveness(
      clock,
      period,
      (nodeId, message) => this.#lost(nodeId, message),
      (nodeId) => {
        const addr = addrOf(nodeId);
        return addr ? isSilent?.(addr) : undefined;
      },
      isRestarting &&
        (async (nodeId) => {
          const addr = addrOf(nodeId);
          return addr !== undefined && addr !== "" && isRestarting(addr);
        }),
    );
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    this.#expectNodes();
  }

  handlers(): Handlers<typeof DispatcherService> {
    const nodeOf = (context: CallContext) => this.#authority.require(context, NODES).cn;
    return {
      session: (request, context) => this.#session(nodeOf(context), request.sessionId, request.description, context),
      heartbeat: ({ sessionId }, context) => {
        const ms = this.#liveness.beat(nodeOf(context), sessionId);
        return { period: { seconds: BigInt(Math.floor(ms / 1000)), nanos: Math.floor((ms % 1000) * 1e6) } };
      },
      updateTaskStatus: async ({ sessionId, updates }, context) => {
        const nodeId = nodeOf(context);
        this.#liveness.check(nodeId, sessionId);
        const news = updates.flatMap(({ taskId, status: report }) => {
          const task = this.#store.view.get("task", taskId);
          if (!task || !report) return [];
          if (task.nodeId !== nodeId) {
            throw new GrpcError(status.PERMISSION_DENIED, "cannot update a task not assigned this node");
          }
          return isKnown(task, report) ? [] : [{ taskId, report }];
        });
        await Promise.all(news.map(({ taskId, report }) => this.#statuses.task(taskId, bounded(report))));
        return {};
      },
      updateVolumeStatus: () => {
        throw new GrpcError(status.UNIMPLEMENTED, "cluster volumes are not supported");
      },
      tasks: () => {
        throw new GrpcError(status.UNIMPLEMENTED, "use Assignments");
      },
      assignments: ({ sessionId }, context) => this.#assignments(nodeOf(context), sessionId, context),
    };
  }

  /** Tells every node that this manager goes, so that it looks for another or comes back soon. */
  close(): void {
    this.#stopWatching();
    this.#closing.abort(new GrpcError(status.ABORTED, "node must disconnect"));
    this.#liveness.close(new GrpcError(status.ABORTED, "node must disconnect"));
    this.#statuses.close();
    for (const cancel of this.#orphans.values()) cancel();
  }

  #cluster() {
    return this.#store.view.get("cluster", this.#clusterId);
  }

  /** After a start: nodes that were up get time to come back; those that were down are down since now. */
  #expectNodes(): void {
    for (const node of this.#store.view.all("node")) {
      if (node.status?.state === NodeStatus_State.DOWN) {
        this.#orphanLater(node.id);
        continue;
      }
      this.#liveness.expect(node.id);
      if (node.status?.state === NodeStatus_State.READY) {
        const message = 'Node moved to "unknown" state due to leadership change in cluster';
        void this.#statuses.node(node.id, { state: NodeStatus_State.UNKNOWN, message });
      }
    }
  }

  /** The node says that it leaves the swarm: nobody needs to wait for it. */
  left(nodeId: string): void {
    this.#liveness.forget(nodeId, new GrpcError(status.NOT_FOUND, "node not registered"));
    this.#lost(nodeId, "node left the swarm");
  }

  #lost(nodeId: string, message: string): void {
    if (!this.#store.view.get("node", nodeId)) return;
    this.#log.warn("a node is lost", { node: nodeId, reason: message });
    void this.#statuses.node(nodeId, { state: NodeStatus_State.DOWN, message });
    this.#orphanLater(nodeId);
  }

  #orphanLater(nodeId: string): void {
    this.#orphans.get(nodeId)?.();
    this.#orphans.set(
      nodeId,
      this.#clock.after(ORPHAN_MS, () => {
        this.#orphans.delete(nodeId);
        void this.#orphan(nodeId).catch((error) => this.#log.warn("tasks not orphaned", { node: nodeId, error }));
      }),
    );
  }

  async #orphan(nodeId: string): Promise<void> {
    await this.#store.batch(this.#store.view.tasksOfNode(nodeId), (tx, { id }) => {
      const task = tx.get("task", id);
      const state = task?.status?.state ?? TaskState.NEW;
      if (!task?.status || state < TaskState.ASSIGNED || state > TaskState.RUNNING) return;
      tx.update("task", { ...task, status: { ...task.status, state: TaskState.ORPHANED } });
    });
  }

  async *#session(
    nodeId: string,
    sessionId: string,
    description: NodeDescription | undefined,
    context: CallContext,
  ): AsyncIterable<SessionMessage> {
    // A node that comes back while this manager goes would have timers made that nobody stops.
    if (this.#closing.signal.aborted) throw new GrpcError(status.UNAVAILABLE, "the dispatcher is stopped");
    if (!this.#store.view.get("node", nodeId)) throw new GrpcError(status.UNKNOWN, "node not found");
    if (description && toBinary(NodeDescriptionSchema, description).length > MAX_DESCRIPTION) {
      throw new GrpcError(status.INVALID_ARGUMENT, "the node's description is too large");
    }
    const session = this.#liveness.find(nodeId, sessionId) ?? this.#liveness.register(nodeId);
    this.#orphans.get(nodeId)?.();
    this.#orphans.delete(nodeId);
    using feed = this.#sessionFeeds.open(nodeId);
    const signal = AbortSignal.any([context.signal, session.ended.signal, this.#closing.signal]);
    const addr = nodeId === this.#managerId ? this.#managerHost : hostOf(context.peer);
    await this.#statuses.node(nodeId, { state: NodeStatus_State.READY, message: "", addr, description });
    this.#log.info("a node has a session", { node: nodeId, addr });
    let last: SessionMessage | undefined;
    do {
      const message = this.#message(session);
      // Removed: there is no more to say than what it is to end.
      if (!message) continue;
      if (!last || !sameMessage(last, message)) {
        session.balancers.tell(message.node, this.#clock.steady());
        for (const waiting of this.#assignmentFeeds.of(nodeId)) if (waiting.tasks.size > 0) waiting.mark();
        yield message;
      }
      last = message;
    } while (await feed.next(signal));
    if (context.signal.aborted) return;
    if (last) yield last;
    throw signal.reason;
  }

  #message(session: Session): SessionMessage | undefined {
    const node = this.#store.view.get("node", session.nodeId);
    const cluster = this.#cluster();
    if (!node || !cluster) return undefined;
    return create(SessionMessageSchema, {
      sessionId: session.id,
      node,
      managers: this.#store.view
        .all("node")
        .flatMap(({ id, managerStatus }) =>
          managerStatus?.addr ? [{ peer: { nodeId: id, addr: managerStatus.addr }, weight: MANAGER_WEIGHT }] : [],
        ),
      networkBootstrapKeys: cluster.networkBootstrapKeys,
      RootCA: cluster.rootCa?.caCert ?? new Uint8Array(),
    });
  }

  async *#assignments(nodeId: string, sessionId: string, context: CallContext): AsyncIterable<AssignmentsMessage> {
    const session = this.#liveness.check(nodeId, sessionId);
    using feed = this.#assignmentFeeds.open(nodeId);
    const signal = AbortSignal.any([context.signal, session.ended.signal, this.#closing.signal]);
    const timers = new Map<string, () => void>();
    const mayBegin = (task: Task) => {
      const wait = this.#waitFor(task, session);
      timers.get(task.id)?.();
      timers.delete(task.id);
      if (wait === 0) return true;
      feed.tasks.add(task.id);
      timers.set(
        task.id,
        this.#clock.after(wait, () => feed.mark()),
      );
      return false;
    };
    const set = new AssignmentSet(nodeId, mayBegin);
    try {
      // Nothing may be missing in the first message: a node ends what it is not told.
      while (!this.#store.view.tasksOfNode(nodeId).every(mayBegin)) if (!(await feed.next(signal))) break;
      yield set.complete(this.#store.view);
      let told = this.#clock.steady();
      while (await feed.next(signal)) {
        const early = told + BATCH_MS - this.#clock.steady();
        if (early > 0) await sleep(this.#clock, early, signal).catch(() => {});
        if (signal.aborted) break;
        told = this.#clock.steady();
        const tasks = [...feed.tasks];
        const dependencies = [...feed.dependencies.values()];
        feed.tasks.clear();
        feed.dependencies.clear();
        const removed = !this.#store.view.get("node", nodeId);
        const message = removed ? set.farewell() : set.next(this.#store.view, tasks, dependencies);
        if (message) yield message;
      }
      if (!context.signal.aborted) throw signal.reason;
    } finally {
      for (const cancel of timers.values()) cancel();
    }
  }

  /** Milliseconds until a node can be given a task. */
  #waitFor(task: Task, { balancers, nodeId }: Session): number {
    if (task.status?.state !== TaskState.ASSIGNED || isOurs(this.#store.view.get("node", nodeId))) return 0;
    return balancers.waitFor(task, this.#clock.steady());
  }

  #onCommit(changes: Change[]): void {
    for (const change of changes) {
      switch (change.kind) {
        case "task": {
          this.#markTask(change.object.nodeId, change.object.id);
          if (change.old && change.old.nodeId !== change.object.nodeId) {
            this.#markTask(change.old.nodeId, change.object.id);
          }
          break;
        }
        case "node": {
          if (change.action === "remove") this.#dismiss(change.object.id);
          if (change.old?.managerStatus !== change.object.managerStatus) this.#markAll();
          else for (const feed of this.#sessionFeeds.of(change.object.id)) feed.mark();
          break;
        }
        case "cluster":
          this.#markAll();
          break;
        case "secret":
        case "config":
          if (change.action !== "update") break;
          for (const feed of this.#assignmentFeeds.all()) {
            feed.dependencies.set(change.object.id, [change.kind, change.object.id]);
            feed.mark();
          }
          break;
        default:
      }
    }
  }

  /** A node that was removed while it has a session is told to end its tasks; then the session ends. */
  #dismiss(nodeId: string): void {
    for (const feed of this.#assignmentFeeds.of(nodeId)) feed.mark();
    this.#orphans.get(nodeId)?.();
    const forget = () => {
      this.#orphans.delete(nodeId);
      this.#liveness.forget(nodeId, new GrpcError(status.NOT_FOUND, "node not found"));
    };
    this.#orphans.set(nodeId, this.#clock.after(FAREWELL_MS, forget));
  }

  #markTask(nodeId: string, taskId: string): void {
    for (const feed of this.#assignmentFeeds.of(nodeId)) {
      feed.tasks.add(taskId);
      feed.mark();
    }
  }

  #markAll(): void {
    for (const feed of this.#sessionFeeds.all()) feed.mark();
  }
}

/** A node hears of a change of itself, the managers, the keys or the root; not of its own status. */
function sameMessage(a: SessionMessage, b: SessionMessage): boolean {
  const stable = (node: Node | undefined) =>
    node ? { ...node, meta: undefined, status: undefined, description: undefined } : create(NodeSchema);
  if (!equals(NodeSchema, stable(a.node), stable(b.node))) return false;
  const rest = (message: SessionMessage): SessionMessage => ({ ...message, node: undefined });
  return equals(SessionMessageSchema, rest(a), rest(b));
}

/** The host of a peer's "address:port", without the prefix of a mapped IPv4 address. */
function hostOf(peer: string): string {
  return peer.slice(0, peer.lastIndexOf(":")).replace(/^::ffff:/, "");
}
