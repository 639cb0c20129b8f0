/**
 * Docker's default seccomp profile as tables: what every container may call, what a capability or an
 * architecture adds, and the few calls whose arguments decide. Everything else fails with EPERM. Pure.
 */
import { invalid, messageOf } from "../../base/errors.ts";

interface Rule {
  names: string[];
  action: "SCMP_ACT_ALLOW" | "SCMP_ACT_ERRNO";
  args?: { index: number; value: number; valueTwo?: number; op: string }[];
  errnoRet?: number;
}

export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet: number;
  architectures: string[];
  syscalls: Rule[];
}

const words = (text: string): string[] => text.split(/\s+/).filter(Boolean);

/** Allowed to everybody, by subject. */
const always: Record<string, string> = {
  files: `_llseek chdir close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchdir
    fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 getcwd getdents getdents64 ioctl link linkat
    listmount lseek mkdir mkdirat mknod mknodat name_to_handle_at open openat openat2 pipe pipe2 pread64 preadv
    preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir
    sendfile sendfile64 splice symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 unlink
    unlinkat vmsplice write writev`,
  attributes: `access cachestat chmod chown chown32 faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getxattr
    getxattrat lchown lchown32 lgetxattr listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64
    newfstatat removexattr removexattrat setxattr setxattrat stat stat64 statfs statfs64 statmount statx
    utimensat utimensat_time64`,
  polling: `_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64
    pselect6 pselect6_time64 select`,
  memory: `brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap
    mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages`,
  processes: `capget capset execve execveat exit exit_group fork get_thread_area getcpu getpgid getpgrp getpid getppid
    getpriority getrandom getrlimit getrusage getsid gettid ioprio_get ioprio_set landlock_add_rule
    landlock_create_ruleset landlock_restrict_self pidfd_open prctl prlimit64 riscv_hwprobe
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp set_thread_area set_tid_address setpgid setpriority
    setrlimit setsid sysinfo ugetrlimit umask uname uretprobe vfork wait4 waitid waitpid`,
  signals: `alarm kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd
    signalfd4 sigprocmask sigreturn tgkill tkill`,
  ids: `getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid
    getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32`,
  time: `adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times utime utimes`,
  ipc: `futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc membarrier mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl
    msgget msgrcv msgsnd rseq semctl semget semop semtimedop semtimedop_time64 set_robust_list shmat shmctl
    shmdt shmget`,
  sockets: `accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair`,
};

/** Allowed besides to those who hold the capability. */
const withCapability: Record<string, string> = {
  CAP_BPF: "bpf",
  CAP_DAC_READ_SEARCH: "open_by_handle_at",
  CAP_PERFMON: "perf_event_open",
  CAP_SYS_ADMIN: `bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd
    setdomainname sethostname setns syslog umount umount2 unshare`,
  CAP_SYS_BOOT: "reboot",
  CAP_SYS_CHROOT: "chroot",
  CAP_SYS_MODULE: "delete_module init_module finit_module",
  CAP_SYS_NICE: "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
  CAP_SYS_PACCT: "acct",
  CAP_SYS_PTRACE: "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
  CAP_SYS_RAWIO: "iopl ioperm",
  CAP_SYS_TIME: "settimeofday stime clock_settime clock_settime64",
  CAP_SYS_TTY_CONFIG: "vhangup",
  CAP_SYSLOG: "syslog",
};

interface Architecture {
  /** libseccomp's names: the native one and those a process may switch to. */
  readonly names: string[];
  readonly extra: string;
}

const architectures: Partial<Record<NodeJS.Architecture, Architecture>> = {
  x64: { names: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], extra: "arch_prctl modify_ldt" },
  arm64: {
    names: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    extra: "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
  },
};

/** Since 4.8 a traced process cannot get around seccomp any more, so tracing is harmless. */
const tracing = "process_vm_readv process_vm_writev ptrace";

const AF_ALG = 38;
const AF_VSOCK = 40;
/** PER_LINUX, PER_LINUX32, UNAME26, both, and "just tell me". */
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];
/** CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: new namespaces are for CAP_SYS_ADMIN. */
const newNamespaces = 0x7e020000;
const ENOSYS = 38;

