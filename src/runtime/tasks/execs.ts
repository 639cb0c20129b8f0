/**
 * Commands that run in a container beside its first process. Each has FIFOs in a directory of its own, which outlives the
 * daemon: by it the next one finds what still runs (`leftovers.ts`).
 */
import { rmSync } from "node:fs";
import type { Logger } from "../../base/log.ts";
import type { Containerd } from "../containerd/client.ts";
import { ignoreNotFound, isUnanswered, translateStart } from "../containerd/errors.ts";
import { execProcess } from "../spec/generate.ts";
import type { ExecSpec, StartedProcess } from "../types.ts";
import { processAny } from "./encode.ts";
import { type Exits, exitStatus } from "./exits.ts";
import { LeftExecs } from "./leftovers.ts";
import { BEGIN_MS, DRAIN_MS, makeFifos, outputsIn, taskIo } from "./stdio.ts";
import type { StoredContainers } from "./stored.ts";

/** How long containerd may take to forget a command, ms. */
const DISCARD_MS = 10_000;

export interface ExecsOptions {
  readonly containerd: Containerd;
  readonly exits: Exits;
  readonly stored: StoredContainers;
  readonly log: Logger;
  /** Where the directories of a container's commands are. */
  readonly dirOf: (id: string) => string;
}

export class Execs implements Disposable {
  readonly #options: ExecsOptions;
  readonly #left: LeftExecs;

  constructor(options: ExecsOptions) {
    this.#options = options;
    const { containerd, exits, log } = options;
    const open = (id: string, execId: string, dir: string) => taskIo(containerd, id, execId, outputsIn(dir));
    this.#left = new LeftExecs({ containerd, exits, log, open });
  }

  /** @throws as containerd refuses it; where it says nothing, the command may run all the same and is read to its end. */
  async start(id: string, spec: ExecSpec): Promise<StartedProcess> {
    const { containerd, dirOf, exits, stored } = this.#options;
    const { tasks } = containerd;
    const { execId } = spec;
    const call = containerd.call({ timeoutMs: BEGIN_MS });
    const record = await stored.specOf(id);
    const user = spec.user ? await stored.userOf(id, spec.user) : record.process.user;
    const process = execProcess(record.process, spec, user);
    const dir = `${dirOf(id)}/${execId}`;
    const fifos = makeFifos(dir, { stdin: spec.stdin, tty: spec.tty });
    const raw = exits.expect(id, execId);
    const io = taskIo(containerd, id, execId, fifos);
    const quick = containerd.call({ timeoutMs: DISCARD_MS });
    const discard = () => ignoreNotFound(tasks.deleteProcess({ containerId: id, execId }, quick)).catch(() => {});
    try {
      await tasks.exec({ containerId: id, execId, ...fifos, terminal: spec.tty, spec: processAny(process) }, call);
      const { pid } = await tasks.start({ containerId: id, execId }, call);
      exits.started(id, execId, pid);
      void raw.then(async () => {
        await discard();
        await io.finish(DRAIN_MS);
        rmSync(dir, { recursive: true, force: true });
      });
      return { pid, io, exit: raw.then((end) => exitStatus(end, false)) };
    } catch (error) {
      exits.forget(id, execId);
      if (isUnanswered(error)) {
        void this.#left.follow(id, execId, dir, io);
        throw translateStart(error);
      }
      await discard();
      io.destroy();
      rmSync(dir, { recursive: true, force: true });
      throw translateStart(error);
    }
  }

  /** Those that an earlier daemon left in a container are read to their end. */
  adopt(id: string): void {
    this.#left.adopt(id, this.#options.dirOf(id));
  }

  /** What lies on the host for commands of a container that is gone. */
  forget(id: string): void {
    rmSync(this.#options.dirOf(id), { recursive: true, force: true });
  }

  [Symbol.dispose](): void {
    this.#left[Symbol.dispose]();
  }
}
