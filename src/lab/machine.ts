/** What a machine must have to carry a lab, looked at before anything is made. */
import { spawnSync } from "node:child_process";
import { existsSync, statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { SkeinError } from "../base/errors.ts";
import { type Feature, missingFeature } from "../kernel/feature.ts";

/** What every host of a lab is made of, in the kernel's words and by the names of its modules. */
const needed: readonly (readonly [Feature, string])[] = [
  ["bridge", "bridge"],
  ["veth", "veth"],
  ["vxlan", "vxlan"],
  ["nftables", "nf_tables"],
];

/** Throws unless this is Linux with namespaces, seen by root. */
export function checkMachine(): void {
  if (process.getuid?.() !== 0) {
    throw new SkeinError("forbidden", "a lab makes network namespaces and needs root", { hint: "run it with sudo" });
  }
  if (!existsSync("/proc/self/ns/net")) throw new SkeinError("internal", "this kernel has no network namespaces");
}

/** Throws when hosts cannot be made here, naming what is missing and the remedy. */
export function checkHosts(
  missing: (feature: Feature) => string | undefined = missingFeature,
  roots: () => readonly [mine: string, ofNamespace: string] = rootDirectories,
): void {
  for (const [feature, module] of needed) {
    const why = missing(feature);
    if (why === undefined) continue;
    throw new SkeinError("internal", `this kernel cannot make what a lab needs: ${feature} (${why})`, {
      hint: `load it (modprobe ${module}) or boot a kernel that has it, such as Debian's linux-image-amd64`,
    });
  }
  const [mine, ofNamespace] = roots();
  if (mine !== ofNamespace) {
    // Who enters a container's namespaces from there (runc exec) would arrive in the machine's root, not in the container's.
    throw new SkeinError("internal", "the root directory here is a chroot's, in which containers are not contained", {
      hint: "enter it by pivot_root in a mount namespace of its own, as systemd-nspawn does",
    });
  }
}

/** Images, unpacked on each host, and the state of three engines; measured 190 MB for the tour. */
const NEEDED_MB = 400;

/** Throws when the disk has no room for a lab's state, or cannot be written to. */
export function checkDisk(
  stateDir: string,
  freeMb: (dir: string) => number = (dir) => {
    const { bavail, bsize } = statfsSync(dir);
    return (bavail * bsize) / 2 ** 20;
  },
): void {
  let dir = stateDir;
  while (!existsSync(dir)) dir = dirname(dir);
  const free = Math.floor(freeMb(dir));
  if (free >= NEEDED_MB) return;
  throw new SkeinError("unavailable", `no room for a lab: ${dir} has ${free} MB left, ${NEEDED_MB} MB are needed`, {
    hint: "make room there, or mount another disk at it",
  });
}

/** The root directory of this process and that of its mount namespace, by device and inode: two in a chroot. */
function rootDirectories(): [string, string] {
  const { dev, ino } = statSync("/");
  const mine = `${dev}:${ino}`;
  const entered = spawnSync("nsenter", ["--mount=/proc/self/ns/mnt", "--", "stat", "-c", "%d:%i", "/"], {
    encoding: "utf8",
  });
  return [mine, entered.status === 0 ? entered.stdout.trim() : mine];
}
