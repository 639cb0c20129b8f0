/**
 * The C library, called in process through koffi. Each function here throws `KernelError` where C gives -1.
 * Numbers are those of Linux on 64-bit little-endian machines (x86-64, arm64: the same for all used here).
 */
import koffi from "koffi";
import { KernelError } from "./error.ts";

const lib = koffi.load(null);

type Call<A extends unknown[]> = ((...args: A) => number) & {
  async(...args: [...A, (error: unknown, result: number) => void]): void;
};

// koffi 3 knows no ssize_t: intptr_t is its size.
const raw = {
  setns: lib.func("int setns(int fd, int type)") as Call<[number, number]>,
  unshare: lib.func("int unshare(int flags)") as Call<[number]>,
  mount: lib.func("int mount(str source, str target, str type, unsigned long flags, str data)") as Call<
    [string, string, string, number, string]
  >,
  umount2: lib.func("int umount2(str target, int flags)") as Call<[string, number]>,
  socket: lib.func("int socket(int domain, int type, int protocol)") as Call<[number, number, number]>,
  bind: lib.func("int bind(int fd, void *address, uint length)") as Call<[number, Buffer, number]>,
  connect: lib.func("int connect(int fd, void *address, uint length)") as Call<[number, Buffer, number]>,
  listen: lib.func("int listen(int fd, int backlog)") as Call<[number, number]>,
  shutdown: lib.func("int shutdown(int fd, int how)") as Call<[number, number]>,
  getsockname: lib.func("int getsockname(int fd, void *address, void *length)") as Call<[number, Buffer, Buffer]>,
  setsockopt: lib.func("int setsockopt(int fd, int level, int name, void *value, uint length)") as Call<
    [number, number, number, Buffer, number]
  >,
  send: lib.func("intptr_t send(int fd, void *data, size_t length, int flags)") as Call<
    [number, Buffer, number, number]
  >,
  recv: lib.func("intptr_t recv(int fd, void *data, size_t length, int flags)") as Call<
    [number, Buffer, number, number]
  >,
  memfd: lib.func("int memfd_create(str name, uint flags)") as Call<[string, number]>,
  ioctl: lib.func("int ioctl(int fd, unsigned long request, int argument)") as Call<[number, number, number]>,
  close: lib.func("int close(int fd)") as Call<[number]>,
};

const EINTR = 4;

/** Runs a call again while a signal interrupts it; throws on any other failure. */
function check(operation: string, call: () => number): number {
  for (;;) {
    const result = call();
    if (result >= 0) return result;
    const errno = koffi.errno();
    if (errno !== EINTR) throw new KernelError(errno, operation);
  }
}

export const CLONE_NEWNET = 0x40000000;
export const CLONE_NEWNS = 0x00020000;

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_BRIDGE = 7;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;

export function setns(fd: number, type: number): void {
  check("setns", () => raw.setns(fd, type));
}

export function unshare(flags: number): void {
  check("unshare", () => raw.unshare(flags));
}

export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  check(`mount ${source} on ${target}`, () => raw.mount(source, target, type, flags, data));
}

export function umount2(target: string, flags: number): void {
  check(`umount ${target}`, () => raw.umount2(target, flags));
}

/** A new descriptor; always close-on-exec. */
export function socket(domain: number, type: number, protocol: number): number {
  return check("socket", () => raw.socket(domain, type | SOCK_CLOEXEC, protocol));
}

export function bind(fd: number, address: Buffer, operation = "bind"): void {
  check(operation, () => raw.bind(fd, address, address.length));
}

export function connect(fd: number, address: Buffer, operation = "connect"): void {
  check(operation, () => raw.connect(fd, address, address.length));
}

export function listen(fd: number, backlog: number, operation = "listen"): void {
  check(operation, () => raw.listen(fd, backlog));
}

/** Ends receiving; a listening socket no longer listens but keeps its port. */
export function shutdown(fd: number): void {
  const SHUT_RD = 0;
  check("shutdown", () => raw.shutdown(fd, SHUT_RD));
}

/** The socket's own address as a sockaddr. */
export function getsockname(fd: number): Buffer {
  const address = Buffer.alloc(128);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  check("getsockname", () => raw.getsockname(fd, address, length));
  return address.subarray(0, length.readUInt32LE());
}

export function setsockopt(fd: number, level: number, name: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  check("setsockopt", () => raw.setsockopt(fd, level, name, bytes, 4));
}

