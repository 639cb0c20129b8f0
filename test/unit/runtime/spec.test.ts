import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { capabilitiesFor, defaultCapabilities } from "../../../src/runtime/spec/capabilities.ts";
import { parseRule } from "../../../src/runtime/spec/devices.ts";
import { execProcess, mergeEnv, ociSpec, type Surroundings } from "../../../src/runtime/spec/generate.ts";
import { ociResources } from "../../../src/runtime/spec/resources.ts";
import { customSeccomp, defaultSeccomp } from "../../../src/runtime/spec/seccomp.ts";
import { resolveUser } from "../../../src/runtime/spec/user.ts";
import { processAny, readRecord, specAny } from "../../../src/runtime/tasks/encode.ts";
import type { ContainerSpec } from "../../../src/runtime/types.ts";

const spec = (more: Partial<ContainerSpec> = {}): ContainerSpec => ({
  id: "c1",
  imageId: "sha256:0",
  hostname: "box",
  args: ["sh"],
  env: ["A=1"],
  cwd: "",
  user: "",
  tty: false,
  openStdin: false,
  labels: {},
  mounts: [],
  ...more,
});
const around: Surroundings = {
  user: { uid: 0, gid: 0 },
  cgroupsPath: "/skein/c1",
  cgroup2: false,
  initBinary: "/usr/bin/docker-init",
};
const kinds = (s: ContainerSpec, over: Partial<Surroundings> = {}) =>
  ociSpec(s, { ...around, ...over }).linux.namespaces.map(({ type, path }) => (path ? `${type}=${path}` : type));

