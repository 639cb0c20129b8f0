/**
 * A virtual machine with Debian's own kernel, for what the kernel of this machine may lack: IPVS, ipvlan, VLANs, ESP,
 * br_netfilter. Emulated in software by QEMU, so it needs nothing of this machine but patience: a program takes six times as
 * long in there, starting one thirty-five times. One machine runs one command, which may be a whole suite.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeInitramfs } from "./initramfs.ts";
import type { Kernel } from "./kernel.ts";

export interface MachineOptions {
  readonly kernel: Kernel;
  /** A shell's script; its output is this process's own. */
  readonly command: string;
  /** MB; what is written inside is kept in it, too. */
  readonly memory?: number;
  readonly signal?: AbortSignal;
}

/**
 * Boots, runs the command with this machine's root to read, and is gone, whatever happens.
 * @returns the command's exit status.
 * @throws when the machine ends without one; the message has its console's last words.
 */
export async function runInMachine(options: MachineOptions): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "skein-vm-"));
  const [initramfs, consoleLog, status] = ["initramfs", "console", "status"].map((name) => join(dir, name));
  if (!initramfs || !consoleLog || !status) throw new Error("no names");
  try {
    await writeInitramfs(initramfs, options.kernel, options.command);
    writeFileSync(status, "");
    const ended = await qemu(
      [
        ...["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", String(options.memory ?? 6144)],
        ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
        ...["-kernel", options.kernel.image, "-initrd", initramfs],
        ...["-append", "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off"],
        ...["-serial", `file:${consoleLog}`],
        ...["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"],
        ...["-device", "virtio-serial-pci"],
        ...["-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name=output"],
        ...["-chardev", `file,id=status,path=${status}`, "-device", "virtserialport,chardev=status,name=status"],
      ],
      options.signal,
    );
    const code = readFileSync(status, "utf8").trim();
    if (/^\d+$/.test(code)) return Number(code);
    const words = readFileSync(consoleLog, "utf8").trim().split("\n").slice(-60).join("\n");
    throw new Error(`the virtual machine ended without a result (${ended})\n${words}`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Runs QEMU to its end; it does not outlive this process's interest in it. */
function qemu(args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    // Its input stays open and silent: at the end of it QEMU would hang up the machine's output as well.
    const child = spawn("qemu-system-x86_64", args, { stdio: ["pipe", "pipe", "inherit"] });
    child.stdout.pipe(process.stdout, { end: false });
    const kill = () => child.kill("SIGKILL");
    signal?.addEventListener("abort", kill);
    process.once("exit", kill);
    child.once("error", reject);
    child.once("exit", (code, by) => {
      signal?.removeEventListener("abort", kill);
      process.removeListener("exit", kill);
      resolve(by ? `killed by ${by}` : `status ${code}`);
    });
  });
}
