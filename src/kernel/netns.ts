/**
 * Network namespaces. The calling thread is moved into the namespace for the length of a synchronous
 * function and back: 5 µs, no process.
 *
 * Threads created while inside would stay inside for ever, and libuv creates its pool at the first
 * asynchronous file operation. Hence the pool is made at once when this module is loaded.
 */
import { closeSync, fstatSync, mkdirSync, openSync, rmSync, stat, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../base/errors.ts";
import { KernelError } from "./error.ts";
import * as libc from "./libc.ts";
import { bindMount, touch, unmount } from "./mount.ts";
import { openRtnl } from "./rtnl.ts";
import type { NetNs } from "./types.ts";

stat("/", () => {});

/** The thread's own; `self` would be that of the main thread in a Worker. */
const OWN = "/proc/thread-self/ns/net";
const NSFS_MAGIC = 0x6e736673;
const NS_GET_NSTYPE = 0xb703;

/** Where this thread is now: the top of the stack of `run`s. */
let current = openSync(OWN, "r");

/** Leaves for `enter`'s namespace, runs `fn`, comes back whatever happens. */
function visit<T>(enter: () => void, fd: number, fn: () => T): T {
  const back = current;
  enter();
  current = fd;
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError("NetNs.run wants a synchronous function");
    return result;
  } finally {
    current = back;
    comeBack(back);
  }
}

function comeBack(fd: number): void {
  try {
    libc.setns(fd, libc.CLONE_NEWNET);
  } catch (error) {
    // Every later socket would be made in the wrong place: nothing may go on from here.
    process.stderr.write(`cannot return to the own network namespace: ${error}\n`);
    process.abort();
  }
}

class Handle implements NetNs {
  readonly fd: number;
  readonly inode: number;
  #open = true;

  constructor(fd: number) {
    this.fd = fd;
    this.inode = inodeOf(fd);
  }

  run<T>(fn: () => T): T {
    if (!this.#open) throw new KernelError("EBADF", "setns", "the handle is closed");
    if (current === this.fd) return fn();
    return visit(() => libc.setns(this.fd, libc.CLONE_NEWNET), this.fd, fn);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}

function inodeOf(fd: number): number {
  return fstatSync(fd).ino;
}

/** The namespace that the calling thread is in. */
export function currentNetNs(): NetNs {
  return new Handle(openSync(OWN, "r"));
}

/** The namespace of a descriptor, whose owner the handle is from now on. */
export function adoptNetNs(fd: number): NetNs {
  return new Handle(fd);
}

/** The namespace pinned at `path` (or `/proc/<pid>/ns/net`). ENOENT, EINVAL when it is none. */
export function openNetNs(path: string): NetNs {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw new KernelError(errnoOf(error) ?? "EIO", `open ${path}`);
  }
  if (!isNetNsFd(fd)) {
    closeSync(fd);
    throw new KernelError("EINVAL", `open ${path}`, "not a network namespace");
  }
  return new Handle(fd);
}

/**
 * Creates a namespace with lo up and pins it at `path`, whose directory is made if need be.
 * EEXIST when `path` is a namespace already; a plain file left there (a pin lost by reboot) is used.
 */
export function createNetNs(path: string): NetNs {
  if (isNetNs(path)) throw new KernelError("EEXIST", `create ${path}`, "is a network namespace already");
  mkdirSync(dirname(path), { recursive: true });
  touch(path);
  return newNetNs((own) => bindMount(own, path));
}

/** A namespace that lives only as long as the handle (and what is open in it): for probes and tests. */
export function scratchNetNs(): NetNs {
  return newNetNs(() => {});
}

function newNetNs(inside: (own: string) => void): NetNs {
  return visit(
    () => libc.unshare(libc.CLONE_NEWNET),
    -1,
    () => {
      inside(OWN);
      using rtnl = openRtnl();
      rtnl.setLink(1, { up: true });
      return currentNetNs();
    },
  );
}

/** Unpins the namespace; the kernel frees it with its last user. Nothing there is no error. */
export function destroyNetNs(path: string): void {
  while (isNetNs(path)) unmount(path);
  rmSync(path, { force: true });
}

/** Whether `path` is a pinned network namespace. */
export function isNetNs(path: string): boolean {
  try {
    if (statfsSync(path).type !== NSFS_MAGIC) return false;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return false;
    throw error;
  }
  const fd = openSync(path, "r");
  try {
    return isNetNsFd(fd);
  } finally {
    closeSync(fd);
  }
}

function isNetNsFd(fd: number): boolean {
  try {
    return libc.ioctl(fd, NS_GET_NSTYPE, 0) === libc.CLONE_NEWNET;
  } catch {
    return false;
  }
}
