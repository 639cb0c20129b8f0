/**
 * containerd's shims as the kernel shows them. When the caller of a task's creation dies in the middle of it, containerd
 * gives the creation up but may leave the shim, and with it a process that waits to be started: nobody knows it any more.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface Shim {
  readonly pid: number;
  /** The container it is for. */
  readonly id: string;
}

/** Reads one from the words of a command line; undefined for anything but a shim of this containerd and namespace. */
export function shimOf(words: readonly string[], socket: string, namespace: string): string | undefined {
  if (!words[0]?.endsWith("containerd-shim-runc-v2")) return undefined;
  const after = (flag: string) => words[words.indexOf(flag) + 1];
  if (!["-namespace", "-address", "-id"].every((flag) => words.includes(flag))) return undefined;
  return after("-namespace") === namespace && after("-address") === socket ? after("-id") : undefined;
}

/** All shims of the containerd behind `socket`. */
export function shims(socket: string, namespace: string): Shim[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const id = shimOf(readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0"), socket, namespace);
      return id ? [{ pid: Number(name), id }] : [];
    } catch {
      return [];
    }
  });
}
