/** How many tasks of a service run and how many should: the REPLICAS column. */
import type { Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { ServiceStatusJson } from "./convert/service.ts";

interface Counts {
  running: number;
  /** Wanted to run or to complete: what a global service should have. */
  wanted: number;
  completed: number;
}

const isJob = (service: Service): boolean =>
  service.spec?.mode.case === "replicatedJob" || service.spec?.mode.case === "globalJob";

function desired(service: Service, counts: Counts): number {
  const mode = service.spec?.mode;
  switch (mode?.case) {
    case "replicated":
      return Number(mode.value.replicas);
    case "replicatedJob":
      // How many may run at a time, also when all are done.
      return Number(mode.value.maxConcurrent);
    case "globalJob":
      return counts.wanted - counts.completed;
    default:
      return counts.wanted;
  }
}

/** Status per service id. Tasks of a node that is down do not run; a job counts its present iteration only. */
export function serviceStatuses(
  services: readonly Service[],
  tasks: readonly Task[],
  nodes: readonly Node[],
): Map<string, ServiceStatusJson> {
  const down = new Set(nodes.filter((node) => node.status?.state === NodeStatus_State.DOWN).map((node) => node.id));
  const byService = new Map(services.map((service) => [service.id, { service, running: 0, wanted: 0, completed: 0 }]));
  for (const task of tasks) {
    const entry = byService.get(task.serviceId);
    if (!entry) continue;
    if (isJob(entry.service)) {
      if ((task.jobIteration?.index ?? 0n) !== (entry.service.jobStatus?.jobIteration?.index ?? 0n)) continue;
      if (task.status?.state === TaskState.COMPLETE) entry.completed++;
    }
    const isWanted = task.desiredState <= TaskState.COMPLETE;
    if (isWanted) entry.wanted++;
    // Of a global service the wanted tasks are the measure: one that still stops would make it 4 of 2.
    const counts = isWanted || entry.service.spec?.mode.case !== "global";
    if (counts && task.status?.state === TaskState.RUNNING && !down.has(task.nodeId)) entry.running++;
  }
  return new Map(
    [...byService].map(([id, { service, ...counts }]) => [
      id,
      { RunningTasks: counts.running, DesiredTasks: desired(service, counts), CompletedTasks: counts.completed },
    ]),
  );
}
