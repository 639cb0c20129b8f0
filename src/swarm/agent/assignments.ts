/**
 * Assignment messages: a complete set first, then changes, each naming the set that it applies to. Pure.
 */
import {
  AssignmentChange_AssignmentAction as Action,
  type AssignmentsMessage,
  AssignmentsMessage_Type as Type,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import type { Config, Secret, Task } from "#proto/docker/swarmkit/objects_pb.js";

/** A message taken apart by kind; the order of application is secrets, configs, tasks. */
export interface Changes {
  /** Whatever is not listed is no longer assigned. */
  readonly complete: boolean;
  readonly secrets: { put: Secret[]; remove: string[] };
  readonly configs: { put: Config[]; remove: string[] };
  readonly tasks: { put: Task[]; remove: string[] };
  /** CSI volumes, which this agent cannot mount. */
  readonly volumes: string[];
}

export function changesOf(message: AssignmentsMessage): Changes {
  const changes: Changes = {
    complete: message.type === Type.COMPLETE,
    secrets: { put: [], remove: [] },
    configs: { put: [], remove: [] },
    tasks: { put: [], remove: [] },
    volumes: [],
  };
  for (const { assignment, action } of message.changes) {
    const item = assignment?.item;
    const put = action === Action.UPDATE;
    switch (item?.case) {
      case "secret":
        if (put) changes.secrets.put.push(item.value);
        else changes.secrets.remove.push(item.value.id);
        break;
      case "config":
        if (put) changes.configs.put.push(item.value);
        else changes.configs.remove.push(item.value.id);
        break;
      case "task":
        if (put) changes.tasks.put.push(item.value);
        else changes.tasks.remove.push(item.value.id);
        break;
      case "volume":
        changes.volumes.push(item.value.id);
        break;
      case undefined:
        break;
    }
  }
  return changes;
}

/** Whether `message` follows on the set `held` ("" when the stream has just begun). */
export function follows(held: string, message: AssignmentsMessage): boolean {
  return held === "" || message.appliesTo === held;
}
