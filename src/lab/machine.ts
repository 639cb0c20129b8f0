/** What a machine must have to carry a lab, looked at before anything is made. */
import { existsSync, readFileSync } from "node:fs";
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
  mountInfo: () => string = () => readFileSync("/proc/self/mountinfo", "utf8"),
): void {
  for (const [feature, module] of needed) {
    const why = missing(feature);
    if (why === undefined) continue;
    throw new SkeinError("internal", `this kernel cannot make what a lab needs: ${feature} (${why})`, {
      hint: `load it (modprobe ${module}) or boot a kernel that has it, such as Debian's linux-image-amd64`,
    });
  }
  // A host's own mounts need a root whose propagation can be turned off; that of a plain chroot is no mount point.
  if (!/^\S+ \S+ \S+ \S+ \/ /m.test(mountInfo())) {
    throw new SkeinError("internal", "the root directory here is no mount point, as in a plain chroot", {
      hint: "bind it on itself before entering it: mount --bind ROOT ROOT && chroot ROOT",
    });
  }
}
