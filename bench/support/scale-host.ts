/** A host on which containers start at once and never end. */
import { create } from "@bufbuild/protobuf";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type NodeDescription, NodeDescriptionSchema } from "#proto/docker/swarmkit/types_pb.js";
import type { Executor, TaskController } from "../../src/swarm/types.ts";

const plugins = [
  { type: "Network", name: "overlay" },
  { type: "Volume", name: "local" },
];

export class IdleHost implements Executor {
  readonly #description: NodeDescription;

  constructor(hostname: string) {
    this.#description = create(NodeDescriptionSchema, {
      hostname,
      platform: { architecture: "x86_64", os: "linux" },
      resources: { nanoCpus: 64_000_000_000n, memoryBytes: 1n << 40n },
      engine: { engineVersion: "simulated", plugins },
    });
  }

  describe(): Promise<NodeDescription> {
    return Promise.resolve(this.#description);
  }

  configure(): Promise<void> {
    return Promise.resolve();
  }

  setNetworkKeys(): Promise<void> {
    return Promise.resolve();
  }

  setManagers(): void {}

  /** As gossip would: all nodes share a process here, and one that is slow for seconds is not gone. */
  isSilent(): boolean {
    return false;
  }

  controller(task: Task): Promise<TaskController> {
    const status = { containerId: `container-of-${task.id}`, pid: 4711, exitCode: 0, ports: [] };
    return Promise.resolve({
      ...{ update: nothing, prepare: nothing, start: nothing, shutdown: nothing, remove: nothing, close: nothing },
      wait: (signal) =>
        new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
      status: () => status,
      logs: async function* () {},
    });
  }
}

const nothing = () => Promise.resolve();
