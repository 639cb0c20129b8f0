/** Mounts, by the system call itself. */
import { closeSync, openSync } from "node:fs";
import { errnoOf } from "../base/errors.ts";
import * as libc from "./libc.ts";

const MS_RDONLY = 0x1;
const MS_REMOUNT = 0x20;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MNT_DETACH = 2;

/** Mounts a file system; `options` is its data string ("size=64m"). */
export function mount(type: string, source: string, target: string, options = "", readOnly = false): void {
  libc.mount(source, target, type, readOnly ? MS_RDONLY : 0, options);
}

const flagOf: Readonly<Record<string, number>> = {
  ro: MS_RDONLY,
  nosuid: 0x2,
  nodev: 0x4,
  noexec: 0x8,
  sync: 0x10,
  dirsync: 0x80,
  noatime: 0x400,
  nodiratime: 0x800,
  bind: MS_BIND,
  rbind: MS_BIND | MS_REC,
  relatime: 0x200000,
  strictatime: 0x1000000,
};
const defaults = new Set(["rw", "suid", "dev", "exec", "async", "atime", "diratime", "defaults"]);

/** As mount(8) takes its `-o`: words that are flags become flags, the rest is the file system's own. */
export function mountWith(type: string, source: string, target: string, options: readonly string[]): void {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const flag = Object.hasOwn(flagOf, option) ? flagOf[option] : undefined;
    if (flag !== undefined) flags |= flag;
    else if (!defaults.has(option)) data.push(option);
  }
  libc.mount(source, target, type, flags, data.join(","));
  // The kernel ignores all other flags of a bind mount until it is mounted again.
  if (flags & MS_BIND && flags & MS_RDONLY) libc.mount("", target, "", flags | MS_REMOUNT, "");
}

/** Makes `source` (a file or a directory) appear at `target`, which must exist. */
export function bindMount(source: string, target: string, options: { recursive?: boolean; readOnly?: boolean } = {}) {
  const flags = MS_BIND | (options.recursive ? MS_REC : 0);
  libc.mount(source, target, "", flags, "");
  if (options.readOnly) libc.mount("", target, "", flags | MS_REMOUNT | MS_RDONLY, "");
}

/** Detaches whatever is mounted at `target`; nothing there is no error. */
export function unmount(target: string): void {
  try {
    libc.umount2(target, MNT_DETACH);
  } catch (error) {
    // EINVAL: not a mount point.
    const code = errnoOf(error);
    if (code !== "EINVAL" && code !== "ENOENT") throw error;
  }
}

/** Creates an empty file to mount on, if it is not there. */
export function touch(path: string): void {
  closeSync(openSync(path, "a", 0o444));
}
