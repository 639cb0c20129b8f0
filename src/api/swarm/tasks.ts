/** /tasks. */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { isDirty } from "../../swarm/manager/orchestrator/task.ts";
import type { ControlApi } from "../../swarm/types.ts";
import { json } from "../http/reply.ts";
import type { Filters } from "../http/request.ts";
import type { Route } from "../http/router.ts";
import { controlOf, findNode, findService, findTask, type SwarmApi, swarmRoute, taskName } from "./access.ts";
import { taskToJson } from "./convert/task.ts";
import { accept, byEnum, byLabels, byPrefix, byValue, values } from "./filters.ts";
import { logsReply } from "./logs.ts";

const FILTERS = ["name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];

/** Runs what its service asks for now, under whatever version of the spec it was made. */
function isUpToDate(control: ControlApi, task: Task): boolean {
  const service = control.service(task.serviceId);
  return service !== undefined && !isDirty(service, task, control.node(task.nodeId));
}

/** Tasks that pass Docker's filters; names of services and nodes in them are resolved. */
function listTasks(control: ControlApi, filters: Filters): Task[] {
  accept(filters, FILTERS);
  const services = new Set(values(filters, "service").map((ref) => findService(control, ref).id));
  const nodes = new Set(values(filters, "node").map((ref) => findNode(control, ref).id));
  const upToDate = values(filters, "_up-to-date").length > 0;
  return control.tasks().filter(
    (task) =>
      task.spec?.runtime.case !== "attachment" &&
      byValue(filters, "runtime", "container") &&
      (services.size === 0 || services.has(task.serviceId)) &&
      (nodes.size === 0 || nodes.has(task.nodeId)) &&
      byPrefix(filters, "name", taskName(task)) &&
      byPrefix(filters, "id", task.id) &&
      // A service's labels are those of its tasks too: `docker stack ps` asks by them.
      byLabels(filters, "label", { ...task.serviceAnnotations?.labels, ...task.annotations?.labels }) &&
      byEnum(filters, "desired-state", TaskState, task.desiredState) &&
      (!upToDate || isUpToDate(control, task)),
  );
}

export function taskRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/tasks", ({ query }) => json(listTasks(controlOf(api), query.filters()).map(taskToJson))),
    swarmRoute("GET", "/tasks/:id", ({ params }) => json(taskToJson(findTask(controlOf(api), params.id)))),
    swarmRoute("GET", "/tasks/:id/logs", (request) => {
      const control = controlOf(api);
      const task = findTask(control, request.params.id);
      return logsReply(control, request, task.spec, { serviceIds: [], nodeIds: [], taskIds: [task.id] });
    }),
  ];
}
