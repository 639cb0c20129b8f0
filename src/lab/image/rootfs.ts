/** The root file system of the smallest image as a plain archive, for `docker import`. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { baseLayer, packages } from "./library.ts";
import { unpackPackages } from "./packages.ts";

/** Writes it to `target`; `cache` keeps the packages it is made of. */
export async function buildRootfs(target: string, cache = join(dirname(target), "packages")): Promise<void> {
  writeFileSync(target, (await baseLayer(await unpackPackages(cache, packages))).tar);
}