describe("OCI spec", () => {
  test("namespaces follow the modes", () => {
    assert.deepEqual(kinds(spec()), ["mount", "uts", "pid", "ipc"]);
    assert.deepEqual(kinds(spec({ netnsPath: "/n" }), { cgroup2: true }), [
      "mount",
      "network=/n",
      "uts",
      "pid",
      "ipc",
      "cgroup",
    ]);
    assert.deepEqual(kinds(spec({ pidMode: { containerPid: 7 }, ipcMode: "host", utsMode: "host" })), [
      "mount",
      "pid=/proc/7/ns/pid",
    ]);
    const joined = spec({ ipcMode: { containerPid: 7, containerId: "x" }, utsMode: "host", pidMode: "host" });
    assert.deepEqual(kinds(joined), ["mount", "ipc=/proc/7/ns/ipc"]);
    const shm = ociSpec(joined, { ...around, shmPath: "/run/shm/x" }).mounts.find((m) => m.destination === "/dev/shm");
    assert.deepEqual([shm?.type, shm?.source], ["bind", "/run/shm/x"]);
    assert.deepEqual(kinds(spec({ cgroupnsMode: "private", privileged: true })).at(-1), "cgroup");
  });

  test("privileged: everything open; else Docker's masks", () => {
    const open = ociSpec(spec({ privileged: true }), around);
    assert.deepEqual([open.linux.maskedPaths, open.linux.readonlyPaths, open.linux.seccomp], [[], [], undefined]);
    assert.deepEqual(open.linux.resources.devices, [{ allow: true, access: "rwm" }]);
    assert.ok(!open.mounts.some((mount) => mount.options.includes("ro")));
    const plain = ociSpec(spec(), around);
    assert.ok(plain.linux.maskedPaths.includes("/proc/kcore") && plain.linux.readonlyPaths.includes("/proc/sys"));
    assert.ok(plain.mounts.find((mount) => mount.destination === "/sys")?.options.includes("ro"));
  });

  test("a user's mount replaces a default one; parents come first", () => {
    const mount = (target: string) => ({ type: "bind" as const, source: "/s", target, readonly: false, options: [] });
    const { mounts } = ociSpec(spec({ mounts: [mount("/a/b/c"), mount("/a"), mount("/dev/shm")] }), around);
    const targets = mounts.map((each) => each.destination);
    assert.equal(targets.filter((target) => target === "/dev/shm").length, 1);
    assert.ok(targets.indexOf("/a") < targets.indexOf("/a/b/c"));
    assert.equal(mounts.find((each) => each.destination === "/dev/shm")?.type, "bind");
  });

  test("init is put in front, or refused where there is none", () => {
    const { process, mounts } = ociSpec(spec({ init: true }), around);
    assert.deepEqual(process.args, ["/sbin/docker-init", "--", "sh"]);
    assert.equal(mounts.at(-1)?.source, "/usr/bin/docker-init");
    assert.throws(() => ociSpec(spec({ init: true }), { ...around, initBinary: undefined }), /docker-init/);
  });

  test("only root holds capabilities; an exec follows its own user", () => {
    const user = ociSpec(spec(), { ...around, user: { uid: 5, gid: 5 } }).process;
    assert.deepEqual(user.capabilities.effective, []);
    assert.deepEqual(user.capabilities.bounding, [...defaultCapabilities]);
    const exec = {
      execId: "e",
      args: ["id"],
      env: ["A=2"],
      cwd: "",
      user: "0",
      tty: true,
      stdin: false,
      privileged: false,
    };
    const process = execProcess(user, exec, { uid: 0, gid: 0 });
    assert.deepEqual(process.capabilities.effective, [...defaultCapabilities]);
    assert.ok(process.env.includes("A=2") && process.env.includes("TERM=xterm") && !process.env.includes("A=1"));
  });

  test("environment: defaults only where the user said nothing", () => {
    assert.deepEqual(ociSpec(spec({ env: ["PATH=/x"], tty: true }), around).process.env, [
      "HOSTNAME=box",
      "TERM=xterm",
      "PATH=/x",
    ]);
    assert.deepEqual(mergeEnv(["A=1", "B=2"], ["A=3", "B"]), ["A=3"]);
  });

  test("an unlimited ulimit survives JSON in both directions", () => {
    const made = ociSpec(spec({ ulimits: [{ name: "memlock", soft: -1, hard: -1 }] }), around);
    const any = specAny(made);
    assert.match(Buffer.from(any.value).toString(), /"soft":18446744073709551615,"hard":18446744073709551615/);
    const back = readRecord({ $typeName: "google.protobuf.Any", ...any });
    assert.ok(back);
    assert.match(Buffer.from(processAny(back.process).value).toString(), /"hard":18446744073709551615/);
    assert.equal(readRecord({ $typeName: "google.protobuf.Any", ...specAny({}) }), undefined);
  });
});

