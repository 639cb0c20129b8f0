/**
 * Every flag of `docker run`, as the command line's own help lists them: each either does what it says or is refused by
 * name, and a flag that no row below knows fails. With `SKEIN_CONTROL=1` the real Docker Engine answers.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { clis, control, EngineHost } from "../support/engine.ts";
import { Terminal } from "../support/terminal.ts";

/** One use of a flag: what the container's output says, or the words of the refusal. */
interface Use {
  readonly args: readonly string[];
  /** A shell command; `true` where the outcome lies elsewhere. */
  readonly run?: string;
  readonly says?: RegExp | string;
  readonly refused?: RegExp;
  /** A template of `docker inspect`, and what it gives, of a container that was made and not run. */
  readonly inspect?: readonly [format: string, value: RegExp | string];
  /** What the real Docker Engine of the control does instead; listed in docs/differences.md. */
  /** The command lines that have it at all; absent: every one. */
  readonly cli?: RegExp;
  readonly docker?: { readonly refused?: RegExp; readonly says?: RegExp | string; readonly inspect?: RegExp };
}

/** A limit's file, by the version of the machine's cgroups. */
const cgroup = (v1: string, v2: string) => `cat /sys/fs/cgroup/${v1} 2>/dev/null || cat /sys/fs/cgroup/${v2}`;

let host: EngineHost;
/** A block device of this machine, which the kernel lets a cgroup throttle. */
const block = ["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"].find((path) => existsSync(path)) ?? "/dev/loop0";
/** The control's API ends at 1.41: the newer command line does not send it what is younger. */
const young = (uses: readonly Use[]): readonly Use[] => (control ? [] : uses);
const file = (name: string) => join(host.scratch, name);

const one = (args: readonly string[], run: string, says: Use["says"]): Use[] => [
  { args, run, ...(says !== undefined && { says }) },
];
const shown = (args: readonly string[], format: string, value: RegExp | string): Use[] => [
  { args, inspect: [format, value] },
];
const refused = (args: readonly string[], words: RegExp, docker?: Use["docker"]): Use[] => [
  { args, refused: words, ...(docker && { docker }) },
];

