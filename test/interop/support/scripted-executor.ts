/** An `Executor` without containers: what a task does is written in its command, what happens is recorded. */
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { LogStream } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type EncryptionKey, NodeDescriptionSchema } from "#proto/docker/swarmkit/types_pb.js";
import { deferred } from "../../../src/base/async.ts";
import {
  type Dependencies,
  type Executor,
  type TaskController,
  TaskFailed,
  TaskRejected,
} from "../../../src/swarm/types.ts";

const plugins = [
  ["Network", "overlay"],
  ["Network", "bridge"],
  ["Network", "host"],
  ["Network", "null"],
  ["Volume", "local"],
  ["Log", "json-file"],
].map(([type = "", name = ""]) => ({ type, name }));

export interface ScriptedTask {
  task: Task;
  readonly dependencies: Dependencies;
  /** Names of the controller's calls, in order. */
  readonly calls: string[];
  /** Ends its process. */
  exit(code: number): void;
}

/** Commands: `reject`, `fail CODE` (exits at once), anything else runs until told. Each task logs its command. */
export class ScriptedExecutor implements Executor {
  readonly hostname: string;
  readonly tasks = new Map<string, ScriptedTask>();
  node: Node | undefined;
  keys: EncryptionKey[] = [];
  managers: string[] = [];

  constructor(hostname: string) {
    this.hostname = hostname;
  }

  async describe() {
    return create(NodeDescriptionSchema, {
      hostname: this.hostname,
      platform: { architecture: "x86_64", os: "linux" },
      resources: { nanoCpus: 2_000_000_000n, memoryBytes: 1_000_000_000n },
      engine: { engineVersion: "scripted", plugins },
    });
  }

  async configure(node: Node): Promise<void> {
    this.node = node;
  }

  async setNetworkKeys(keys: EncryptionKey[]): Promise<void> {
    this.keys = keys;
  }

  setManagers(hosts: string[]): void {
    this.managers = hosts;
  }

  async controller(task: Task, dependencies: Dependencies): Promise<TaskController> {
    const container = task.spec?.runtime.case === "container" ? task.spec.runtime.value : undefined;
    const command = [...(container?.command ?? []), ...(container?.args ?? [])];
    if (command[0] === "reject") throw new TaskRejected("this host refuses");
    const exited = deferred<number>();
    const calls: string[] = [];
    const script: ScriptedTask = { task, dependencies, calls, exit: exited.resolve };
    this.tasks.set(task.id, script);
    let exitCode = 0;
    return {
      async update(changed) {
        script.task = changed;
      },
      async prepare() {
        calls.push("prepare");
      },
      async start() {
        calls.push("start");
        if (command[0] === "fail") exited.resolve(Number(command[1]));
      },
      async wait(signal) {
        calls.push("wait");
        const cut = deferred<never>();
        signal.addEventListener("abort", () => cut.reject(signal.reason), { once: true });
        exitCode = await Promise.race([exited.promise, cut.promise]);
        if (exitCode !== 0) throw new TaskFailed(`task: non-zero exit (${exitCode})`, exitCode);
      },
      async shutdown() {
        calls.push("shutdown");
        exited.resolve(0);
      },
      async remove() {
        calls.push("remove");
      },
      async close() {
        calls.push("close");
      },
      status: () => ({ containerId: `scripted-${task.id}`, pid: 4242, exitCode, ports: [] }),
      async *logs() {
        const data = Buffer.from(`${command.join(" ")}\n`);
        yield { timestamp: timestampNow(), stream: LogStream.STDOUT, data };
      },
    };
  }
}
