/** /dev/shm of containers whose IPC namespace others may join: a tmpfs of the host, bound into all of them. */
import { existsSync, mkdirSync, rmdirSync } from "node:fs";
import { errnoOf } from "../../base/errors.ts";
import { mount, unmount } from "../libc.ts";
import type { ContainerSpec } from "../types.ts";

const defaultSize = 64 * 1024 * 1024;

export class SharedMemory {
  readonly #dir: string;

  constructor(run: string) {
    this.#dir = `${run}/shm`;
  }

  /** The directory that becomes the container's /dev/shm; undefined where it has one of its own inside. */
  open(spec: ContainerSpec): string | undefined {
    const { ipcMode: mode } = spec;
    if (typeof mode === "object") return `${this.#dir}/${mode.containerId}`;
    if (mode !== "shareable") return undefined;
    const path = `${this.#dir}/${spec.id}`;
    this.close(spec.id);
    mkdirSync(path, { recursive: true, mode: 0o711 });
    const options = ["nosuid", "noexec", "nodev", "mode=1777", `size=${spec.shmSize || defaultSize}`];
    mount("tmpfs", "shm", path, options);
    return path;
  }

  /** Lets go of it: those who joined keep what they have. Nothing there is no error. */
  close(id: string): void {
    const path = `${this.#dir}/${id}`;
    if (!existsSync(path)) return;
    try {
      unmount(path);
    } catch (error) {
      // Not mounted: left by a crash between the directory and its mount.
      if (errnoOf(error) !== "EINVAL") throw error;
    }
    rmdirSync(path);
  }
}
