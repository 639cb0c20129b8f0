/** The few calls of the C library that Node lacks. Each takes microseconds and may be made on the main thread. */
import { getSystemErrorName } from "node:util";
import koffi from "koffi";

const libc = koffi.load("libc.so.6");
const c = {
  mkfifo: libc.func("int mkfifo(const char *path, unsigned int mode)"),
  mount: libc.func(
    "int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)",
  ),
  lgetxattr: libc.func("intptr_t lgetxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)"),
  fsetxattr: libc.func("int fsetxattr(int fd, const char *name, const uint8_t *value, size_t size, int flags)"),
  umount2: libc.func("int umount2(const char *target, int flags)"),
};

function check(result: number, what: string): void {
  if (result === 0) return;
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  throw Object.assign(new Error(`${code}: ${what}`), { code, errno });
}

export function mkfifo(path: string, mode = 0o600): void {
  check(c.mkfifo(path, mode), `mkfifo ${path}`);
}

const flagOf: Record<string, number> = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  remount: 32,
  bind: 4096,
  rbind: 4096 | 16384,
};

/** mount(8)'s meaning: options that are flags become flags, the rest is the file system's data. */
export function mount(type: string, source: string, target: string, options: readonly string[]): void {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const flag = flagOf[option];
    if (flag !== undefined) flags |= flag;
    else if (option !== "rw") data.push(option);
  }
  check(c.mount(source, target, type, flags, data.join(",")), `mount ${type} on ${target}`);
}

const MNT_DETACH = 2;

export function unmount(target: string): void {
  check(c.umount2(target, MNT_DETACH), `umount ${target}`);
}

/** The value of an extended attribute, one character per byte, or undefined where there is none. */
export function extendedAttribute(path: string, name: string): string | undefined {
  const value = Buffer.alloc(256);
  const size = Number(c.lgetxattr(path, name, value, value.length));
  return size < 0 ? undefined : value.toString("latin1", 0, size);
}

/** Sets an extended attribute of an open file. */
export function setExtendedAttribute(fd: number, name: string, value: Buffer): void {
  check(c.fsetxattr(fd, name, value, value.length, 0), `setxattr ${name}`);
}
