/**
 * Room on the disk. A few megabytes of archive may unpack to more than the disk holds, and a full disk stops everybody:
 * what is being unpacked is given up while there is some left.
 */
import { statfsSync } from "node:fs";
import { messageOf, SkeinError } from "../../base/errors.ts";

/** Bytes that are left to others: this, or a twentieth of a small disk. */
const RESERVE = 512 * 1024 * 1024;
/** Milliseconds between two looks. A fast disk takes some 200 MiB meanwhile. */
const PERIOD = 100;

export interface Room {
  /** Throws where there is no room left. */
  check(): void;
}

/** The room on the file system of a directory. */
export function roomAt(dir: string): Room {
  return {
    check() {
      const { bavail, blocks, bsize } = statfsSync(dir);
      const reserve = Math.min(RESERVE, (blocks * bsize) / 20);
      if (bavail * bsize >= reserve) return;
      const left = Math.floor((bavail * bsize) / 2 ** 20);
      throw new SkeinError("internal", `no space left on device: ${left} MiB are left on the file system of ${dir}`);
    },
  };
}

/** Containerd's words for a full disk name its own paths and the call; the user needs the rest. */
export function orFull(error: unknown): unknown {
  if (error instanceof SkeinError || !/no space left on device/.test(messageOf(error))) return error;
  return new SkeinError("internal", "no space left on device", { cause: error });
}

/** Runs a job that fills the disk; aborts it when the room is used up. */
export async function watched<T>(room: Room, job: (signal: AbortSignal) => Promise<T>): Promise<T> {
  room.check();
  const full = new AbortController();
  const timer = setInterval(() => {
    try {
      room.check();
    } catch (error) {
      full.abort(error);
    }
  }, PERIOD);
  try {
    return await job(full.signal);
  } catch (error) {
    throw full.signal.aborted ? full.signal.reason : orFull(error);
  } finally {
    clearInterval(timer);
  }
}
