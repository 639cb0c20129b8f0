/**
 * A host whose engine lives in another hour: libfaketime (Debian's package) before `skeind`, which reads the offset from a
 * file at most a second old, so that the clock can be set while it runs. Only wall time is another; timers go on. What
 * is written in Go (containerd, etcd, dockerd) keeps the machine's time.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { invalid, SkeinError } from "../base/errors.ts";
import type { HostSpec } from "./spec.ts";

const libraries = ["x86_64", "aarch64"].map((arch) => `/usr/lib/${arch}-linux-gnu/faketime/libfaketimeMT.so.1`);

const fileOf = (host: HostSpec): string => join(host.runDir, "clock");

/**
 * Sets a host's clock by `offset` from the machine's: "+1h", "-90s", "+100d". An engine that was started without one
 * has to be started again.
 * @throws notFound where libfaketime is not installed.
 */
export function setClock(host: HostSpec, offset: string): void {
  if (!/^[+-]\d+(\.\d+)?[smhdy]?$/.test(offset)) {
    throw invalid(`${JSON.stringify(offset)} is no offset of a clock: +1h, -90s, +100d`);
  }
  if (!libraries.some((path) => existsSync(path))) {
    throw new SkeinError("notFound", "there is no libfaketime on this machine", {
      hint: "apt-get install libfaketime",
    });
  }
  writeFileSync(fileOf(host), `${offset}\n`);
}

/** Whether a host's clock was ever set. */
export const hasOwnClock = (host: HostSpec): boolean => existsSync(fileOf(host));

/** The library puts semaphores named after process ids into /dev/shm: the host, whose ids are its own, gets one of its own. */
const script = `grep -q ^skein-shm /proc/mounts || mount -n -t tmpfs skein-shm /dev/shm
export LD_PRELOAD="$0" FAKETIME_TIMESTAMP_FILE="$1"
export FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_ONLY_CMDS=node
shift
exec "$@"`;

/** The words before the engine's command on a host whose clock was set. */
export function clockWords(host: HostSpec): string[] {
  const library = libraries.find((path) => existsSync(path));
  if (!library || !hasOwnClock(host)) return [];
  return ["sh", "-c", script, library, fileOf(host)];
}
