/** Whether what ended begins again: restart policies, and how often each place was restarted already. */
import type { Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { RestartPolicy_RestartCondition, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { durationMs, RESTART_DELAY_MS } from "../defaults.ts";
import { slotOf, stateOf } from "../tasks.ts";
import { byAge, createdAt } from "./task.ts";

export const restartDelayMs = (service: Service) => durationMs(service.spec?.task?.restart?.delay, RESTART_DELAY_MS);

/** Of a task, by the policy it was made under; 0 = without end. */
const maxAttempts = ({ spec }: Pick<Task, "spec">) => Number(spec?.restart?.maxAttempts ?? 0n);

/** The place a task fills. Slots of jobs begin at 0, which elsewhere says that there are none. */
const placeOf = (service: Service, task: Task) =>
  service.spec?.mode.case === "replicatedJob" ? String(task.slot) : slotOf(task);

const versionOf = (task: Task) => task.specVersion?.index ?? 0n;

const hasEndedByItself = (task: Task) =>
  [TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED].includes(stateOf(task));

/**
 * Restarts of each place of a service, for `max_attempts` and `window`: of the version that was restarted last, and only
 * where they are counted.
 */
export class RestartHistory {
  readonly #services = new Map<string, Map<string, { readonly version: bigint; times: number[] }>>();

  /**
   * What another leader did, as far as the tasks that are kept tell (the reaper keeps as many as are counted). `ahead`: of
   * steady time, the wall clock.
   */
  recall(service: Service, tasks: readonly Task[], ahead: number): void {
    for (const place of Map.groupBy(tasks, (task) => placeOf(service, task)).values()) {
      let before: Task | undefined;
      for (const task of place.sort(byAge)) {
        if (before && hasEndedByItself(before) && versionOf(before) === versionOf(task)) {
          this.record(service, before, createdAt(task) - ahead);
        }
        before = task;
      }
    }
  }

  /** `task` ended and is replaced at `now`. */
  record(service: Service, task: Task, now: number): void {
    if (maxAttempts(task) === 0) return;
    const places = this.#services.get(service.id) ?? new Map<string, { version: bigint; times: number[] }>();
    this.#services.set(service.id, places);
    const place = placeOf(service, task);
    const version = versionOf(task);
    const known = places.get(place);
    if (known?.version === version) known.times = [...within(task, known.times, now), now];
    else places.set(place, { version, times: [now] });
  }

  attempts(service: Service, task: Task, now: number): number {
    const known = this.#services.get(service.id)?.get(placeOf(service, task));
    return known?.version === versionOf(task) ? within(task, known.times, now).length : 0;
  }

  forget(serviceId: string): void {
    this.#services.delete(serviceId);
  }
}

function within({ spec }: Task, times: readonly number[], now: number): readonly number[] {
  const windowMs = durationMs(spec?.restart?.window, 0);
  return windowMs > 0 ? times.filter((at) => now - at < windowMs) : times;
}

/** Whether an ended task is to be replaced, by the restart policy it was made under: another one comes with an update. */
export function shouldRestart(service: Service, task: Task, history: RestartHistory, now: number): boolean {
  const condition = task.spec?.restart?.condition ?? RestartPolicy_RestartCondition.ANY;
  if (condition === RestartPolicy_RestartCondition.NONE) return false;
  if (condition === RestartPolicy_RestartCondition.ON_FAILURE && stateOf(task) === TaskState.COMPLETE) return false;
  const max = maxAttempts(task);
  return max === 0 || history.attempts(service, task, now) < max;
}

/** How many tasks of a place are kept: never fewer than tell whether, and when, it may be restarted. Negative: all. */
export function historyLimit(service: Service | undefined, limit: number): number {
  if (!service || limit < 0) return limit;
  const policy = service.spec?.task?.restart;
  const condition = policy?.condition ?? RestartPolicy_RestartCondition.ANY;
  const isJob = service.jobStatus !== undefined;
  if (policy && policy.maxAttempts > 0n) return Math.max(limit, Number(policy.maxAttempts) + 1);
  return condition === RestartPolicy_RestartCondition.ANY && !isJob ? limit : Math.max(limit, 1);
}