/** By the long name of the flag; files exist when a use is asked for. */
const table: Record<string, () => readonly Use[]> = {
  "add-host": () => [
    ...one(["--add-host", "friend:10.9.8.7"], "cat /etc/hosts", /^10\.9\.8\.7\s+friend$/m),
    ...refused(["--add-host", "friend:nonsense"], /invalid IP address in add-host/),
  ],
  annotation: () => young(shown(["--annotation", "a=b"], "{{.HostConfig.Annotations}}", "map[a:b]")),
  attach: () => one(["-a", "stderr"], "echo out; echo err >&2", ""),
  // A kernel without it: left out with a warning.
  "blkio-weight": () => [
    ...shown(["--blkio-weight", "300"], "{{.HostConfig.BlkioWeight}}", /^(300|0)$/),
    { args: ["--blkio-weight", "5"], refused: /[Rr]ange of blkio weight is from 10 to 1000/, docker: {} },
  ],
  "blkio-weight-device": () =>
    shown(
      ["--blkio-weight-device", `${block}:300`],
      "{{json .HostConfig.BlkioWeightDevice}}",
      /"Weight":300|\[\]|null/,
    ),
  "cap-add": () => [
    ...one(["--cap-add", "NET_ADMIN"], "ip link add d0 type bridge && echo made", "made"),
    ...refused(["--cap-add", "NOSUCH"], /[Ii]nvalid .*NOSUCH/),
  ],
  "cap-drop": () => one(["--cap-drop", "ALL"], "grep CapEff /proc/self/status", /0{16}/),
  "cgroup-parent": () =>
    shown(["--cgroup-parent", `${host.host("host").cgroup}/flags`], "{{.HostConfig.CgroupParent}}", /\/flags$/),
  cgroupns: () => [
    ...one(["--cgroupns", "private"], "grep -c ':/$' /proc/self/cgroup", /^[1-9]\d*$/),
    ...one(["--cgroupns", "host"], "grep -c '/[0-9a-f]\\{64\\}$' /proc/self/cgroup", /^[1-9]\d*$/),
  ],
  cidfile: () => {
    rmSync(file("cid"), { force: true });
    return one(["--cidfile", file("cid")], "true", "");
  },
  "cpu-count": () => refused(["--cpu-count", "1"], /only supported on a Docker daemon running on windows/),
  "cpu-percent": () => refused(["--cpu-percent", "1"], /only supported on a Docker daemon running on windows/),
  "cpu-period": () => [
    ...one(["--cpu-period", "50000"], cgroup("cpu/cpu.cfs_period_us", "cpu.max"), /50000/),
    ...refused(["--cpu-period", "1"], /CPU cfs period cannot be less than 1ms|CPU cfs period can not be less than 1ms/),
  ],
  "cpu-quota": () => one(["--cpu-quota", "25000"], cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), /25000/),
  // Kernels have it or not, and the parent's cgroup must hand it on.
  "cpu-rt-period": () => one(["--cpu-rt-period", "100000"], "cat /sys/fs/cgroup/cpu/cpu.rt_period_us", "100000"),
  "cpu-rt-runtime": () => refused(["--cpu-rt-runtime", "10000"], /real-time|rt_runtime_us/),
  "cpu-shares": () => one(["-c", "512"], cgroup("cpu/cpu.shares", "cpu.weight"), /^(512|20)$/),
  cpus: () => [
    ...one(["--cpus", "0.5"], cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), /50000/),
    ...refused(["--cpus", "4096"], /[Rr]ange of CPUs is from 0\.01 to \d+\.00/),
  ],
  "cpuset-cpus": () => [
    ...one(["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status", /\t0$/),
    ...refused(["--cpuset-cpus", "4095"], /Requested CPUs are not available/),
    ...refused(["--cpuset-cpus", "x"], /Invalid value x for cpuset cpus/),
  ],
  "cpuset-mems": () => one(["--cpuset-mems", "0"], "grep Mems_allowed_list /proc/self/status", /\t0$/),
  detach: () => one(["-d"], "sleep 0.1", /^[0-9a-f]{64}$/),
  "detach-keys": () => one(["--detach-keys", "ctrl-a,b"], "echo here", "here"),
  device: () => [
    ...one(["--device", "/dev/null:/dev/nil:rw"], "stat -c '%F %t %T' /dev/nil", "character special file 1 3"),
    ...refused(["--device", "/dev/nosuch"], /error gathering device information.*\/dev\/nosuch.*no such file/s),
  ],
  "device-cgroup-rule": () => [
    // A device that is not there: what the cgroup lets through fails in the driver, not for want of permission.
    ...one(["--device-cgroup-rule", "c 240:9 rwm"], "mknod /k c 240 9; cat /k 2>&1 || true", /No such device/),
    ...one(["--cap-add", "MKNOD"], "mknod /k c 240 9; cat /k 2>&1 || true", /not permitted/),
    ...refused(["--device-cgroup-rule", "nonsense"], /invalid device cgroup format 'nonsense'/),
  ],
  "device-read-bps": () => throttle("--device-read-bps", "BlkioDeviceReadBps"),
  "device-read-iops": () => throttle("--device-read-iops", "BlkioDeviceReadIOps"),
  "device-write-bps": () => throttle("--device-write-bps", "BlkioDeviceWriteBps"),
  "device-write-iops": () => throttle("--device-write-iops", "BlkioDeviceWriteIOps"),
  "disable-content-trust": () => one(["--disable-content-trust"], "true", ""),
  dns: () => one(["--dns", "10.9.8.7"], "cat /etc/resolv.conf", /^nameserver 10\.9\.8\.7$/m),
  "dns-option": () => one(["--dns-option", "ndots:3"], "cat /etc/resolv.conf", /^options .*ndots:3/m),
  "dns-search": () => one(["--dns-search", "example.org"], "cat /etc/resolv.conf", /^search example\.org$/m),
  domainname: () =>
    one(["-h", "h", "--domainname", "d.org"], "cat /proc/sys/kernel/domainname /etc/hosts", /h\.d\.org/),
  entrypoint: () => one(["--entrypoint", "echo"], "", /^sh -c/),
  env: () => one(["-e", "A=1", "--env", "B=2"], "echo $A$B", "12"),
  "env-file": () => {
    writeFileSync(file("envs"), "# c\nA=x y\n");
    return one(["--env-file", file("envs")], "echo $A", "x y");
  },
  expose: () => shown(["--expose", "81-82/udp"], "{{json .Config.ExposedPorts}}", /"81\/udp":{},"82\/udp":{}/),
  gpus: () => refused(["--gpus", "all"], /could not select device driver .* with capabilities: \[\[gpu\]\]/),
  "group-add": () => one(["--group-add", "777"], "id -G", /\b777\b/),
  "health-cmd": () => shown(["--health-cmd", "true"], "{{json .Config.Healthcheck.Test}}", '["CMD-SHELL","true"]'),
  "health-interval": () => health("--health-interval", "Interval"),
  "health-retries": () => [
    { args: ["--health-cmd", "true", "--health-retries", "7"], inspect: ["{{.Config.Healthcheck.Retries}}", "7"] },
  ],
  "health-start-interval": () =>
    control
      ? [] // younger than the control
      : health("--health-start-interval", "StartInterval"),
  "health-start-period": () => health("--health-start-period", "StartPeriod"),
  "health-timeout": () => health("--health-timeout", "Timeout"),
  help: () => one(["--help"], "", /Usage:\s+docker run/),
  hostname: () => one(["-h", "me"], "hostname; cat /etc/hostname", "me\nme"),
  init: () => one(["--init"], "cat /proc/1/comm", /init|tini/),
  interactive: () => one(["-i"], "cat", ""),
  "io-maxbandwidth": () => refused(["--io-maxbandwidth", "1"], /only supported on a Docker daemon running on windows/),
  "io-maxiops": () => refused(["--io-maxiops", "1"], /only supported on a Docker daemon running on windows/),
  ip: () => [
    ...one(["--network", "flagnet", "--ip", "172.31.77.9"], "ip -4 addr show eth0", /172\.31\.77\.9\/24/),
    {
      args: ["--ip", "172.17.0.99"],
      refused: /user specified IP address is supported on user defined networks only/,
      cli: /version 2[5-9]/,
    },
  ],
  ip6: () => one(["--network", "flagnet", "--ip6", "fd77::9"], "ip -6 addr show eth0", /fd77::9\/64/),
  ipc: () => [
    ...one(["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts || true", "0"),
    ...one(["--ipc", "host"], "readlink /proc/self/ns/ipc", hostNamespace("ipc")),
    ...one(["--ipc", "container:friend"], "readlink /proc/self/ns/ipc; cat /dev/shm/mark", /^ipc:\S+\nshared$/),
    ...refused(["--ipc", "container:lonely"], /non-shareable IPC/),
    ...refused(["--ipc", "nonsense"], /IPC mode/i),
  ],
  isolation: () => [
    ...one(["--isolation", "default"], "true", ""),
    ...refused(["--isolation", "hyperv"], /isolation/i),
  ],
  // The newer command line takes it and does nothing, as it says.
  "kernel-memory": () => [
    { args: ["--kernel-memory", "64m"], refused: /KernelMemory/, cli: /version 20/, docker: { says: "" } },
  ],
  label: () => shown(["-l", "a=b"], "{{.Config.Labels.a}}", "b"),
  "label-file": () => {
    writeFileSync(file("labels"), "a=c\n");
    return shown(["--label-file", file("labels")], "{{.Config.Labels.a}}", "c");
  },
  link: () => [
    ...one(["--link", "friend:pal"], "cat /etc/hosts; env", /\spal [0-9a-f]{12} friend$[\s\S]*^PAL_NAME=\/\w+\/pal$/m),
    ...one(["--link", "exposer:ex"], "echo $EX_PORT $EX_PORT_81_TCP_PORT", /^tcp:\/\/172\.\d+\.\d+\.\d+:81 81$/),
    ...one(["--network", "flagnet", "--link", "netfriend:buddy"], "ping -c 1 -w 3 buddy", /1 packets received/),
    ...refused(["--link", "nosuch:x"], /[Cc]ould not get container for nosuch/),
    ...refused(["--link", "stopped:x"], /[Cc]annot link to a non running container: \/stopped AS/),
  ],
  "link-local-ip": () =>
    refused(["--network", "flagnet", "--link-local-ip", "169.254.9.9"], /link-local/, { says: "" }),
  "log-driver": () => [
    ...one(["--log-driver", "none"], "echo x", "x"),
    ...one(["--log-driver", "local"], "echo x", "x"),
    ...refused(["--log-driver", "nosuch"], /no log driver named 'nosuch'|error looking up logging plugin nosuch/),
  ],
  "log-opt": () => [
    ...one(["--log-opt", "max-size=1m", "--log-opt", "max-file=2"], "echo x", "x"),
    ...one(["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=1m"], "echo x", "x"),
    ...one(["--log-opt", "labels=a", "-l", "a=b", "--log-opt", "env=E", "-e", "E=f"], "echo x", "x"),
    ...refused(["--log-opt", "nosuch=1"], /unknown log opt 'nosuch' for json-file log driver/),
    ...refused(["--log-opt", "max-size=x"], /invalid size: 'x'/),
    ...refused(["--log-opt", "mode=x"], /logger: logging mode not supported: x/),
  ],
  "mac-address": () =>
    young(one(["--mac-address", "02:42:ac:11:99:99"], "cat /sys/class/net/eth0/address", "02:42:ac:11:99:99")),
  memory: () => [
    ...one(["-m", "32m"], cgroup("memory/memory.limit_in_bytes", "memory.max"), "33554432"),
    ...refused(["-m", "1m"], /Minimum memory limit allowed is 6MB/),
  ],
  "memory-reservation": () =>
    one(
      ["-m", "32m", "--memory-reservation", "16m"],
      cgroup("memory/memory.soft_limit_in_bytes", "memory.low"),
      "16777216",
    ),
  "memory-swap": () => [
    ...shown(["-m", "32m", "--memory-swap", "64m"], "{{.HostConfig.MemorySwap}}", "67108864"),
    ...refused(["--memory-swap", "64m"], /You should always set the Memory limit when using Memoryswap limit/),
  ],
  "memory-swappiness": () => [
    ...shown(["--memory-swappiness", "10"], "{{.HostConfig.MemorySwappiness}}", "10"),
    ...refused(["--memory-swappiness", "101"], /invalid value: 101. Valid memory swappiness range is 0-100/),
  ],
  mount: () => {
    mkdirSync(file("dir/sub"), { recursive: true });
    writeFileSync(file("dir/f"), "from the host");
    const bind = `type=bind,src=${file("dir")},dst=/m`;
    // With what is mounted below it.
    const devices = "type=bind,src=/dev,dst=/m";
    const shm = "grep ' /m/shm ' /proc/mounts | head -1 | cut -d' ' -f4 | cut -d, -f1";
    return [
      ...one(["--mount", bind], "cat /m/f", "from the host"),
      ...one(["--mount", `${bind},readonly`], "touch /m/x 2>/dev/null || echo ro", "ro"),
      ...young([
        { args: ["--mount", `${devices},readonly`], run: shm, says: "ro", cli: /version 2[5-9]/ },
        {
          args: ["--mount", `${devices},readonly,bind-recursive=writable`],
          run: shm,
          says: "rw",
          cli: /version 2[5-9]/,
        },
        {
          args: ["--mount", `${devices},readonly,bind-recursive=readonly,bind-propagation=rprivate`],
          run: shm,
          says: "ro",
          cli: /version 2[5-9]/,
        },
        { args: ["--mount", `${devices},readonly`], run: shm, says: "rw", cli: /version 20/ },
        {
          args: ["--mount", "type=image,src=busybox,dst=/m"],
          run: "cat /m/etc/passwd | head -1; touch /m/x 2>/dev/null || echo ro",
          says: /^root:[\s\S]*\nro$/,
          cli: /version 2[89]/,
        },
        {
          args: ["--mount", "type=image,src=busybox,dst=/m,image-subpath=etc"],
          run: "ls /m",
          says: /passwd/,
          cli: /version 2[89]/,
        },
        {
          args: ["--mount", "type=image,src=busybox,dst=/m,image-subpath=../etc"],
          refused: /subpath must be a relative path within the image/,
          cli: /version 2[89]/,
        },
        { args: ["--mount", "type=image,src=nosuch,dst=/m"], refused: /No such image: nosuch/, cli: /version 2[89]/ },
      ]),
      ...one(["--mount", `${bind},bind-propagation=rprivate`], "cat /m/f", "from the host"),
      ...refused(["--mount", `${bind},bind-propagation=rshared`], /is mounted on \S+ but it is not a shared mount/),
      ...one(
        ["--mount", "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700"],
        "stat -c %a /m; df -k /m",
        /^700\n[\s\S]*\b1024\b/,
      ),
      ...one(["--mount", "type=volume,src=flagvol,dst=/m,volume-label=a=b"], "touch /m/x && echo ok", "ok"),
      ...one(
        ["--mount", "type=volume,src=flagvol,dst=/m,volume-nocopy,readonly"],
        "touch /m/y 2>/dev/null || echo ro",
        "ro",
      ),
      ...one(
        [
          "--mount",
          "type=volume,dst=/m,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
        ],
        "df -k /m; grep -c ' /m tmpfs' /proc/mounts",
        /\b1024\b[\s\S]*1$/,
      ),
      ...refused(["--mount", "type=bind,src=/nonexistent,dst=/m"], /bind source path does not exist: \/nonexistent/),
      ...refused(["--mount", "type=volume,src=a,dst=m"], /mount path must be absolute/),
      ...refused(["--mount", bind, "--mount", bind], /Duplicate mount point: \/m/),
    ];
  },
  name: () => [
    ...shown(["--name", "flagname"], "{{.Name}}", "/flagname"),
    ...refused(["--name", "a b"], /Invalid container name \(a b\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\] are allowed/),
  ],
  network: () => [
    ...one(["--network", "none"], "ls /sys/class/net", /^lo$/m),
    ...refused(["--network", "nosuch"], /network nosuch not found/),
    ...refused(["--network", "container:nosuch"], /No such container: nosuch/),
  ],
  "network-alias": () =>
    one(["--network", "flagnet", "--network-alias", "me2"], "ping -c 1 -w 3 me2", /1 packets received/),
  "no-healthcheck": () => shown(["--no-healthcheck"], "{{json .Config.Healthcheck.Test}}", '["NONE"]'),
  "oom-kill-disable": () => shown(["-m", "32m", "--oom-kill-disable"], "{{.HostConfig.OomKillDisable}}", "true"),
  "oom-score-adj": () => one(["--oom-score-adj", "345"], "cat /proc/self/oom_score_adj", "345"),
  pid: () => [
    ...one(["--pid", "host"], "readlink /proc/self/ns/pid", hostNamespace("pid")),
    ...one(["--pid", "container:friend"], "ps", /sleep 1000/),
    ...refused(["--pid", "nonsense"], /PID mode/i),
    ...refused(["--pid", "container:nosuch"], /No such container: nosuch/),
  ],
  "pids-limit": () => one(["--pids-limit", "77"], cgroup("pids/pids.max", "pids.max"), "77"),
  platform: () => [
    ...one(["--platform", `linux/${process.arch === "arm64" ? "arm64" : "amd64"}`], "true", ""),
    ...refused(["--pull", "never", "--platform", "linux/s390x"], /platform|[Nn]o such image/),
  ],
  // The control asks for every capability it knows; inside another container the machine may have fewer.
  privileged: () => [
    {
      args: ["--privileged"],
      run: "ls -d /dev/kmsg; grep CapEff /proc/self/status",
      says: /kmsg[\s\S]*f{3}/,
      ...(fewerCapabilities() && { docker: { refused: /unable to apply caps/ } }),
    },
  ],
  publish: () => [
    ...shown(
      ["-p", "127.0.0.1:8090:80/udp"],
      "{{json .HostConfig.PortBindings}}",
      '{"80/udp":[{"HostIp":"127.0.0.1","HostPort":"8090"}]}',
    ),
    ...refused(["-p", "8091:80", "-p", "8091:81"], /port is already allocated|address already in use/),
  ],
  "publish-all": () => shown(["-P"], "{{.HostConfig.PublishAllPorts}}", "true"),
  pull: () => refused(["--pull", "always"], /pull|lookup|registry|refused|resolve|EAI_AGAIN|ENOTFOUND|timeout/i),
  quiet: () => one(["-q"], "true", ""),
  "read-only": () => one(["--read-only"], "touch /x 2>/dev/null || echo ro", "ro"),
  restart: () => [
    ...shown(
      ["--restart", "on-failure:3"],
      "{{json .HostConfig.RestartPolicy}}",
      '{"Name":"on-failure","MaximumRetryCount":3}',
    ),
    ...refused(["--restart", "sometimes"], /invalid restart policy|unknown policy/),
  ],
  rm: () => one(["--rm"], "true", ""),
  runtime: () => [
    ...one(["--runtime", "runc"], "true", ""),
    ...refused(["--runtime", "nosuch"], /unknown or invalid runtime name: nosuch|[Uu]nknown runtime specified nosuch/),
  ],
  "security-opt": () => {
    writeFileSync(
      file("seccomp.json"),
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}',
    );
    return [
      ...one(["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", /1$/),
      ...one(["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", /0$/),
      ...one(["--security-opt", `seccomp=${file("seccomp.json")}`], "mkdir /q 2>/dev/null || echo denied", "denied"),
      ...one(["--security-opt", "systempaths=unconfined"], "grep -c ' /proc/sys ' /proc/mounts || true", "0"),
      ...one(["--security-opt", "apparmor=unconfined"], "true", ""),
      ...one(["--security-opt", "label=disable"], "true", ""),
      ...refused(["--security-opt", "nonsense=1"], /invalid --security-opt/),
    ];
  },
  "shm-size": () => one(["--shm-size", "8m"], "df -k /dev/shm", /\b8192\b/),
  "sig-proxy": () => one(["--sig-proxy=false"], "true", ""),
  "stop-signal": () => [
    ...shown(["--stop-signal", "SIGUSR1"], "{{.Config.StopSignal}}", "SIGUSR1"),
    ...refused(["--stop-signal", "NOSUCH"], /[Ii]nvalid signal: NOSUCH/),
  ],
  "stop-timeout": () => shown(["--stop-timeout", "3"], "{{.Config.StopTimeout}}", "3"),
  "storage-opt": () => refused(["--storage-opt", "size=1G"], /StorageOpt|storage-opt/),
  sysctl: () => [
    ...one(["--sysctl", "net.ipv4.ip_default_ttl=42"], "cat /proc/sys/net/ipv4/ip_default_ttl", "42"),
    ...refused(["--sysctl", "kernel.pid_max=100"], /kernel\.pid_max/),
  ],
  tmpfs: () => [
    ...one(["--tmpfs", "/t:size=1m,mode=1770"], "stat -c %a /t; df -k /t", /^1770\n[\s\S]*\b1024\b/),
    ...refused(["--tmpfs", "t"], /must be absolute|invalid mount path/),
  ],
  tty: () => [],
  ulimit: () => [
    ...one(["--ulimit", "nofile=99:100"], "ulimit -Sn; ulimit -Hn", "99\n100"),
    ...refused(["--ulimit", "nosuch=1"], /invalid ulimit type: nosuch/),
  ],
  "use-api-socket": () => [],
  user: () => [
    ...one(["-u", "1234:4321"], "id -u; id -g", "1234\n4321"),
    ...refused(["-u", "nosuch"], /unable to find user nosuch: no matching entries in passwd file/),
  ],
  userns: () => [
    ...one(["--userns", "host"], "true", ""),
    ...refused(["--userns", "nonsense"], /USER mode|user namespace|UsernsMode/i),
  ],
  uts: () => [
    ...one(["--uts", "host"], "readlink /proc/self/ns/uts", hostNamespace("uts")),
    ...refused(["--uts", "nonsense"], /UTS mode/i),
    ...refused(["--uts", "host", "-h", "x"], /[Cc]onflicting options: hostname and the UTS mode/),
  ],
  volume: () => {
    mkdirSync(file("dir"), { recursive: true });
    return [
      ...one(["-v", `${file("dir")}:/v:ro`], "touch /v/x 2>/dev/null || echo ro", "ro"),
      ...one(["-v", "/v"], "touch /v/x && echo ok", "ok"),
      ...refused(["-v", "flagvol:b"], /must be absolute|too short/),
      ...refused(["-v", "/a:/b:nonsense"], /invalid mode: nonsense/),
      ...refused(["-v", "/a:/"], /destination can't be '\/'/),
    ];
  },
  "volume-driver": () => [
    ...one(["--volume-driver", "local", "-v", "/v"], "touch /v/x && echo ok", "ok"),
    ...refused(["--volume-driver", "nosuch", "-v", "/v"], /plugin "nosuch" not found/, {
      refused: /Unable to find image/,
    }),
  ],
  "volumes-from": () => [
    ...one(["--volumes-from", "friend"], "cat /data/mark", "volume"),
    ...one(["--volumes-from", "friend:ro"], "touch /data/x 2>/dev/null || echo ro", "ro"),
    ...refused(["--volumes-from", "nosuch"], /No such container: nosuch/),
  ],
  workdir: () => [
    ...one(["-w", "/some/where"], "pwd", "/some/where"),
    ...refused(["-w", "here"], /the working directory 'here' is invalid, it needs to be an absolute path/),
  ],
};

function throttle(flag: string, field: string): Use[] {
  return [
    ...shown([flag, `${block}:1000`], `{{json .HostConfig.${field}}}`, `[{"Path":"${block}","Rate":1000}]`),
    ...refused([flag, "/dev/nosuch:1000"], /nosuch/),
  ];
}

function health(flag: string, field: string): Use[] {
  return [
    { args: ["--health-cmd", "true", flag, "7s"], inspect: [`{{.Config.Healthcheck.${field}}}`, /^(7s|7000000000)$/] },
  ];
}

/** Whether this machine's root lacks capabilities that its kernel has. */
function fewerCapabilities(): boolean {
  const mine = /^CapBnd:\s*(\w+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  const last = Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8"));
  return BigInt(`0x${mine}`) !== (1n << BigInt(last + 1)) - 1n;
}

/** The namespace of the lab's host, in which its engine runs. */
function hostNamespace(kind: string): string {
  const pid = host.state.daemon?.pid ?? 0;
  return execFileSync("readlink", [`/proc/${pid}/ns/${kind}`], { encoding: "utf8" }).trim();
}

function matches(actual: string, wanted: RegExp | string, what: string): void {
  if (typeof wanted === "string") assert.equal(actual, wanted, what);
  else assert.match(actual, wanted, what);
}

before(async () => {
  host = await EngineHost.make("flags", "10.99.0.0/24");
  await host.docker("network", "create", "--ipv6", "--subnet", "172.31.77.0/24", "--subnet", "fd77::/64", "flagnet");
  const background = ["run", "-d", "alpine"] as const;
  const [verb, detach, image] = background;
  await Promise.all([
    host.docker(
      ...[verb, detach, "--name", "friend", "--ipc", "shareable", "-v", "/data", image, "sh", "-c"],
      "echo shared > /dev/shm/mark; echo volume > /data/mark; exec sleep 1000",
    ),
    host.docker(verb, detach, "--name", "lonely", "--ipc", "private", image, "sleep", "1000"),
    host.docker(verb, detach, "--name", "exposer", "--expose", "81", image, "sleep", "1000"),
    host.docker(verb, detach, "--name", "netfriend", "--network", "flagnet", image, "sleep", "1000"),
    host.docker("create", "--name", "stopped", image, "true"),
  ]);
});
after(() => host?.[Symbol.asyncDispose]());

async function check(use: Use, cli: string): Promise<void> {
  const words = `docker run ${use.args.join(" ")}`;
  const differs = control ? use.docker : undefined;
  const wantRefusal = differs ? differs.refused : use.refused;
  const docker = (...args: string[]) => host.attemptWith(cli, ...args);
  if (use.inspect && !wantRefusal) {
    const made = await docker("create", ...use.args, "alpine", "true");
    assert.equal(made.code, 0, `${words}: ${made.stderr}`);
    const id = made.stdout.trim();
    try {
      const [format, value] = use.inspect;
      matches((await docker("inspect", "-f", format, id)).stdout.trim(), differs?.inspect ?? value, words);
      const started = await docker("start", "-a", id);
      assert.equal(started.code, 0, `${words}: ${started.stderr}`);
    } finally {
      await docker("rm", "-fv", id);
    }
    return;
  }
  const rm = use.args.includes("--rm") || use.args.includes("--restart") ? [] : ["--rm"];
  const { code, stdout, stderr } = await docker("run", ...rm, ...use.args, "alpine", "sh", "-c", use.run ?? "true");
  if (wantRefusal) {
    assert.notEqual(code, 0, `${words} was accepted: ${stdout}`);
    matches(stderr, wantRefusal, words);
    return;
  }
  assert.equal(code, 0, `${words}: ${stderr}`);
  const says = differs?.says ?? use.says;
  if (says !== undefined) matches(stdout.trim(), says, words);
}

// One command line in the suite, every one with `SKEIN_CONTROL` or `SKEIN_CLIS=all`: it is the engine that differs.
for (const [version, cli] of control || process.env.SKEIN_CLIS === "all" ? clis : clis.slice(0, 1)) {
  describe(version, () => {
    const help = execFileSync(cli, ["run", "--help"], { encoding: "utf8" });
    const flags = [...help.matchAll(/^ {2,}(?:-\w, )?--([a-z0-9-]+)/gm)].map(([, name = ""]) => name);
    test("the help lists flags, and each has a row", () => {
      assert.ok(flags.length > 90, `${flags.length} flags`);
      assert.deepEqual(
        flags.filter((flag) => !(flag in table)),
        [],
      );
    });
    for (const flag of flags) {
      test(`--${flag}`, async () => {
        const uses = table[flag]?.() ?? [];
        const failures: unknown[] = [];
        for (const use of uses)
          if (use.cli?.test(version) ?? true) await check(use, cli).catch((error) => failures.push(error));
        if (failures.length) throw new AggregateError(failures, failures.map(String).join("\n"));
      });
    }
    test("a terminal, and the engine's socket in the container", async () => {
      await using terminal = new Terminal(host.command(["run", "--rm", "-it", "alpine", "sh", "-c", "tty"], cli));
      await terminal.see(/\/dev\/pts\/0/);
      assert.equal(await terminal.ended(), 0);
    });
    test("nothing is left but what the file made", async () => {
      assert.deepEqual((await host.docker("ps", "-a", "--format", "{{.Names}}")).split("\n").sort(), [
        "exposer",
        "friend",
        "lonely",
        "netfriend",
        "stopped",
      ]);
      assert.match(readFileSync(file("cid"), "utf8"), /^[0-9a-f]{64}$/);
      await host.docker("volume", "rm", "-f", "flagvol");
    });
  });
}
