/** Fakes for the agent's tests: a host without containers and a manager without a network. */
import {
  create,
  type DescMessage,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  type AssignmentsMessage,
  AssignmentsMessageSchema,
  type SessionMessage,
  SessionMessageSchema,
  type SessionRequest,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import { type Node, type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type EncryptionKey, NodeDescriptionSchema, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { AsyncQueue, deferred } from "../../../src/base/async.ts";
import type { Client } from "../../../src/base/grpc.ts";
import { GrpcError, status } from "../../../src/base/grpc.ts";
import type { StatusUpdate } from "../../../src/swarm/agent/reporter.ts";
import type { Connection } from "../../../src/swarm/agent/session.ts";
import { type Dependencies, type Executor, type TaskController, TaskRejected } from "../../../src/swarm/types.ts";

/** A controller whose calls the test ends: `gate(name)` holds a call back until resolved. */
export class FakeController implements TaskController {
  readonly calls: string[] = [];
  readonly dependencies: Dependencies | undefined;
  #gates = new Map<string, ReturnType<typeof deferred<void>>>();

  constructor(dependencies?: Dependencies) {
    this.dependencies = dependencies;
    this.gate("wait");
  }

  gate(name: string) {
    const gate = deferred<void>();
    this.#gates.set(name, gate);
    return gate;
  }

  end(name: string, error?: Error): void {
    const gate = this.#gates.get(name);
    if (error) gate?.reject(error);
    else gate?.resolve();
  }

  open(name: string): void {
    this.#gates.delete(name);
  }

  async #call(name: string, signal?: AbortSignal): Promise<void> {
    this.calls.push(name);
    const gate = this.#gates.get(name);
    if (!gate) return;
    const aborted = deferred<never>();
    signal?.addEventListener("abort", () => {
      this.calls.push(`${name} cut`);
      aborted.reject(signal.reason);
    });
    await Promise.race([gate.promise, aborted.promise]);
  }

  update(task: Task): Promise<void> {
    return this.#call(`update ${TaskState[task.desiredState]}`);
  }
  prepare(signal: AbortSignal): Promise<void> {
    return this.#call("prepare", signal);
  }
  start(signal: AbortSignal): Promise<void> {
    return this.#call("start", signal);
  }
  wait(signal: AbortSignal): Promise<void> {
    return this.#call("wait", signal);
  }
  shutdown(signal: AbortSignal): Promise<void> {
    return this.#call("shutdown", signal);
  }
  remove(signal: AbortSignal): Promise<void> {
    return this.#call("remove", signal);
  }
  close(): Promise<void> {
    return this.#call("close");
  }
  status() {
    return { containerId: "c", pid: 1, exitCode: 0, ports: [] };
  }
  async *logs() {}
}

export class FakeExecutor implements Executor {
  readonly controllers = new Map<string, FakeController>();
  readonly configured: Node[] = [];
  readonly keys: EncryptionKey[][] = [];
  readonly managers: string[][] = [];
  hostname = "w1";

  async describe() {
    return create(NodeDescriptionSchema, { hostname: this.hostname });
  }
  async configure(node: Node) {
    this.configured.push(node);
  }
  async setNetworkKeys(keys: EncryptionKey[]) {
    this.keys.push(keys);
  }
  setManagers(hosts: string[]) {
    this.managers.push(hosts);
  }
  async controller(task: Task, dependencies: Dependencies) {
    if (task.serviceId === "refused") throw new TaskRejected("not here");
    const controller = new FakeController(dependencies);
    this.controllers.set(task.id, controller);
    return controller;
  }
}

/** Fields of a message, not the message itself. */
type Init<S extends DescMessage> = Exclude<MessageInitShape<S>, MessageShape<S>>;

export function task(id: string, init: Init<typeof TaskSchema> = {}): Task {
  return create(TaskSchema, {
    id,
    serviceId: "s1",
    desiredState: TaskState.RUNNING,
    status: { state: TaskState.ASSIGNED },
    spec: { runtime: { case: "container", value: { image: "x" } } },
    ...init,
  });
}

export function assignments(init: MessageInitShape<typeof AssignmentsMessageSchema>): AssignmentsMessage {
  return create(AssignmentsMessageSchema, init);
}

/** One registration as the fake manager saw it. */
export interface FakeSession {
  readonly request: SessionRequest;
  readonly messages: AsyncQueue<SessionMessage>;
  readonly assignments: AsyncQueue<AssignmentsMessage>[];
}

export class FakeManager {
  readonly sessions: FakeSession[] = [];
  readonly heartbeats: string[] = [];
  readonly updates: string[] = [];
  connections = 0;
  closed = 0;
  /** Attachment ids in the order of their requests. */
  readonly attached: string[] = [];
  readonly detached: string[] = [];
  /** Statuses of these tasks are refused. */
  readonly foreign = new Set<string>();

  get last(): FakeSession {
    const session = this.sessions.at(-1);
    if (!session) throw new Error("no session yet");
    return session;
  }

  message(init: Init<typeof SessionMessageSchema> = {}): SessionMessage {
    return create(SessionMessageSchema, {
      sessionId: `session-${this.sessions.length}`,
      node: { id: "n1", spec: {} },
      managers: [{ peer: { nodeId: "m1", addr: "10.0.0.1:2377" }, weight: 10n }],
      ...init,
    });
  }

  connect = (): Connection => {
    this.connections++;
    const over = new AbortController();
    const end = <T>(queue: AsyncQueue<T>, signal?: AbortSignal): AsyncQueue<T> => {
      signal?.addEventListener("abort", () => queue.fail(new GrpcError(status.CANCELLED, "cancelled")));
      return queue;
    };
    const methods = {
      session: (request: SessionRequest, { signal }: { signal: AbortSignal }) => {
        const session = { request, messages: new AsyncQueue<SessionMessage>(), assignments: [] };
        this.sessions.push(session);
        session.messages.push(this.message());
        return end(session.messages, signal);
      },
      heartbeat: async ({ sessionId }: { sessionId: string }) => {
        this.heartbeats.push(sessionId);
        return { period: { seconds: 5n, nanos: 0 } };
      },
      assignments: (_: unknown, { signal }: { signal: AbortSignal }) => {
        const queue = new AsyncQueue<AssignmentsMessage>();
        this.last.assignments.push(queue);
        return end(queue, signal);
      },
      updateTaskStatus: async ({ updates }: { updates: StatusUpdate[] }) => {
        if (updates.some((u) => this.foreign.has(u.taskId))) throw new GrpcError(status.PERMISSION_DENIED, "not yours");
        for (const { taskId, status: s } of updates) this.updates.push(`${taskId}:${TaskState[s.state]}`);
        return {};
      },
      attachNetwork: async ({ config }: { config: { target: string } }) => {
        if (config.target === "nowhere") throw new GrpcError(status.NOT_FOUND, "network nowhere not found");
        const attachmentId = `a${this.attached.length + 1}`;
        this.attached.push(attachmentId);
        return { attachmentId };
      },
      detachNetwork: async ({ attachmentId }: { attachmentId: string }) => {
        this.detached.push(attachmentId);
        return {};
      },
      // biome-ignore lint/correctness/useYield: it only refuses
      listenSubscriptions: async function* () {
        throw new GrpcError(status.UNIMPLEMENTED, "no logs");
      },
    };
    return {
      client: <S extends DescService>(_: S) => methods as unknown as Client<S>,
      close: () => {
        this.closed++;
        over.abort();
      },
    };
  };
}