/** A timeout option (SO_RCVTIMEO, SO_SNDTIMEO): afterwards the call fails with EAGAIN. */
export function setTimeoutOption(fd: number, level: number, name: number, seconds: number): void {
  const timeval = Buffer.alloc(16);
  timeval.writeBigInt64LE(BigInt(seconds));
  check("setsockopt", () => raw.setsockopt(fd, level, name, timeval, timeval.length));
}

export function send(fd: number, data: Buffer): void {
  check("send", () => raw.send(fd, data, data.length, 0));
}

/** As `send`, on a pool thread: for requests during which the kernel sleeps. */
export function sendAsync(fd: number, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    raw.send.async(fd, data, data.length, 0, (error, result) => {
      // errno belongs to the pool's thread and is lost here; netlink reports errors in its reply anyway.
      if (error) reject(error);
      else if (result < 0) reject(new KernelError("EIO", "send"));
      else resolve();
    });
  });
}

/** Receives one datagram into `buffer`; gives its length. MSG_TRUNC makes that the true length. */
export function recv(fd: number, buffer: Buffer, flags = 0): number {
  return check("recv", () => raw.recv(fd, buffer, buffer.length, flags));
}

/** What has `-1` for "would block" besides errors, and is called too often to throw: see `errno`. */
export const rawStream = {
  accept4: lib.func("int accept4(int fd, void *address, void *length, int flags)") as Call<
    [number, Buffer, Buffer, number]
  >,
  getpeername: lib.func("int getpeername(int fd, void *address, void *length)") as Call<[number, Buffer, Buffer]>,
  connect: raw.connect,
  send: raw.send,
  recv: raw.recv,
  shutdown: raw.shutdown,
  getsockopt: lib.func("int getsockopt(int fd, int level, int name, void *value, void *length)") as Call<
    [number, number, number, Buffer, Buffer]
  >,
  setsockopt: raw.setsockopt,
  epollWait: lib.func("int epoll_wait(int fd, void *events, int most, int timeout)") as Call<
    [number, Buffer, number, number]
  >,
} as const;

/** The error of the call before, of this thread. */
export const errno = (): number => koffi.errno();

export function epollCreate(): number {
  const EPOLL_CLOEXEC = 0x80000;
  const create = lib.func("int epoll_create1(int flags)") as Call<[number]>;
  return check("epoll_create1", () => create(EPOLL_CLOEXEC));
}

const epollCtl = lib.func("int epoll_ctl(int epoll, int operation, int fd, void *event)") as Call<
  [number, number, number, Buffer]
>;

export function epollChange(epoll: number, operation: number, fd: number, event: Buffer): void {
  check("epoll_ctl", () => epollCtl(epoll, operation, fd, event));
}

/** A counter that wakes whoever polls it: 8 bytes are written to add, 8 read to take. */
export function eventfd(): number {
  const EFD_CLOEXEC_NONBLOCK = 0x80800;
  const make = lib.func("int eventfd(uint initial, int flags)") as Call<[number, number]>;
  return check("eventfd", () => make(0, EFD_CLOEXEC_NONBLOCK));
}

/** Another descriptor of the same thing, close-on-exec. */
export function duplicate(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030;
  const fcntl = lib.func("int fcntl(int fd, int command, int argument)") as Call<[number, number, number]>;
  return check("dup", () => fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

export function ioctl(fd: number, request: number, argument: number): number {
  return check("ioctl", () => raw.ioctl(fd, request, argument));
}

/** An unnamed file in memory. */
export function memfd(name: string): number {
  const MFD_CLOEXEC = 1;
  return check("memfd_create", () => raw.memfd(name, MFD_CLOEXEC));
}

export function close(fd: number): void {
  // After EINTR the descriptor is gone on Linux: never retried.
  raw.close(fd);
}

/** The pages of a mapping that nobody wrote to are let go, and come back from their file when they are needed. */
export function madviseDontNeed(start: number, length: number): void {
  const MADV_DONTNEED = 4;
  const madvise = lib.func("int madvise(uintptr_t start, size_t length, int advice)") as Call<[number, number, number]>;
  check("madvise", () => madvise(start, length, MADV_DONTNEED));
}

/** Gives what malloc keeps at hand back to the kernel. glibc only. */
export function mallocTrim(): void {
  (lib.func("int malloc_trim(size_t pad)") as Call<[number]>)(0);
}
