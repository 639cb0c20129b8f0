/** Ends whatever still lives in a namespace that is to be removed, known or not. */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { end, processRef } from "./process.ts";

/** Pids of the processes whose network namespace is the one pinned at `path`. */
export function processesIn(path: string): number[] {
  let inode: number;
  try {
    inode = statSync(path).ino;
  } catch {
    return [];
  }
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/ns/net`) === `net:[${inode}]`;
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Kills them; process 1 of a PID namespace takes its containers along. */
export async function killAllIn(path: string): Promise<void> {
  for (const pid of processesIn(path)) {
    const ref = processRef(pid);
    if (ref) await end(ref, "SIGKILL", 5000);
  }
}
