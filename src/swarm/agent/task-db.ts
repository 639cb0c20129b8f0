/**
 * The tasks that were assigned to this node, on disk: a worker that restarts without managers keeps what it
 * runs. One file per task (the `Task` message with its status), so that a status change writes one small file.
 *
 * Files are replaced whole, but not forced to the platter: after a crash of the daemon everything is there; after a
 * power failure the containers are gone with whatever was not written, and a task that is taken up in an older state
 * only finds again what it did. A burst of tasks would otherwise spend its time in fsync.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import type { Logger } from "../../base/log.ts";

export interface StoredTask {
  readonly task: Task;
  /** No longer assigned; what it left on this host is not yet removed. */
  readonly removing: boolean;
}

export interface TaskDb {
  load(): StoredTask[];
  /** Throws when there is no room for it; what was there before stays. */
  put(task: Task, removing?: boolean): void;
  delete(id: string): void;
}

const assigned = ".task";
const removing = ".removing";

/** Tasks in `dir`; files that cannot be read are logged and dropped. */
export function openTaskDb(dir: string, log: Logger): TaskDb {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const path = (id: string, suffix: string) => join(dir, `${id}${suffix}`);
  const drop = (name: string) => rmSync(join(dir, name), { force: true });
  return {
    load() {
      const found: StoredTask[] = [];
      for (const name of readdirSync(dir).sort()) {
        if (!name.endsWith(assigned) && !name.endsWith(removing)) {
          drop(name);
          continue;
        }
        try {
          const task = fromBinary(TaskSchema, readFileSync(join(dir, name)));
          if (`${task.id}${assigned}` !== name && `${task.id}${removing}` !== name) throw new Error("not this task");
          found.push({ task, removing: name.endsWith(removing) });
        } catch (error) {
          log.error("a stored task is not readable and is forgotten", { file: name, error });
          drop(name);
        }
      }
      return found;
    },
    put(task, gone = false) {
      const target = path(task.id, gone ? removing : assigned);
      try {
        writeFileSync(`${target}.new`, toBinary(TaskSchema, task), { mode: 0o600 });
        renameSync(`${target}.new`, target);
      } catch (error) {
        rmSync(`${target}.new`, { force: true });
        throw error;
      }
      if (gone) drop(`${task.id}${assigned}`);
    },
    delete(id) {
      drop(`${id}${assigned}`);
      drop(`${id}${removing}`);
    },
  };
}

/** A database that forgets; for tests. */
export function memoryTaskDb(initial: StoredTask[] = []): TaskDb {
  const tasks = new Map(initial.map((stored) => [stored.task.id, stored]));
  return {
    load: () => [...tasks.values()],
    put: (task, gone = false) => void tasks.set(task.id, { task, removing: gone }),
    delete: (id) => void tasks.delete(id),
  };
}
