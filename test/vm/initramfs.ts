/** The first root of the virtual machine: BusyBox, the modules that reach the host's files, and what is to be run. */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { run } from "../../src/lab/process.ts";
import type { Kernel } from "./kernel.ts";

/** virtio-serial carries the output, 9p the host's files. */
const MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

async function output(...command: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(command);
  if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr.trim()}`);
  return stdout;
}

export async function writeInitramfs(target: string, kernel: Kernel, command: string): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "skein-vm-root-"));
  try {
    const place = (from: string, to: string) => {
      mkdirSync(dirname(join(root, to)), { recursive: true });
      copyFileSync(from, join(root, to));
    };
    for (const dir of ["proc", "sys", "dev"]) mkdirSync(join(root, dir));
    place("/bin/busybox", "bin/busybox");
    const libraries = await output("ldd", "/bin/busybox");
    for (const [, library = ""] of libraries.matchAll(/(\/\S+) \(0x/g)) place(library, library);
    for (const applet of ["sh", "mount", "insmod", "mkdir", "cp", "cat", "switch_root"]) {
      symlinkSync("busybox", join(root, "bin", applet));
    }
    const modules: string[] = [];
    for (const module of MODULES) {
      const needed = await output("modprobe", "-d", kernel.root, "-S", kernel.release, "--show-depends", module);
      for (const [, path = ""] of needed.matchAll(/^insmod (\S+)/gm)) {
        if (modules.includes(path)) continue;
        modules.push(path);
        place(path, join("modules.d", basename(path)));
      }
    }
    const text = (name: string, content: string) => writeFileSync(join(root, name), content);
    text("modules", modules.map((path) => `/modules.d/${basename(path)}\n`).join(""));
    text("command", command);
    text("release", kernel.release);
    text("cache", kernel.root);
    copyFileSync(join(import.meta.dirname, "init.sh"), join(root, "init"));
    chmodSync(join(root, "init"), 0o755);
    await output("sh", "-c", `cd '${root}' && find . | busybox cpio -o -H newc 2>/dev/null >'${target}'`);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
