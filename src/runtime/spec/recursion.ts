/** Read-only mounts that cover what is mounted below them: `rro`, for which kernel and OCI runtime must be young enough. */
import { execFile } from "node:child_process";
import { release } from "node:os";
import { promisify } from "node:util";
import { invalid } from "../../base/errors.ts";
import type { OciRuntime } from "../oci.ts";
import type { ContainerSpec } from "../types.ts";

const run = promisify(execFile);
/** By the program's path: undefined means that it can. */
const reasons = new Map<string, Promise<string | undefined>>();

/** mount_setattr(2) came with Linux 5.12. */
function kernelCan(version: string): boolean {
  const [major = 0, minor = 0] = version.split(/[.-]/).map(Number);
  return major > 5 || (major === 5 && minor >= 12);
}

/** Why a runtime cannot, in Docker's words; undefined where it can. Asked once per program. */
function reasonAgainst({ name, path }: OciRuntime): Promise<string | undefined> {
  const known = reasons.get(path);
  if (known) return known;
  const asked = kernelCan(release())
    ? run(path, ["features"]).then(
        ({ stdout }) => (/"rro"/.test(stdout) ? undefined : `rro is not supported by runtime ${JSON.stringify(name)}`),
        () => `rro is not supported by runtime ${JSON.stringify(name)}: it does not tell its features`,
      )
    : Promise.resolve("rro is not supported: kernel version is older than 5.12");
  reasons.set(path, asked);
  return asked;
}

/** The same with `rro` on the mounts that ask for it. Throws where one must have it and cannot. */
export async function withReadOnlyBelow(spec: ContainerSpec, runtime: OciRuntime): Promise<ContainerSpec> {
  if (!spec.mounts.some(({ readonlyBelow }) => readonlyBelow)) return spec;
  const reason = await reasonAgainst(runtime);
  if (reason !== undefined && spec.mounts.some(({ readonlyBelow }) => readonlyBelow === "always")) {
    throw invalid(reason);
  }
  if (reason !== undefined) return spec;
  const mounts = spec.mounts.map((mount) =>
    mount.readonlyBelow && mount.type !== "tmpfs" ? { ...mount, options: [...mount.options, "rro"] } : mount,
  );
  return { ...spec, mounts };
}