/** The profile for a container with these capabilities on this kind of machine. */
export function defaultSeccomp(
  capabilities: readonly string[],
  machine: NodeJS.Architecture = process.arch,
): SeccompProfile {
  const architecture = architectures[machine] ?? { names: [], extra: "" };
  const allow = (names: string[], args?: Rule["args"]): Rule =>
    args ? { names, action: "SCMP_ACT_ALLOW", args } : { names, action: "SCMP_ACT_ALLOW" };
  const when = (name: string, index: number, op: string, value: number, valueTwo?: number): Rule =>
    allow([name], [valueTwo === undefined ? { index, value, op } : { index, value, valueTwo, op }]);

  const names = new Set(Object.values(always).flatMap(words));
  for (const text of [tracing, architecture.extra]) for (const name of words(text)) names.add(name);
  for (const capability of capabilities) {
    for (const name of words(withCapability[capability] ?? "")) names.add(name);
  }
  const syscalls: Rule[] = [
    allow([...names]),
    // Any family but the kernel's crypto sockets and VM sockets, which leave the container.
    when("socket", 0, "SCMP_CMP_LT", AF_ALG),
    when("socket", 0, "SCMP_CMP_EQ", AF_ALG + 1),
    when("socket", 0, "SCMP_CMP_GT", AF_VSOCK),
    ...personalities.map((value) => when("personality", 0, "SCMP_CMP_EQ", value)),
  ];
  if (!capabilities.includes("CAP_SYS_ADMIN")) {
    syscalls.push(when("clone", 0, "SCMP_CMP_MASKED_EQ", newNamespaces, 0));
    // Its flags lie in memory, where seccomp cannot look: libc falls back to clone on ENOSYS.
    syscalls.push({ names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS });
  }
  return { defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 1, architectures: architecture.names, syscalls };
}

interface DockerRule {
  names?: string[];
  name?: string;
  action?: string;
  errnoRet?: number;
  args?: Rule["args"] | null;
  includes?: DockerFilter;
  excludes?: DockerFilter;
}

interface DockerFilter {
  caps?: string[];
  arches?: string[];
  minKernel?: string;
}

interface DockerProfile {
  defaultAction?: string;
  defaultErrnoRet?: number;
  architectures?: string[];
  archMap?: { architecture: string; subArchitectures: string[] | null }[];
  syscalls?: DockerRule[];
}

/** A profile in Docker's JSON (`--security-opt seccomp=`), reduced to what holds for this container and machine. */
export function customSeccomp(
  json: string,
  capabilities: readonly string[],
  machine: NodeJS.Architecture = process.arch,
): object {
  let profile: DockerProfile;
  try {
    profile = JSON.parse(json) as DockerProfile;
  } catch (error) {
    throw invalid(`Decoding seccomp profile failed: ${messageOf(error)}`);
  }
  if (typeof profile !== "object" || profile === null || typeof profile.defaultAction !== "string") {
    throw invalid("Decoding seccomp profile failed: defaultAction is missing");
  }
  const goName = machine === "x64" ? "amd64" : machine;
  const native = architectures[machine]?.names[0];
  const mapped = profile.archMap?.find((entry) => entry.architecture === native);
  const holds = (filter: DockerFilter | undefined): boolean[] => [
    ...(filter?.arches?.length ? [filter.arches.includes(goName)] : []),
    ...(filter?.caps ?? []).map((capability) => capabilities.includes(capability)),
    // Every kernel that Skein runs on is newer than any minimum in use.
    ...(filter?.minKernel ? [true] : []),
  ];
  const applies = (rule: DockerRule) => holds(rule.includes).every(Boolean) && !holds(rule.excludes).some(Boolean);
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures: mapped ? [mapped.architecture, ...(mapped.subArchitectures ?? [])] : (profile.architectures ?? []),
    syscalls: (profile.syscalls ?? []).filter(applies).map((rule) => ({
      names: rule.names ?? (rule.name ? [rule.name] : []),
      action: rule.action,
      ...(rule.errnoRet === undefined ? {} : { errnoRet: rule.errnoRet }),
      ...(rule.args?.length ? { args: rule.args } : {}),
    })),
  };
}
