/** Debian's kernel with all of its modules, downloaded and unpacked, never installed. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../src/lab/process.ts";

export interface Kernel {
  /** As `uname -r` says. */
  readonly release: string;
  /** What boots. */
  readonly image: string;
  /** The folder with `lib/modules/<release>`. */
  readonly root: string;
}

async function must(command: readonly string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await run(cwd === undefined ? command : ["env", "-C", cwd, ...command]);
  if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr.trim()}`);
  return stdout;
}

/** The kernel that `linux-image-amd64` stands for; `cache` keeps it. The cloud's kernel would not do: it has no 9p. */
export async function debianKernel(cache: string): Promise<Kernel> {
  const found = kernelIn(cache);
  if (found) return found;
  const image = /Depends: (linux-image-\S+)/.exec(await must(["apt-cache", "depends", "linux-image-amd64"]))?.[1];
  if (!image) throw new Error("apt knows no linux-image-amd64: apt-get update");
  const work = join(cache, `.work.${process.pid}`);
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(work, "root"), { recursive: true });
  try {
    await must(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", image], work);
    const deb = readdirSync(work).find((name) => name.endsWith(".deb"));
    if (!deb) throw new Error(`apt-get downloaded no ${image}`);
    await must(["dpkg-deb", "-x", join(work, deb), join(work, "root")]);
    const release = image.slice("linux-image-".length);
    await must(["depmod", "-b", join(work, "root"), release]);
    renameSync(join(work, "root"), join(cache, release));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return kernelIn(cache) ?? Promise.reject(new Error(`${image} has no kernel in it`));
}

function kernelIn(cache: string): Kernel | undefined {
  if (!existsSync(cache)) return undefined;
  const release = readdirSync(cache)
    .filter((name) => /^\d/.test(name))
    .sort()
    .at(-1);
  if (!release) return undefined;
  const root = join(cache, release);
  return { release, root, image: join(root, "boot", `vmlinuz-${release}`) };
}