test("capabilities: ALL on one side makes the other the exceptions", () => {
  const has = [...defaultCapabilities, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"];
  assert.deepEqual(capabilitiesFor([], [], has), [...defaultCapabilities]);
  assert.deepEqual(capabilitiesFor(["net_admin"], ["all"], has), ["CAP_NET_ADMIN"]);
  assert.deepEqual(capabilitiesFor(["ALL"], ["CAP_SYS_ADMIN"], has), [...defaultCapabilities, "CAP_NET_ADMIN"]);
  assert.ok(!capabilitiesFor([], ["MKNOD"], has).includes("CAP_MKNOD"));
  assert.throws(() => capabilitiesFor(["NONSENSE"], [], has), /invalid capability/);
  assert.throws(() => capabilitiesFor(["SYS_TIME"], [], has), /not supported by kernel/);
});

test("seccomp: namespaces are for CAP_SYS_ADMIN, clone3 answers ENOSYS", () => {
  const plain = defaultSeccomp(defaultCapabilities, "x64");
  const allowed = new Set(plain.syscalls[0]?.names);
  for (const name of ["read", "execve", "ptrace", "chroot", "arch_prctl"]) assert.ok(allowed.has(name), name);
  for (const name of ["mount", "unshare", "clone", "clone3", "reboot", "bpf", "socket", "keyctl", "io_uring_setup"]) {
    assert.ok(!allowed.has(name), name);
  }
  assert.deepEqual(plain.syscalls.at(-1), { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38 });
  const admin = defaultSeccomp(["CAP_SYS_ADMIN"], "x64");
  assert.ok(admin.syscalls[0]?.names.includes("mount") && admin.syscalls[0].names.includes("clone"));
  assert.ok(!admin.syscalls.some((rule) => rule.action === "SCMP_ACT_ERRNO"));
});

test("a user's seccomp profile: rules of other machines and capabilities fall away", () => {
  const profile = {
    defaultAction: "SCMP_ACT_ERRNO",
    archMap: [{ architecture: "SCMP_ARCH_X86_64", subArchitectures: ["SCMP_ARCH_X86"] }],
    syscalls: [
      { names: ["read"], action: "SCMP_ACT_ALLOW" },
      { names: ["mount"], action: "SCMP_ACT_ALLOW", includes: { caps: ["CAP_SYS_ADMIN"] } },
      { names: ["cacheflush"], action: "SCMP_ACT_ALLOW", includes: { arches: ["arm64"] } },
      { names: ["clone"], action: "SCMP_ACT_ALLOW", excludes: { caps: ["CAP_SYS_ADMIN"] } },
    ],
  };
  const names = (caps: string[]) =>
    (customSeccomp(JSON.stringify(profile), caps, "x64") as { syscalls: { names: string[] }[] }).syscalls.flatMap(
      (r) => r.names,
    );
  assert.deepEqual(names([]), ["read", "clone"]);
  assert.deepEqual(names(["CAP_SYS_ADMIN"]), ["read", "mount"]);
  assert.throws(() => customSeccomp("{", []), /Decoding seccomp profile failed/);
});

test("users: names before numbers, groups of the group file, unknown names refused", () => {
  const files = {
    passwd: "root:x:0:0::/root:\nweb:x:33:33::/srv:\n7:x:70:71::/:\n",
    group: "a:x:5:web,x\nb:x:6:web\nweb:x:33:\n",
  };
  const short = (user: string, extra: string[] = []) => {
    const { uid, gid, additionalGids } = resolveUser(user, extra, files);
    return [uid, gid, ...(additionalGids ?? [])];
  };
  assert.deepEqual(short(""), [0, 0, 0]);
  assert.deepEqual(short("web"), [33, 33, 33, 5, 6]);
  assert.deepEqual(short("web:b"), [33, 6, 6]);
  assert.deepEqual(short("7"), [70, 71, 71]);
  assert.deepEqual(short("1234:99"), [1234, 99, 99]);
  assert.deepEqual(short("web", ["44"]), [33, 33, 33, 5, 6, 44]);
  assert.throws(() => short("nobody"), /unable to find user nobody: no matching entries in passwd file/);
  assert.throws(() => short("0:none"), /unable to find group none/);
  assert.throws(() => short("4294967296"), /must be in range/);
});

test("resources: CPUs become quota, memory brings swap, contradictions are refused", () => {
  assert.deepEqual(ociResources({ nanoCpus: 1.5e9, pidsLimit: -1 }), {
    cpu: { period: 100_000, quota: 150_000 },
    pids: { limit: -1 },
  });
  assert.deepEqual(ociResources({ memory: 100 }), { memory: { limit: 100, swap: 200 } });
  assert.deepEqual(ociResources({ memory: 100, memorySwap: -1 }), { memory: { limit: 100, swap: -1 } });
  assert.throws(() => ociResources({ memory: 100, memorySwap: 50 }), /larger than memory limit/);
  assert.throws(() => ociResources({ memorySwap: 50 }), /always set the Memory limit/);
  assert.deepEqual(ociResources({}), {});
});

test("device rules", () => {
  assert.deepEqual(parseRule("c 42:* rw"), { allow: true, type: "c", major: 42, access: "rw" });
  assert.throws(() => parseRule("x 1:1 r"), /invalid device cgroup format/);
});
